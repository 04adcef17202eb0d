//! Tasks that leave whoever acts in their name little room.
//!
//! `address-space-full`: no page can be mapped any more. `address-space-limited`: `RLIMIT_AS` forbids it.
//! `limits-used-up`: no descriptor, file size, locked memory or queued signal is left. `no-stack`: a thread whose
//! stack pointer points nowhere. `shared-text`: a thread runs code that is mapped shared and read-only.
//! `sigtrap-handled`, `sigtrap-blocked`, `sigtrap-ignored`: as the kernel's own breakpoints would find them.

use crate::Entry;
use crate::os::{Map, PAGE, errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, same, status_field};
use crate::registers::{SPINNING, STOP};
use crate::signals::{bit, handle, mask};
use std::arch::global_asm;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("address-space-full", address_space_full),
    Entry("address-space-limited", address_space_limited),
    Entry("limits-used-up", limits_used_up),
    Entry("no-stack", no_stack),
    Entry("shared-text", shared_text),
    Entry("sigtrap-handled", sigtrap_handled),
    Entry("sigtrap-blocked", sigtrap_blocked),
    Entry("sigtrap-ignored", sigtrap_ignored),
];

/// An attempt to map one page must fail.
fn no_page_left() -> Check {
    let attempt = Map::anon(PAGE);
    ensure!(
        attempt.is_err() && errno() == libc::ENOMEM,
        "a page can be mapped"
    );
    Ok(())
}

fn address_space_full(guest: &Guest) -> Check {
    let page = Map::anon(4 * PAGE)?;
    page.fill(0, 4, 91);
    let mut maps = Vec::with_capacity(4096);
    let mut len = 1_usize << 46;
    while len >= PAGE {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        match Map::new(len, libc::PROT_NONE, flags, -1, 0) {
            Ok(map) if maps.len() < 4096 => maps.push(map),
            _ => len /= 2,
        }
    }
    no_page_left()?;
    guest.hold()?;
    no_page_left()?;
    page.check("memory", 0, 4, 91)
}

/// Gets and sets one soft limit; the hard one stays.
fn soft_limit(which: libc::__rlimit_resource_t, soft: u64) -> Check<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    os!(libc::getrlimit(which, &raw mut limit))?;
    let before = limit.rlim_cur;
    limit.rlim_cur = soft;
    os!(libc::setrlimit(which, &raw const limit))?;
    Ok(before)
}

fn address_space_limited(guest: &Guest) -> Check {
    let before = soft_limit(libc::RLIMIT_AS, 0)?;
    no_page_left()?;
    guest.hold()?;
    no_page_left()?;
    same!("limit", soft_limit(libc::RLIMIT_AS, before)?, 0);
    Map::anon(PAGE).map(|_| ())
}

fn limits_used_up(guest: &Guest) -> Check {
    const LIMITS: [libc::__rlimit_resource_t; 6] = [
        libc::RLIMIT_DATA,
        libc::RLIMIT_NOFILE,
        libc::RLIMIT_MEMLOCK,
        libc::RLIMIT_SIGPENDING,
        libc::RLIMIT_NPROC,
        libc::RLIMIT_FSIZE,
    ];
    guest.ready()?; // with these limits it could not say so
    let mut before = [0; LIMITS.len()];
    for (limit, before) in LIMITS.into_iter().zip(&mut before) {
        *before = soft_limit(limit, 0)?;
    }
    guest.wait();
    let mut found = [1; LIMITS.len()];
    for (index, limit) in LIMITS.into_iter().enumerate().rev() {
        found[index] = soft_limit(limit, before[index])?;
    }
    same!("limits", found, [0; LIMITS.len()]);
    Ok(())
}

unsafe extern "C" {
    /// Spins with a stack pointer of 8 until stopped; returns the stack pointer found then.
    fn gelid_spin_without_stack() -> u64;
}

