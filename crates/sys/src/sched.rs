//! Scheduling of a task: `sched_getattr(2)`, `ioprio_get(2)`, `sched_getaffinity(2)`, and the per-thread
//! pointers and limits that are asked for in the same breath: `get_robust_list(2)`, `prlimit(2)`.

use std::io;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use rustix::io::{Errno, Result};
use rustix::process::Pid;
pub use rustix::thread::CpuSet;

use crate::proc::limits::{COUNT, INFINITY, Limit};
use crate::syscall::call;

/// `struct sched_attr` of `linux/sched/types.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct SchedAttr {
    /// Bytes of the structure that are valid.
    pub size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// Nice value of the policies that have one.
    pub nice: i32,
    /// Priority under `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds: budget under `SCHED_DEADLINE`, slice of other policies where the kernel has it.
    pub runtime: u64,
    /// Nanoseconds: deadline under `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds: period under `SCHED_DEADLINE`.
    pub period: u64,
    /// Lowest utilisation to assume.
    pub util_min: u32,
    /// Highest utilisation to assume.
    pub util_max: u32,
}

const _: () = {
    assert!(size_of::<SchedAttr>() == SchedAttr::SIZE);
    assert!(offset_of!(SchedAttr, nice) == 16);
    assert!(offset_of!(SchedAttr, runtime) == 24);
    assert!(offset_of!(SchedAttr, util_max) == 52);
};

impl SchedAttr {
    /// Bytes of the structure, `SCHED_ATTR_SIZE_VER1`.
    pub const SIZE: usize = 56;

    /// The structure as the kernel reads it, for a tape.
    pub fn as_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.size.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.policy.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.nice.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.priority.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.runtime.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.deadline.to_ne_bytes());
        bytes[40..48].copy_from_slice(&self.period.to_ne_bytes());
        bytes[48..52].copy_from_slice(&self.util_min.to_ne_bytes());
        bytes[52..56].copy_from_slice(&self.util_max.to_ne_bytes());
        bytes
    }
}

fn raw(tid: Option<Pid>) -> usize {
    Pid::as_raw(tid) as usize
}

/// Policy and parameters of a thread, of the caller for `None`.
pub fn getattr(tid: Option<Pid>) -> Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let args = [raw(tid), &raw mut attr as usize, SchedAttr::SIZE, 0, 0, 0];
    // SAFETY: the kernel writes at most the size given into a live structure of integers.
    unsafe { call(libc::SYS_sched_getattr as usize, args) }?;
    Ok(attr)
}

/// Sets policy and parameters of a thread; `size` is filled in.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_NICE` for what needs it, `EINVAL`, `EBUSY` (deadline bandwidth), `ESRCH`.
pub fn setattr(tid: Option<Pid>, attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: SchedAttr::SIZE as u32,
        ..*attr
    };
    let args = [raw(tid), &raw const attr as usize, 0, 0, 0, 0];
    // SAFETY: the kernel reads `size` bytes of a live structure.
    unsafe { call(libc::SYS_sched_setattr as usize, args) }.map(drop)
}

/// The processors a thread may run on.
pub fn affinity(tid: Option<Pid>) -> Result<CpuSet> {
    rustix::thread::sched_getaffinity(tid)
}

/// Sets the processors a thread may run on.
pub fn set_affinity(tid: Option<Pid>, cpus: &CpuSet) -> Result<()> {
    rustix::thread::sched_setaffinity(tid, cpus)
}

/// `IOPRIO_WHO_PROCESS`, which means a thread.
const IOPRIO_WHO_PROCESS: usize = 1;

/// The I/O priority of a thread as set: class in the bits from 13 on, level below. 0 if none was set
/// (newer kernels give the class and level that follow from the nice value instead).
pub fn ioprio(tid: Option<Pid>) -> Result<u16> {
    let args = [IOPRIO_WHO_PROCESS, raw(tid), 0, 0, 0, 0];
    // SAFETY: ioprio_get takes numbers only.
    let value = unsafe { call(libc::SYS_ioprio_get as usize, args) }?;
    u16::try_from(value).map_err(|_| Errno::OVERFLOW)
}

/// Sets the I/O priority of a thread.
pub fn set_ioprio(tid: Option<Pid>, value: u16) -> Result<()> {
    let args = [IOPRIO_WHO_PROCESS, raw(tid), usize::from(value), 0, 0, 0];
    // SAFETY: ioprio_set takes numbers only.
    unsafe { call(libc::SYS_ioprio_set as usize, args) }.map(drop)
}

