//! Memory that is protected beyond its permissions, `pkeys(7)`.
//!
//! `execute-only`: memory that can be executed and not be read, by a key that the kernel has chosen, and a thread that
//! may read it all the same.

use crate::Entry;
use crate::os::{Map, PAGE, os, smaps};
use crate::protocol::{Check, Failure, Guest, same};
use std::arch::asm;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

pub(crate) const GUESTS: &[Entry] = &[Entry("execute-only", execute_only)];

/// `si_code` of a fault that a key was the reason for.
const SEGV_PKUERR: i32 = 4;
/// `mov eax, 42; ret`
const CODE: u64 = u64::from_le_bytes([0xb8, 42, 0, 0, 0, 0xc3, 0, 0]);

/// What the last fault was about: its code and key.
static FAULT: (AtomicI32, AtomicU32) = (AtomicI32::new(0), AtomicU32::new(0));

/// Notes a fault, and goes on behind the instruction of three bytes that caused it.
extern "C" fn note(_signal: i32, info: *const u8, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel gives both, and the key is at this place of the first.
    unsafe {
        FAULT
            .0
            .store((*info.cast::<libc::siginfo_t>()).si_code, Ordering::SeqCst);
        FAULT
            .1
            .store(info.add(32).cast::<u32>().read(), Ordering::SeqCst);
        (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += 3;
    }
}

/// Has faults noted.
fn catch() -> Check {
    // SAFETY: all-zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = note as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    os!(libc::sigaction(
        libc::SIGSEGV,
        &raw const action,
        std::ptr::null_mut()
    ))?;
    Ok(())
}

/// The fault that something causes: code and key; zeros for none.
fn fault(cause: impl FnOnce()) -> (i32, u32) {
    FAULT.0.store(0, Ordering::SeqCst);
    FAULT.1.store(0, Ordering::SeqCst);
    cause();
    (
        FAULT.0.load(Ordering::SeqCst),
        FAULT.1.load(Ordering::SeqCst),
    )
}

/// Reads a word by an instruction of three bytes.
fn read(map: &Map) -> u64 {
    let value: u64;
    // SAFETY: an address inside the mapping; a fault is caught, and what is read is the address then.
    unsafe { asm!("mov rdi, [rdi]", inout("rdi") map.addr() => value, options(nostack)) };
    value
}

/// The rights of this thread.
fn rights() -> u32 {
    let rights: u32;
    // SAFETY: only where there are keys; the instruction changes nothing.
    unsafe { asm!("rdpkru", out("eax") rights, in("ecx") 0, out("edx") _, options(nostack)) };
    rights
}

/// Gives itself other rights.
fn set_rights(rights: u32) {
    // SAFETY: only where there are keys; no memory that is used loses its rights.
    unsafe { asm!("wrpkru", in("eax") rights, in("ecx") 0, in("edx") 0, options(nostack)) };
}

/// The key of a mapping.
fn key_of(map: &Map) -> Check<u32> {
    let lines = smaps(map.addr())?;
    let key = lines
        .iter()
        .find_map(|line| line.strip_prefix("ProtectionKey:"));
    match key {
        Some(key) => Ok(key.trim().parse()?),
        None => Err(Failure::skip("no protection keys")),
    }
}

/// Runs the code in a mapping.
fn run(map: &Map) -> u64 {
    // SAFETY: the guest has put a function there.
    let code: extern "C" fn() -> u64 = unsafe { std::mem::transmute(map.at(0)) };
    code()
}

fn execute_only(guest: &Guest) -> Check {
    catch()?;
    let written = Map::anon(2 * PAGE)?;
    written.set(0, CODE);
    written.protect(0, 2 * PAGE, libc::PROT_EXEC)?;
    let key = key_of(&written)?;
    if key == 0 {
        return Err(Failure::skip("no protection keys"));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let mapped = Map::new(PAGE, libc::PROT_EXEC, flags, -1, 0)?;
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Check {
            set_rights(0);
            barrier.wait();
            guest.wait();
            same!("rights of the reader", rights(), 0);
            same!("what the reader reads", read(&written), CODE);
            same!("zeros", read(&mapped), 0);
            Ok(())
        });
        barrier.wait();
        let before = rights();
        guest.hold()?;
        same!("rights", rights(), before);
        for map in [&written, &mapped] {
            same!("key", key_of(map)?, key);
            let fault = fault(|| _ = read(map));
            same!("code and key of the fault", fault, (SEGV_PKUERR, key));
        }
        same!("the function", run(&written), 42);
        reader
            .join()
            .map_err(|_| Failure::new("a thread panicked"))?
    })
}
