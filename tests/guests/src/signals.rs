//! Signal state: alternate stacks, masks, handlers, and signals that wait.
//!
//! `altstack`: two threads with stacks of their own, one with `SS_AUTODISARM`; a handler must run there.
//! `in-handler`: dumped while a handler runs, which must return to where it came from.
//! `sigmasks`: a different mask in each of four threads.
//! `handlers`: dispositions of all 64 signals with every flag, mask and restorer, by raw `rt_sigaction`.
//! `pending-shared`, `pending-thread`: queued signals with their `siginfo`, real-time ones in order; `pending-many`: thousands.

use crate::Entry;
use crate::os::{Map, os};
use crate::protocol::{Check, Failure, Guest, ensure, nap, same};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("altstack", altstack),
    Entry("in-handler", in_handler),
    Entry("sigmasks", sigmasks),
    Entry("handlers", handlers),
    Entry("pending-shared", pending_shared),
    Entry("pending-thread", pending_thread),
    Entry("pending-many", pending_many),
];

/// The kernel's `struct sigaction` on x86-64.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// `rt_sigaction(2)` itself; signals 32 and 33 too, and nothing added by the C library.
fn rt_sigaction(signal: i32, new: Option<&KernelAction>) -> Check<KernelAction> {
    let mut old = KernelAction::default();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    os!(libc::syscall(
        libc::SYS_rt_sigaction,
        signal,
        new,
        &raw mut old,
        8
    ))?;
    Ok(old)
}

/// Sets or reads the mask of the calling thread as 64 bits.
pub(crate) fn mask(new: Option<u64>) -> Check<u64> {
    let mut old = 0_u64;
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    os!(libc::syscall(
        libc::SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        new,
        &raw mut old,
        8
    ))?;
    Ok(old)
}

/// The bit of a signal in a mask.
pub(crate) fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// A handler that is told what a signal is about.
pub(crate) type Informed = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs a handler by the C library.
pub(crate) fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) -> Check {
    install(signal, handler as *const (), flags)
}

/// The same, of one that is told more.
pub(crate) fn handle_informed(signal: i32, handler: Informed, flags: i32) -> Check {
    install(signal, handler as *const (), flags | libc::SA_SIGINFO)
}

fn install(signal: i32, handler: *const (), flags: i32) -> Check {
    // SAFETY: all zeros is a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = flags;
    os!(libc::sigaction(
        signal,
        &raw const action,
        std::ptr::null_mut()
    ))?;
    Ok(())
}

/// Where a handler found its stack.
static STACK: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_stack(_: i32) {
    let local = 0_u8;
    STACK.store((&raw const local).addr(), Ordering::SeqCst);
}

fn altstack(guest: &Guest) -> Check {
    const AUTODISARM: i32 = 1 << 31;
    const LEN: usize = 64 * 1024;
    handle(libc::SIGUSR2, note_stack, libc::SA_ONSTACK)?;
    let barrier = Barrier::new(3);
    let turn = std::sync::Mutex::new(());
    let one = |flags: i32| -> Check {
        let stack = Map::anon(LEN)?;
        let new = libc::stack_t {
            ss_sp: stack.at(0),
            ss_flags: flags,
            ss_size: LEN,
        };
        os!(libc::sigaltstack(&raw const new, std::ptr::null_mut()))?;
        barrier.wait();
        guest.wait();
        let mut found = new;
        found.ss_sp = std::ptr::null_mut();
        os!(libc::sigaltstack(std::ptr::null(), &raw mut found))?;
        same!("address of the stack", found.ss_sp.addr(), stack.addr());
        same!("size of the stack", found.ss_size, LEN);
        same!("flags of the stack", found.ss_flags, flags);
        let _turn = turn.lock();
        os!(libc::raise(libc::SIGUSR2))?;
        let at = STACK.load(Ordering::SeqCst);
        ensure!(
            (stack.addr()..stack.addr() + LEN).contains(&at),
            "handler ran at {at:#x}, not on the stack"
        );
        let off = libc::stack_t {
            ss_sp: std::ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        os!(libc::sigaltstack(&raw const off, std::ptr::null_mut()))?;
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| one(0)), scope.spawn(|| one(AUTODISARM))];
        barrier.wait();
        guest.hold()?;
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })
    })
}

/// 1 in the handler, 2 when it may return, 3 when it has.
static STAGE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn linger(_: i32) {
    STAGE.store(1, Ordering::SeqCst);
    while STAGE.load(Ordering::SeqCst) != 2 {
        nap(Duration::from_millis(2));
    }
    STAGE.store(3, Ordering::SeqCst);
}

