//! System calls that are turned into signals (`PR_SET_SYSCALL_USER_DISPATCH`), as programs do that run those of another
//! system.
//!
//! `dispatch`: threads that are in such code and in a call of their own, with and without code whose calls pass.
//! `refused-dispatch`: one in such code, and the code whose calls pass is the program's own.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, same, until};
use crate::signals::handle_informed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("dispatch", dispatch),
    Entry("refused-dispatch", refused),
];

const SET_DISPATCH: i32 = 59;
const OFF: u64 = 0;
const ON: u64 = 1;
/// Of a range alone, where the kernel has that.
const INCLUSIVE_ON: u64 = 2;
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;

/// The byte of each thread.
static SELECTORS: [AtomicU8; 2] = [const { AtomicU8::new(ALLOW) }; 2];
/// Calls that became signals.
static DIVERTED: AtomicUsize = AtomicUsize::new(0);
static IN_FOREIGN_CODE: AtomicBool = AtomicBool::new(false);
/// Threads that are about to wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);
static GO_ON: AtomicBool = AtomicBool::new(false);

/// Lets calls pass again, since the return from here is one.
extern "C" fn divert(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const SYS_USER_DISPATCH: i32 = 2;
    // SAFETY: the kernel gives a handler its siginfo.
    if unsafe { (*info).si_code } == SYS_USER_DISPATCH {
        DIVERTED.fetch_add(1, Ordering::SeqCst);
    }
    SELECTORS[0].store(ALLOW, Ordering::SeqCst);
}

fn handle() -> Check {
    handle_informed(libc::SIGSYS, divert, 0)
}

fn set(mode: u64, offset: u64, len: u64, selector: Option<&AtomicU8>) -> Check {
    let at: *const AtomicU8 = selector.map_or(std::ptr::null(), std::ptr::from_ref);
    match os!(libc::prctl(SET_DISPATCH, mode, offset, len, at)) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::skip("no user dispatch of system calls")),
    }
}

/// A thread that runs code whose calls are not the kernel's, until it is told to make one.
fn foreign(offset: u64, len: u64) -> Check {
    set(ON, offset, len, Some(&SELECTORS[0]))?;
    IN_FOREIGN_CODE.store(true, Ordering::SeqCst);
    SELECTORS[0].store(BLOCK, Ordering::SeqCst);
    while !GO_ON.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    let before = DIVERTED.load(Ordering::SeqCst);
    // SAFETY: it has no arguments.
    unsafe { libc::syscall(libc::SYS_getppid) };
    SELECTORS[0].store(ALLOW, Ordering::SeqCst);
    let after = DIVERTED.load(Ordering::SeqCst);
    set(OFF, 0, 0, None)?;
    same!("diverted calls", after, before + 1);
    Ok(())
}

/// A thread that waits in a call; whatever is at low addresses would be diverted, and it is one of two kinds.
fn waiting(guest: &Guest, mode: u64) -> Check {
    const LOW: u64 = 1 << 16;
    match mode {
        ON => set(ON, LOW, (1 << 47) - LOW - 4096, Some(&SELECTORS[1]))?,
        mode if set(mode, LOW, 4096, Some(&SELECTORS[1])).is_err() => return Ok(()),
        _ => {}
    }
    SELECTORS[1].store(BLOCK, Ordering::SeqCst);
    WAITING.fetch_add(1, Ordering::SeqCst);
    guest.wait();
    set(OFF, 0, 0, None)
}

fn dispatch(guest: &Guest) -> Check {
    handle()?;
    std::thread::scope(|scope| {
        let others = [
            scope.spawn(|| foreign(0, 0)),
            scope.spawn(|| waiting(guest, ON)),
            scope.spawn(|| waiting(guest, INCLUSIVE_ON)),
        ];
        let ended = || others.iter().filter(|other| other.is_finished()).count();
        let begun = || {
            let foreign = usize::from(IN_FOREIGN_CODE.load(Ordering::SeqCst));
            foreign + WAITING.load(Ordering::SeqCst) + ended() >= others.len()
        };
        let held = until("foreign code", || Ok(begun())).and_then(|()| guest.hold());
        GO_ON.store(true, Ordering::SeqCst);
        for other in others {
            let ended = other.join();
            ended.map_err(|_| Failure::new("a thread panicked"))??;
        }
        held.map(drop)
    })
}

fn refused(guest: &Guest) -> Check {
    handle()?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| foreign(1 << 16, 4096));
        let first = || IN_FOREIGN_CODE.load(Ordering::SeqCst) || other.is_finished();
        let held = until("foreign code", || Ok(first())).and_then(|()| guest.hold());
        GO_ON.store(true, Ordering::SeqCst);
        let ended = other.join();
        ended.map_err(|_| Failure::new("the thread panicked"))??;
        held.map(drop)
    })
}
