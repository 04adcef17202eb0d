//! The mappings that the kernel itself gives to a process: the vDSO and its data.

use std::ops::Range;

use gelid_sys::arch::SYSCALL_INSN;
use gelid_sys::syscall::nr;
use gelid_sys::{proc, vm};
use rustix::process::getpid;

use super::script::{Object, Reel, Script};
use crate::Error;
use crate::plan::space::{Space, Vdso};
use crate::plan::zone::PARKING;

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;

/// What this kernel maps into every process.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Data areas, ascending.
    data: Vec<Range<u64>>,
    /// Code.
    code: Range<u64>,
    bytes: Vec<u8>,
    /// Offset of a system call instruction in the code.
    syscall: u64,
    /// Everything that is mapped in this process.
    pub(crate) taken: Vec<Range<u64>>,
}

impl Kernel {
    /// Looks at this very process, which the root task is a copy of at first.
    pub(crate) fn look() -> Result<Self, Error> {
        let pid = getpid();
        let dir = proc::TaskDir::open(pid)?;
        let maps = proc::maps::read(&dir)?;
        let named = |name: &[u8]| -> Vec<Range<u64>> {
            let found = maps.iter().filter(|map| map.path.starts_with(name));
            found.map(|map| map.start..map.end).collect()
        };
        let missing = Error::Vdso {
            pid: pid.as_raw_pid(),
            what: "this process has no vDSO",
        };
        let Some(code) = named(b"[vdso]").first().cloned() else {
            return Err(missing);
        };
        let mut bytes = vec![0; (code.end - code.start) as usize];
        let read = vm::read_ranges(pid, std::slice::from_ref(&code), &mut bytes);
        let syscall = bytes
            .windows(SYSCALL_INSN.len())
            .position(|bytes| bytes == SYSCALL_INSN);
        let (Ok(_), Some(syscall)) = (read, syscall) else {
            return Err(missing);
        };
        Ok(Self {
            data: named(b"[vvar"),
            code,
            bytes,
            syscall: syscall as u64,
            taken: maps.iter().map(|map| map.start..map.end).collect(),
        })
    }

    /// A system call instruction, where the kernel has put it.
    pub(crate) fn syscall_at(&self) -> u64 {
        self.code.start + self.syscall
    }

    /// The code of the vDSO.
    pub(crate) fn code(&self) -> &[u8] {
        &self.bytes
    }

    fn first(&self) -> u64 {
        self.areas().map(|area| area.start).min().unwrap_or(0)
    }

    fn areas(&self) -> impl Iterator<Item = &Range<u64>> {
        self.data.iter().chain([&self.code])
    }

    /// Where an area is parked.
    fn parked(&self, area: &Range<u64>, zone: &Range<u64>) -> u64 {
        zone.end - PARKING + (area.start - self.first())
    }

    /// Moves everything to the end of the zone; returns where the system call instruction is then.
    pub(crate) fn park(&self, script: &mut Script, zone: &Range<u64>) -> u64 {
        for area in self.areas() {
            let to = self.parked(area, zone);
            script.must(
                Object::Area(area.start),
                nr::mremap,
                moved(area, area.start, to),
            );
        }
        self.parked(&self.code, zone) + self.syscall
    }

    /// Checks that this kernel's areas can take the place of those in the image.
    pub(crate) fn check(&self, space: &Space, image_code: Option<&[u8]>) -> Result<(), Error> {
        let Some(vdso) = &space.vdso else {
            return Ok(());
        };
        let wrong = |what| Error::Vdso {
            pid: space.pid,
            what,
        };
        let same = |one: u64, other: u64, what| {
            if one == other {
                Ok(())
            } else {
                Err(wrong(what))
            }
        };
        let len = |range: &Range<u64>| range.end - range.start;
        same(
            len(&vdso.code),
            len(&self.code),
            "the vDSO has another size",
        )?;
        let all = |ranges: &[Range<u64>]| ranges.iter().map(len).sum::<u64>();
        same(
            all(&vdso.data),
            all(&self.data),
            "the data of the vDSO has another size",
        )?;
        let start = |vdso: &Vdso| vdso.data.first().map(|first| vdso.code.start - first.start);
        let own = self.data.first().map(|first| self.code.start - first.start);
        if start(vdso) != own {
            return Err(wrong("the vDSO lies elsewhere beside its data"));
        }
        match image_code {
            Some(code) if code != self.bytes => Err(wrong("the vDSO has another code")),
            _ => Ok(()),
        }
    }

    /// Moves everything from the zone to where the image has it; returns where the system call
    /// instruction is then, if the image has any of it.
    pub(crate) fn place(&self, reel: &mut Reel, space: &Space, zone: &Range<u64>) -> Option<u64> {
        let vdso = space.vdso.as_ref()?;
        let to_first = vdso.data.first().unwrap_or(&vdso.code).start;
        for area in self.areas() {
            let to = to_first + (area.start - self.first());
            let from = self.parked(area, zone);
            reel.must(Object::Area(to), nr::mremap, moved(area, from, to));
        }
        Some(vdso.code.start + self.syscall)
    }
}

fn moved(area: &Range<u64>, from: u64, to: u64) -> [gelid_tape::Arg; 5] {
    let len = area.end - area.start;
    [
        from.into(),
        len.into(),
        len.into(),
        (MREMAP_MAYMOVE | MREMAP_FIXED).into(),
        to.into(),
    ]
}
