//! What a pagemap image says. Section 9.1 of the format.

use crate::pagemap::Same;
use crate::run::{Run, RunFlags};
use crate::sets::SetError;
use crate::{PAGE_SIZE, Placement};
use gelid_image::messages::{PagemapEntry, PagemapHead};
use gelid_image::{Dir, ImageKind, Key};
use std::ops::Range;

/// The records of a pagemap.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) pages_id: u32,
    /// Pages in its file.
    pub(crate) pages: u64,
    /// Ascending, without overlap.
    pub(crate) entries: Vec<Entry>,
}

/// Adjacent pages.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Of its own.
    Own(Own),
    /// Among those of a task; they may be here as well, for those who know nothing of that.
    Same(Same, Option<Own>),
}

/// Pages of its own.
#[derive(Debug)]
pub(crate) enum Own {
    /// In the file of the same number.
    Stored(Placement),
    /// In the set before.
    Parent(Range<u64>),
}

impl Entry {
    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Self::Own(Own::Stored(place)) => place.range(),
            Self::Own(Own::Parent(range)) => range.clone(),
            Self::Same(same, _) => same.range.clone(),
        }
    }
}

impl Listing {
    pub(crate) fn read(dir: &Dir, kind: ImageKind, key: Key) -> Result<Self, SetError> {
        let directory = || dir.label().to_owned();
        let image = |source| SetError::Image {
            directory: directory(),
            source,
        };
        let mut reader = dir.reader(kind, key).map_err(image)?;
        let head: PagemapHead = reader.read_one().map_err(image)?;
        let mut listing = Self {
            pages_id: head.pages_id,
            pages: 0,
            entries: Vec::new(),
        };
        let mut end = 0;
        for entry in reader.records::<PagemapEntry>() {
            let entry = entry.map_err(image)?;
            let run = run(&entry);
            if run.nr_pages == 0 {
                continue;
            }
            let taken = listing.take(&entry, run, end);
            end = taken.map_err(|what| SetError::Pagemap {
                directory: directory(),
                pages_id: head.pages_id,
                what,
                vaddr: run.vaddr,
            })?;
        }
        Ok(listing)
    }

    /// Takes a record that lies behind `end`; where that ends.
    fn take(&mut self, entry: &PagemapEntry, run: Run, end: u64) -> Result<u64, &'static str> {
        let range = run.range();
        if !aligned(&range) || range.end == u64::MAX || range.start < end {
            return Err("runs overlap or have impossible bounds");
        }
        let end = range.end;
        let own = match (run.flags.contains(RunFlags::PARENT), run.is_present()) {
            (true, true) => return Err("pages are both here and in an earlier set"),
            (true, false) => Some(Own::Parent(range.clone())),
            (false, true) => {
                let first_page = self.pages;
                // They do not overlap, so that there are fewer than 2^52.
                self.pages += run.nr_pages;
                Some(Own::Stored(Placement {
                    vaddr: run.vaddr,
                    first_page,
                    nr_pages: run.nr_pages,
                }))
            }
            (false, false) => None,
        };
        match (entry.same_as, own) {
            (Some(owner), own) => {
                let at = entry.same_at.unwrap_or(range.start);
                let bytes = range.end - range.start;
                let there = at..at.saturating_add(bytes);
                if !aligned(&there) || there.end - at != bytes {
                    return Err("pages are to be at impossible addresses of a task");
                }
                let same = Same { range, owner, at };
                self.entries.push(Entry::Same(same, own));
            }
            (None, Some(own)) => self.push(own),
            (None, None) => return Err("pages are still with a lazy page server"),
        }
        Ok(end)
    }

    /// Appends pages of its own, as one with those before where they go on.
    fn push(&mut self, own: Own) {
        match (self.entries.last_mut(), &own) {
            (Some(Entry::Own(Own::Parent(last))), Own::Parent(range))
                if last.end == range.start =>
            {
                last.end = range.end;
            }
            (Some(Entry::Own(Own::Stored(last))), Own::Stored(place))
                if last.range().end == place.vaddr =>
            {
                last.nr_pages += place.nr_pages;
            }
            _ => self.entries.push(Entry::Own(own)),
        }
    }
}

/// A record in its present form.
fn run(entry: &PagemapEntry) -> Run {
    let flags = match entry.flags {
        Some(flags) => RunFlags::from_bits_truncate(flags),
        None if entry.in_parent == Some(true) => RunFlags::PARENT,
        None => RunFlags::PRESENT,
    };
    Run {
        vaddr: entry.vaddr,
        nr_pages: entry.nr_pages.unwrap_or(entry.compat_nr_pages.into()),
        flags,
    }
}

fn aligned(range: &Range<u64>) -> bool {
    let page = PAGE_SIZE as u64;
    range.start.is_multiple_of(page) && range.end.is_multiple_of(page)
}
