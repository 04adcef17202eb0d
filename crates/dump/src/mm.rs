//! `mm-*.img`: boundaries and mappings of an address space. Section 8 of the format.

use std::ops::Range;

use gelid_image::messages::{MmEntry, VmaEntry};
use gelid_sys::proc::auxv;

use crate::Error;
use crate::core::{Cores, Ring};
use crate::files::{self, Collector};
use crate::ipc::Segments;
use crate::layout::Layout;
use crate::survey::Task;
use crate::vma::{self, Kind};

/// Words of the auxiliary vector that the format has room for.
const AUXV_WORDS: usize = 44;

/// The record of an address space, as far as it can be seen from outside.
pub(crate) fn entry(
    task: &Task,
    layout: &Layout,
    held: files::Task<'_>,
    files: &mut Collector<'_>,
    segments: &mut Segments,
) -> Result<MmEntry, Error> {
    let mut auxv = auxv::read(held.dir)?;
    auxv.truncate(AUXV_WORDS);
    let stat = &task.stat;
    Ok(MmEntry {
        mm_start_code: stat.start_code,
        mm_end_code: stat.end_code,
        mm_start_data: stat.start_data,
        mm_end_data: stat.end_data,
        mm_start_stack: stat.start_stack,
        mm_start_brk: stat.start_brk,
        mm_arg_start: stat.arg_start,
        mm_arg_end: stat.arg_end,
        mm_env_start: stat.env_start,
        mm_env_end: stat.env_end,
        exe_file_id: files.executable(held)?,
        mm_saved_auxv: auxv,
        vmas: vmas(task, layout, held, files, segments)?,
        ..MmEntry::default()
    })
}

fn vmas(
    task: &Task,
    layout: &Layout,
    held: files::Task<'_>,
    files: &mut Collector<'_>,
    segments: &mut Segments,
) -> Result<Vec<VmaEntry>, Error> {
    let mut entries = Vec::with_capacity(layout.areas.len());
    for area in &layout.areas {
        let file = match vma::kind(area) {
            Kind::File | Kind::Ring => Some(files.mapped(held, &area.map)?),
            Kind::Segment => Some(segments.attached(task, held, &area.map)?),
            _ => None,
        };
        entries.push(vma::entry(area, file));
    }
    vma::join_vvar(&mut entries);
    Ok(entries)
}

/// Adds what the task itself has told, and the guard ranges, which come last.
pub(crate) fn complete(mm: &mut MmEntry, cores: &Cores, guards: &[Range<u64>]) {
    mm.mm_brk = cores.brk;
    mm.aios = cores.rings.iter().map(Ring::entry).collect();
    mm.dumpable = Some(cores.dumpable);
    mm.thp_disabled = Some(cores.thp_disabled);
    mm.protection_keys = Some(cores.keys.allocated).filter(|keys| *keys != 0);
    mm.execute_only_key = cores.keys.execute_only;
    let guards = guards.iter();
    mm.vmas
        .extend(guards.map(|range| vma::guard(range.start, range.end)));
}
