//! Where the pages of an object are: in the file of its set, in those of sets before it, among those of others.
//!
//! A page that is left to the set before is where the pagemap of the same owner says there: in its file, in a still
//! earlier one, or among the pages of a task of that set. Files are taken together as one object, whose pages are
//! counted through.

use crate::key::Owner;
use crate::listing::{Entry, Listing, Own};
use crate::sets::{SetError, Sets};
use crate::{PAGE_SIZE, Placement};
use std::collections::HashMap;
use std::ops::Range;

const PAGE: u64 = PAGE_SIZE as u64;

/// Placements of one object, whatever the records it is made of.
const MOST_PLACEMENTS: usize = 1 << 22;
/// Pages of all files of one object; each has fewer than 2^52.
const MOST_PAGES: u64 = 1 << 60;
/// More placements for each record that has been read.
const FOR_A_RECORD: usize = 16;

/// Where the pages of an object are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pagemap {
    /// The number in `pages-N.img` of the set itself.
    pub pages_id: u32,
    /// Files that hold some, that of the set itself first. Pages are counted through all of them.
    pub parts: Vec<Part>,
    /// Which of these go where, ascending by address.
    pub placements: Vec<Placement>,
    /// Those that are among the pages of tasks of the same set; ascending.
    pub same: Vec<Same>,
}

/// A file of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How many sets before the first.
    pub generation: usize,
    /// The number in `pages-N.img`.
    pub pages_id: u32,
    /// Whose pages it has.
    pub owner: Owner,
    /// How many, as the pagemap says.
    pub pages: u64,
}

/// Pages that the images of another task hold, or those of the same one at other addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Same {
    /// Where they go.
    pub range: Range<u64>,
    /// Pid of that task.
    pub owner: u32,
    /// Where that task has them.
    pub at: u64,
}

impl Pagemap {
    /// Where pages go, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.placements.iter().map(Placement::range)
    }

    /// How many pages the files hold for it.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.placements.iter().map(|place| place.nr_pages).sum()
    }

    /// The placements, ascending by their first page.
    #[must_use]
    pub fn by_page(&self) -> Vec<Placement> {
        let mut placements = self.placements.clone();
        placements.sort_by_key(|place| place.first_page);
        placements
    }
}

impl Sets {
    /// Where the pages of an object of the first set are.
    ///
    /// # Errors
    ///
    /// [`SetError`]: an image of it is missing or damaged, or one of an earlier set that has some of its pages.
    pub fn pagemap(&mut self, owner: Owner) -> Result<Pagemap, SetError> {
        let mut search = Search::new(self, owner)?;
        let listing = search.sets.listing(0, owner)?;
        for entry in &listing.entries {
            match entry {
                Entry::Same(same, _) => search.found.same.push(same.clone()),
                other => search.entry(Look::of(owner), &listing, other, other.range())?,
            }
        }
        let found = search.found;
        self.forget(owner);
        Ok(found)
    }

    /// The same with all pages that any file holds, also those that are among the pages of others.
    ///
    /// # Errors
    ///
    /// As [`pagemap`](Self::pagemap).
    pub fn whole_pagemap(&mut self, owner: Owner) -> Result<Pagemap, SetError> {
        let mut search = Search::new(self, owner)?;
        let listing = search.sets.listing(0, owner)?;
        let look = Look {
            gaps: true,
            ..Look::of(owner)
        };
        for entry in &listing.entries {
            search.entry(look, &listing, entry, entry.range())?;
        }
        Ok(search.found)
    }
}

/// What is looked for.
#[derive(Clone, Copy)]
struct Look {
    generation: usize,
    owner: Owner,
    /// What leads from an address there to where the page goes, modulo 2^64.
    shift: u64,
    /// They are for another, so they must be the owner's own.
    lent: bool,
    /// Whether some may be nowhere, since nobody has put anything there.
    gaps: bool,
}

impl Look {
    fn of(owner: Owner) -> Self {
        Self {
            generation: 0,
            owner,
            shift: 0,
            lent: false,
            gaps: false,
        }
    }
}

struct Search<'a> {
    sets: &'a mut Sets,
    found: Pagemap,
    /// Where the pages of a file begin in the count.
    firsts: HashMap<(usize, Owner), u64>,
    /// Pages of all files so far.
    pages: u64,
    /// Records of all pagemaps so far.
    records: usize,
}

