//! Terminals, as far as rustix does not know them: `ioctl_tty(2)`.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::Pid;
use crate::syscall::call;

const TCGETS: usize = 0x5401;
const TCSETS: usize = 0x5402;
const TIOCGLCKTRMIOS: usize = 0x5456;
const TIOCSLCKTRMIOS: usize = 0x5457;
const TIOCGEXCL: usize = 0x8004_5440;
const TIOCGDEV: usize = 0x8004_5432;
const TIOCGPGRP: usize = 0x540f;
const TIOCGSID: usize = 0x5429;
/// Makes a terminal that of the caller's session.
pub const TIOCSCTTY: u64 = 0x540e;
/// Puts a process group into the foreground of the caller's terminal.
pub const TIOCSPGRP: u64 = 0x5410;
/// Leaves the terminal of the caller's session.
pub const TIOCNOTTY: u64 = 0x5422;

/// `struct termios` of the kernel: the speed is in `cflag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; 19],
}

const _: () = {
    assert!(size_of::<Termios>() == 36);
    assert!(offset_of!(Termios, cc) == 17);
};

/// The settings of a terminal.
///
/// # Errors
///
/// `ENOTTY` if it is none, `EIO` if it is hung up.
pub fn settings(fd: impl AsFd) -> Result<Termios> {
    read(fd, TCGETS)
}

/// Which bits of the settings are locked: bits set here cannot be changed.
pub fn locked_settings(fd: impl AsFd) -> Result<Termios> {
    read(fd, TIOCGLCKTRMIOS)
}

/// Whether only root may open the terminal again (`TIOCEXCL`).
pub fn is_exclusive(fd: impl AsFd) -> Result<bool> {
    read::<i32>(fd, TIOCGEXCL).map(|exclusive| exclusive != 0)
}

/// Changes the settings of a terminal at once.
///
/// # Errors
///
/// As [`settings`]; `EINTR` if the caller is in the background of that terminal.
pub fn set_settings(fd: impl AsFd, settings: &Termios) -> Result<()> {
    write(fd, TCSETS, settings)
}

/// Locks bits of the settings; see [`locked_settings`].
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn lock_settings(fd: impl AsFd, locked: &Termios) -> Result<()> {
    write(fd, TIOCSLCKTRMIOS, locked)
}

/// The device number of the terminal itself, whatever name it was opened by, as the kernel encodes it. Of both ends
/// of a pseudoterminal that is the slave's.
///
/// # Errors
///
/// `EIO` if it is hung up.
pub fn device(fd: impl AsFd) -> Result<u32> {
    read::<i32>(fd, TIOCGDEV).map(i32::cast_unsigned)
}

/// The session of a pseudoterminal, by its master.
///
/// # Errors
///
/// `ENOTTY` if it has none.
pub fn session(master: impl AsFd) -> Result<Option<Pid>> {
    Ok(Pid::from_raw(read(master, TIOCGSID)?))
}

/// The group in the foreground of a pseudoterminal, by its master.
///
/// # Errors
///
/// Those of `ioctl(2)`.
pub fn foreground(master: impl AsFd) -> Result<Option<Pid>> {
    Ok(Pid::from_raw(read(master, TIOCGPGRP)?))
}

/// A type of which every pattern of bits is a value.
pub(crate) trait Plain: Default {}

impl Plain for i32 {}
impl Plain for Termios {}

/// Asks for a value.
///
/// The request must be one that writes at most as many bytes as the type has.
pub(crate) fn read<T: Plain>(fd: impl AsFd, request: usize) -> Result<T> {
    let mut value = T::default();
    let fd = fd.as_fd().as_raw_fd() as usize;
    let args = [fd, request, &raw mut value as usize, 0, 0, 0];
    // SAFETY: each request above writes at most as many bytes as its type has, and any bytes are a value.
    unsafe { call(libc::SYS_ioctl as usize, args) }?;
    Ok(value)
}

/// Gives a value. The request must be one that reads at most as many bytes as the type has, or writes as many.
pub(crate) fn write<T: Plain>(fd: impl AsFd, request: usize, value: &T) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd() as usize;
    let args = [fd, request, &raw const *value as usize, 0, 0, 0];
    // SAFETY: each request above reads at most as many bytes as its type has.
    unsafe { call(libc::SYS_ioctl as usize, args) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_terminal_tells_its_settings() {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).unwrap();
        // The kernel's answer agrees with what rustix reads.
        let ours = settings(&master).unwrap();
        let theirs = rustix::termios::tcgetattr(&master).unwrap();
        assert_eq!(ours.iflag, theirs.input_modes.bits());
        assert_eq!(
            ours.cc[0],
            theirs.special_codes[rustix::termios::SpecialCodeIndex::VINTR]
        );
        assert_eq!(locked_settings(&master), Ok(Termios::default()));
        assert_eq!(is_exclusive(&master), Ok(false));
        rustix::termios::ioctl_tiocexcl(&master).unwrap();
        assert_eq!(is_exclusive(&master), Ok(true));
    }

    #[test]
    fn other_files_are_no_terminals() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(settings(&reader), Err(Errno::NOTTY));
        assert_eq!(is_exclusive(&reader), Err(Errno::NOTTY));
    }
}
