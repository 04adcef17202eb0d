//! What a Unix socket tells when it is asked by itself: a call for each answer, which need not wait for the record of
//! another socket.

use std::os::fd::BorrowedFd;

use gelid_image::messages::SkOptsEntry;
use gelid_sys::Errno;
use gelid_sys::sockopt::{self, IntOption};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::sk_opts;

/// All answers, or why there is none.
#[derive(Debug)]
pub(in super::super) struct Told {
    /// What it is ready for.
    pub(super) events: Result<PollFlags, Errno>,
    pub(super) options: Result<SkOptsEntry, Errno>,
    /// `SO_PEEK_OFF`
    pub(super) peek_offset: Result<i32, Errno>,
    /// `SO_PASSPIDFD`
    pub(super) pass_pidfd: Result<i32, Errno>,
    /// Process, user and group of its peer.
    pub(super) peer: Result<(i32, u32, u32), Errno>,
}

impl Told {
    pub(in super::super) fn ask(socket: BorrowedFd<'_>) -> Self {
        // An option that the kernel does not know is not set.
        let int = |option| match sockopt::int(socket, option) {
            Err(Errno::NOPROTOOPT) => Ok(0),
            value => value,
        };
        Self {
            events: events(socket),
            options: sk_opts::read(socket),
            peek_offset: int(IntOption::PEEK_OFF),
            pass_pidfd: int(IntOption::PASSPIDFD),
            peer: sockopt::peer(socket),
        }
    }
}

fn events(socket: BorrowedFd<'_>) -> Result<PollFlags, Errno> {
    let wanted = PollFlags::IN | PollFlags::PRI;
    let mut fds = [PollFd::new(&socket, wanted)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(fds[0].revents())
}
