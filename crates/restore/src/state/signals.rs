//! Signal handlers, alternate stacks, and signals that wait: `signal(7)`.

use gelid_image::messages::{SignalQueueEntry, TaskCoreEntry, ThreadSasEntry};
use gelid_sys::signal::{KernelSigAction, NSIG, SIGCHLD, SIGKILL, SIGSTOP, SigInfo, SigSet};
use gelid_sys::syscall::nr;
use gelid_tape::Tape;

use super::Error;

const SIG_IGN: u64 = 1;
/// Bytes of a signal set, which the calls want to be told.
const SET_SIZE: u64 = size_of::<SigSet>() as u64;
/// Most signals that may wait; the kernel's limit (`RLIMIT_SIGPENDING`) is far below in practice.
const QUEUE_MAX: usize = 1 << 20;
/// `si_code` of a signal that a timer has sent.
const SI_TIMER: i32 = -2;

/// The table of signal handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Actions(Vec<(i32, KernelSigAction)>);

impl Actions {
    /// All signals but the two that cannot be handled, in ascending order.
    pub(super) fn read(tid: i32, tc: &TaskCoreEntry) -> Result<Self, Error> {
        let signals = (1..=NSIG as i32).filter(|signal| ![SIGKILL, SIGSTOP].contains(signal));
        let mut actions = Vec::with_capacity(tc.sigactions.len().min(NSIG));
        let wrong = |what| Error::Wrong { tid, what };
        if tc.sigactions.len() != NSIG - 2 {
            return Err(wrong("there are not 62 signal handlers"));
        }
        for (signal, entry) in signals.zip(&tc.sigactions) {
            if entry.compat_sigaction == Some(true) {
                let (what, remedy) = (
                    "a 32-bit signal handler",
                    "dump the program as a 64-bit one",
                );
                return Err(Error::Unsupported { tid, what, remedy });
            }
            let action = KernelSigAction {
                handler: entry.sigaction,
                flags: entry.flags,
                restorer: entry.restorer,
                mask: entry.mask,
            };
            actions.push((signal, action));
        }
        Ok(Self(actions))
    }

    /// Sets them, if they are this process's to set. Children that ended on the way have left a `SIGCHLD`,
    /// which is forgotten when the signal is ignored for a moment.
    pub(super) fn write(&self, tape: &mut Tape, handles: bool) {
        let ignored = KernelSigAction {
            handler: SIG_IGN,
            ..KernelSigAction::default()
        };
        set(tape, SIGCHLD, &ignored);
        for (signal, action) in &self.0 {
            if handles || *signal == SIGCHLD {
                set(tape, *signal, action);
            }
        }
    }
}

fn set(tape: &mut Tape, signal: i32, action: &KernelSigAction) {
    let data = tape.bytes(&action.to_bytes());
    let args = [signal.into(), data.into(), 0.into(), SET_SIZE.into()];
    tape.must(nr::rt_sigaction, args);
}

/// An alternate stack, `sigaltstack(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AltStack {
    at: u64,
    size: u64,
    flags: u32,
}

impl AltStack {
    const ON: u32 = 1;
    const DISABLED: u32 = 2;
    const AUTODISARM: u32 = 1 << 31;

    pub(super) fn read(tid: i32, entry: Option<&ThreadSasEntry>) -> Result<Self, Error> {
        let Some(entry) = entry else {
            return Ok(Self {
                at: 0,
                size: 0,
                flags: Self::DISABLED,
            });
        };
        if entry.ss_flags & !(Self::ON | Self::DISABLED | Self::AUTODISARM) != 0 {
            let what = "the alternate stack has flags that no kernel has";
            return Err(Error::Wrong { tid, what });
        }
        Ok(Self {
            at: entry.ss_sp,
            size: entry.ss_size,
            // That the thread is on it follows from its stack pointer.
            flags: entry.ss_flags & !Self::ON,
        })
    }

    /// Sets it. The thread must not be on one of its own, as it is not while it plays.
    pub(super) fn write(&self, tape: &mut Tape) {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.at.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[16..].copy_from_slice(&self.size.to_ne_bytes());
        let data = tape.bytes(&bytes);
        tape.must(nr::sigaltstack, [data.into(), 0.into()]);
    }
}

/// Signals that wait, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue(Vec<SigInfo>);

impl Queue {
    pub(super) fn read(tid: i32, entry: Option<&SignalQueueEntry>) -> Result<Self, Error> {
        let wrong = |what| Error::Wrong { tid, what };
        let signals = entry.map_or(&[][..], |entry| &entry.signals);
        if signals.len() > QUEUE_MAX {
            return Err(wrong("more signals wait than can"));
        }
        let mut queue = Vec::with_capacity(signals.len());
        for signal in signals {
            let bytes: [u8; 128] = signal.siginfo[..]
                .try_into()
                .map_err(|_| wrong("a siginfo has not 128 bytes"))?;
            let info = SigInfo(bytes);
            if !(1..=NSIG as i32).contains(&info.signo()) {
                return Err(wrong("a signal waits that does not exist"));
            }
            queue.push(info);
        }
        Ok(Self(queue))
    }

