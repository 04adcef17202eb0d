//! Shared parts of the benches: a process to work on, and memory that looks like a program's.
//!
//! **Model.** A bench starts itself again as a [`guest::Guest`], tells it what memory to have, and reads
//! or fills that memory from outside, as a dump and a restore would. Every bench prints throughput, and
//! each group has the physical limit beside the result, measured in the same run.
//!
//! **Limitations.** `GELID_BENCH_MIB` sets the size of the memory (64 MiB if unset): figures for caches
//! and for real programs differ. The machine should be quiet.
//!
//! ```
//! let heap = gelid_benches::memory::heap(1 << 20);
//! assert_eq!(heap.len(), 1 << 20);
//! ```
#![forbid(unsafe_code)]

pub mod guest;
pub mod memory;

/// Bytes of memory to work on, from `GELID_BENCH_MIB`.
#[must_use]
pub fn bench_bytes() -> usize {
    let mib = std::env::var("GELID_BENCH_MIB")
        .ok()
        .and_then(|text| text.parse::<usize>().ok());
    mib.unwrap_or(64).max(4) << 20
}
