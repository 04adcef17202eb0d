//! Threads, each different from the others.
//!
//! `threads [COUNT]`: every thread has a nonce on its stack and in its thread-local storage, a name,
//! a signal mask, a nice value, a CPU, user and group ids, capabilities and a timer slack of its own.
//! `naps [COUNT]`: threads that sleep for half a second, again and again.
//! `mutexes`: threads that hand a token round under a mutex and a condition variable all the time.

use crate::Entry;
use crate::os::{os, word};
use crate::protocol::{Check, Failure, Guest, ensure, same, status_field};
use crate::signals::mask;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("threads", threads),
    Entry("naps", naps),
    Entry("mutexes", mutexes),
];

thread_local! {
    /// The thread's own nonce.
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// What one thread looks like, read back from the kernel.
fn look() -> Check<Vec<(&'static str, String)>> {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    let nice = os!(libc::syscall(
        libc::SYS_getpriority,
        libc::PRIO_PROCESS,
        tid
    ))?;
    let slack = os!(libc::prctl(libc::PR_GET_TIMERSLACK))?;
    let mut all = vec![
        ("tid", tid.to_string()),
        ("nice", (20 - nice).to_string()),
        ("timer slack", slack.to_string()),
        ("mask", format!("{:x}", mask(None)?)),
        ("name", std::fs::read_to_string("/proc/thread-self/comm")?),
    ];
    for name in [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "Cpus_allowed",
        "NoNewPrivs",
    ] {
        all.push((name, status_field(name)?));
    }
    Ok(all)
}

/// Makes thread `index` different from the others.
fn mark(index: usize) -> Check {
    let id = u32::try_from(index).map_err(Failure::new)?;
    rustix::thread::set_name(&std::ffi::CString::new(format!("guest {index}"))?)?;
    // Not the signals that the C library keeps for itself.
    mask(Some(word(3, index) & !(0b11 << 31) & !0x4_0000 & !0x100))?;
    os!(libc::setpriority(
        libc::PRIO_PROCESS,
        0,
        i32::try_from(index % 20).map_err(Failure::new)?
    ))?;
    os!(libc::prctl(libc::PR_SET_TIMERSLACK, 60_000 + index))?;
    if index % 3 == 1 {
        // SAFETY: all zeros is the empty set, and `set` is a live local.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { libc::CPU_SET(0, &mut set) };
        os!(libc::sched_setaffinity(
            0,
            size_of_val(&set),
            &raw const set
        ))?;
    }
    if index % 2 == 1 {
        // The system calls themselves act on one thread.
        os!(libc::prctl(libc::PR_SET_KEEPCAPS, 1))?;
        os!(libc::prctl(libc::PR_CAPBSET_DROP, index % 30))?;
        let groups = [id + 5, id + 9];
        os!(libc::syscall(
            libc::SYS_setgroups,
            groups.len(),
            groups.as_ptr()
        ))?;
        os!(libc::syscall(libc::SYS_setresgid, id + 1, id + 2, id + 3))?;
        os!(libc::syscall(libc::SYS_setfsgid, id + 3))?;
        os!(libc::syscall(libc::SYS_setresuid, id + 1, id + 2, id + 3))?;
        os!(libc::syscall(libc::SYS_setfsuid, id + 2))?;
    }
    Ok(())
}

fn threads(guest: &Guest) -> Check {
    let count = guest.number(0, 8)?;
    guest.open_to_all()?;
    let barrier = Barrier::new(count + 1);
    let one = |index: usize| -> Check {
        let nonce = std::hint::black_box(word(11, index));
        OWN.set(nonce);
        let marked = mark(index).and_then(|()| look());
        barrier.wait();
        // A futex: a thousand threads that look for a file would keep the machine busy.
        barrier.wait();
        let before = marked?;
        same!(format!("thread {index}"), look()?, before);
        ensure!(
            OWN.get() == word(11, index) && std::hint::black_box(nonce) == word(11, index),
            "nonce of thread {index} changed"
        );
        Ok(())
    };
    let one = &one;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..count {
            let builder = std::thread::Builder::new().stack_size(64 * 1024);
            threads.push(builder.spawn_scoped(scope, move || one(index))?);
        }
        barrier.wait();
        let held = guest.hold();
        barrier.wait();
        held?;
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })
    })
}

fn naps(guest: &Guest) -> Check {
    let naps: Vec<AtomicUsize> = (0..guest.number(0, 8)?)
        .map(|_| AtomicUsize::new(0))
        .collect();
    let stop = AtomicBool::new(false);
    let taken = || -> Vec<usize> { naps.iter().map(|nap| nap.load(Ordering::SeqCst)).collect() };
    let all_slept_since =
        |before: &[usize]| taken().iter().zip(before).all(|(now, then)| now > then);
    std::thread::scope(|scope| {
        for own in &naps {
            let stop = &stop;
            let builder = std::thread::Builder::new().stack_size(64 * 1024);
            builder.spawn_scoped(scope, move || {
                while !stop.load(Ordering::SeqCst) {
                    std::thread::sleep(std::time::Duration::from_millis(500));
                    own.fetch_add(1, Ordering::SeqCst);
                }
            })?;
        }
        let none = vec![0; naps.len()];
        let slept = crate::protocol::until("all have slept", || Ok(all_slept_since(&none)));
        let held = slept.and_then(|()| guest.hold());
        let before = taken();
        let slept = crate::protocol::until("all have slept again", || Ok(all_slept_since(&before)));
        stop.store(true, Ordering::SeqCst);
        held.and(slept)
    })
}

fn mutexes(guest: &Guest) -> Check {
    const COUNT: usize = 4;
    let (token, turn, stop, rounds) = (
        Mutex::new(0_usize),
        Condvar::new(),
        AtomicBool::new(false),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        let (token, turn, stop, rounds) = (&token, &turn, &stop, &rounds);
        let threads: Vec<_> = (0..COUNT)
            .map(|index| {
                scope.spawn(move || -> Check {
                    let poisoned = || Failure::new("a thread panicked");
                    let mut at = token.lock().map_err(|_| poisoned())?;
                    while !stop.load(Ordering::SeqCst) {
                        if *at % COUNT == index {
                            *at += 1;
                            rounds.fetch_add(1, Ordering::SeqCst);
                            turn.notify_all();
                        }
                        at = turn
                            .wait_timeout(at, std::time::Duration::from_secs(5))
                            .map_err(|_| poisoned())?
                            .0;
                    }
                    turn.notify_all();
                    Ok(())
                })
            })
            .collect();
        // All have begun when each has had its turn.
        crate::protocol::until("the token goes round", || {
            Ok(rounds.load(Ordering::SeqCst) > 4 * COUNT)
        })?;
        guest.hold()?;
        let before = rounds.load(Ordering::SeqCst);
        crate::protocol::until("the token goes on", || {
            Ok(rounds.load(Ordering::SeqCst) > before + 1000)
        })?;
        stop.store(true, Ordering::SeqCst);
        turn.notify_all();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })?;
        same!(
            "token",
            token.lock().map(|at| *at).unwrap_or(0),
            rounds.load(Ordering::SeqCst)
        );
        Ok(())
    })
}
