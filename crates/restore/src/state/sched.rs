//! Scheduling of a thread: `sched(7)`, `sched_setaffinity(2)`, `ioprio_set(2)`.

use gelid_image::messages::{GelidThreadEntry, ThreadCoreEntry};
use gelid_sys::Pid;
use gelid_sys::sched::{self, CpuSet, SchedAttr};
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Tape};

use rustix::process::setpriority_process;

use super::{Error, Machine};

const PRIO_PROCESS: u64 = 0;
const IOPRIO_WHO_PROCESS: u64 = 1;
/// Policies with real-time priorities, and that with deadlines.
const FIFO: u32 = 1;
const ROUND_ROBIN: u32 = 2;
const DEADLINE: u32 = 6;
/// Marks a policy that children do not inherit (`SCHED_RESET_ON_FORK`).
const RESET_ON_FORK: u32 = 0x4000_0000;
/// The same in `sched_attr.sched_flags`.
const FLAG_RESET_ON_FORK: u64 = 1;
const FLAG_UTIL_MIN: u64 = 0x20;
const FLAG_UTIL_MAX: u64 = 0x40;
/// Words of the largest set of processors that is read.
const WORDS_MAX: usize = CpuSet::MAX_CPU / 64;

/// What a thread has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sched {
    nice: i32,
    /// With `RESET_ON_FORK`.
    policy: u32,
    attr: SchedAttr,
    /// The processors it may use, if not all.
    affinity: Vec<u64>,
    /// If it does not follow from the nice value.
    io_priority: Option<u16>,
}

impl Sched {
    pub(super) fn read(
        tid: i32,
        thread: &ThreadCoreEntry,
        gelid: &GelidThreadEntry,
    ) -> Result<Self, Error> {
        let wrong = |what| Error::Wrong { tid, what };
        let nice = thread.sched_nice.unwrap_or(0);
        if !(-20..=19).contains(&nice) {
            return Err(wrong("the nice value is out of bounds"));
        }
        let policy = thread.sched_policy.unwrap_or(0);
        let plain = policy & !RESET_ON_FORK;
        if plain > 7 || plain == 4 {
            return Err(wrong("there is no such scheduling policy"));
        }
        let real_time = matches!(plain, FIFO | ROUND_ROBIN);
        let priority = thread.sched_prio.unwrap_or(0);
        if real_time != (1..=99).contains(&priority) && (real_time || priority != 0) {
            return Err(wrong("the priority does not fit the scheduling policy"));
        }
        if gelid.affinity.len() > WORDS_MAX {
            return Err(wrong("there are more processors than can be"));
        }
        let io_priority = gelid.ioprio.map(u16::try_from).transpose();
        let more = gelid.sched.clone().unwrap_or_default();
        let reset = if policy & RESET_ON_FORK == 0 {
            0
        } else {
            FLAG_RESET_ON_FORK
        };
        Ok(Self {
            nice,
            policy,
            attr: SchedAttr {
                size: SchedAttr::SIZE as u32,
                policy: plain,
                flags: reset | more.flags & !FLAG_RESET_ON_FORK,
                nice,
                priority,
                runtime: more.runtime,
                deadline: more.deadline,
                period: more.period,
                util_min: more.util_min.unwrap_or(0),
                util_max: more.util_max.unwrap_or(0),
            },
            affinity: gelid.affinity.clone(),
            io_priority: io_priority.map_err(|_| wrong("the I/O priority is out of bounds"))?,
        })
    }

    /// Sets what differs from a child of this process.
    pub(super) fn write(&self, tape: &mut Tape, machine: &Machine) {
        if !self.affinity.is_empty() && self.cpus() != machine.affinity {
            let bytes: Vec<u8> = self
                .affinity
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect();
            let data = tape.bytes(&bytes);
            let len = bytes.len() as u64;
            tape.must(nr::sched_setaffinity, [0.into(), len.into(), data.into()]);
        }
        // Real-time threads keep the nice value that they had before, and the policy has to go first
        // where it hides it.
        if self.nice != machine.nice {
            let args = [PRIO_PROCESS, 0, self.nice as i64 as u64].map(Arg::Value);
            tape.must(nr::setpriority, args);
        }
        if self.changes_policy(machine) {
            let data = tape.bytes(&self.attr.as_bytes());
            tape.must(nr::sched_setattr, [0.into(), data.into(), 0.into()]);
        }
        if let Some(priority) = self.io_priority_beside(machine) {
            let args = [IOPRIO_WHO_PROCESS, 0, priority.into()].map(Arg::Value);
            tape.must(nr::ioprio_set, args);
        }
    }

