//! Calls that somebody of the tree is to have made: by a process that stands in for it, or by the first process itself.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use gelid_sys::stand_in::Who;
use gelid_sys::unix::Address;
use gelid_sys::{Pid, proc};
use rustix::io::Errno;
use rustix::net::SocketType;

use crate::play::namespaces::Hand;

/// Somebody, and how to act in his name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Somebody<'h> {
    who: Who,
    /// It is the first process.
    hand: Option<&'h Hand<'h>>,
}

impl<'h> Somebody<'h> {
    pub(super) fn new(who: Who, hand: Option<&'h Hand<'h>>) -> Self {
        let hand = hand.filter(|hand| hand.is(who));
        Self { who, hand }
    }

    pub(super) fn who(self) -> Who {
        self.who
    }

    /// Makes a pair of sockets of each of these kinds; all are close-on-exec and do not wait.
    pub(super) fn pairs(self, kinds: &[SocketType]) -> Result<Vec<(OwnedFd, OwnedFd)>, Errno> {
        match self.hand {
            Some(hand) => hand.pairs(self.who, kinds),
            None => patiently(self.who, || self.who.pairs(kinds)),
        }
    }

    /// Lets a socket listen.
    pub(super) fn listen(self, socket: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
        match self.hand {
            Some(hand) => hand.listen(self.who, socket, backlog),
            None => patiently(self.who, || self.who.listen(socket, backlog)),
        }
    }

    /// Connects a socket.
    pub(super) fn connect(self, socket: BorrowedFd<'_>, address: &Address) -> Result<(), Errno> {
        match self.hand {
            Some(hand) => hand.connect(self.who, socket, address),
            None => patiently(self.who, || self.who.connect(socket, address)),
        }
    }
}

/// Does something as somebody else, whose pid may become free in a moment.
pub(super) fn patiently<T>(who: Who, act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    /// So often a pid is tried whose process has just ended.
    const TRIES: usize = 20;
    let mut tries = TRIES;
    loop {
        match act() {
            Err(Errno::EXIST) if tries > 0 && !lives(who.pid) => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => {
                tracing::debug!("a socket is not that of {who:?}: {errno}");
                return Err(errno);
            }
            done => return done,
        }
    }
}

/// Whether a process has this pid that has not ended.
fn lives(pid: i32) -> bool {
    let dir = Pid::from_raw(pid).and_then(|pid| proc::TaskDir::open(pid).ok());
    let stat = dir.and_then(|dir| proc::stat::read(&dir).ok());
    stat.is_some_and(|stat| !stat.state.is_dead())
}
