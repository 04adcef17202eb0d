//! Reading what the calls of a tape have left.

use gelid_sys::{Errno, Pid};
use gelid_tape::{Arg, Data, Op, Outcome, Tape};

use super::Error;

/// What one thread's tape has left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers<'a> {
    pub(super) tid: Pid,
    pub(super) outcome: &'a Outcome,
}

impl Answers<'_> {
    /// What a call has returned that cannot fail.
    pub(super) fn must(&self, op: Op, call: &'static str) -> Result<u64, Error> {
        let tid = self.tid;
        self.outcome
            .ok(op)
            .map_err(|errno| Error::Call { tid, call, errno })
    }

    /// What a call has returned that some kernels do not know, or do not allow.
    pub(super) fn may(&self, op: Op, call: &'static str) -> Result<Option<u64>, Error> {
        match self.outcome.ok(op) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::Call {
                tid: self.tid,
                call,
                errno,
            }),
        }
    }

    /// A word of a piece of data; 0 behind its end.
    pub(super) fn word(&self, data: Data, index: usize) -> u64 {
        let bytes = self.outcome.data(data).get(index * 8..);
        let bytes = bytes.and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// Half a word of a piece of data; 0 behind its end.
    pub(super) fn half(&self, data: Data, index: usize) -> u32 {
        let bytes = self.outcome.data(data).get(index * 4..);
        let bytes = bytes.and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// A `prctl` that returns what it is asked for.
pub(super) fn prctl(tape: &mut Tape, option: u64, argument: u64) -> Op {
    let args = [option, argument, 0, 0, 0].map(Arg::Value);
    tape.call(gelid_sys::syscall::nr::prctl, args)
}

/// A `prctl` that writes what it is asked for.
pub(super) fn prctl_out(tape: &mut Tape, option: u64, len: usize) -> (Op, Data) {
    let data = tape.space(len);
    let args = [option.into(), data.into(), 0.into(), 0.into(), 0.into()];
    (tape.call(gelid_sys::syscall::nr::prctl, args), data)
}