global_asm!(
    ".globl gelid_spin_without_stack",
    "gelid_spin_without_stack:",
    "mov rdx, rsp",
    "mov esp, 8",
    "lock inc dword ptr [rip + {spinning}]",
    "2:", "cmp dword ptr [rip + {stop}], 0", "je 2b",
    "mov rax, rsp",
    "mov rsp, rdx",
    "ret",
    stop = sym STOP, spinning = sym SPINNING,
);

/// Runs something that spins in a thread until go, with all signals blocked.
fn spin<T: Send>(guest: &Guest, body: impl FnOnce() -> T + Send) -> Check<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            mask(Some(u64::MAX))?;
            let result = body();
            mask(Some(0))?;
            Ok(result)
        });
        while SPINNING.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        guest.hold()?;
        STOP.store(1, Ordering::Relaxed);
        thread
            .join()
            .map_err(|_| Failure::new("the spinning thread panicked"))?
    })
}

fn no_stack(guest: &Guest) -> Check {
    // SAFETY: no signal can arrive while there is no stack, and the routine puts the old one back.
    let found = spin(guest, || unsafe { gelid_spin_without_stack() })?;
    same!("stack pointer", found, 8);
    Ok(())
}

fn shared_text(guest: &Guest) -> Check {
    /// `mov eax, [rdi]; test eax, eax; jz` to the start; `ret`
    const CODE: [u8; 7] = [0x8b, 0x07, 0x85, 0xc0, 0x74, 0xfa, 0xc3];
    fs::write(
        guest.path("code"),
        [&CODE[..], &[0x90; PAGE - CODE.len()]].concat(),
    )?;
    let file = File::open(guest.path("code"))?;
    let map = Map::new(
        PAGE,
        libc::PROT_READ | libc::PROT_EXEC,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0,
    )?;
    // SAFETY: the mapping holds this code, which reads one word and returns it.
    let code: extern "C" fn(*const u32) -> u32 = unsafe { std::mem::transmute(map.at(0)) };
    let found = spin(guest, || {
        SPINNING.store(1, Ordering::Relaxed);
        code(STOP.as_ptr())
    })?;
    same!("word read by the code", found, 1);
    same!(
        "code in the file",
        fs::read(guest.path("code"))?[..CODE.len()],
        CODE
    );
    Ok(())
}

static TRAPS: AtomicU32 = AtomicU32::new(0);

extern "C" fn trap(_: i32) {
    TRAPS.fetch_add(1, Ordering::SeqCst);
}

fn sigtrap_handled(guest: &Guest) -> Check {
    handle(libc::SIGTRAP, trap, 0)?;
    guest.hold()?;
    same!("traps while it was away", TRAPS.load(Ordering::SeqCst), 0);
    os!(libc::raise(libc::SIGTRAP))?;
    same!("traps", TRAPS.load(Ordering::SeqCst), 1);
    Ok(())
}

fn sigtrap_blocked(guest: &Guest) -> Check {
    handle(libc::SIGTRAP, trap, 0)?;
    mask(Some(bit(libc::SIGTRAP)))?;
    os!(libc::raise(libc::SIGTRAP))?; // waits
    guest.hold()?;
    same!("mask", mask(None)?, bit(libc::SIGTRAP));
    same!(
        "pending",
        status_field("SigPnd")?,
        format!("{:016x}", bit(libc::SIGTRAP))
    );
    same!("traps while it was away", TRAPS.load(Ordering::SeqCst), 0);
    mask(Some(0))?;
    same!("traps", TRAPS.load(Ordering::SeqCst), 1);
    Ok(())
}

fn sigtrap_ignored(guest: &Guest) -> Check {
    os!(libc::signal(libc::SIGTRAP, libc::SIG_IGN))?;
    let ignored = status_field("SigIgn")?;
    guest.hold()?;
    same!("ignored signals", status_field("SigIgn")?, ignored);
    os!(libc::raise(libc::SIGTRAP))?;
    Ok(())
}
