//! Resource limits of a process: `getrlimit(2)`.

use gelid_image::messages::TaskRlimitsEntry;
use gelid_sys::Pid;
use gelid_sys::proc::limits::{COUNT, Limit};
use gelid_sys::sched;
use gelid_sys::syscall::nr;
use gelid_tape::Tape;

use super::{Error, Machine};

/// `CAP_SYS_RESOURCE`
pub(super) const SYS_RESOURCE: u64 = 1 << 24;

const NAMES: [&str; COUNT] = [
    "processor time (RLIMIT_CPU)",
    "the size of files (RLIMIT_FSIZE)",
    "data (RLIMIT_DATA)",
    "the stack (RLIMIT_STACK)",
    "core dumps (RLIMIT_CORE)",
    "resident memory (RLIMIT_RSS)",
    "processes (RLIMIT_NPROC)",
    "descriptors (RLIMIT_NOFILE)",
    "locked memory (RLIMIT_MEMLOCK)",
    "address space (RLIMIT_AS)",
    "file locks (RLIMIT_LOCKS)",
    "waiting signals (RLIMIT_SIGPENDING)",
    "message queues (RLIMIT_MSGQUEUE)",
    "the nice value (RLIMIT_NICE)",
    "real-time priority (RLIMIT_RTPRIO)",
    "real-time processor time (RLIMIT_RTTIME)",
];

/// The limits by number, those that the image has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits(Vec<Limit>);

impl Limits {
    pub(super) fn read(tid: i32, entry: Option<&TaskRlimitsEntry>) -> Result<Self, Error> {
        let limits = entry.map_or(&[][..], |entry| &entry.rlimits);
        if limits.len() > COUNT {
            let what = "there are more than 16 resource limits";
            return Err(Error::Wrong { tid, what });
        }
        if limits.iter().any(|limit| limit.cur > limit.max) {
            let what = "a soft limit is above its hard limit";
            return Err(Error::Wrong { tid, what });
        }
        let limits = limits.iter().map(|limit| Limit {
            soft: limit.cur,
            hard: limit.max,
        });
        Ok(Self(limits.collect()))
    }

    /// Without a capability, limits only go down.
    pub(super) fn check(&self, pid: i32, machine: &Machine) -> Result<(), Error> {
        if machine.raises_limits {
            return Ok(());
        }
        for (resource, (new, own)) in self.0.iter().zip(&machine.limits).enumerate() {
            if new.hard > own.hard {
                return Err(Error::Limit {
                    pid,
                    resource: NAMES[resource],
                    wanted: new.hard,
                    have: own.hard,
                });
            }
        }
        Ok(())
    }

    /// Has this process raise what the task itself may not.
    pub(super) fn raise(&self, pid: Pid, machine: &Machine) -> Result<(), Error> {
        if !machine.is_inside {
            return Ok(());
        }
        for (resource, (new, own)) in self.0.iter().zip(&machine.limits).enumerate() {
            if new.hard > own.hard {
                let failed = |errno| Error::Refused {
                    tid: pid.as_raw_pid(),
                    what: NAMES[resource],
                    errno,
                };
                sched::set_limit(Some(pid), resource, *new).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// What leaves more room than a child of this process has, first.
    pub(super) fn write_raised(&self, tape: &mut Tape, machine: &Machine) {
        self.write(tape, machine, |new, own| new.soft >= own.soft);
    }

    /// What leaves less, when nothing has to fit any more.
    pub(super) fn write_lowered(&self, tape: &mut Tape, machine: &Machine) {
        self.write(tape, machine, |new, own| new.soft < own.soft);
    }

    fn write(&self, tape: &mut Tape, machine: &Machine, when: fn(&Limit, &Limit) -> bool) {
        let changes = self.0.iter().zip(&machine.limits).enumerate();
        for (resource, (new, _)) in changes.filter(|(_, (new, own))| new != own && when(new, own)) {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&new.soft.to_ne_bytes());
            bytes[8..].copy_from_slice(&new.hard.to_ne_bytes());
            let data = tape.bytes(&bytes);
            let args = [0.into(), (resource as u64).into(), data.into(), 0.into()];
            tape.must(nr::prlimit64, args);
        }
    }
}

#[cfg(test)]
mod tests {
    use gelid_image::messages::RlimitEntry;

    use super::*;

    fn limits(cur: u64, max: u64) -> Result<Limits, Error> {
        let rlimits = vec![RlimitEntry { cur, max }];
        Limits::read(1, Some(&TaskRlimitsEntry { rlimits }))
    }

    #[test]
    fn wrong_limits_are_refused() {
        assert!(limits(2, 1).is_err());
        let rlimits = vec![RlimitEntry::default(); 17];
        assert!(Limits::read(1, Some(&TaskRlimitsEntry { rlimits })).is_err());
    }

    #[test]
    fn limits_go_up_first_and_down_last() {
        let mut machine = Machine::look().unwrap();
        machine.limits[0] = Limit { soft: 10, hard: 20 };
        let calls = |limits: &Limits| {
            let (mut first, mut last) = (Tape::new(), Tape::new());
            limits.write_raised(&mut first, &machine);
            limits.write_lowered(&mut last, &machine);
            (first.len(), last.len())
        };
        assert_eq!(calls(&limits(10, 20).unwrap()), (0, 0));
        assert_eq!(calls(&limits(11, 20).unwrap()), (1, 0));
        assert_eq!(calls(&limits(9, 20).unwrap()), (0, 1));
    }

    #[test]
    fn raising_without_the_right_is_refused() {
        let mut machine = Machine::look().unwrap();
        machine.limits[0] = Limit { soft: 10, hard: 20 };
        machine.creds.drop_all();
        let error = limits(1, 21).unwrap().check(5, &machine).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_CPU"), "{error}");
        limits(1, 20).unwrap().check(5, &machine).unwrap();
    }
}
