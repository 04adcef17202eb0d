//! Signal handlers, alternate stacks, and signals that wait.

use gelid_image::messages::{SaEntry, SiginfoEntry, SignalQueueEntry, ThreadSasEntry};
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::{KernelSigAction, NSIG, SIGKILL, SIGSTOP, SigInfo, SigSet};
use gelid_sys::syscall::nr;
use gelid_tape::{Data, Op, Tape};

use super::Error;
use super::call::Answers;

const SET_SIZE: u64 = size_of::<SigSet>() as u64;
const SA_RESTART: u64 = 0x1000_0000;

/// Signals whose handlers are asked for, as images have them.
fn handled() -> impl Iterator<Item = i32> {
    (1..=NSIG as i32).filter(|signal| ![SIGKILL, SIGSTOP].contains(signal))
}

/// The table of handlers, asked for.
#[derive(Debug)]
pub(super) struct AskedActions(Vec<(Op, Data)>);

impl AskedActions {
    pub(super) fn ask(tape: &mut Tape) -> Self {
        let one = |signal: i32| {
            let data = tape.space(size_of::<KernelSigAction>());
            let args = [signal.into(), 0.into(), data.into(), SET_SIZE.into()];
            (tape.call(nr::rt_sigaction, args), data)
        };
        Self(handled().map(one).collect())
    }

    pub(super) fn answer(&self, answers: Answers<'_>) -> Result<Actions, Error> {
        let mut actions = Vec::with_capacity(self.0.len());
        for (op, data) in &self.0 {
            answers.must(*op, "rt_sigaction")?;
            let [handler, flags, restorer, mask] =
                [0, 1, 2, 3].map(|index| answers.word(*data, index));
            actions.push(KernelSigAction {
                handler,
                flags,
                restorer,
                mask,
            });
        }
        Ok(Actions(actions))
    }
}

/// The table of handlers of a process.
#[derive(Debug, Clone)]
pub(super) struct Actions(Vec<KernelSigAction>);

impl Actions {
    pub(super) fn entries(&self) -> Vec<SaEntry> {
        let entry = |action: &KernelSigAction| SaEntry {
            sigaction: action.handler,
            flags: action.flags,
            restorer: action.restorer,
            mask: action.mask,
            compat_sigaction: None,
            mask_extended: None,
        };
        self.0.iter().map(entry).collect()
    }

    /// What the first signal of a set that is caught does to system calls which it interrupts: whether
    /// they are issued again when its handler has run. `None` if no such signal is caught.
    pub(super) fn restarts(&self, set: SigSet) -> Option<bool> {
        let caught = |(signal, action): &(i32, &KernelSigAction)| {
            set.contains(*signal) && action.handler > 1
        };
        let first = handled().zip(&self.0).find(caught);
        first.map(|(_, action)| action.flags & SA_RESTART != 0)
    }
}

/// The alternate stack, asked for.
#[derive(Debug)]
pub(super) struct AskedStack(Op, Data);

impl AskedStack {
    pub(super) fn ask(tape: &mut Tape) -> Self {
        let data = tape.space(24);
        Self(tape.call(nr::sigaltstack, [0.into(), data.into()]), data)
    }

    pub(super) fn answer(&self, answers: Answers<'_>) -> Result<ThreadSasEntry, Error> {
        answers.must(self.0, "sigaltstack")?;
        Ok(ThreadSasEntry {
            ss_sp: answers.word(self.1, 0),
            ss_flags: answers.half(self.1, 2),
            ss_size: answers.word(self.1, 2),
        })
    }
}

/// The signals that wait for a thread, or for its process.
pub(super) fn pending(task: &Stopped, shared: bool) -> Result<Vec<SigInfo>, Error> {
    task.pending(shared).map_err(|errno| Error::Thread {
        tid: task.pid(),
        object: "the pending signals",
        errno,
    })
}

/// The numbers of signals.
pub(super) fn set(queue: &[SigInfo]) -> SigSet {
    let bit = |info: &SigInfo| match info.signo() {
        signal @ 1..=64 => 1 << (signal - 1),
        _ => 0,
    };
    SigSet(queue.iter().fold(0, |set, info| set | bit(info)))
}

/// The record of a queue. A signal of `all` that is not in it was sent when there was no memory for more than
/// its number.
pub(super) fn queue(queue: &[SigInfo], all: SigSet) -> SignalQueueEntry {
    let bare = |signal: i32| {
        let mut info = SigInfo::default();
        info.0[..4].copy_from_slice(&signal.to_ne_bytes());
        info
    };
    let missing = SigSet(all.0 & !set(queue).0);
    let missing = (1..=NSIG as i32)
        .filter(|signal| missing.contains(*signal))
        .map(bare);
    let all = queue.iter().copied().chain(missing);
    SignalQueueEntry {
        signals: all
            .map(|info| SiginfoEntry {
                siginfo: info.0.to_vec(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_without_information_is_kept() {
        let mut info = SigInfo::default();
        info.0[0] = 40;
        let entry = queue(&[info], SigSet(1 << 39 | 1 << 9));
        assert_eq!(entry.signals.len(), 2);
        assert_eq!(entry.signals[1].siginfo[0], 10);
    }

    #[test]
    fn the_first_caught_signal_decides() {
        let mut actions = vec![KernelSigAction::default(); 62];
        actions[9].handler = 0x1000; // signal 11, since 9 is left out
        actions[9].flags = SA_RESTART;
        let actions = Actions(actions);
        assert_eq!(actions.restarts(SigSet(1 << 10)), Some(true));
        assert_eq!(actions.restarts(SigSet(1 << 9)), None);
    }
}
