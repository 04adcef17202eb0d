//! General registers, flags and segment bases, held over the dump by a thread that spins.
//!
//! `registers`: every general register but rsp holds a pattern while only rcx and the flags are
//! used to look at the stop word. `flags`: carry, parity, zero, sign, direction and overflow, in two
//! opposite settings, with a loop that touches no flag. `segments`: the gs base, and the fs base
//! of several threads (their thread-local storage).

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::arch::global_asm;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("registers", registers),
    Entry("flags", flags),
    Entry("segments", segments),
];

/// Set to 1 to end the loops of spinning threads.
pub(crate) static STOP: AtomicU32 = AtomicU32::new(0);

/// Number of threads that are about to spin.
pub(crate) static SPINNING: AtomicU32 = AtomicU32::new(0);

/// What `gelid_hold` loads and what it finds afterwards.
#[repr(C)]
#[derive(Clone)]
struct Frame {
    /// rax rbx rcx rdx rsi rdi rbp r8..r15, to hold.
    load: [u64; 15],
    /// The same as found.
    found: [u64; 15],
    /// rflags to hold and as found.
    flags: [u64; 2],
}

unsafe extern "C" {
    /// Loads the registers, spins, stores the registers.
    fn gelid_hold(frame: *mut Frame);
    /// Loads the flags, spins without touching them, stores them.
    fn gelid_hold_flags(frame: *mut Frame);
}

global_asm!(
    ".globl gelid_hold, gelid_hold_flags",
    ".macro gelid_enter",
    "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15", "push rdi",
    ".endm",
    ".macro gelid_leave",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx", "ret",
    ".endm",
    "gelid_hold:",
    "gelid_enter",
    "mov rax, [rdi]", "mov rbx, [rdi + 8]", "mov rcx, [rdi + 16]", "mov rdx, [rdi + 24]",
    "mov rsi, [rdi + 32]", "mov rbp, [rdi + 48]", "mov r8, [rdi + 56]", "mov r9, [rdi + 64]",
    "mov r10, [rdi + 72]", "mov r11, [rdi + 80]", "mov r12, [rdi + 88]", "mov r13, [rdi + 96]",
    "mov r14, [rdi + 104]", "mov r15, [rdi + 112]", "mov rdi, [rdi + 40]",
    "lock inc dword ptr [rip + {spinning}]",
    "2:", "cmp dword ptr [rip + {stop}], 0", "je 2b",
    "xchg rdi, [rsp]", // the frame again; rdi as found is on the stack
    "mov [rdi + 120], rax", "mov [rdi + 128], rbx", "mov [rdi + 136], rcx", "mov [rdi + 144], rdx",
    "mov [rdi + 152], rsi", "mov [rdi + 168], rbp", "mov [rdi + 176], r8", "mov [rdi + 184], r9",
    "mov [rdi + 192], r10", "mov [rdi + 200], r11", "mov [rdi + 208], r12", "mov [rdi + 216], r13",
    "mov [rdi + 224], r14", "mov [rdi + 232], r15", "pop rax", "mov [rdi + 160], rax",
    "gelid_leave",
    "gelid_hold_flags:",
    "gelid_enter",
    "lock inc dword ptr [rip + {spinning}]",
    "push qword ptr [rdi + 240]", "popfq",
    "2:", "mov ecx, dword ptr [rip + {stop}]", "jrcxz 2b",
    "pushfq", "cld", "pop rax",
    "pop rdi", "mov [rdi + 248], rax",
    "gelid_leave",
    stop = sym STOP,
    spinning = sym SPINNING,
);

/// Lets threads spin until go, and gives each one's frame back.
fn spin(
    guest: &Guest,
    frames: Vec<Frame>,
    hold: unsafe extern "C" fn(*mut Frame),
) -> Check<Vec<Frame>> {
    let count = u32::try_from(frames.len()).map_err(Failure::new)?;
    let threads: Vec<_> = frames
        .into_iter()
        .map(|mut frame| {
            std::thread::spawn(move || {
                // SAFETY: the routine keeps the callee-saved registers and the direction flag.
                unsafe { hold(&raw mut frame) };
                frame
            })
        })
        .collect();
    while SPINNING.load(Ordering::Relaxed) < count {
        std::thread::yield_now();
    }
    guest.hold()?;
    STOP.store(1, Ordering::Relaxed);
    threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| Failure::new("a thread panicked")))
        .collect()
}

fn registers(guest: &Guest) -> Check {
    const NAMES: [&str; 15] = [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ];
    let frame = |seed: u64| Frame {
        load: std::array::from_fn(|index| crate::os::word(seed, index)),
        found: [0; 15],
        flags: [0; 2],
    };
    for frame in spin(guest, vec![frame(1), frame(2)], gelid_hold)? {
        for (index, name) in NAMES.iter().enumerate() {
            same!(name, frame.found[index], frame.load[index]);
        }
    }
    Ok(())
}

fn flags(guest: &Guest) -> Check {
    /// CF PF AF ZF SF DF OF, and bit 1 that is always set, and IF.
    const ALL: u64 = 0xcd5 | 0x202;
    let frame = |flags: u64| Frame {
        load: [0; 15],
        found: [0; 15],
        flags: [flags, 0],
    };
    for frame in spin(
        guest,
        vec![frame(ALL), frame(0x202 | 0x401)],
        gelid_hold_flags,
    )? {
        same!(
            "rflags",
            format!("{:#x}", frame.flags[1]),
            format!("{:#x}", frame.flags[0])
        );
    }
    Ok(())
}

thread_local! {
    /// A word found through the fs base.
    static OWN: Cell<u64> = const { Cell::new(0) };
}

fn segments(guest: &Guest) -> Check {
    const ARCH_SET_GS: i32 = 0x1001;
    const ARCH_GET_FS: i32 = 0x1003;
    const ARCH_GET_GS: i32 = 0x1004;
    let base = |which: i32| -> Check<u64> {
        let mut value = 0_u64;
        os!(libc::syscall(libc::SYS_arch_prctl, which, &raw mut value))?;
        Ok(value)
    };
    let one = |guest: &Guest, index: u64| -> Check {
        OWN.set(index * 1001);
        let gs = 0x7000_0000_0000 + index * 0x1234_5678;
        os!(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, gs))?;
        let fs = base(ARCH_GET_FS)?;
        SPINNING.fetch_add(1, Ordering::Relaxed);
        guest.wait();
        same!("fs base", base(ARCH_GET_FS)?, fs);
        same!("gs base", base(ARCH_GET_GS)?, gs);
        ensure!(
            OWN.get() == index * 1001,
            "thread-local word of thread {index} is {}",
            OWN.get()
        );
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=3)
            .map(|index| scope.spawn(move || one(guest, index)))
            .collect();
        while SPINNING.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        guest.hold()?;
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })
    })
}
