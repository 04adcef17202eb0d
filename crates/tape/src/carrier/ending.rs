//! The end of a tape, and what it has left.

use super::{Carrier, of};
use crate::arch::{self, BLOCK_SIZE, OP_SIZE};
use crate::error::Error;
use crate::tape::Outcome;
use gelid_sys::{Errno, vm};

/// A tape that has ended: bytes of its ops and of all of it, and how many ops were played.
#[derive(Debug, Clone, Copy)]
struct Ended {
    ops_len: usize,
    len: usize,
    played: usize,
}

impl Ended {
    fn has_failed(&self) -> bool {
        self.played < self.ops_len / OP_SIZE
    }
}

impl Carrier {
    /// Waits until the tape has ended and collects what it has left.
    ///
    /// # Errors
    ///
    /// `Gone` if the task was killed; `Task` if nothing was started or its memory cannot be read.
    pub fn finish(&mut self) -> Result<Outcome, Error> {
        let ended = self.ended()?;
        self.collect(&ended)
    }

    /// Waits until the tape has ended, and collects what it has left if that was early, by the failure of an op.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn finish_unread(&mut self) -> Result<Option<Outcome>, Error> {
        let ended = self.ended()?;
        let failed = ended.has_failed().then(|| self.collect(&ended));
        failed.transpose()
    }

    /// Waits until the tape has ended.
    fn ended(&mut self) -> Result<Ended, Error> {
        let Some((ops_len, len)) = self.playing.take() else {
            return Err(of(self.tid, "waiting for a tape", Errno::INVAL));
        };
        let regs = self.arrive()?;
        let ops = self.region + BLOCK_SIZE as u64;
        let last = arch::ended_at(&regs).saturating_sub(ops) as usize / OP_SIZE;
        Ok(Ended {
            ops_len,
            len,
            played: last.min(ops_len / OP_SIZE),
        })
    }

    /// Reads what a tape has left.
    fn collect(&self, ended: &Ended) -> Result<Outcome, Error> {
        let ops = self.region + BLOCK_SIZE as u64;
        let range = ops..ops + ended.len as u64;
        let mut bytes = vec![0; ended.len];
        match vm::read_ranges(self.tid, std::slice::from_ref(&range), &mut bytes) {
            Ok(done) if done == ended.len => {}
            Ok(_) => return Err(of(self.tid, "reading a tape", Errno::FAULT)),
            Err(errno) => return Err(of(self.tid, "reading a tape", errno)),
        }
        Ok(Outcome::collect(&bytes, ended.ops_len, ended.played))
    }
}
