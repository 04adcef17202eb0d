//! Restartable sequences (`rseq(2)`) of a thread that is about to run something else.

use crate::arch;
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::Stopped;
use gelid_sys::vm;

/// Offset of the pointer to the active descriptor in `struct rseq`.
const CS_POINTER: u64 = 8;
/// Bytes of `struct rseq_cs`: version, flags, start, length, abort handler.
const CS_SIZE: usize = 32;

/// Sends a thread that was stopped inside a critical section to its abort handler. The kernel would
/// do it on the way out of the stop, but only if it finds the thread where it was stopped; anywhere else it
/// forgets the section, and the thread would go on in the middle of it as if nothing had been.
pub(crate) fn abort(task: &Stopped, regs: &mut UserRegs) {
    // A kernel that cannot tell, and an area that cannot be read, have no section to abort.
    let Ok(conf) = task.rseq() else { return };
    if conf.rseq_abi_pointer == 0 {
        return;
    }
    let Some([section]) = words::<1>(task, conf.rseq_abi_pointer + CS_POINTER) else {
        return;
    };
    if section == 0 {
        return;
    }
    if let Some([_version_and_flags, start, len, handler]) = words::<{ CS_SIZE / 8 }>(task, section)
        && arch::place(regs).wrapping_sub(start) < len
    {
        arch::go_to(regs, handler);
    }
}

fn words<const N: usize>(task: &Stopped, at: u64) -> Option<[u64; N]> {
    let mut bytes = vec![0; N * 8];
    let range = at..at.checked_add(bytes.len() as u64)?;
    let done = vm::read_ranges(task.pid(), &[range], &mut bytes).ok()?;
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut raw = [0; 8];
        raw.copy_from_slice(chunk);
        *word = u64::from_ne_bytes(raw);
    }
    (done == bytes.len()).then_some(words)
}