fn in_handler(guest: &Guest) -> Check {
    handle(libc::SIGUSR2, linger, 0)?;
    let thread = std::thread::spawn(|| {
        let local = std::hint::black_box([0x5a_u64; 64]);
        let before = mask(None)?;
        os!(libc::raise(libc::SIGUSR2))?;
        same!("mask after the handler", mask(None)?, before);
        ensure!(
            std::hint::black_box(local) == [0x5a; 64],
            "locals changed under a handler"
        );
        Ok(())
    });
    while STAGE.load(Ordering::SeqCst) != 1 {
        std::thread::yield_now();
    }
    guest.hold()?;
    STAGE.store(2, Ordering::SeqCst);
    thread
        .join()
        .map_err(|_| Failure::new("thread panicked"))??;
    same!("stage", STAGE.load(Ordering::SeqCst), 3);
    Ok(())
}

fn sigmasks(guest: &Guest) -> Check {
    let barrier = Barrier::new(4);
    let one = |want: u64| -> Check {
        mask(Some(want))?;
        barrier.wait();
        guest.wait();
        same!("mask", format!("{:#x}", mask(None)?), format!("{want:#x}"));
        mask(Some(0))?;
        Ok(())
    };
    // All but SIGKILL and SIGSTOP, which the kernel takes out.
    let all = !(bit(libc::SIGKILL) | bit(libc::SIGSTOP));
    std::thread::scope(|scope| {
        let masks = [
            all,
            bit(32) | bit(33),
            bit(64) | bit(libc::SIGTRAP) | bit(libc::SIGSEGV),
        ];
        let threads: Vec<_> = masks
            .into_iter()
            .map(|mask| scope.spawn(move || one(mask)))
            .collect();
        let threads: Vec<_> = threads.into_iter().collect();
        mask(Some(bit(libc::SIGHUP)))?;
        barrier.wait();
        guest.hold()?;
        same!("mask of the main thread", mask(None)?, bit(libc::SIGHUP));
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })
    })
}

fn handlers(guest: &Guest) -> Check {
    /// NOCLDSTOP NOCLDWAIT SIGINFO UNSUPPORTED? RESTORER ONSTACK RESTART NODEFER RESETHAND.
    const FLAGS: [u64; 8] = [
        0,
        0x1,
        0x2,
        0x4,
        0x0800_0000,
        0x1000_0000,
        0x4000_0000,
        0x8000_0000,
    ];
    const RESTORER: u64 = 0x0400_0000;
    let mut want = Vec::new();
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let index = signal.cast_unsigned() as usize;
        let action = KernelAction {
            handler: match index % 5 {
                0 => libc::SIG_IGN,
                1 => libc::SIG_DFL,
                _ => note_stack as *const () as usize + index,
            },
            flags: FLAGS[index % 8]
                | FLAGS[(index / 8) % 8]
                | if index.is_multiple_of(3) { RESTORER } else { 0 },
            restorer: if index.is_multiple_of(3) {
                0x1000 * index
            } else {
                0
            },
            mask: crate::os::word(9, index) & !(bit(libc::SIGKILL) | bit(libc::SIGSTOP)),
        };
        rt_sigaction(signal, Some(&action))?;
        // The kernel clears flags it does not know; what it took is what must come back.
        want.push((signal, rt_sigaction(signal, None)?));
    }
    guest.hold()?;
    for (signal, action) in want {
        same!(
            format!("action of signal {signal}"),
            rt_sigaction(signal, None)?,
            action
        );
    }
    Ok(())
}

/// A `siginfo` as 128 bytes, made by hand as `rt_sigqueueinfo(2)` takes it.
type Info = [u32; 32];

/// The information of a queued signal: code, sender, value.
fn info(signal: i32, code: i32, value: u64) -> Info {
    let mut info = [0; 32];
    info[0] = signal.cast_unsigned();
    info[2] = code.cast_unsigned();
    info[4] = 4242; // sender's pid and uid, as the sender claims
    info[5] = 77;
    info[6] = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    info[7] = u32::try_from(value >> 32).unwrap_or(0);
    info
}

/// The queue to be found again: standard signals once, real-time signals in order, several codes.
fn queue() -> Vec<Info> {
    let standard = [
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGTERM,
        libc::SIGCHLD,
        libc::SIGALRM,
    ];
    let mut queue: Vec<Info> = standard
        .iter()
        .enumerate()
        .map(|(index, signal)| info(*signal, -1, index as u64 + 0x1_0000_0001))
        .collect();
    for round in 0..20_u64 {
        queue.push(info(40, -1, 0xdead_0000_0000 + round));
        queue.push(info(64, -3, 0xbeef_0000_0000 + round));
        queue.push(info(35, -60, round));
    }
    queue
}

