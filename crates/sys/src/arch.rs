//! What differs from machine to machine: registers, system call numbers, the system call instruction.
//!
//! A port adds one file here and no `cfg` elsewhere.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("gelid-sys has no arch/ file for this machine yet");
