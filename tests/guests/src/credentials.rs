//! Who a task is and what it may use: ids, capabilities, limits, scheduling.
//!
//! `ids`: real, effective, saved and file-system ids and groups. `capabilities`: all five sets, with
//! ambient ones kept by another user. `limits`: all sixteen. `umask`. `priority`: nice, policy and its
//! parameters, I/O priority. `affinity`, `oom-score`, `timer-slack`.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Gate, Guest, same, status_field};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("ids", ids),
    Entry("capabilities", capabilities),
    Entry("limits", limits),
    Entry("umask", umask),
    Entry("priority", priority),
    Entry("deadline", deadline),
    Entry("affinity", affinity),
    Entry("oom-score", oom_score),
    Entry("timer-slack", timer_slack),
];

/// Runs `set` in a child, and compares what `look` sees there before and after.
fn steady<T: PartialEq + std::fmt::Debug>(
    guest: &Guest,
    set: impl Fn() -> Check,
    look: impl Fn() -> Check<T>,
) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        // Whatever user the child becomes may report in the directory.
        os!(libc::umask(0) as i32)?;
        set()?;
        let before = look()?;
        gate.arrive()?;
        guest.wait();
        same!("child", look()?, before);
        Ok(())
    })?;
    let before = look()?;
    gate.wait(1)
        .map_err(|failure| Failure::new(format!("{failure}: {}", guest.complaint("child"))))?;
    guest.hold()?;
    same!("root", look()?, before);
    kid.join(guest)
}

/// Fields of `status`.
fn status(names: &[&str]) -> Check<Vec<String>> {
    names.iter().map(|name| status_field(name)).collect()
}

fn ids(guest: &Guest) -> Check {
    guest.open_to_all()?;
    steady(
        guest,
        || {
            let groups: Vec<u32> = (0..100).map(|index| 5000 + index * 3).collect();
            os!(libc::setgroups(groups.len(), groups.as_ptr()))?;
            os!(libc::setresgid(101, 102, 103))?;
            os!(libc::setfsgid(103))?;
            os!(libc::setresuid(201, 202, 203))?;
            os!(libc::setfsuid(203))?;
            Ok(())
        },
        || status(&["Uid", "Gid", "Groups"]),
    )
}

/// The three sets of `capset(2)`: effective, permitted, inheritable.
fn capset(effective: u64, permitted: u64, inheritable: u64) -> Check {
    let low = |set: u64| (set & 0xffff_ffff) as u32;
    let high = |set: u64| (set >> 32) as u32;
    let header = [0x2008_0522_u32, 0];
    let data = [
        low(effective),
        low(permitted),
        low(inheritable),
        high(effective),
        high(permitted),
        high(inheritable),
    ];
    os!(libc::syscall(
        libc::SYS_capset,
        header.as_ptr(),
        data.as_ptr()
    ))?;
    Ok(())
}