    /// The signals in it.
    pub(super) fn set(&self) -> SigSet {
        let all = self.0.iter();
        SigSet(all.fold(0, |set, info| set | 1 << (info.signo() - 1)))
    }

    /// Ids of the timers that have sent one.
    pub(super) fn timer_ids(&self) -> Vec<i32> {
        let timers = self.0.iter().filter(|info| info.code() == SI_TIMER);
        timers.map(timer_id).collect()
    }

    /// Parts for tapes of their own; none if all of them have room on the tape with everything else.
    pub(super) fn parts(&self) -> impl Iterator<Item = Self> {
        const MOST: usize = 200;
        let long = self.0.len() > MOST;
        let parts = self.0.chunks(MOST).filter(move |_| long);
        parts.map(|part| Self(part.to_vec()))
    }

    /// Queues them for the process by its leader, but for those of the timers given, which send theirs anew.
    pub(super) fn write_shared(&self, tape: &mut Tape, pid: i32, timers: &[i32]) {
        for info in self.sendable() {
            if info.code() == SI_TIMER && timers.contains(&timer_id(info)) {
                continue;
            }
            let data = tape.bytes(&info.0);
            tape.must(
                nr::rt_sigqueueinfo,
                [pid.into(), info.signo().into(), data.into()],
            );
        }
    }

    /// Queues them for the thread by itself.
    pub(super) fn write_private(&self, tape: &mut Tape, pid: i32, tid: i32) {
        for info in self.sendable() {
            let data = tape.bytes(&info.0);
            tape.must(
                nr::rt_tgsigqueueinfo,
                [pid.into(), tid.into(), info.signo().into(), data.into()],
            );
        }
    }

    /// A stop is not queued but made, when everything is in place.
    fn sendable(&self) -> impl Iterator<Item = &SigInfo> {
        let stays = |info: &&SigInfo| ![SIGKILL, SIGSTOP].contains(&info.signo());
        self.0.iter().filter(stays)
    }
}

/// `si_timerid`
fn timer_id(info: &SigInfo) -> i32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&info.0[16..20]);
    i32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use gelid_image::messages::{SaEntry, SiginfoEntry};

    use super::*;

    #[test]
    fn a_table_is_whole() {
        let mut tc = TaskCoreEntry {
            sigactions: vec![SaEntry::default(); 62],
            ..Default::default()
        };
        tc.sigactions[61].sigaction = 0x1000;
        let actions = Actions::read(1, &tc).unwrap();
        assert_eq!(actions.0[8].0, 10, "9 is left out");
        assert_eq!(actions.0[61].1.handler, 0x1000);
        let mut tape = Tape::new();
        actions.write(&mut tape, true);
        assert_eq!(tape.len(), 63);
        let mut tape = Tape::new();
        actions.write(&mut tape, false);
        assert_eq!(tape.len(), 2);
        tc.sigactions.pop();
        assert!(Actions::read(1, &tc).is_err());
    }

    fn entry(bytes: &[u8]) -> SignalQueueEntry {
        let siginfo = bytes.to_vec();
        SignalQueueEntry {
            signals: vec![SiginfoEntry { siginfo }],
        }
    }

    #[test]
    fn wrong_signals_are_refused() {
        let mut info = [0; 128];
        assert!(Queue::read(1, Some(&entry(&info))).is_err(), "signal 0");
        info[0] = 65;
        assert!(Queue::read(1, Some(&entry(&info))).is_err());
        info[0] = 64;
        assert!(Queue::read(1, Some(&entry(&info[1..]))).is_err());
        let queue = Queue::read(1, Some(&entry(&info))).unwrap();
        assert_eq!(queue.set(), SigSet(1 << 63));
        info[0] = 19;
        let stop = Queue::read(1, Some(&entry(&info))).unwrap();
        assert_eq!(stop.sendable().count(), 0);
    }

    #[test]
    fn an_alternate_stack_in_use_can_be_set() {
        let entry = ThreadSasEntry {
            ss_sp: 4096,
            ss_size: 8192,
            ss_flags: AltStack::ON | AltStack::AUTODISARM,
        };
        let stack = AltStack::read(1, Some(&entry)).unwrap();
        assert_eq!(stack.flags, AltStack::AUTODISARM);
        let entry = ThreadSasEntry {
            ss_flags: 8,
            ..entry
        };
        assert!(AltStack::read(1, Some(&entry)).is_err());
    }
}
