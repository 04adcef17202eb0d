//! System calls that somebody else is to have made: a process that exists for no other purpose.
//!
//! The kernel remembers of some objects who has made them: of a connected socket, the process and the users
//! that its peer sees by `SO_PEERCRED`. A child with that pid and those users, which shares memory and
//! descriptors with the caller, makes the calls and ends. The caller waits for it and reaps it, so the pid is
//! free again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::net::SocketType;

use crate::arch::{Call, clone_and_call};
use crate::clone::{CloneArgs, flags};
use crate::{prctl, tty, unix};

/// Who is to have made a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Process, in the caller's pid namespace.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

impl Who {
    /// Makes a pair of Unix sockets of each of these kinds; all are close-on-exec and do not wait.
    ///
    /// # Errors
    ///
    /// Those of `socketpair(2)`, and of becoming that process: `EEXIST` if the pid is taken, `EPERM`.
    pub fn pairs(self, kinds: &[SocketType]) -> Result<Vec<(OwnedFd, OwnedFd)>> {
        let mut fds: Vec<[RawFd; 2]> = vec![[-1; 2]; kinds.len()];
        let calls = kinds.iter().zip(&mut fds).map(|(kind, fds)| {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let kind = kind.as_raw() as usize | flags as usize;
            let args = [
                libc::AF_UNIX as usize,
                kind,
                0,
                fds.as_mut_ptr() as usize,
                0,
                0,
            ];
            (libc::SYS_socketpair, args)
        });
        let calls: Vec<_> = calls.collect();
        // SAFETY: for each the kernel writes two numbers, to where they live until all is done.
        let made = unsafe { self.calls(&calls) };
        let pairs = fds.into_iter().filter(|[one, _]| *one >= 0);
        // SAFETY: the kernel has just made these descriptors for us; nobody else knows their numbers.
        let pairs = pairs.map(|pair| pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into());
        let pairs = pairs.collect();
        made.map(|_| pairs)
    }

    /// Lets a bound socket listen, for those who connect from now on.
    ///
    /// # Errors
    ///
    /// As [`pairs`](Self::pairs), and those of `listen(2)`.
    pub fn listen(self, socket: impl AsFd, backlog: i32) -> Result<()> {
        let args = [number(&socket), backlog as usize, 0, 0, 0, 0];
        // SAFETY: the call takes two numbers.
        unsafe { self.call(libc::SYS_listen, args) }.map(drop)
    }

    /// Connects a socket.
    ///
    /// # Errors
    ///
    /// As [`pairs`](Self::pairs), and those of `connect(2)`.
    pub fn connect(self, socket: impl AsFd, address: &unix::Address) -> Result<()> {
        let (at, len) = address.raw();
        let args = [number(&socket), at as usize, len, 0, 0, 0];
        // SAFETY: the kernel reads an address of that length.
        unsafe { self.call(libc::SYS_connect, args) }.map(drop)
    }

