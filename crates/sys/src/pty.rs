//! Pseudoterminals: `pty(7)`, `ioctl_tty(2)`, and what waits in them.
//!
//! No call shows what waits in a terminal and leaves it there. So [`take`] reads it and writes it back, by a
//! process of its own that goes on even if the caller is killed meanwhile; whoever has the ends open must stand
//! still. [`put`] writes the same into another pseudoterminal.

mod queue;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Result;

use crate::syscall::call;
use crate::tty::{read, write};

pub use queue::{Line, Stop, Waiting, lines, put, take};

const TIOCGPTN: usize = 0x8004_5430;
const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTLCK: usize = 0x8004_5439;
const TIOCPKT: usize = 0x5420;
const TIOCGPKT: usize = 0x8004_5438;
const TIOCGPTPEER: usize = 0x5441;

/// The number of the pseudoterminal of a master.
///
/// # Errors
///
/// `ENOTTY` if it is none.
pub fn index(master: impl AsFd) -> Result<u32> {
    read::<i32>(master, TIOCGPTN).map(i32::cast_unsigned)
}

/// Whether the slave cannot be opened yet.
///
/// # Errors
///
/// `ENOTTY` if it is no master.
pub fn is_locked(master: impl AsFd) -> Result<bool> {
    read::<i32>(master, TIOCGPTLCK).map(|locked| locked != 0)
}

/// Lets the slave be opened, or not.
///
/// # Errors
///
/// `ENOTTY` if it is no master.
pub fn set_locked(master: impl AsFd, locked: bool) -> Result<()> {
    write(master, TIOCSPTLCK, &i32::from(locked))
}

/// Whether reads from the master tell what is done to the slave.
///
/// # Errors
///
/// `ENOTTY` if it is no master.
pub fn is_in_packet_mode(master: impl AsFd) -> Result<bool> {
    read::<i32>(master, TIOCGPKT).map(|packets| packets != 0)
}

/// Begins or ends packet mode.
///
/// # Errors
///
/// `ENOTTY` if it is no master.
pub fn set_packet_mode(master: impl AsFd, packets: bool) -> Result<()> {
    write(master, TIOCPKT, &i32::from(packets))
}

/// Opens the slave, close-on-exec, and without making it the terminal of a session.
///
/// # Errors
///
/// Those of `open(2)`; `EIO` while it is locked.
pub fn peer(master: impl AsFd) -> Result<OwnedFd> {
    peer_by(master, OFlags::RDWR | OFlags::NONBLOCK)
}

/// The same with these flags.
///
/// # Errors
///
/// As [`peer`].
pub fn peer_by(master: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    // The description would keep O_CLOEXEC, which is no flag of its own.
    let flags = flags.difference(OFlags::CLOEXEC) | OFlags::NOCTTY;
    let fd = master.as_fd().as_raw_fd() as usize;
    let args = [fd, TIOCGPTPEER, flags.bits() as usize, 0, 0, 0];
    // SAFETY: the call takes numbers.
    let opened = unsafe { call(libc::SYS_ioctl as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    let opened = unsafe { OwnedFd::from_raw_fd(opened as i32) };
    rustix::io::fcntl_setfd(&opened, rustix::io::FdFlags::CLOEXEC)?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;

    #[test]
    fn a_master_tells_and_changes_its_state() {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).unwrap();
        assert_eq!(is_locked(&master), Ok(true));
        set_locked(&master, false).unwrap();
        assert_eq!(is_locked(&master), Ok(false));
        let peer = peer(&master).unwrap();
        assert_eq!(
            rustix::termios::ttyname(&peer, Vec::new())
                .unwrap()
                .to_str(),
            Ok(&*format!("/dev/pts/{}", index(&master).unwrap()))
        );
        assert_eq!(is_in_packet_mode(&master), Ok(false));
        set_packet_mode(&master, true).unwrap();
        assert_eq!(is_in_packet_mode(&master), Ok(true));
        let device = crate::tty::device(&peer).unwrap();
        assert_eq!(crate::tty::device(&master), Ok(device));
        assert_eq!(device, 136 << 8 | index(&master).unwrap());
    }
}
