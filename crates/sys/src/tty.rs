//! Terminals, as far as rustix does not know them: `ioctl_tty(2)`.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::syscall::call;

const TCGETS: usize = 0x5401;
const TIOCGLCKTRMIOS: usize = 0x5456;
const TIOCGEXCL: usize = 0x8004_5440;

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

/// A type of which every pattern of bits is a value.
trait Plain: Default {}

impl Plain for i32 {}
impl Plain for Termios {}

fn read<T: Plain>(fd: impl AsFd, request: usize) -> Result<T> {
    let mut value = T::default();
    let fd = fd.as_fd().as_raw_fd() as usize;
    let args = [fd, request, &raw mut value as usize, 0, 0, 0];
    // SAFETY: each request above writes at most as many bytes as its type has, and any bytes are a value.
    unsafe { call(libc::SYS_ioctl as usize, args) }?;
    Ok(value)
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
