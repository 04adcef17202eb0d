//! Restartable sequences (`rseq(2)`).
//!
//! `rseq-critical`: a thread spins inside a critical section, over and over; whenever it is taken
//! off the CPU the kernel must send it to the abort handler. It reads the time stamp counter on every
//! turn: a gap of more than 200 ms (the harness keeps a tree dead for longer) without an abort means
//! that it was restored in the middle of the section.
//! `rseq-registration`: the area that the C library registered is still kept up to date by the kernel.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, until};
use std::arch::{asm, global_asm};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("rseq-critical", critical),
    Entry("rseq-registration", registration),
];

unsafe extern "C" {
    /// Where the C library keeps the area, relative to the thread pointer.
    #[link_name = "__rseq_offset"]
    static RSEQ_OFFSET: isize;
    /// 0 if the C library did not register one.
    #[link_name = "__rseq_size"]
    static RSEQ_SIZE: u32;
    /// Enters the section again and again until stopped; returns the longest gap without abort.
    fn gelid_rseq_spin(area: *mut u8) -> u64;
}

static STOP: AtomicU32 = AtomicU32::new(0);
static ENTRIES: AtomicU64 = AtomicU64::new(0);
static ABORTS: AtomicU64 = AtomicU64::new(0);

// r8: time stamp of the turn before; r9: longest gap; r10: the descriptor; rdi: the area.
global_asm!(
    ".globl gelid_rseq_spin",
    ".pushsection .data.rel.ro, \"aw\"",
    ".balign 32",
    "gelid_rseq_cs: .long 0, 0; .quad 3f, 4f - 3f, 5f",
    ".popsection",
    "gelid_rseq_spin:",
    "xor r9d, r9d",
    "6:", // enter
    "lock inc qword ptr [rip + {entries}]",
    "rdtsc", "shl rdx, 32", "or rax, rdx", "mov r8, rax",
    "lea r10, [rip + gelid_rseq_cs]",
    "mov [rdi + 8], r10",
    "3:",
    "rdtsc", "shl rdx, 32", "or rax, rdx",
    "mov rdx, rax", "sub rdx, r8", "mov r8, rax",
    "cmp rdx, r9", "cmova r9, rdx",
    "cmp dword ptr [rip + {stop}], 0", "je 3b",
    "4:",
    "mov qword ptr [rdi + 8], 0",
    "mov rax, r9",
    "ret",
    ".long 0x53053053",
    "5:", // abort
    "lock inc qword ptr [rip + {aborts}]",
    "jmp 6b",
    stop = sym STOP, entries = sym ENTRIES, aborts = sym ABORTS,
);

/// The rseq area of this thread.
fn area() -> Check<*mut u8> {
    // SAFETY: both are constants of the C library.
    let (offset, size) = unsafe { (RSEQ_OFFSET, RSEQ_SIZE) };
    if size == 0 {
        return Err(Failure::skip("the C library registers no rseq area"));
    }
    let thread: *mut u8;
    // SAFETY: reads the thread pointer from its fixed place.
    unsafe { asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly)) };
    Ok(thread.wrapping_offset(offset))
}

/// Ticks of the time stamp counter in 200 ms.
fn ticks() -> u64 {
    // SAFETY: reads a counter.
    let stamp = || unsafe { std::arch::x86_64::_rdtsc() };
    let (start, first) = (Instant::now(), stamp());
    while start.elapsed() < Duration::from_millis(20) {}
    (stamp() - first) * 10
}

fn critical(guest: &Guest) -> Check {
    area()?;
    let limit = ticks();
    let thread = std::thread::spawn(|| {
        // SAFETY: the area is this thread's own, and no other section is active in it.
        area().map(|area| unsafe { gelid_rseq_spin(area) })
    });
    until("a first abort", || Ok(ABORTS.load(Ordering::Relaxed) > 0))?;
    guest.hold()?;
    STOP.store(1, Ordering::Relaxed);
    let gap = thread
        .join()
        .map_err(|_| Failure::new("the spinning thread panicked"))??;
    let (entries, aborts) = (
        ENTRIES.load(Ordering::Relaxed),
        ABORTS.load(Ordering::Relaxed),
    );
    ensure!(
        gap < limit,
        "inside the section for {gap} ticks (200 ms are {limit}) with no abort"
    );
    ensure!(
        entries == aborts + 1,
        "{entries} entries but {aborts} aborts"
    );
    Ok(())
}

/// The CPU number that the kernel writes into the area.
fn current(area: *mut u8) -> u32 {
    // SAFETY: the area is 32 bytes, aligned, and lives as long as its thread.
    unsafe { area.add(4).cast::<u32>().read_volatile() }
}

fn registration(guest: &Guest) -> Check {
    let area = area()?;
    guest.hold()?;
    let mut set: libc::cpu_set_t = {
        // SAFETY: a set of bits; all zeros is the empty set.
        unsafe { std::mem::zeroed() }
    };
    os!(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set))?;
    for cpu in 0..libc::CPU_SETSIZE.cast_unsigned() as usize {
        // SAFETY: `set` is a live local.
        if !unsafe { libc::CPU_ISSET(cpu, &set) } {
            continue;
        }
        // SAFETY: all zeros is the empty set.
        let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `one` is a live local.
        unsafe { libc::CPU_SET(cpu, &mut one) };
        os!(libc::sched_setaffinity(
            0,
            size_of_val(&one),
            &raw const one
        ))?;
        ensure!(
            current(area) as usize == cpu,
            "on CPU {cpu} the area says {}",
            current(area)
        );
    }
    // Its owner may unregister it; nobody could if it had not been registered.
    let size = 32;
    os!(libc::syscall(
        libc::SYS_rseq,
        area,
        size,
        1,
        0x5305_3053_u32
    ))?;
    Ok(())
}