/// Takes all pending signals of a set without waiting, in the order the kernel gives them.
fn drain(set: u64) -> Check<Vec<Info>> {
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut all = Vec::new();
    loop {
        let mut info: Info = [0; 32];
        let got = os!(libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            &raw mut info,
            &raw const zero,
            8
        ));
        match got {
            Ok(_) => all.push(info),
            Err(_) if crate::os::errno() == libc::EAGAIN => return Ok(all),
            Err(failure) => return Err(failure),
        }
    }
}

/// What comes out of the queue, in the order of the kernel: lowest number first, then as queued.
fn sorted(mut queue: Vec<Info>) -> Vec<Info> {
    queue.sort_by_key(|info| info[0]);
    queue
}

/// Compares the parts of `siginfo` that were set.
fn compare(what: &str, got: &[Info], want: &[Info]) -> Check {
    same!(format!("{what}: number of signals"), got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        same!(
            format!("{what}: signal {index} of the queue"),
            got[..8],
            want[..8]
        );
    }
    Ok(())
}

fn pending_shared(guest: &Guest) -> Check {
    let set = queue()
        .iter()
        .fold(0, |set, info| set | bit(info[0].cast_signed()));
    mask(Some(set))?;
    for info in queue() {
        os!(libc::syscall(
            libc::SYS_rt_sigqueueinfo,
            std::process::id(),
            info[0],
            &raw const info
        ))?;
    }
    // One sent by kill(2), whose siginfo the kernel makes itself.
    mask(Some(set | bit(libc::SIGHUP)))?;
    os!(libc::kill(libc::getpid(), libc::SIGHUP))?;
    guest.hold()?;
    let hup = drain(bit(libc::SIGHUP))?;
    same!("signals sent by kill", hup.len(), 1);
    same!(
        "sender of the signal sent by kill",
        (hup[0][2], hup[0][4]),
        (0, std::process::id())
    );
    compare("shared queue", &drain(set)?, &sorted(queue()))
}

fn pending_thread(guest: &Guest) -> Check {
    let set = queue()
        .iter()
        .fold(0, |set, info| set | bit(info[0].cast_signed()));
    mask(Some(set))?; // inherited by the threads
    let barrier = Barrier::new(3);
    let one = |skip: usize| -> Check {
        let own: Vec<Info> = queue().into_iter().skip(skip).collect();
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        for info in &own {
            os!(libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                std::process::id(),
                tid,
                info[0],
                std::ptr::from_ref(info)
            ))?;
        }
        barrier.wait();
        guest.wait();
        compare(
            &format!("queue of thread {tid}"),
            &drain(set)?,
            &sorted(own),
        )
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| one(1)), scope.spawn(|| one(3))];
        barrier.wait();
        guest.hold()?;
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })?;
        compare("shared queue", &drain(set)?, &[])
    })
}

/// More than go on one tape, of the process and of each thread.
fn pending_many(guest: &Guest) -> Check {
    const SIGNAL: i32 = 40;
    let set = bit(SIGNAL) | bit(SIGNAL + 1);
    let numbered = |signal: i32, count: u32| -> Vec<Info> {
        (0..count)
            .map(|index| info(signal, -1, index.into()))
            .collect()
    };
    mask(Some(set))?;
    let own = |count: u32| -> Check {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        for info in &numbered(SIGNAL, count) {
            let (call, pid) = (libc::SYS_rt_tgsigqueueinfo, std::process::id());
            os!(libc::syscall(
                call,
                pid,
                tid,
                SIGNAL,
                std::ptr::from_ref(info)
            ))?;
        }
        Ok(())
    };
    let (all, barrier) = (numbered(SIGNAL + 1, 2500), Barrier::new(2));
    for info in &all {
        let (call, pid) = (libc::SYS_rt_sigqueueinfo, std::process::id());
        os!(libc::syscall(
            call,
            pid,
            SIGNAL + 1,
            std::ptr::from_ref(info)
        ))?;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            own(900)?;
            barrier.wait();
            guest.wait();
            compare("thread", &drain(bit(SIGNAL))?, &numbered(SIGNAL, 900))
        });
        own(600)?;
        barrier.wait();
        guest.hold()?;
        compare("leader", &drain(bit(SIGNAL))?, &numbered(SIGNAL, 600))?;
        let ended = thread.join();
        ended.map_err(|_| Failure::new("the thread panicked"))??;
        compare("process", &drain(bit(SIGNAL + 1))?, &all)
    })
}