fn capabilities(guest: &Guest) -> Check {
    const CHOWN: u64 = 1;
    const DAC_OVERRIDE: u64 = 1 << 1;
    const KILL: u64 = 1 << 5;
    const SETPCAP: u64 = 1 << 8;
    const NET_RAW: u64 = 1 << 13;
    const BPF: u64 = 1 << 39;
    guest.open_to_all()?;
    steady(
        guest,
        || {
            for drop in [7, 12, 20, 38] {
                os!(libc::prctl(libc::PR_CAPBSET_DROP, drop))?;
            }
            os!(libc::prctl(libc::PR_SET_KEEPCAPS, 1))?;
            os!(libc::setresuid(301, 301, 301))?;
            let permitted = CHOWN | DAC_OVERRIDE | KILL | SETPCAP | NET_RAW | BPF;
            capset(permitted, permitted, CHOWN | KILL | BPF)?;
            for raise in [0, 5] {
                os!(libc::prctl(
                    libc::PR_CAP_AMBIENT,
                    libc::PR_CAP_AMBIENT_RAISE,
                    raise,
                    0,
                    0
                ))?;
            }
            capset(
                CHOWN | DAC_OVERRIDE,
                CHOWN | DAC_OVERRIDE | KILL | BPF,
                CHOWN | KILL | NET_RAW | BPF,
            )
        },
        || status(&["Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]),
    )
}

fn limits(guest: &Guest) -> Check {
    let look = || -> Check<Vec<(u64, u64)>> {
        (0..16)
            .map(|which| {
                let mut limit = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                os!(libc::getrlimit(which, &raw mut limit))?;
                Ok((limit.rlim_cur, limit.rlim_max))
            })
            .collect()
    };
    let set = || {
        for (which, (soft, hard)) in (0_u32..16).zip(look()?) {
            // Below what there is: raising needs a capability that a container may lack.
            let lower = |limit: u64, to: u64| if limit > to { to } else { limit };
            let room = match which {
                libc::RLIMIT_AS | libc::RLIMIT_DATA | libc::RLIMIT_STACK | libc::RLIMIT_FSIZE => {
                    1 << 40
                }
                libc::RLIMIT_CPU => 100_000,
                libc::RLIMIT_NOFILE => 512,
                libc::RLIMIT_NPROC => 20_000,
                _ => 4_000_000,
            } + u64::from(which);
            let hard = lower(hard, room * 2);
            let limit = libc::rlimit {
                rlim_cur: lower(soft, room).min(hard),
                rlim_max: hard,
            };
            os!(libc::setrlimit(which, &raw const limit))?;
        }
        Ok(())
    };
    steady(guest, set, look)
}

fn umask(guest: &Guest) -> Check {
    steady(
        guest,
        || {
            os!(libc::umask(0o751) as i32)?;
            Ok(())
        },
        || status_field("Umask"),
    )
}

fn priority(guest: &Guest) -> Check {
    const WHO_PROCESS: i32 = 1;
    const IDLE: i32 = 5;
    const BATCH: i32 = 3;
    let look = || -> Check<(i64, i32, i32, i64)> {
        let mut parameter = libc::sched_param { sched_priority: 0 };
        os!(libc::sched_getparam(0, &raw mut parameter))?;
        Ok((
            os!(libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0))?,
            os!(libc::sched_getscheduler(0))?,
            parameter.sched_priority,
            os!(libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0))?,
        ))
    };
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    // Nice, policy, real-time priority, I/O class and level.
    let cases = [
        (7, BATCH, 0, 2 << 13 | 6),
        (19, IDLE, 0, 3 << 13),
        (-5, 0, 0, 1 << 13 | 2),
        (0, 2, 11, 2 << 13 | 1),
        (0, 1 | 0x4000_0000, 3, 0),
    ];
    for (nice, policy, real_time, io) in cases {
        kids.push(guest.fork(&format!("policy-{policy:x}"), |guest| {
            os!(libc::setpriority(libc::PRIO_PROCESS, 0, nice))?;
            let parameter = libc::sched_param {
                sched_priority: real_time,
            };
            os!(libc::sched_setscheduler(0, policy, &raw const parameter))?;
            os!(libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, io))?;
            let before = look()?;
            gate.arrive()?;
            guest.wait();
            same!("nice, policy, priority, I/O priority", look()?, before);
            Ok(())
        })?);
    }
    gate.wait(cases.len()).map_err(|failure| {
        let texts: Vec<String> = cases
            .iter()
            .map(|case| guest.complaint(&format!("policy-{:x}", case.1)))
            .collect();
        Failure::new(format!("{failure}: {texts:?}"))
    })?;
    guest.hold()?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

/// `struct sched_attr`, of the first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Deadline {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn deadline(guest: &Guest) -> Check {
    const SIZE: u32 = size_of::<Deadline>() as u32;
    let wanted = Deadline {
        size: SIZE,
        policy: 6,
        runtime: 10_000_000,
        deadline: 50_000_000,
        period: 100_000_000,
        ..Deadline::default()
    };
    let (set, get) = (libc::SYS_sched_setattr, libc::SYS_sched_getattr);
    let done = os!(libc::syscall(set, 0, &raw const wanted, 0));
    if done.is_err() {
        return Err(Failure::skip("deadlines cannot be had here"));
    }
    guest.hold()?;
    let mut found = Deadline::default();
    os!(libc::syscall(get, 0, &raw mut found, SIZE, 0))?;
    same!("deadline", found, wanted);
    Ok(())
}

fn affinity(guest: &Guest) -> Check {
    steady(
        guest,
        || {
            // SAFETY: all zeros is the empty set.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: `set` is a live local.
            unsafe { libc::CPU_SET(0, &mut set) };
            os!(libc::sched_setaffinity(
                0,
                size_of_val(&set),
                &raw const set
            ))?;
            Ok(())
        },
        || status_field("Cpus_allowed"),
    )
}

fn oom_score(guest: &Guest) -> Check {
    steady(
        guest,
        || Ok(fs::write("/proc/self/oom_score_adj", "321")?),
        || Ok(fs::read_to_string("/proc/self/oom_score_adj")?),
    )
}

fn timer_slack(guest: &Guest) -> Check {
    let look = || os!(libc::prctl(libc::PR_GET_TIMERSLACK));
    steady(
        guest,
        || {
            os!(libc::prctl(libc::PR_SET_TIMERSLACK, 123_456))?;
            Ok(())
        },
        look,
    )
}
