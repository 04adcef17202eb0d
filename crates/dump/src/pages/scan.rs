//! Which pages an address space has, and which of them go into the store.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gelid_pages::{
    Extent, Memory, ObjectWriter, Owner, PAGE_SIZE, PageSource, ProcessSource, RunFlags,
    StoreError, Zeros,
};
use gelid_sys::pagemap::{self, Categories, Query, Region, ScanFlags};
use gelid_sys::proc::smaps::Area;
use gelid_sys::{Errno, Pid, proc};
use rustix::fs::OFlags;

use super::{Queued, Sink, Stored};
use crate::Error;
use crate::frames::{Frames, Piece, Same, shared};
use crate::layout::Layout;
use crate::vma::{self, Kind, Pages};

/// Where the pages of a task are read.
pub(crate) struct Origin {
    /// The process that has them: the task, or a copy of it.
    pub(crate) pid: Pid,
    /// Memory whose pages others may have too.
    pub(crate) shared: Vec<Range<u64>>,
    /// Mappings that the copy does not have, read before: where each begins, and what is in it.
    pub(crate) kept: Vec<(u64, Arc<Memory>)>,
}

impl Origin {
    /// The task itself.
    pub(crate) fn task(pid: Pid, layout: &Layout) -> Self {
        Self {
            pid,
            shared: shared(&layout.areas),
            kept: Vec::new(),
        }
    }
}

/// Memory that is looked at before some of it is queued, a multiple of what workers take at once.
const SLICE: u64 = 8 << 20;

/// Whether pages of an area are stored as they are found.
fn stores(area: &Area) -> bool {
    !matches!(vma::pages(area), Pages::None | Pages::Whole)
}

/// Queues the pages of a task, but for those that `frames` finds among those of earlier ones.
pub(super) fn queue(
    sink: &mut Sink<'_>,
    pid: Pid,
    origin: Origin,
    layout: &Layout,
    mut frames: Option<&mut Frames>,
    stop: &AtomicBool,
) -> Result<Queued, Error> {
    let shared = origin.shared;
    let mut queueing = Queueing::begin(sink, pid, origin.pid, origin.kept)?;
    if let Some(frames) = &mut frames
        && layout.areas.iter().any(|area| frames.concern(area))
    {
        frames.take_up(pid, Arc::clone(&queueing.pagemap));
    }
    queueing.part(&layout.areas, shared, layout.vdso.as_ref(), frames, stop)?;
    queueing.finish(&layout.areas)
}

/// The pages of a task on their way.
pub(super) struct Queueing {
    pub(super) pid: Pid,
    /// Who has them.
    process: Pid,
    pagemap: Arc<OwnedFd>,
    /// Memory that nobody else has.
    own: Arc<dyn PageSource>,
    /// See [`Origin::kept`].
    kept: Vec<(u64, Arc<Memory>)>,
    stored: Stored,
    writer: ObjectWriter,
}

impl Queueing {
    /// Begins with the pages of a task that a process has.
    pub(super) fn begin(
        sink: &mut Sink<'_>,
        pid: Pid,
        process: Pid,
        kept: Vec<(u64, Arc<Memory>)>,
    ) -> Result<Self, Error> {
        let (stored, writer) = sink.begin(Owner::Task(pid.as_raw_pid()))?;
        let pagemap = proc::task_dir(process)?.open_file("pagemap", OFlags::RDONLY)?;
        Ok(Self {
            pid,
            process,
            pagemap: Arc::new(pagemap),
            own: Arc::new(ProcessSource::new(process)),
            kept,
            stored,
            writer,
        })
    }

    /// Queues those of some mappings, which lie above all before. Others may have what is in `shared`; `vdso` is needed
    /// if the code of the kernel is among them.
    pub(super) fn part(
        &mut self,
        areas: &[Area],
        shared: Vec<Range<u64>>,
        vdso: Option<&Arc<Memory>>,
        frames: Option<&mut Frames>,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let pid = self.pid;
        let _span = tracing::debug_span!("pages", pid = pid.as_raw_pid()).entered();
        let mut queue = Queue {
            pid,
            frames,
            same: &mut self.stored.same,
            memory: match shared.is_empty() {
                true => Arc::clone(&self.own),
                false => Arc::new(ProcessSource::new(self.process).sharing(shared)),
            },
            kept: &self.kept,
            writer: &mut self.writer,
            areas,
            vdso,
            guards: &mut self.stored.guards,
            stop,
            failed: None,
        };
        for Span { range, is_plain } in spans(areas) {
            let mut take = |region| queue.take(region);
            let mut scan = |guards| {
                let query = query(is_plain, guards);
                pagemap::scan_each(&self.pagemap, range.clone(), &query, &mut take)
            };
            let scanned = match scan(Categories::GUARD) {
                // Kernels before 6.18 do not know of guard markers here.
                Err(Errno::INVAL) => scan(Categories::empty()),
                scanned => scanned,
            };
            scanned.map_err(|errno| Error::Scan { pid, errno })?;
        }
        // The vDSO may lie behind the last page that was found.
        queue.pass(u64::MAX);
        queue.failed.map_or(Ok(()), Err)
    }

