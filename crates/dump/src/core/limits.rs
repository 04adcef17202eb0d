//! Resource limits of a process.

use gelid_image::messages::{RlimitEntry, TaskRlimitsEntry};
use gelid_sys::proc::limits::COUNT;
use gelid_sys::syscall::nr;
use gelid_tape::{Data, Op, Tape};

use super::Error;
use super::call::Answers;

/// The limits by number, asked for. From outside, those of another user take a capability.
#[derive(Debug)]
pub(super) struct AskedLimits(Vec<(Op, Data)>);

impl AskedLimits {
    pub(super) fn ask(tape: &mut Tape) -> Self {
        let one = |resource: usize| {
            let data = tape.space(16);
            let args = [0.into(), (resource as u64).into(), 0.into(), data.into()];
            (tape.call(nr::prlimit64, args), data)
        };
        Self((0..COUNT).map(one).collect())
    }

    pub(super) fn answer(&self, answers: Answers<'_>) -> Result<TaskRlimitsEntry, Error> {
        let mut rlimits = Vec::with_capacity(COUNT);
        for (op, data) in &self.0 {
            answers.must(*op, "prlimit64")?;
            let (cur, max) = (answers.word(*data, 0), answers.word(*data, 1));
            rlimits.push(RlimitEntry { cur, max });
        }
        Ok(TaskRlimitsEntry { rlimits })
    }
}
