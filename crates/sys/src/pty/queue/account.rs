//! What was found in a pseudoterminal, in memory that two processes share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::{Errno, Result};

use super::{Line, Stop, VEOL, VEOL2, Waiting, ready};
use crate::aside::Zeroed;
use crate::tty::Termios;

/// More than a pseudoterminal holds, of bytes or of lines, each way.
const ROOM: usize = 160 << 10;
/// What was found, in memory that two processes share.
#[repr(C)]
pub(super) struct Account {
    /// 0 none, 1 by a character, 2 held.
    pub(super) stop: i32,
    pub(super) to_slave: List<u8>,
    pub(super) to_master: List<u8>,
    pub(super) lines: List<Line>,
}

// SAFETY: numbers and a boolean, of which zeros are values.
unsafe impl Zeroed for Account {}

/// Some elements in a place of fixed size.
#[repr(C)]
pub(super) struct List<T> {
    len: usize,
    elements: [T; ROOM],
}

impl<T: Copy> List<T> {
    pub(super) fn get(&self) -> &[T] {
        self.elements.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, element: T) -> Result<()> {
        *self.elements.get_mut(self.len).ok_or(Errno::FBIG)? = element;
        self.len += 1;
        Ok(())
    }
}

impl List<u8> {
    /// Reads what waits, without waiting.
    pub(super) fn read(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        while ready(fd, PollFlags::IN)? {
            match self.read_some(fd) {
                Ok(0) | Err(Errno::AGAIN | Errno::IO) => break,
                read => read?,
            };
        }
        Ok(())
    }

    /// Reads complete lines, and notes how each ends.
    pub(super) fn read_lines(
        &mut self,
        fd: &OwnedFd,
        settings: &Termios,
        lines: &mut List<Line>,
    ) -> Result<()> {
        let ends = [settings.cc[VEOL], settings.cc[VEOL2]];
        while ready(fd.as_fd(), PollFlags::IN)? {
            let read = match self.read_some(fd.as_fd()) {
                Err(Errno::AGAIN | Errno::IO) => break,
                read => read?,
            };
            let last = self.get().last().copied().filter(|_| read > 0);
            let ended = last.is_some_and(|last| last == b'\n' || last != 0 && ends.contains(&last));
            lines.push(Line {
                len: read as u32,
                eof: !ended,
            })?;
        }
        Ok(())
    }

    fn read_some(&mut self, fd: BorrowedFd<'_>) -> Result<usize> {
        let room = self.elements.get_mut(self.len..).unwrap_or_default();
        if room.is_empty() {
            return Err(Errno::FBIG);
        }
        let read = rustix::io::read(fd, room)?;
        self.len += read;
        Ok(read)
    }
}

impl Account {
    pub(super) fn stop(&self) -> Option<Stop> {
        match self.stop {
            0 => None,
            1 => Some(Stop::Character),
            _ => Some(Stop::Held),
        }
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            to_slave: self.to_slave.get().to_vec(),
            lines: self.lines.get().to_vec(),
            to_master: self.to_master.get().to_vec(),
            stop: self.stop(),
        }
    }
}