    /// All mappings have been looked at.
    pub(super) fn finish(mut self, areas: &[Area]) -> Result<Queued, Error> {
        self.stored.scanned = scanned(areas);
        Ok(Queued {
            stored: self.stored,
            pending: self.writer.finish()?,
        })
    }

    /// What has been queued is not wanted; the file it is in.
    pub(super) fn discard(self) -> String {
        self.stored.file
    }
}

/// Pages that are there and are neither of a file nor the page of zeros; guard markers, where the kernel knows of them.
///
/// Whose a page is stands in its description: to look there takes the kernel 80 ns for each, all else 7. So it is not
/// asked where there can be no pages of files.
fn query(is_plain: bool, guards: Categories) -> Query {
    let not = match is_plain {
        true => Categories::PFNZERO,
        false => Categories::FILE.union(Categories::PFNZERO),
    };
    Query {
        inverted: not,
        required: not,
        any_of: Categories::PRESENT.union(Categories::SWAPPED).union(guards),
        report: guards,
        flags: ScanFlags::empty(),
    }
}

/// Memory that is scanned by one call.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    range: Range<u64>,
    /// There is no file behind any of it.
    is_plain: bool,
}

/// Memory that is worth a call of its own if it has no files.
const LARGE: u64 = 1 << 20;

/// The ranges to scan: all mappings that may have pages of their own or guard markers, and what lies between.
fn spans(areas: &[Area]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut adjoining = false;
    for area in areas {
        if !is_scanned(area) {
            adjoining = false;
            continue;
        }
        let this = Span {
            range: area.map.range(),
            is_plain: !area.map.has_file(),
        };
        match spans.last_mut() {
            Some(span) if adjoining && span.suits(&this) => {
                span.range.end = this.range.end;
                span.is_plain &= this.is_plain;
            }
            _ => spans.push(this),
        }
        adjoining = true;
    }
    spans
}

impl Span {
    /// Whether one call for both costs less.
    fn suits(&self, other: &Self) -> bool {
        let gains = |span: &Self| span.is_plain && span.range.end - span.range.start >= LARGE;
        self.is_plain == other.is_plain || !gains(self) && !gains(other)
    }
}

fn is_scanned(area: &Area) -> bool {
    matches!(vma::kind(area), Kind::Heap | Kind::Anonymous | Kind::File)
}

fn scanned(areas: &[Area]) -> u64 {
    let stored = areas.iter().filter(|area| vma::pages(area) != Pages::None);
    stored.map(|area| area.map.size()).sum::<u64>() / PAGE_SIZE as u64
}

/// Cuts what the scan found to the mappings it lies in.
struct Queue<'a> {
    pid: Pid,
    frames: Option<&'a mut Frames>,
    same: &'a mut Vec<Same>,
    memory: Arc<dyn PageSource>,
    /// See [`Origin::kept`].
    kept: &'a [(u64, Arc<Memory>)],
    writer: &'a mut ObjectWriter,
    /// Mappings not yet passed.
    areas: &'a [Area],
    vdso: Option<&'a Arc<Memory>>,
    guards: &'a mut Vec<Range<u64>>,
    stop: &'a AtomicBool,
    failed: Option<Error>,
}

