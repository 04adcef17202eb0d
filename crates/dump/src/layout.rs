//! An address space as it looks from outside.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gelid_pages::Memory;
use gelid_sys::proc::smaps::{self, Area};
use gelid_sys::{Pid, proc, vm};

use crate::vma::{self, Kind};
use crate::{Error, refuse};

/// Mappings that are shown at a time.
const PART: usize = 512;

/// The mappings of an address space.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Ascending.
    pub(crate) areas: Vec<Area>,
    /// The code of the kernel. It is read before a tape is played, which uses the room behind it.
    pub(crate) vdso: Option<Arc<Memory>>,
}

impl Layout {
    /// Reads the mappings, and refuses what is not dumped.
    pub(crate) fn read(pid: Pid) -> Result<Self, Error> {
        Self::read_by_parts(pid, |_| Ok(()))
    }

    /// The same; shows some mappings at a time while the kernel still looks at others, if there are many.
    pub(crate) fn read_by_parts(
        pid: Pid,
        mut part: impl FnMut(&[Area]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut failed = None;
        let areas = smaps::read_by_parts(&proc::task_dir(pid)?, PART, |areas| {
            if failed.is_none() {
                // Nobody is to touch what is not dumped.
                let refused = refuse::mappings(pid, areas).map_err(Error::from);
                failed = refused.and_then(|()| part(areas)).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        refuse::mappings(pid, &areas)?;
        let vdso = areas.iter().find(|area| vma::kind(area) == Kind::Vdso);
        let vdso = vdso
            .map(|area| read_whole(pid, area).map(Arc::new))
            .transpose()?;
        Ok(Self { areas, vdso })
    }
}

impl Layout {
    /// Whether a range lies in the code of the kernel, of which there is a copy.
    pub(crate) fn is_in_vdso(&self, range: &Range<u64>) -> bool {
        let vdso = self.areas.iter().find(|area| vma::kind(area) == Kind::Vdso);
        vdso.is_some_and(|vdso| vdso.map.start <= range.start && range.end <= vdso.map.end)
    }
}

/// A layout that is being read, for all who need it.
#[derive(Debug, Default)]
pub(crate) struct Expected(OnceLock<Option<Arc<Layout>>>);

/// Who has promised it. Dropped without it, nobody waits any more.
#[derive(Debug)]
pub(crate) struct Promise(Arc<Expected>);

impl Expected {
    /// Somebody else's promise, and who keeps it.
    pub(crate) fn promised() -> (Arc<Self>, Promise) {
        let expected = Arc::new(Self::default());
        (Arc::clone(&expected), Promise(expected))
    }

    /// Waits for it. `None` if it could not be read, which is told elsewhere.
    pub(crate) fn get(&self) -> Option<&Arc<Layout>> {
        self.0.wait().as_ref()
    }
}

impl Promise {
    pub(crate) fn keep(self, layout: &Arc<Layout>) {
        // Nobody else sets it.
        let _ = self.0.0.set(Some(Arc::clone(layout)));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // Unless it was kept.
        let _ = self.0.0.set(None);
    }
}

/// Somebody who reads layouts.
pub(crate) trait Looker {
    /// Asks for the layout of a task.
    fn look(&self, pid: Pid, promise: Promise) -> Result<(), Error>;

    /// Shows mappings of the only task, above those before, when more are to come.
    fn part(&self, pid: Pid, areas: &[Area]) -> Result<(), Error>;

    /// Says what has been seen by the caller itself.
    fn seen(&self, pid: Pid, layout: Arc<Layout>) -> Result<(), Error>;

    /// Waits until all layouts that were asked for are there; the caller may have to read some of them.
    fn looked(&self) -> Result<(), Error>;
}

fn read_whole(pid: Pid, area: &Area) -> Result<Memory, Error> {
    // A vDSO has some few pages.
    let mut bytes = vec![0; area.map.size() as usize];
    let range = area.map.range();
    let failed = |errno| Error::Memory {
        pid,
        object: "the vDSO",
        errno,
    };
    let read = vm::read_ranges(pid, &[range], &mut bytes).map_err(failed)?;
    if read < bytes.len() {
        return Err(failed(gelid_sys::Errno::FAULT));
    }
    Ok(Memory::new(area.map.start, bytes))
}
