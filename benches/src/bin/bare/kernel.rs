//! What the kernel maps into every process: a tree that is made needs it where the dumped one had it.

use std::ops::Range;

use gelid_sys::arch::SYSCALL_INSN;
use gelid_sys::proc::maps::{self, Mapping};
use gelid_sys::proc::task_dir;
use gelid_sys::syscall::nr;
use gelid_sys::vm;
use gelid_tape::Tape;
use rustix::process::getpid;

use crate::Failure;
use crate::shape::Call;

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;

/// The vDSO of this process and its data.
pub(crate) struct Kernel {
    parts: Vec<Range<u64>>,
    /// A system call instruction.
    pub(crate) syscall: u64,
}

/// Whether it is among what the kernel maps.
pub(crate) fn is_own(map: &Mapping) -> bool {
    map.path.starts_with(b"[v")
}

/// The vDSO and its data among the mappings of a process.
pub(crate) fn parts(maps: &[Mapping]) -> Vec<Range<u64>> {
    let of_kernel = |map: &&Mapping| is_own(map) && map.path != b"[vsyscall]";
    maps.iter().filter(of_kernel).map(Mapping::range).collect()
}

impl Kernel {
    /// Looks at this very process.
    pub(crate) fn look() -> Result<Self, Failure> {
        let parts = parts(&maps::read(&task_dir(getpid())?)?);
        let code = parts.last().ok_or("there is no vDSO")?;
        let mut bytes = vec![0; (code.end - code.start) as usize];
        vm::read_ranges(getpid(), std::slice::from_ref(code), &mut bytes)?;
        let width = SYSCALL_INSN.len();
        let found = bytes.windows(width).position(|at| at == SYSCALL_INSN);
        let found = found.ok_or("the vDSO makes no system call")?;
        let syscall = code.start + found as u64;
        Ok(Self { parts, syscall })
    }

    /// How far everything moves, to a place that ends where `to` does.
    fn distance(&self, to: &Range<u64>) -> u64 {
        let end = self.parts.last().map_or(0, |code| code.end);
        to.end.wrapping_sub(end)
    }

    /// The system call instruction, when all is there.
    pub(crate) fn syscall_in(&self, to: &Range<u64>) -> u64 {
        self.syscall.wrapping_add(self.distance(to))
    }

    /// Appends what moves all there.
    pub(crate) fn place(&self, to: &Range<u64>, tape: &mut Tape) {
        for part in &self.parts {
            let len = part.end - part.start;
            let new = part.start.wrapping_add(self.distance(to));
            let how = MREMAP_MAYMOVE | MREMAP_FIXED;
            Call::new(nr::mremap, [part.start, len, len, how, new]).write(tape);
        }
    }
}