impl Queue<'_> {
    fn take(&mut self, region: Region) {
        if self.failed.is_some() {
            return;
        }
        if self.stop.load(Ordering::Relaxed) {
            self.failed = Some(StoreError::Stopped.into());
            return;
        }
        self.pass(region.start);
        let guard = region.categories.contains(Categories::GUARD);
        for area in self.areas {
            if area.map.start >= region.end {
                break;
            }
            let range = area.map.start.max(region.start)..area.map.end.min(region.end);
            if guard {
                self.guard(area, range);
            } else {
                self.push(area, range);
            }
        }
        self.pass(region.end);
    }

    /// Leaves behind the mappings that end at or below `address`. Some among them are stored whole, whatever the
    /// scan says.
    fn pass(&mut self, address: u64) {
        while let Some((area, rest)) = self.areas.split_first()
            && area.map.end <= address
        {
            if let Some((source, extent)) = self.whole(area) {
                let pushed = self.writer.push(&source, extent);
                self.note(pushed);
            }
            self.areas = rest;
        }
    }

    /// What is stored whole: the code of the kernel, rings of AIO, what was kept.
    fn whole(&self, area: &Area) -> Option<(Arc<dyn PageSource>, Extent)> {
        let range = area.map.range();
        if let Some(kept) = self.kept(area) {
            return Some((
                kept,
                extent(area, range.clone()).unwrap_or(Extent::present(range)),
            ));
        }
        let source: Arc<dyn PageSource> = match vma::kind(area) {
            Kind::Aio => Arc::clone(&self.memory),
            _ if vma::pages(area) != Pages::Whole => return None,
            _ => Arc::<Memory>::clone(self.vdso?),
        };
        Some((source, Extent::present(range)))
    }

    fn kept(&self, area: &Area) -> Option<Arc<dyn PageSource>> {
        let kept = self.kept.iter().find(|(start, _)| *start == area.map.start);
        kept.map(|(_, memory)| Arc::<Memory>::clone(memory) as Arc<dyn PageSource>)
    }

    fn push(&mut self, area: &Area, range: Range<u64>) {
        if !self
            .frames
            .as_ref()
            .is_some_and(|frames| frames.concern(area))
        {
            return self.push_own(area, range);
        }
        let mut start = range.start;
        while start < range.end && self.failed.is_none() {
            let end = range.end.min((start / SLICE + 1) * SLICE);
            self.push_common(area, start..end);
            start = end;
        }
    }

    /// Pages that others may have too.
    fn push_common(&mut self, area: &Area, range: Range<u64>) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        let is_packed = frames.is_packed;
        let mut pieces = Vec::new();
        if let Err(errno) = frames.sort(self.pid, range.clone(), &mut pieces) {
            let pid = self.pid;
            self.failed.get_or_insert(Error::Scan { pid, errno });
        }
        if !is_packed {
            // All of it is stored, in one piece.
            self.push_own(area, range);
        }
        for piece in pieces {
            match piece {
                Piece::Own(range) if is_packed => self.push_own(area, range),
                Piece::Same(same) if stores(area) => self.note_same(same),
                Piece::Own(_) | Piece::Same(_) => {}
            }
        }
    }

    fn note_same(&mut self, same: Same) {
        let last = self.same.last_mut();
        if !last.is_some_and(|last| last.take(&same)) {
            self.same.push(same);
        }
    }

    fn push_own(&mut self, area: &Area, range: Range<u64>) {
        if self.kept(area).is_some() {
            return;
        }
        if let Some(extent) = extent(area, range) {
            let pushed = self.writer.push(&self.memory, extent);
            self.note(pushed);
        }
    }

    fn guard(&mut self, area: &Area, range: Range<u64>) {
        if !is_scanned(area) {
            return;
        }
        match self.guards.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.guards.push(range),
        }
    }

    fn note(&mut self, pushed: Result<(), StoreError>) {
        if let Err(error) = pushed {
            self.failed.get_or_insert(error.into());
        }
    }
}

/// Pages of an area as they are stored, if they are.
fn extent(area: &Area, range: Range<u64>) -> Option<Extent> {
    match vma::pages(area) {
        Pages::None | Pages::Whole => None,
        Pages::Anonymous { lazy: true } => Some(Extent::anonymous(range)),
        Pages::Anonymous { lazy: false } => Some(Extent {
            range,
            flags: RunFlags::PRESENT,
            zeros: Zeros::Drop,
            alike: true,
        }),
        Pages::Copied => Some(Extent {
            alike: true,
            ..Extent::present(range)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_without_files_is_scanned_apart() {
        let own = proc::task_dir(rustix::process::getpid()).unwrap();
        let some = gelid_sys::proc::smaps::read(&own).unwrap();
        let file = some.iter().find(|area| vma::kind(area) == Kind::File);
        let plain = some.iter().find(|area| vma::kind(area) == Kind::Heap);
        let (file, plain) = (file.unwrap(), plain.unwrap());
        let areas = |shape: &[(bool, Range<u64>)]| -> Vec<Area> {
            let areas = shape.iter().map(|(is_plain, range)| {
                let mut area = if *is_plain { plain } else { file }.clone();
                (area.map.start, area.map.end) = (range.start, range.end);
                area
            });
            areas.collect()
        };
        let of = |shape: &[(bool, Range<u64>)]| -> Vec<(bool, Range<u64>)> {
            let spans = spans(&areas(shape)).into_iter();
            spans.map(|span| (span.is_plain, span.range)).collect()
        };
        let (page, much) = (4096, 2 << 20);
        assert_eq!(of(&[]), []);
        // Small ones are not worth a call.
        let mixed = [
            (false, 0..page),
            (true, page..2 * page),
            (false, 2 * page..3 * page),
        ];
        assert_eq!(of(&mixed), [(false, 0..3 * page)]);
        // Nor is what lies between.
        let small = [
            (true, 0..page),
            (true, page..2 * page),
            (true, 3 * page..4 * page),
        ];
        assert_eq!(of(&small), [(true, 0..4 * page)]);
        let large = [
            (false, 0..page),
            (true, page..much),
            (false, much..much + page),
        ];
        assert_eq!(of(&large), large);
    }
}
