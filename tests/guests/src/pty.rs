//! Pseudoterminals of which both ends are the guest's.
//!
//! `pty-queues`: what waits in either direction, by lines and by bytes. `pty-settings`: settings and owners.
//! `pty-opened`: one end opened several times. `pty-hung-up`: slaves whose master is gone. `pty-closed`: masters
//! whose slave is not open. `pty-stopped`: output that was stopped. `pty-packets`: packet mode. `pty-unread-packet`
//! is refused.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("pty-queues", queues),
    Entry("pty-settings", settings),
    Entry("pty-opened", opened),
    Entry("pty-hung-up", hung_up),
    Entry("pty-closed", closed),
    Entry("pty-stopped", stopped),
    Entry("pty-packets", packets),
    Entry("pty-unread-packet", unread_packet),
];

/// A pseudoterminal.
pub(crate) struct Pty {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
    pub(crate) index: i32,
}

/// A number of `ioctl(2)`, which the C library takes in several types.
fn ask(fd: impl AsFd, request: u64, value: &mut i32) -> Check {
    os!(libc::ioctl(
        fd.as_fd().as_raw_fd(),
        request,
        &raw mut *value
    ))?;
    Ok(())
}

/// Numbers from here on are the guests'; CRIU cannot pass over many more to reach them.
const FIRST: i32 = 6;

/// Opens a master and unlocks it.
pub(crate) fn master() -> Check<(OwnedFd, i32)> {
    let mut between = Vec::new();
    loop {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = match rustix::fs::open("/dev/ptmx", flags, Mode::empty()) {
            Err(error @ (Errno::NOENT | Errno::NOSPC | Errno::MFILE)) => {
                return Err(Failure::skip(format!("pseudoterminal: {error}")));
            }
            opened => opened?,
        };
        let mut index = 0;
        ask(&master, libc::TIOCGPTN, &mut index)?;
        if index < FIRST {
            between.push(master);
            continue;
        }
        ask(&master, libc::TIOCSPTLCK, &mut 0)?;
        return Ok((master, index));
    }
}

/// Opens the slave with a number.
pub(crate) fn slave(index: i32, flags: OFlags) -> Check<OwnedFd> {
    let path = format!("/dev/pts/{index}");
    Ok(rustix::fs::open(
        path,
        flags | OFlags::NOCTTY,
        Mode::empty(),
    )?)
}

/// Both ends, the slave without waiting.
pub(crate) fn pty() -> Check<Pty> {
    let (master, index) = master()?;
    let slave = slave(index, OFlags::RDWR | OFlags::NONBLOCK)?;
    Ok(Pty {
        master,
        slave,
        index,
    })
}

pub(crate) fn termios(fd: impl AsFd) -> Check<libc::termios> {
    // SAFETY: plain numbers, which the call fills.
    let mut termios = unsafe { std::mem::zeroed() };
    os!(libc::tcgetattr(fd.as_fd().as_raw_fd(), &raw mut termios))?;
    Ok(termios)
}

/// Changes the settings of a terminal.
pub(crate) fn set(fd: impl AsFd, change: impl FnOnce(&mut libc::termios)) -> Check<libc::termios> {
    let mut termios = termios(&fd)?;
    change(&mut termios);
    let fd = fd.as_fd().as_raw_fd();
    os!(libc::tcsetattr(fd, libc::TCSANOW, &raw const termios))?;
    Ok(termios)
}

fn raw(termios: &mut libc::termios) {
    termios.c_iflag = 0;
    termios.c_oflag = 0;
    termios.c_lflag = 0;
}

pub(crate) fn ready(fd: impl AsFd) -> Check<PollFlags> {
    let wanted = PollFlags::IN | PollFlags::OUT | PollFlags::PRI;
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), wanted)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(fds[0].revents())
}

/// What one read gives, as soon as there is something.
pub(crate) fn read(fd: impl AsFd) -> Check<Vec<u8>> {
    let fd = fd.as_fd();
    until("something to read", || {
        Ok(ready(fd)?.contains(PollFlags::IN))
    })?;
    let mut buffer = [0; 4096];
    let read = rustix::io::read(fd, &mut buffer)?;
    Ok(buffer[..read].to_vec())
}

/// Everything there is to read.
fn drain(fd: impl AsFd, want: usize) -> Check<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < want {
        all.extend(read(&fd)?);
    }
    Ok(all)
}

pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> Check {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&fd, rest)?..];
    }
    Ok(())
}

/// Nothing waits.
fn is_quiet(fd: BorrowedFd<'_>) -> Check {
    ensure!(!ready(fd)?.contains(PollFlags::IN), "something waits");
    Ok(())
}