impl<'a> Search<'a> {
    fn new(sets: &'a mut Sets, owner: Owner) -> Result<Self, SetError> {
        let listing = sets.listing(0, owner)?;
        let mut search = Self {
            sets,
            found: Pagemap {
                pages_id: listing.pages_id,
                ..Pagemap::default()
            },
            firsts: HashMap::new(),
            pages: 0,
            records: 0,
        };
        search.first(Look::of(owner), &listing)?;
        Ok(search)
    }

    /// Finds all pages of an owner in a range.
    fn range(&mut self, look: Look, wanted: Range<u64>) -> Result<(), SetError> {
        let listing = self.sets.listing(look.generation, look.owner)?;
        let entries = &listing.entries;
        let mut at = wanted.start;
        let first = entries.partition_point(|entry| entry.range().end <= at);
        let within = |entry: &&Entry| entry.range().start < wanted.end;
        for entry in entries[first..].iter().take_while(within) {
            let range = entry.range();
            let part = range.start.max(wanted.start)..range.end.min(wanted.end);
            if part.start > at {
                self.gap(look, &listing, at)?;
            }
            at = part.end;
            self.entry(look, &listing, entry, part)?;
        }
        match at < wanted.end {
            true => self.gap(look, &listing, at),
            false => Ok(()),
        }
    }

    fn gap(&self, look: Look, listing: &Listing, vaddr: u64) -> Result<(), SetError> {
        match look.gaps {
            true => Ok(()),
            false => Err(self.wrong(
                look,
                listing,
                "a page that others refer to is missing",
                vaddr,
            )),
        }
    }

    /// Finds the pages of a part of an entry.
    fn entry(
        &mut self,
        look: Look,
        listing: &Listing,
        entry: &Entry,
        part: Range<u64>,
    ) -> Result<(), SetError> {
        match entry {
            Entry::Own(Own::Stored(place)) | Entry::Same(_, Some(Own::Stored(place))) => {
                let first_page = self.first(look, listing)?;
                let placement = Placement {
                    vaddr: part.start.wrapping_add(look.shift),
                    first_page: first_page + place.first_page + (part.start - place.vaddr) / PAGE,
                    nr_pages: (part.end - part.start) / PAGE,
                };
                self.push(placement, look, listing)
            }
            Entry::Own(Own::Parent(_)) | Entry::Same(_, Some(Own::Parent(_))) => {
                let earlier = Look {
                    generation: look.generation + 1,
                    gaps: false,
                    lent: false,
                    ..look
                };
                self.range(earlier, part)
            }
            Entry::Same(_, None) if look.lent => {
                let what = "pages are to be those of a task that does not have them";
                Err(self.wrong(look, listing, what, part.start))
            }
            Entry::Same(same, None) => {
                let is_moved = same.at != same.range.start;
                let there = part.start - same.range.start + same.at;
                let owner = Look {
                    owner: Owner::Task(same.owner.cast_signed()),
                    shift: look.shift.wrapping_add(part.start).wrapping_sub(there),
                    lent: true,
                    // What neither has is zero in both.
                    gaps: look.gaps && !is_moved,
                    ..look
                };
                self.range(owner, there..there + (part.end - part.start))
            }
        }
    }

    /// Where the pages of a file begin in the count.
    fn first(&mut self, look: Look, listing: &Listing) -> Result<u64, SetError> {
        let file = (look.generation, look.owner);
        if let Some(first) = self.firsts.get(&file) {
            return Ok(*first);
        }
        let first = self.pages;
        self.pages += listing.pages;
        if self.pages > MOST_PAGES {
            return Err(self.wrong(look, listing, "there are too many pages", 0));
        }
        self.found.parts.push(Part {
            generation: look.generation,
            pages_id: listing.pages_id,
            owner: look.owner,
            pages: listing.pages,
        });
        self.records += listing.entries.len();
        self.firsts.insert(file, first);
        Ok(first)
    }

    fn push(&mut self, next: Placement, look: Look, listing: &Listing) -> Result<(), SetError> {
        let placements = &mut self.found.placements;
        if let Some(last) = placements.last_mut()
            && last.range().end == next.vaddr
            && last.pages().end == next.first_page
        {
            last.nr_pages += next.nr_pages;
            return Ok(());
        }
        placements.push(next);
        let most = MOST_PLACEMENTS.saturating_add(self.records.saturating_mul(FOR_A_RECORD));
        match placements.len() <= most {
            true => Ok(()),
            false => Err(self.wrong(look, listing, "pages are in too many places", next.vaddr)),
        }
    }

    fn wrong(&self, look: Look, listing: &Listing, what: &'static str, vaddr: u64) -> SetError {
        SetError::Pagemap {
            directory: self.sets.label(look.generation),
            pages_id: listing.pages_id,
            what,
            vaddr,
        }
    }
}
