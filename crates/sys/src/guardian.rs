//! Somebody who brings connections out of repair if the process that looks at them is killed.
//!
//! A socket stays in `TCP_REPAIR` for as long as it lives, also when the one who has set that is gone: its program could
//! not write any more. So a child of the caller has the sockets too, in a session of its own, deaf to signals, and
//! without anything else that the caller has. It waits for a word; when there comes the end instead, it acts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::aside::{block_all, end, fork, unblock};
use crate::sockopt::{self, IntOption};
use crate::syscall::call;
use crate::tcp::{self, Queue, Repair};

/// From now on the tree is being ended; if it has come to that, its connections stay in repair.
const ENDING: u8 = b'e';
/// All is well.
const DISMISSED: u8 = b'd';

/// The child. Dropped, it is sent away, and leaves everything as it is.
#[derive(Debug)]
pub struct Guardian {
    child: i32,
    tell: OwnedFd,
}

/// A connection, and what it is to be like.
#[derive(Debug, Clone, Copy)]
struct Ward {
    socket: RawFd,
    reuse: i32,
    peek_offset: Option<i32>,
}

impl Ward {
    fn of(socket: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self {
            socket: socket.as_raw_fd(),
            reuse: sockopt::int(socket, IntOption::REUSEADDR)?,
            peek_offset: sockopt::int(socket, IntOption::PEEK_OFF)
                .ok()
                .filter(|offset| *offset >= 0),
        })
    }

    /// Brings it out of repair, if it is there, without a packet.
    fn relieve(self) {
        // SAFETY: the caller of the whole has it open, and this child with it.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        if let Some(offset) = self.peek_offset {
            let _ = sockopt::set_int(socket, IntOption::PEEK_OFF, offset);
        }
        if tcp::is_in_repair(socket) {
            let _ = tcp::choose(socket, Queue::None);
            let _ = tcp::repair(socket, Repair::OffSilently);
            let _ = sockopt::set_int(socket, IntOption::REUSEADDR, self.reuse);
        }
    }
}

impl Guardian {
    /// Posts one for these connections, none of which is in repair yet. `root` is a pidfd of the one whose end is that of
    /// the tree.
    ///
    /// # Errors
    ///
    /// Those of `pipe(2)`, `fork(2)` and `getsockopt(2)`.
    pub fn post(sockets: &[BorrowedFd<'_>], root: BorrowedFd<'_>) -> Result<Self> {
        let wards = sockets.iter().map(|socket| Ward::of(*socket));
        let wards: Vec<Ward> = wards.collect::<Result<_>>()?;
        let (hear, tell) = pipe_with(PipeFlags::CLOEXEC)?;
        let (alone, leaves) = pipe_with(PipeFlags::CLOEXEC)?;
        let sockets = sockets.iter().map(AsRawFd::as_raw_fd);
        let mut kept: Vec<RawFd> = sockets
            .chain([hear.as_raw_fd(), root.as_raw_fd(), leaves.as_raw_fd()])
            .collect();
        kept.sort_unstable();
        let before = block_all()?;
        let child = fork();
        if child == Ok(0) {
            end(|| {
                retire(&kept);
                drop(leaves);
                watch(&wards, hear.as_fd(), root);
                Ok(())
            });
        }
        unblock(&before);
        let child = child? as i32;
        // Until then it has all that the caller has, and would pass for somebody else who has it.
        drop(leaves);
        while rustix::io::read(&alone, &mut [0]) == Err(Errno::INTR) {}
        Ok(Self { child, tell })
    }

    /// The tree is to be ended next.
    pub fn note_end(&self) {
        self.say(ENDING);
    }

    fn say(&self, word: u8) {
        // EPIPE: it was killed, and can do no harm.
        let _ = rustix::io::write(&self.tell, &[word]);
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.say(DISMISSED);
        // SAFETY: no status is asked for.
        while unsafe { libc::waitpid(self.child, std::ptr::null_mut(), libc::__WALL) } < 0
            && crate::syscall::last() == Errno::INTR
        {}
    }
}

/// Leaves session and directory of the caller, and closes all but these, which ascend.
fn retire(kept: &[RawFd]) {
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir(c"/");
    let mut first = 0;
    for fd in kept
        .iter()
        .map(|fd| *fd as usize)
        .chain([u32::MAX as usize + 1])
    {
        if first < fd {
            // SAFETY: nobody in this process uses what is closed. Nothing is dropped before its end.
            let _ = unsafe { call(libc::SYS_close_range as usize, [first, fd - 1, 0, 0, 0, 0]) };
        }
        first = fd + 1;
    }
}

/// Waits for the word, or for the end of the one who could say it.
fn watch(wards: &[Ward], hear: BorrowedFd<'_>, root: BorrowedFd<'_>) {
    let mut ending = false;
    loop {
        let mut word = [0];
        match rustix::io::read(hear, &mut word) {
            Ok(1..) if word == [DISMISSED] => return,
            Ok(1..) => ending = true,
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => break,
        }
    }
    if !(ending && has_ended(root)) {
        wards.iter().for_each(|ward| ward.relieve());
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = poll(&mut polled, Some(&Timespec::default()));
    ready.is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::FromRawFd;

    use super::*;
    use crate::clone::fork_sleeper;
    use rustix::process::{Signal, getpid, kill_process};

    /// Both ends of a connection; none without the right to bring it into repair.
    fn connection() -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        tcp::repair(&client, Repair::On).ok()?;
        tcp::repair(&client, Repair::OffSilently).unwrap();
        sockopt::set_int(&client, IntOption::REUSEADDR, 1).unwrap();
        Some((client, server))
    }

    /// The caller is gone: what it would have said is not said any more.
    fn vanish(guardian: Guardian) {
        let Guardian { child, tell } = &guardian;
        // SAFETY: the guardian is forgotten, so that nobody closes it again.
        drop(unsafe { OwnedFd::from_raw_fd(tell.as_raw_fd()) });
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(*child, std::ptr::null_mut(), libc::__WALL) };
        std::mem::forget(guardian);
    }