    /// Sends a message with this process and these users as its credentials.
    ///
    /// # Errors
    ///
    /// As [`pairs`](Self::pairs), and those of `sendmsg(2)`.
    pub fn send(
        self,
        socket: impl AsFd,
        to: Option<&unix::Address>,
        bytes: &[u8],
        rights: &[BorrowedFd<'_>],
    ) -> Result<usize> {
        self.send_by(Some(self.pid), socket, to, bytes, rights)
    }

    /// The same where somebody has that number: another process says that it was that one.
    ///
    /// # Errors
    ///
    /// `EPERM` without the right to say so, `ESRCH` if nobody has the number; those of `sendmsg(2)`.
    pub fn claim(
        self,
        socket: impl AsFd,
        to: Option<&unix::Address>,
        bytes: &[u8],
        rights: &[BorrowedFd<'_>],
    ) -> Result<usize> {
        self.send_by(None, socket, to, bytes, rights)
    }

    fn send_by(
        self,
        pid: Option<i32>,
        socket: impl AsFd,
        to: Option<&unix::Address>,
        bytes: &[u8],
        rights: &[BorrowedFd<'_>],
    ) -> Result<usize> {
        let mut control = unix::Control::new(rights, Some((self.pid, self.uid, self.gid)))?;
        unix::with_message(to, bytes, &mut control, |header| {
            let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as usize;
            let args = [number(&socket), header as usize, flags, 0, 0, 0];
            let who = Self {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                ..self
            };
            // SAFETY: the header and what it points to live until the call has ended.
            unsafe { who.calls_by(pid, &[(libc::SYS_sendmsg, args)]) }
        })
    }

    /// Makes one call as this process.
    ///
    /// # Safety
    ///
    /// As for the call itself.
    unsafe fn call(self, nr: libc::c_long, args: [usize; 6]) -> Result<usize> {
        // SAFETY: the caller vouches for it.
        unsafe { self.calls(&[(nr, args)]) }
    }

    /// Makes calls until one fails, and gives the result of the last.
    ///
    /// # Safety
    ///
    /// As for the calls.
    unsafe fn calls(self, wanted: &[(libc::c_long, [usize; 6])]) -> Result<usize> {
        // SAFETY: the caller vouches for them.
        unsafe { self.calls_by(Some(self.pid), wanted) }
    }

    /// The same by a process with this number, if it is to have one.
    ///
    /// # Safety
    ///
    /// As for the calls.
    unsafe fn calls_by(
        self,
        pid: Option<i32>,
        wanted: &[(libc::c_long, [usize; 6])],
    ) -> Result<usize> {
        let keep = usize::MAX;
        let call = |nr: libc::c_long, args: [usize; 6]| Call {
            nr: nr as usize,
            args,
            result: -(libc::ECANCELED as isize),
        };
        let set = |nr, [a, b, c]: [usize; 3]| call(nr, [a, b, c, 0, 0, 0]);
        let mut calls = Vec::with_capacity(3 + wanted.len());
        if self.gid != rustix::process::getegid().as_raw() {
            calls.push(set(libc::SYS_setresgid, [keep, self.gid as usize, keep]));
        }
        let user = rustix::process::geteuid().as_raw();
        if self.uid != user {
            calls.push(set(libc::SYS_setresuid, [keep, self.uid as usize, keep]));
            // Files are reached with the rights of the caller all the same.
            calls.push(set(libc::SYS_setfsuid, [user as usize, 0, 0]));
        }
        calls.extend(wanted.iter().map(|(nr, args)| call(*nr, *args)));
        // SAFETY: the caller vouches for its own, and the others take numbers.
        unsafe { run(pid, &mut calls) }?;
        outcome(&calls)
    }
}

/// Opens a file as the leader of a session whose terminal this is; `/dev/tty` is that terminal then. The session
/// ends with that.
///
/// # Errors
///
/// Those of `open(2)`; `EPERM` if the terminal is that of another session.
pub fn open_in_session(
    terminal: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd> {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::INVAL)?;
    let call = |nr: libc::c_long, [a, b, c, d]: [usize; 4]| Call {
        nr: nr as usize,
        args: [a, b, c, d, 0, 0],
        result: -(libc::ECANCELED as isize),
    };
    let flags = flags.bits() as usize;
    let (terminal, dir) = (number(&terminal), number(&dir));
    let mut calls = [
        call(libc::SYS_setsid, [0; 4]),
        call(libc::SYS_ioctl, [terminal, tty::TIOCSCTTY as usize, 0, 0]),
        call(libc::SYS_openat, [dir, path.as_ptr() as usize, flags, 0]),
    ];
    // SAFETY: the path lives until all is done; everything else are numbers.
    unsafe { run(None, &mut calls) }?;
    let fd = outcome(&calls)?;
    // SAFETY: the child has opened it in the table that it shared, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The result of the last call, or of the one that failed.
fn outcome(calls: &[Call]) -> Result<usize> {
    let failed = calls.iter().find(|call| call.result < 0);
    let result = failed.or(calls.last()).map_or(0, |call| call.result);
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result as i32))
}

/// Lets a child make calls, which has this pid if it is to have one.
///
/// # Safety
///
/// As for the calls.
unsafe fn run(pid: Option<i32>, calls: &mut [Call]) -> Result<()> {
    let number = pid.unwrap_or_default();
    let args = CloneArgs {
        flags: flags::VM | flags::VFORK | flags::FILES,
        set_tid: pid.map_or(0, |_| (&raw const number) as u64),
        set_tid_size: u64::from(pid.is_some()),
        ..CloneArgs::default()
    };
    let dumpable = prctl::dumpable()?;
    // SAFETY: the flags are those that the function asks for.
    let child = unsafe { clone_and_call(&args, calls) };
    if child < 0 {
        return Err(Errno::from_raw_os_error(-child as i32));
    }
    loop {
        // SAFETY: no status is asked for.
        let waited = unsafe { libc::waitpid(child as i32, std::ptr::null_mut(), libc::__WALL) };
        match waited {
            -1 if crate::syscall::last() == Errno::INTR => {}
            -1 => return Err(crate::syscall::last()),
            _ => break,
        }
    }
    // A change of users has cleared it, for all who share the memory.
    match prctl::dumpable()? == dumpable {
        true => Ok(()),
        false => prctl::set_dumpable(dumpable),
    }
}

fn number(fd: &impl AsFd) -> usize {
    fd.as_fd().as_raw_fd() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::fork_sleeper;
    use crate::sockopt;
    use crate::unix::{Address, peek};
    use std::os::unix::net::UnixListener;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Whether it is dumpable belongs to the whole process, and changes for a moment with each call.
    static ALONE: Mutex<()> = Mutex::new(());

    fn alone() -> MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pid that is free now, somebody's user and somebody's group.
    fn somebody() -> Who {
        let child = fork_sleeper(None, false).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        crate::wait::wait_task(child).unwrap();
        Who {
            pid: child.as_raw_pid(),
            uid: 1234,
            gid: 4321,
        }
    }

    #[test]
    fn a_pair_is_somebody_elses() {
        let _alone = alone();
        let who = somebody();
        let before = prctl::dumpable().unwrap();
        let pairs = match who.pairs(&[SocketType::STREAM, SocketType::DGRAM]) {
            Err(Errno::PERM) => return,
            made => made.unwrap(),
        };
        assert_eq!(pairs.len(), 2);
        for (one, other) in &pairs {
            assert_eq!(sockopt::peer(one), Ok((who.pid, 1234, 4321)));
            assert_eq!(sockopt::peer(other), Ok((who.pid, 1234, 4321)));
        }
        // This process is who it was, and the pid is free.
        assert_eq!(rustix::process::geteuid(), rustix::process::getuid());
        assert_eq!(prctl::dumpable(), Ok(before));
        assert!(
            rustix::process::test_kill_process(rustix::process::Pid::from_raw(who.pid).unwrap())
                .is_err()
        );
    }

    #[test]
    fn what_was_made_before_a_failure_is_closed() {
        let _alone = alone();
        let who = somebody();
        let before = std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let refused = who.pairs(&[SocketType::STREAM, SocketType::from_raw(99)]);
        assert!(refused.is_err());
        let after = std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        // Other tests have some of their own.
        assert!(after < before + 40);
    }

    #[test]
    fn a_pid_that_is_taken_is_told() {
        let _alone = alone();
        let who = Who {
            pid: rustix::process::getpid().as_raw_pid(),
            ..somebody()
        };
        let refused = who.pairs(&[SocketType::DGRAM]).map(drop);
        assert!(matches!(refused, Err(Errno::EXIST | Errno::PERM)));
        let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        sockopt::set_int(&other, sockopt::IntOption::PASSCRED, 1).unwrap();
        match who.claim(&one, None, b"mine", &[]) {
            Err(Errno::PERM) => return,
            sent => assert_eq!(sent, Ok(4)),
        }
        let message = peek(&other, &mut [0; 9]).unwrap();
        assert_eq!(message.credentials, Some((who.pid, 1234, 4321)));
    }

    #[test]
    fn a_connection_is_between_others() {
        let _alone = alone();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (server, client) = (
            somebody(),
            Who {
                uid: 77,
                ..somebody()
            },
        );
        if server.listen(&listener, 3) == Err(Errno::PERM) {
            return;
        }
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, SocketType::STREAM, None);
        let socket = socket.unwrap();
        let address = Address::path(path.to_str().unwrap().as_bytes()).unwrap();
        client.connect(&socket, &address).unwrap();
        assert_eq!(sockopt::peer(&socket).unwrap(), (server.pid, 1234, 4321));
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(sockopt::peer(&accepted).unwrap(), (client.pid, 77, 4321));
        sockopt::set_int(&accepted, sockopt::IntOption::PASSCRED, 1).unwrap();
        assert_eq!(client.send(&socket, None, b"hello", &[]), Ok(5));
        let message = peek(&accepted, &mut [0; 9]).unwrap();
        assert_eq!(message.credentials, Some((client.pid, 77, 4321)));
    }
}
