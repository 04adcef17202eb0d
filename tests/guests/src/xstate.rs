//! Floating point and vector registers, held over the dump by a thread that spins.
//!
//! `x87`: the stack of eight registers, control word, tag and status. `mxcsr`: rounding, flush to zero
//! and exception flags. `sse`, `avx`, `avx512`: all vector registers (and the mask registers). A
//! machine without AVX or AVX-512 skips those two.

use crate::Entry;
use crate::os::word;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use crate::registers::{SPINNING, STOP};
use std::arch::{asm, global_asm};
use std::sync::atomic::Ordering;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("x87", x87),
    Entry("mxcsr", mxcsr),
    Entry("sse", sse),
    Entry("avx", avx),
    Entry("avx512", avx512),
];

/// Registers to hold and as found: up to 32 of 64 bytes, and 8 mask registers.
#[repr(C, align(64))]
struct Vectors {
    load: [u64; 264],
    found: [u64; 264],
}

unsafe extern "C" {
    fn gelid_hold_sse(vectors: *mut Vectors);
    fn gelid_hold_avx(vectors: *mut Vectors);
    fn gelid_hold_avx512(vectors: *mut Vectors);
    fn gelid_hold_x87(image: *mut X87);
}

// The assembler repeats one move for registers 0 to 15 or 31; found is 2112 bytes behind load.
global_asm!(
    ".globl gelid_hold_sse, gelid_hold_avx, gelid_hold_avx512, gelid_hold_x87",
    ".macro gelid_spin",
    "lock inc dword ptr [rip + {spinning}]",
    "2:", "cmp dword ptr [rip + {stop}], 0", "je 2b",
    ".endm",
    ".altmacro",
    ".macro gelid_load op, reg, n", "\\op \\reg\\n, [rdi + 64 * \\n]", ".endm",
    ".macro gelid_store op, reg, n", "\\op [rdi + 2112 + 64 * \\n], \\reg\\n", ".endm",
    ".macro gelid_all which, op, reg, count",
    ".set gelid_i, 0", ".rept \\count", "gelid_\\which \\op, \\reg, %gelid_i", ".set gelid_i, gelid_i + 1", ".endr",
    ".endm",
    "gelid_hold_sse:",
    "gelid_all load, movups, xmm, 16", "gelid_spin", "gelid_all store, movups, xmm, 16", "ret",
    "gelid_hold_avx:",
    "gelid_all load, vmovups, ymm, 16", "gelid_spin", "gelid_all store, vmovups, ymm, 16", "vzeroupper", "ret",
    "gelid_hold_avx512:",
    "gelid_all load, vmovups, zmm, 32",
    ".set gelid_i, 0", ".macro gelid_k n", "kmovq k\\n, [rdi + 2048 + 8 * \\n]", ".endm",
    ".rept 8", "gelid_k %gelid_i", ".set gelid_i, gelid_i + 1", ".endr",
    "gelid_spin",
    "gelid_all store, vmovups, zmm, 32",
    ".set gelid_i, 0", ".macro gelid_m n", "kmovq [rdi + 4160 + 8 * \\n], k\\n", ".endm",
    ".rept 8", "gelid_m %gelid_i", ".set gelid_i, gelid_i + 1", ".endr",
    "vzeroupper", "ret",
    "gelid_hold_x87:",
    "fxrstor64 [rdi]", "gelid_spin", "fxsave64 [rdi + 512]", "fninit", "ret",
    ".noaltmacro",
    stop = sym STOP,
    spinning = sym SPINNING,
);

/// Runs `hold` in a thread until go.
fn spin<T: Send>(
    guest: &Guest,
    mut state: Box<T>,
    hold: unsafe extern "C" fn(*mut T),
) -> Check<Box<T>> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: the routine changes only registers that a call may change, and `state`.
            unsafe { hold(&raw mut *state) };
            state
        });
        while SPINNING.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        guest.hold()?;
        STOP.store(1, Ordering::Relaxed);
        thread
            .join()
            .map_err(|_| Failure::new("the spinning thread panicked"))
    })
}