/// Address and size of the list of robust futexes that a thread registered; address 0 if none.
///
/// # Errors
///
/// `EPERM` without ptrace read access, `ESRCH`.
pub fn robust_list(tid: Option<Pid>) -> Result<(u64, u64)> {
    let (mut head, mut len) = (0u64, 0u64);
    let args = [
        raw(tid),
        &raw mut head as usize,
        &raw mut len as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes one word to each address.
    unsafe { call(libc::SYS_get_robust_list as usize, args) }?;
    Ok((head, len))
}

/// `struct rlimit64`.
#[repr(C)]
struct Rlimit64 {
    soft: u64,
    hard: u64,
}

const _: () = assert!(size_of::<Rlimit64>() == 16);

/// The limits of a process by `RLIMIT_*` number.
///
/// # Errors
///
/// `EPERM` for a process of other ids without `CAP_SYS_RESOURCE`; `/proc/PID/limits` may still be
/// readable.
pub fn limits(pid: Option<Pid>) -> Result<[Limit; COUNT]> {
    let mut limits = [Limit {
        soft: INFINITY,
        hard: INFINITY,
    }; COUNT];
    for (resource, limit) in limits.iter_mut().enumerate() {
        *limit = prlimit(pid, resource, None)?;
    }
    Ok(limits)
}

/// Sets one limit of a process and returns the old one.
///
/// # Errors
///
/// As [`limits`]; `EPERM` too for raising a hard limit without `CAP_SYS_RESOURCE`.
pub fn set_limit(pid: Option<Pid>, resource: usize, new: Limit) -> Result<Limit> {
    prlimit(pid, resource, Some(new))
}

fn prlimit(pid: Option<Pid>, resource: usize, new: Option<Limit>) -> Result<Limit> {
    let new = new.map(|Limit { soft, hard }| Rlimit64 { soft, hard });
    let mut old = Rlimit64 { soft: 0, hard: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let args = [
        raw(pid),
        resource,
        new as usize,
        &raw mut old as usize,
        0,
        0,
    ];
    // SAFETY: the kernel reads one `rlimit64` if the address is not null, and writes one.
    unsafe { call(libc::SYS_prlimit64 as usize, args) }?;
    Ok(Limit {
        soft: old.soft,
        hard: old.hard,
    })
}

/// The execution domain of the calling thread.
#[must_use]
pub fn personality() -> u32 {
    const ASK: usize = 0xffff_ffff;
    // SAFETY: nothing is changed, and no address passed.
    let answer = unsafe { call(libc::SYS_personality as usize, [ASK, 0, 0, 0, 0, 0]) };
    // It cannot fail, and `PER_MASK` with all flags has 32 bits.
    answer.unwrap_or_default() as u32
}

/// The processor that the calling thread is on; by the next moment it may be on another one.
#[must_use]
pub fn processor() -> usize {
    rustix::thread::sched_getcpu()
}

/// Moves the calling thread off a processor, if it is on that one and may be on others. Nothing keeps it from coming
/// back.
///
/// Whom a thread wakes is put on its own processor where that has run both of them last, and no other one looks idle.
/// In a virtual machine none does: one that waits for work is as good as taken away by the host
/// (`vcpu_is_preempted` in the kernel). What waits where it was put by this is woken there.
///
/// # Errors
///
/// As `sched_setaffinity(2)`.
pub fn leave(processor: usize) -> Result<()> {
    let all = affinity(None)?;
    let mut others = all;
    others.unset(processor);
    match self::processor() == processor && others.count() > 0 {
        true => go(None, &others, &all),
        false => Ok(()),
    }
}

/// Starts a thread to work beside the caller, who does not wait for it yet: it [leaves](leave) the caller's processor.
///
/// # Errors
///
/// As `pthread_create(3)`.
pub fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let here = processor();
    let thread = Builder::new().name(name.into());
    thread.spawn_scoped(scope, move || {
        // Where it may not, it works all the same.
        let _ = leave(here);
        work()
    })
}

/// The same for a caller that is to go to a processor, if it may be there. Two threads that wait for each other in turns
/// are faster on the same one.
///
/// In a virtual machine a new thread mostly begins on the processor of who has started it, who has to wait. So it is the
/// new one that stays, and sends the other one away: to move a thread that waits costs less than to interrupt one that
/// runs, as each does that moves itself. The caller returns when it may be anywhere again, as whoever it starts may be
/// where it may.
///
/// # Errors
///
/// As [`beside`].
pub fn part<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    there: usize,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let Some((one, all)) = elsewhere(there) else {
        return beside(scope, name, work);
    };
    let caller = rustix::thread::gettid();
    let parted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&parted);
    let thread = Builder::new().name(name.into());
    let thread = thread.spawn_scoped(scope, move || {
        // Where it may not, it works all the same.
        let _ = leave(there).and_then(|()| go(Some(caller), &one, &all));
        told.store(true, Ordering::Release);
        work()
    })?;
    while !parted.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    Ok(thread)
}

/// Moves the calling thread to a processor, if it may be there. Nothing keeps it from leaving.
fn enter(processor: usize) -> Result<()> {
    elsewhere(processor).map_or(Ok(()), |(one, all)| go(None, &one, &all))
}

/// A processor, and all that the calling thread may be on, if that is another one that it may be on.
fn elsewhere(processor: usize) -> Option<(CpuSet, CpuSet)> {
    let all = affinity(None).ok()?;
    let is_other = processor != self::processor() && processor < CpuSet::MAX_CPU;
    (is_other && all.is_set(processor)).then(|| {
        let mut one = CpuSet::new();
        one.set(processor);
        (one, all)
    })
}