fn queues(guest: &Guest) -> Check {
    let (lines, bytes) = (pty()?, pty()?);
    set(&lines.slave, |termios| {
        termios.c_lflag &= !libc::ECHO;
        termios.c_cc[libc::VEOL] = b';';
    })?;
    write(&lines.master, b"one\ntwo;\x04end\x04\x16\x03a\x16\nb\nhalf")?;
    write(&lines.slave, b"said\n")?;
    set(&bytes.slave, raw)?;
    let many: Vec<u8> = (0..9000_u32).map(|at| (at % 251) as u8).collect();
    write(&bytes.master, &many)?;
    write(&bytes.slave, &many)?;
    // Let everything come to where it waits.
    until("the last byte", || {
        Ok(ready(&bytes.master)?.contains(PollFlags::IN))
    })?;
    guest.hold()?;
    for want in [&b"one\n"[..], b"two;", b"", b"end", b"\x03a\nb\n"] {
        same!("a line", read(&lines.slave)?, want);
    }
    is_quiet(lines.slave.as_fd())?;
    write(&lines.master, b"!\n")?;
    same!("the line that goes on", read(&lines.slave)?, b"half!\n");
    same!("what was said", read(&lines.master)?, b"said\r\n");
    same!("to the slave", drain(&bytes.slave, many.len())?, many);
    same!("to the master", drain(&bytes.master, many.len())?, many);
    is_quiet(bytes.slave.as_fd())?;
    is_quiet(bytes.master.as_fd())
}

const TIOCGLCKTRMIOS: u64 = 0x5456;
const TIOCSLCKTRMIOS: u64 = 0x5457;

fn locked_bits(fd: impl AsFd) -> Check<[u8; 36]> {
    let mut bits = [0; 36];
    os!(libc::ioctl(
        fd.as_fd().as_raw_fd(),
        TIOCGLCKTRMIOS,
        bits.as_mut_ptr()
    ))?;
    Ok(bits)
}