/// Holds the first `words` words of each register, and the masks.
fn vectors(
    guest: &Guest,
    count: usize,
    words: usize,
    masks: bool,
    hold: unsafe extern "C" fn(*mut Vectors),
) -> Check {
    let load = std::array::from_fn(|index| word(7, index));
    let vectors = spin(
        guest,
        Box::new(Vectors {
            load,
            found: [0; 264],
        }),
        hold,
    )?;
    for register in 0..count {
        let range = register * 8..register * 8 + words;
        same!(
            format!("vector register {register}"),
            vectors.found[range.clone()],
            vectors.load[range]
        );
    }
    if masks {
        same!("mask registers", vectors.found[256..], vectors.load[256..]);
    }
    Ok(())
}

fn sse(guest: &Guest) -> Check {
    vectors(guest, 16, 2, false, gelid_hold_sse)
}

fn avx(guest: &Guest) -> Check {
    if !std::arch::is_x86_feature_detected!("avx") {
        return Err(Failure::skip("this CPU has no AVX"));
    }
    vectors(guest, 16, 4, false, gelid_hold_avx)
}

fn avx512(guest: &Guest) -> Check {
    if !std::arch::is_x86_feature_detected!("avx512bw") {
        return Err(Failure::skip("this CPU has no AVX-512"));
    }
    vectors(guest, 32, 8, true, gelid_hold_avx512)
}

/// Two images of `fxsave64`: to hold and as found.
#[repr(C, align(64))]
struct X87 {
    load: [u8; 512],
    found: [u8; 512],
}

fn x87(guest: &Guest) -> Check {
    let mut load = [0_u8; 512];
    load[0..2].copy_from_slice(&0x0c7f_u16.to_le_bytes()); // control: round to zero, all masked
    load[2..4].copy_from_slice(&0x3a21_u16.to_le_bytes()); // status: top 7, C1, precision, invalid
    load[4] = 0xff; // all eight in use
    load[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes()); // mxcsr at its default
    for register in 0..8_u8 {
        let slot = 32 + usize::from(register) * 16;
        load[slot..slot + 10].copy_from_slice(&[
            register,
            2,
            3,
            4,
            5,
            6,
            7,
            0x80 | register,
            register,
            0x40,
        ]);
    }
    let image = spin(
        guest,
        Box::new(X87 {
            load,
            found: [0; 512],
        }),
        gelid_hold_x87,
    )?;
    same!(
        "x87 control, status and tag",
        image.found[0..5],
        image.load[0..5]
    );
    for register in 0..8 {
        let slot = 32 + register * 16;
        same!(
            format!("st({register})"),
            image.found[slot..slot + 10],
            image.load[slot..slot + 10]
        );
    }
    Ok(())
}

fn mxcsr(guest: &Guest) -> Check {
    /// All masked, flush to zero, round up, denormals are zeros, two exception flags set.
    const MXCSR: u32 = 0x1f80 | 0x8000 | 0x4000 | 0x40 | 0x11;
    let value = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            SPINNING.store(1, Ordering::Relaxed);
            let (load, mut found) = (MXCSR, 0_u32);
            // SAFETY: the loop reads one static; mxcsr gets its default back.
            unsafe {
                asm!("ldmxcsr [{load}]", "2:", "cmp dword ptr [rip + {stop}], 0", "je 2b", "stmxcsr [{found}]", "ldmxcsr [{default}]",
                    load = in(reg) &raw const load, found = in(reg) &raw mut found, default = in(reg) &raw const DEFAULT, stop = sym STOP);
            }
            found
        });
        while SPINNING.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        guest.hold()?;
        STOP.store(1, Ordering::Relaxed);
        thread
            .join()
            .map_err(|_| Failure::new("the spinning thread panicked"))
    })?;
    ensure!(value == MXCSR, "mxcsr is {value:#x}, expected {MXCSR:#x}");
    Ok(())
}

/// mxcsr as a program starts with it.
static DEFAULT: u32 = 0x1f80;
