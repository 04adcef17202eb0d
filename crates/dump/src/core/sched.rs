//! Scheduling of a thread, all from outside.

use gelid_image::messages::{GelidSchedEntry, GelidThreadEntry, ThreadCoreEntry};
use gelid_sys::sched::{self, CpuSet, SchedAttr};
use gelid_sys::{Errno, Pid};
use rustix::process::getpriority_process;

use super::Error;

const FIFO: u32 = 1;
const ROUND_ROBIN: u32 = 2;
const IDLE: u32 = 5;
const DEADLINE: u32 = 6;
/// In `sched_attr.sched_flags` and, as images have it, in the policy.
const FLAG_RESET_ON_FORK: u64 = 1;
const RESET_ON_FORK: u32 = 0x4000_0000;
const FLAG_UTIL_MIN: u64 = 0x20;
const FLAG_UTIL_MAX: u64 = 0x40;

/// What threads have for which nobody has set anything.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    /// All processors that are online.
    online: CpuSet,
    attr: SchedAttr,
}

impl Defaults {
    pub(super) fn look() -> Result<Self, Error> {
        let own = |what| move |errno| Error::Own { what, errno };
        let list = rustix::fs::open(
            "/sys/devices/system/cpu/online",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let mut text = [0; 4096];
        let read = list.and_then(|list| rustix::io::read(&list, &mut text));
        // Without sysfs every mask is told.
        let len = read.unwrap_or(0);
        Ok(Self {
            online: ranges(&text[..len]).unwrap_or_default(),
            attr: sched::getattr(None).map_err(own("its scheduling policy"))?,
        })
    }
}

/// A set of processors as the kernel prints it: `0-3,8`.
fn ranges(text: &[u8]) -> Option<CpuSet> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let mut set = CpuSet::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CpuSet::MAX_CPU {
            return None;
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Some(set)
}

/// How a thread is scheduled.
#[derive(Debug, Clone)]
pub(super) struct Sched {
    nice: i32,
    attr: SchedAttr,
    affinity: CpuSet,
    io_priority: u16,
}

impl Sched {
    pub(super) fn look(tid: Pid) -> Result<Self, Error> {
        let failed = |object| move |errno| Error::Thread { tid, object, errno };
        Ok(Self {
            nice: getpriority_process(Some(tid)).map_err(failed("the nice value"))?,
            attr: sched::getattr(Some(tid)).map_err(failed("the scheduling policy"))?,
            affinity: sched::affinity(Some(tid)).map_err(failed("the processors"))?,
            io_priority: match sched::ioprio(Some(tid)) {
                Err(Errno::NOSYS) => 0,
                other => other.map_err(failed("the I/O priority"))?,
            },
        })
    }

    /// Fills the fields of its records.
    pub(super) fn record(
        &self,
        defaults: &Defaults,
        thread: &mut ThreadCoreEntry,
        gelid: &mut GelidThreadEntry,
    ) {
        let attr = &self.attr;
        let reset = attr.flags & FLAG_RESET_ON_FORK != 0;
        let real_time = matches!(attr.policy, FIFO | ROUND_ROBIN);
        thread.sched_nice = Some(self.nice);
        thread.sched_policy = Some(attr.policy | if reset { RESET_ON_FORK } else { 0 });
        thread.sched_prio = Some(if real_time { attr.priority } else { 0 });
        if self.affinity != defaults.online {
            gelid.affinity = words(&self.affinity);
        }
        let class = self.io_priority >> 13;
        if class != 0 && self.io_priority != self.derived_io_priority() {
            gelid.ioprio = Some(self.io_priority.into());
        }
        gelid.sched = self.parameters(defaults);
    }

    /// What goes beyond policy, nice value and priority.
    fn parameters(&self, defaults: &Defaults) -> Option<GelidSchedEntry> {
        let attr = &self.attr;
        let deadline = attr.policy == DEADLINE;
        let slice = !deadline && attr.runtime != 0 && attr.runtime != defaults.attr.runtime;
        let bounds = (attr.util_min, attr.util_max);
        let bounded = bounds != (defaults.attr.util_min, defaults.attr.util_max);
        if !deadline && !slice && !bounded {
            return None;
        }
        let mut flags = attr.flags & !FLAG_RESET_ON_FORK;
        if bounded {
            flags |= FLAG_UTIL_MIN | FLAG_UTIL_MAX;
        }
        Some(GelidSchedEntry {
            flags,
            runtime: if deadline || slice { attr.runtime } else { 0 },
            deadline: attr.deadline,
            period: attr.period,
            util_min: bounded.then_some(attr.util_min),
            util_max: bounded.then_some(attr.util_max),
        })
    }

    /// What some kernels tell of a thread for which no I/O priority was set.
    fn derived_io_priority(&self) -> u16 {
        let class = match self.attr.policy {
            FIFO | ROUND_ROBIN | DEADLINE => 1,
            IDLE => 3,
            _ => 2,
        };
        class << 13 | ((self.nice + 20) / 5) as u16
    }
}

fn words(set: &CpuSet) -> Vec<u64> {
    let word = |index: usize| {
        (0..64).fold(0, |word, bit| {
            word | u64::from(set.is_set(index * 64 + bit)) << bit
        })
    };
    let mut words: Vec<u64> = (0..CpuSet::MAX_CPU / 64).map(word).collect();
    let len = words
        .iter()
        .rposition(|word| *word != 0)
        .map_or(0, |last| last + 1);
    words.truncate(len);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_processors_are_understood() {
        let set = ranges(b"0-2,65\n").unwrap();
        assert_eq!(words(&set), [7, 2]);
        assert!(ranges(b"0-99999").is_none());
        assert!(ranges(b"").is_none());
    }

    #[test]
    fn an_ordinary_thread_takes_no_words() {
        let defaults = Defaults::look().unwrap();
        let sched = Sched::look(rustix::thread::gettid()).unwrap();
        let mut thread = ThreadCoreEntry::default();
        let mut gelid = GelidThreadEntry::default();
        sched.record(&defaults, &mut thread, &mut gelid);
        assert_eq!(gelid.sched, None);
        assert_eq!(gelid.ioprio, None);
        assert!(thread.sched_policy.is_some());
    }
}