fn settings(guest: &Guest) -> Check {
    let pty = pty()?;
    let before = set(&pty.slave, |termios| {
        termios.c_iflag = libc::ICRNL | libc::IXANY | libc::IUTF8;
        termios.c_oflag = libc::OPOST | libc::ONLCR;
        termios.c_lflag = libc::ISIG | libc::ECHOE | libc::NOFLSH;
        termios.c_cc[libc::VINTR] = 7;
        termios.c_cc[libc::VMIN] = 9;
        termios.c_cc[libc::VTIME] = 3;
        // SAFETY: changes the settings and nothing else.
        unsafe { libc::cfsetspeed(termios, libc::B9600) };
    })?;
    let mut bits = [0; 36];
    bits[0] = 0xff;
    bits[17] = 1;
    let fd = pty.slave.as_raw_fd();
    let locks = os!(libc::ioctl(fd, TIOCSLCKTRMIOS, bits.as_ptr())).is_ok();
    let size = rustix::termios::Winsize {
        ws_row: 33,
        ws_col: 101,
        ws_xpixel: 7,
        ws_ypixel: 8,
    };
    rustix::termios::tcsetwinsize(&pty.slave, size)?;
    rustix::termios::ioctl_tiocexcl(&pty.slave)?;
    ask(&pty.master, libc::TIOCSPTLCK, &mut 1)?;
    let path = format!("/dev/pts/{}", pty.index);
    std::os::unix::fs::chown(&path, Some(1234), Some(5))?;
    rustix::fs::chmod(&*path, Mode::from_raw_mode(0o640))?;
    guest.hold()?;
    let now = termios(&pty.slave)?;
    same!("modes", shown(&now), shown(&before));
    if locks {
        same!("locked settings", locked_bits(&pty.slave)?, bits);
    }
    let found = rustix::termios::tcgetwinsize(&pty.master)?;
    let four =
        |size: rustix::termios::Winsize| (size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
    same!("size", four(found), four(size));
    let mut value = 0;
    ask(&pty.slave, libc::TIOCGEXCL, &mut value)?;
    same!("exclusive", value, 1);
    ask(&pty.master, libc::TIOCGEXCL, &mut value)?;
    same!("the master exclusive", value, 0);
    ask(&pty.master, libc::TIOCGPTLCK, &mut value)?;
    same!("locked", value, 1);
    let stat = rustix::fs::stat(&*path)?;
    same!(
        "owner",
        (stat.st_uid, stat.st_gid, stat.st_mode & 0o777),
        (1234, 5, 0o640)
    );
    ask(&pty.master, libc::TIOCGPTN, &mut value)?;
    same!("number", value, pty.index);
    Ok(())
}

fn shown(termios: &libc::termios) -> String {
    let flags = [
        termios.c_iflag,
        termios.c_oflag,
        termios.c_cflag,
        termios.c_lflag,
    ];
    format!("{flags:x?} {:?}", &termios.c_cc[..19])
}

fn opened(guest: &Guest) -> Check {
    let pty = pty()?;
    let other = slave(pty.index, OFlags::WRONLY)?;
    let third = slave(pty.index, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let copy = other.try_clone()?;
    let kid = guest.fork("keeper", |guest| {
        guest.wait();
        write(&other, b"from the child\n")
    })?;
    set(&pty.slave, |termios| termios.c_lflag &= !libc::ECHO)?;
    guest.hold()?;
    kid.join(guest)?;
    same!("by the child", read(&pty.master)?, b"from the child\r\n");
    write(&copy, b"x")?;
    same!("by the copy", read(&pty.master)?, b"x");
    write(&pty.master, b"line\n")?;
    same!("by the third", read(&third)?, b"line\n");
    let flags = |fd: &OwnedFd| {
        Ok::<_, Errno>(rustix::fs::fcntl_getfl(fd)? & (OFlags::ACCMODE | OFlags::NONBLOCK))
    };
    same!("flags", flags(&other)?, OFlags::WRONLY);
    same!("flags", flags(&third)?, OFlags::RDONLY | OFlags::NONBLOCK);
    drop((pty.slave, other, third));
    ensure!(!ready(&pty.master)?.contains(PollFlags::HUP), "one is left");
    drop(copy);
    ensure!(ready(&pty.master)?.contains(PollFlags::HUP), "none is left");
    Ok(())
}

fn hung_up(guest: &Guest) -> Check {
    let gone = pty()?;
    let again = slave(gone.index, OFlags::RDWR)?;
    drop(gone.master);
    let next = pty()?;
    set(&next.slave, |termios| termios.c_lflag &= !libc::ECHO)?;
    guest.hold()?;
    for slave in [&gone.slave, &again] {
        let mut buffer = [0; 9];
        same!("read", rustix::io::read(slave, &mut buffer), Ok(0));
        same!("write", rustix::io::write(slave, b"x"), Err(Errno::IO));
        same!(
            "settings",
            rustix::termios::tcgetattr(slave).err(),
            Some(Errno::IO)
        );
    }
    write(&next.master, b"line\n")?;
    same!("the next", read(&next.slave)?, b"line\n");
    Ok(())
}

fn closed(guest: &Guest) -> Check {
    let (fresh, _) = master()?;
    let full = pty()?;
    set(&full.slave, |termios| termios.c_lflag &= !libc::ECHO)?;
    write(&full.slave, b"last words")?;
    write(&full.master, b"not read\nyet")?;
    until("the words", || {
        Ok(ready(&full.master)?.contains(PollFlags::IN))
    })?;
    drop(full.slave);
    guest.hold()?;
    same!("the fresh one", ready(&fresh)?, PollFlags::OUT);
    ensure!(
        ready(&full.master)?.contains(PollFlags::HUP),
        "it was closed"
    );
    same!("words", read(&full.master)?, b"last words");
    let mut buffer = [0; 9];
    same!(
        "end",
        rustix::io::read(&full.master, &mut buffer),
        Err(Errno::IO)
    );
    let slave = slave(full.index, OFlags::RDWR | OFlags::NONBLOCK)?;
    same!("what nobody had read", read(&slave)?, b"not read\n");
    write(&full.master, b"!\n")?;
    same!("the rest", read(&slave)?, b"yet!\n");
    Ok(())
}

fn stopped(guest: &Guest) -> Check {
    let (by_character, held) = (pty()?, pty()?);
    write(&by_character.slave, b"before")?;
    write(&by_character.master, b"\x13")?;
    os!(libc::tcflow(held.slave.as_raw_fd(), libc::TCOOFF))?;
    let flows = |pty: &Pty| Ok::<_, Failure>(ready(&pty.slave)?.contains(PollFlags::OUT));
    until("the stop", || Ok(!flows(&by_character)?))?;
    guest.hold()?;
    ensure!(!flows(&by_character)? && !flows(&held)?, "still stopped");
    same!("before the stop", read(&by_character.master)?, b"before");
    write(&by_character.master, b"\x11")?;
    until("the start", || flows(&by_character))?;
    write(&held.master, b"\x11")?;
    os!(libc::tcflow(held.slave.as_raw_fd(), libc::TCOON))?;
    ensure!(flows(&held)?, "it goes on");
    write(&held.slave, b"after")?;
    same!("after the stop", read(&held.master)?, b"after");
    Ok(())
}

fn packets(guest: &Guest) -> Check {
    let pty = pty()?;
    ask(&pty.master, libc::TIOCPKT, &mut 1)?;
    write(&pty.slave, b"data")?;
    until("the data", || {
        Ok(ready(&pty.master)?.contains(PollFlags::IN))
    })?;
    guest.hold()?;
    same!("a packet", read(&pty.master)?, b"\0data");
    os!(libc::tcflush(pty.slave.as_raw_fd(), libc::TCIFLUSH))?;
    same!("a change", read(&pty.master)?, b"\x01");
    Ok(())
}

fn unread_packet(guest: &Guest) -> Check {
    let pty = pty()?;
    ask(&pty.master, libc::TIOCPKT, &mut 1)?;
    os!(libc::tcflush(pty.slave.as_raw_fd(), libc::TCIFLUSH))?;
    guest.hold()?;
    same!("a change", read(&pty.master)?, b"\x01");
    Ok(())
}