/// Moves the calling thread, one of as many as there are processors that it may be on, to that of its own. Nothing keeps it
/// from leaving. The scheduler may begin with several on the same one.
///
/// # Errors
///
/// As `sched_setaffinity(2)`.
pub fn spread(index: usize, threads: usize) -> Result<()> {
    let all = affinity(None)?;
    if all.count() as usize != threads {
        return Ok(());
    }
    let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor));
    processors.nth(index).map_or(Ok(()), enter)
}

/// A thread to one of some processors at once, and to one of all later.
fn go(tid: Option<Pid>, some: &CpuSet, all: &CpuSet) -> Result<()> {
    set_affinity(tid, some)?;
    set_affinity(tid, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_setting_them_again() {
        let attr = getattr(None).unwrap();
        assert_eq!(attr.size as usize, SchedAttr::SIZE);
        assert_eq!(setattr(None, &attr), Ok(()));
        assert_eq!(getattr(None), Ok(attr));
        let bytes = SchedAttr {
            util_max: 7,
            nice: -3,
            ..attr
        }
        .as_bytes();
        assert_eq!(
            (&bytes[16..20], &bytes[52..]),
            (&(-3i32).to_ne_bytes()[..], &7u32.to_ne_bytes()[..])
        );
        let bad = SchedAttr { policy: 99, ..attr };
        assert_eq!(setattr(None, &bad), Err(Errno::INVAL));
    }

    #[test]
    fn a_thread_leaves_its_processor_and_may_be_anywhere_afterwards() {
        std::thread::spawn(|| {
            let before = rustix::thread::sched_getaffinity(None).unwrap();
            for cpu in 0..=CpuSet::MAX_CPU {
                leave(processor()).unwrap();
                enter(cpu).unwrap();
            }
            let all = before.count() as usize;
            for index in 0..=all {
                spread(index, all).unwrap();
                spread(index, all + 1).unwrap();
            }
            assert_eq!(rustix::thread::sched_getaffinity(None), Ok(before));
            // Where there is only one, it stays.
            let mut one = CpuSet::new();
            let here = processor();
            one.set(here);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            leave(here).unwrap();
            enter(here + 1).unwrap();
            assert_eq!(rustix::thread::sched_getaffinity(None), Ok(one));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn who_parts_is_there_and_may_be_anywhere() {
        let part_for = |there| {
            std::thread::scope(|scope| {
                let other = part(scope, "other", there, || affinity(None)).unwrap();
                let at = processor();
                (at, affinity(None), other.join().unwrap())
            })
        };
        std::thread::spawn(move || {
            let all = affinity(None).unwrap();
            let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
            for there in allowed.chain([CpuSet::MAX_CPU]) {
                // Where others run too, it may be moved on at once.
                let gone = (0..20).any(|_| {
                    let (at, caller, other) = part_for(there);
                    assert_eq!((caller, other), (Ok(all), Ok(all)));
                    at == there
                });
                assert!(gone || there == CpuSet::MAX_CPU, "never on {there}");
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn this_thread_is_what_procfs_says() {
        let dir = crate::proc::TaskDir::open(rustix::process::getpid()).unwrap();
        assert_eq!(
            personality(),
            crate::proc::scalar::personality(&dir).unwrap()
        );
        assert_eq!(
            limits(None).unwrap(),
            crate::proc::limits::read(&dir).unwrap()
        );
        assert!(crate::prctl::timer_slack().unwrap() > 0);
    }

    #[test]
    fn a_batch_thread_is_seen_as_such() {
        std::thread::spawn(|| {
            let attr = SchedAttr {
                policy: libc::SCHED_BATCH as u32,
                nice: 5,
                ..SchedAttr::default()
            };
            setattr(None, &attr).unwrap();
            let seen = getattr(Some(rustix::thread::gettid())).unwrap();
            assert_eq!((seen.policy, seen.nice), (libc::SCHED_BATCH as u32, 5));
            set_ioprio(None, 2 << 13 | 3).unwrap();
            assert_eq!(ioprio(Some(rustix::thread::gettid())), Ok(2 << 13 | 3));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_c_library_registers_a_robust_list() {
        let (head, len) = robust_list(None).unwrap();
        assert_ne!(head, 0);
        assert_eq!(len, 24);
        assert!(affinity(None).unwrap().count() > 0);
    }

    #[test]
    fn limits_agree_with_proc() {
        let task = crate::proc::task_dir(rustix::process::getpid()).unwrap();
        let seen = limits(None).unwrap();
        assert_eq!(crate::proc::limits::read(&task).unwrap(), seen);
        assert_eq!(set_limit(None, 0, seen[0]), Ok(seen[0]));
        assert_eq!(set_limit(None, 99, seen[0]), Err(Errno::INVAL));
    }
}