    /// Has this process set it all for a thread that differs from a child of this process in nothing of it.
    pub(super) fn set(&self, number: i32, tid: Pid, machine: &Machine) -> Result<(), Error> {
        let failed = |what| {
            move |errno| Error::Refused {
                tid: number,
                what,
                errno,
            }
        };
        if !self.affinity.is_empty() && self.cpus() != machine.affinity {
            sched::set_affinity(Some(tid), &self.cpus()).map_err(failed("the processors"))?;
        }
        if self.nice != machine.nice {
            setpriority_process(Some(tid), self.nice).map_err(failed("the nice value"))?;
        }
        if self.changes_policy(machine) {
            sched::setattr(Some(tid), &self.attr).map_err(failed("the scheduling policy"))?;
        }
        if let Some(priority) = self.io_priority_beside(machine) {
            sched::set_ioprio(Some(tid), priority).map_err(failed("the I/O priority"))?;
        }
        Ok(())
    }

    fn changes_policy(&self, machine: &Machine) -> bool {
        let beyond = self.attr.policy == DEADLINE
            || self.attr.runtime != 0
            || self.attr.flags & (FLAG_UTIL_MIN | FLAG_UTIL_MAX) != 0;
        self.policy != machine.policy || beyond
    }

    fn io_priority_beside(&self, machine: &Machine) -> Option<u16> {
        let own = machine.io_priority;
        let inherits = own >> 13 != 0 && own != derived_io_priority(machine.nice, machine.policy);
        self.io_priority.or(inherits.then_some(0))
    }

    fn cpus(&self) -> CpuSet {
        let mut set = CpuSet::new();
        for (index, word) in self.affinity.iter().enumerate() {
            for bit in (0..64).filter(|bit| word & 1 << bit != 0) {
                set.set(index * 64 + bit);
            }
        }
        set
    }
}

/// The I/O priority that the kernel tells of a thread for which none was set.
fn derived_io_priority(nice: i32, policy: u32) -> u16 {
    const IDLE: u32 = 5;
    let class = match policy & !RESET_ON_FORK {
        FIFO | ROUND_ROBIN | DEADLINE => 1,
        IDLE => 3,
        _ => 2,
    };
    class << 13 | ((nice + 20) / 5) as u16
}

#[cfg(test)]
mod tests {
    use gelid_image::messages::GelidSchedEntry;

    use super::*;

    fn read(thread: &ThreadCoreEntry, gelid: &GelidThreadEntry) -> Result<Sched, Error> {
        Sched::read(1, thread, gelid)
    }

    #[test]
    fn only_differences_are_written() {
        let machine = Machine::look().unwrap();
        let mut thread = ThreadCoreEntry {
            sched_nice: Some(machine.nice),
            sched_policy: Some(machine.policy),
            ..Default::default()
        };
        let mut gelid = GelidThreadEntry::default();
        let calls = |thread: &ThreadCoreEntry, gelid: &GelidThreadEntry| {
            let mut tape = Tape::new();
            read(thread, gelid).unwrap().write(&mut tape, &machine);
            tape.len()
        };
        assert_eq!(calls(&thread, &gelid), 0);
        thread.sched_nice = Some(machine.nice + 1);
        assert_eq!(calls(&thread, &gelid), 1);
        thread.sched_policy = Some(FIFO | RESET_ON_FORK);
        thread.sched_prio = Some(7);
        gelid.ioprio = Some(1 << 13 | 2);
        gelid.affinity = vec![1];
        assert_eq!(calls(&thread, &gelid), 4);
    }

    #[test]
    fn wrong_policies_are_refused() {
        let with = |nice, policy, prio| ThreadCoreEntry {
            sched_nice: Some(nice),
            sched_policy: Some(policy),
            sched_prio: Some(prio),
            ..Default::default()
        };
        let none = GelidThreadEntry::default();
        for (nice, policy, prio) in [
            (20, 0, 0),
            (0, 4, 0),
            (0, 8, 0),
            (0, 1, 0),
            (0, 0, 3),
            (0, 2, 100),
        ] {
            assert!(read(&with(nice, policy, prio), &none).is_err());
        }
        let deadline = GelidThreadEntry {
            sched: Some(GelidSchedEntry {
                runtime: 1,
                ..Default::default()
            }),
            ..Default::default()
        };
        let sched = read(&with(0, DEADLINE, 0), &deadline).unwrap();
        assert_eq!(sched.attr.runtime, 1);
    }
}