    #[test]
    fn connections_come_out_of_repair() {
        let Some((client, mut server)) = connection() else {
            return;
        };
        let own = crate::pidfd::open(getpid()).unwrap();
        let guardian = Guardian::post(&[client.as_fd()], own.as_fd()).unwrap();
        tcp::repair(&client, Repair::On).unwrap();
        tcp::choose(&client, Queue::Send).unwrap();
        assert!(tcp::is_in_repair(client.as_fd()));
        guardian.note_end();
        vanish(guardian);
        assert!(!tcp::is_in_repair(client.as_fd()));
        assert_eq!(sockopt::int(&client, IntOption::REUSEADDR), Ok(1));
        use std::io::{Read, Write};
        (&client).write_all(b"on").unwrap();
        let mut heard = [0; 2];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"on");
    }

    #[test]
    fn it_has_nothing_else_from_the_beginning() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let own = crate::pidfd::open(getpid()).unwrap();
        for _ in 0..20 {
            let guardian = Guardian::post(&[reader.as_fd()], own.as_fd());
            // A pipe has no options of sockets.
            assert!(guardian.is_err());
            let guardian = Guardian::post(&[], own.as_fd()).unwrap();
            let all = std::fs::read_dir(format!("/proc/{}/fd", guardian.child)).unwrap();
            assert_eq!(all.count(), 2, "the pidfd, and where it hears the word");
        }
    }

    #[test]
    fn those_of_an_ended_tree_stay_in_repair() {
        let Some((client, _server)) = connection() else {
            return;
        };
        let root = fork_sleeper(None, false).unwrap();
        let pidfd = crate::pidfd::open(root).unwrap();
        let guardian = Guardian::post(&[client.as_fd()], pidfd.as_fd()).unwrap();
        tcp::repair(&client, Repair::On).unwrap();
        guardian.note_end();
        kill_process(root, Signal::KILL).unwrap();
        crate::wait::wait_task(root).unwrap();
        vanish(guardian);
        assert!(tcp::is_in_repair(client.as_fd()));
        // Sent away, it leaves everything as it is.
        let guardian = Guardian::post(&[client.as_fd()], pidfd.as_fd()).unwrap();
        drop(guardian);
        assert!(tcp::is_in_repair(client.as_fd()));
    }
}
