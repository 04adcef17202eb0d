//! Equal pages of a dump: told by their hashes, and stored once.
//!
//! Whoever is dumped has chosen what is in the pages, so the hash is one of which nobody can make two of the same: BLAKE3.
//! Workers hash side by side, but look pages up in the order in which chunks were queued: the same memory gives the same
//! images. Each page that is not known yet is stored and known from then on, so that what others refer to is always a
//! page that is stored itself.
//!
//! A few pages are not worth a reference: to get at them, a restore unpacks a whole chunk of the owner's.

use crate::key::ObjectKey;
use crate::pool::lock;
use crate::run::RunFlags;
use crate::sample::is_zero;
use crate::source::byte_len;
use crate::store::{Extent, Zeros};
use crate::{CHUNK_BYTES, CHUNK_PAGES, PAGE_SIZE};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Pages that are known at most, 14 GiB of them; later ones are only compared with these. The table takes 140 MiB by then,
/// and half as much more while it grows.
const MOST_KNOWN: usize = 7 << 19;

/// The part of an owner's pages in a mebibyte that a chunk must have, so that it refers to them. With every 16th or 8th page,
/// files were 2 or 4 % smaller, and a restore took a fifth longer.
const PART: usize = 4;

/// Pages in a row that are enough: they may end in a mebibyte of which they have little.
const ROW: usize = CHUNK_PAGES / PART;

/// Pages that an object does not hold, since an object of the same store has equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Address of the first page.
    pub vaddr: u64,
    /// Number of pages, never 0.
    pub nr_pages: u64,
    /// The object that holds them; it may be the same.
    pub owner: ObjectKey,
    /// Address of the first page there.
    pub at: u64,
}

impl Reference {
    pub(crate) fn to_page(vaddr: u64, owner: ObjectKey, at: u64) -> Self {
        Self {
            vaddr,
            nr_pages: 1,
            owner,
            at,
        }
    }

    /// The addresses of the pages in the object that does not hold them.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.vaddr..self.vaddr + self.bytes()
    }

    fn bytes(&self) -> u64 {
        self.nr_pages * PAGE_SIZE as u64
    }
}

/// Appends `next`, as one with its predecessor where it goes on with it in both objects.
pub(crate) fn append(references: &mut Vec<Reference>, next: Reference) {
    match references.last_mut() {
        Some(last)
            if last.range().end == next.vaddr
                && last.owner == next.owner
                && last.at + last.bytes() == next.at =>
        {
            last.nr_pages += next.nr_pages;
        }
        _ => references.push(next),
    }
}

/// Half a BLAKE3 hash: to find two pages with the same one takes 2^64 attempts.
type Hash = [u8; 16];

/// Where a page is: an object, by its number in the table, and the address there.
type Place = (u32, u64);

/// The same for others.
pub(crate) type Found = (ObjectKey, u64);

/// The pages of a store that are known.
#[derive(Default)]
pub(crate) struct Known {
    issued: Mutex<u64>,
    table: Mutex<Table>,
    turned: Condvar,
}

#[derive(Default)]
struct Table {
    /// Whose turn it is.
    turn: u64,
    /// Tickets given back before their turn.
    over: BTreeSet<u64>,
    objects: Vec<ObjectKey>,
    places: HashMap<Hash, Place>,
    /// How many pages are stored in each mebibyte of an object.
    stored: HashMap<Near, usize>,
}

/// A mebibyte of an object, about what lies in one chunk.
type Near = (u32, u64);

/// The right to look pages up once all who came before have; given back when dropped.
pub(crate) struct Ticket {
    known: Arc<Known>,
    number: u64,
}

impl Known {
    /// Queues something that needs a ticket, so that tickets are queued in their order.
    pub(crate) fn queue<T>(self: &Arc<Self>, queue: impl FnOnce(Ticket) -> T) -> T {
        let mut issued = lock(&self.issued);
        let number = *issued;
        *issued += 1;
        queue(Ticket {
            known: Arc::clone(self),
            number,
        })
    }
}

impl Ticket {
    /// Looks up the pages of a chunk of `object`, and makes known those that are new.
    fn look(self, object: ObjectKey, pages: &[Page], found: &mut Vec<Option<Found>>) {
        let mut table = lock(&self.known.table);
        while table.turn != self.number {
            let waited = self.known.turned.wait(table);
            table = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let number = table.number(object);
        let places = table.find(number, pages);
        found.extend(places.into_iter().map(|place| table.found(place?)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = lock(&self.known.table);
        table.over.insert(self.number);
        while let turn = table.turn
            && table.over.remove(&turn)
        {
            table.turn += 1;
        }
        drop(table);
        self.known.turned.notify_all();
    }
}

impl Table {
    /// The number of the object of a chunk, most often that of the chunk before.
    fn number(&mut self, object: ObjectKey) -> u32 {
        let number = self.objects.iter().rposition(|known| *known == object);
        let number = number.unwrap_or_else(|| {
            self.objects.push(object);
            self.objects.len() - 1
        });
        // There are fewer tasks.
        number as u32
    }

    /// Finds the places of a chunk's pages that are worth it.
    fn find(&mut self, object: u32, pages: &[Page]) -> Vec<Option<Place>> {
        let hashed = |page: &&Page| page.hash.is_some();
        for page in pages.iter().filter(hashed) {
            *self.stored.entry(near(object, page.vaddr)).or_default() += 1;
        }
        let mut found: Vec<_> = pages.iter().map(|page| self.look(object, page)).collect();
        self.forget_few(pages, &mut found);
        let left_out = pages.iter().zip(&found);
        for (page, _) in left_out.filter(|(_, found)| found.is_some()) {
            let stored = self.stored.entry(near(object, page.vaddr)).or_default();
            *stored = stored.saturating_sub(1);
        }
        found
    }

    fn found(&self, (object, at): Place) -> Option<Found> {
        Some((*self.objects.get(object as usize)?, at))
    }

    fn look(&mut self, object: u32, page: &Page) -> Option<Place> {
        let hash = page.hash.as_ref()?;
        if let Some(place) = self.places.get(hash) {
            return Some(*place);
        }
        if self.places.len() < MOST_KNOWN {
            self.places.insert(*hash, (object, page.vaddr));
        }
        None
    }

    /// Forgets what was found where there is too little of it.
    fn forget_few(&self, pages: &[Page], found: &mut [Option<Place>]) {
        let mut places: Vec<Place> = found.iter().flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        let is_much = |(object, at): Place| {
            let near = near(object, at);
            let first = places.partition_point(|(object, at)| self::near(*object, *at) < near);
            let end = places.partition_point(|(object, at)| self::near(*object, *at) <= near);
            let stored = self.stored.get(&near).copied().unwrap_or_default();
            (end - first) * PART >= stored
        };
        let mut start = 0;
        while start < found.len() {
            let len = in_a_row(&pages[start..], &found[start..]);
            for place in &mut found[start..start + len] {
                *place = place.filter(|place| len >= ROW || is_much(*place));
            }
            start += len;
        }
    }
}

fn near(object: u32, address: u64) -> Near {
    (object, address / CHUNK_BYTES as u64)
}

/// A page that was read; with its hash, if it may be left out.
struct Page {
    vaddr: u64,
    hash: Option<Hash>,
}

/// Looks up the pages of chunks, and keeps its buffers.
#[derive(Default)]
pub(crate) struct Finder {
    pages: Vec<Page>,
    found: Vec<Option<Found>>,
}

impl Finder {
    /// For each of the pages that were read for `pieces`, where it is already if it is to be left out.
    pub(crate) fn find(
        &mut self,
        object: ObjectKey,
        ticket: Ticket,
        pieces: &[Extent],
        bytes: &[u8],
    ) -> &[Option<Found>] {
        self.pages.clear();
        self.found.clear();
        let mut bytes = bytes.chunks_exact(PAGE_SIZE);
        let present = |piece: &&Extent| piece.flags.contains(RunFlags::PRESENT);
        for piece in pieces.iter().filter(present) {
            let addresses = piece.range.clone().step_by(PAGE_SIZE);
            let pages = bytes.by_ref().take(byte_len(&piece.range) / PAGE_SIZE);
            let hash = |bytes| hash(piece, bytes);
            let pages = addresses.zip(pages).map(|(vaddr, bytes)| Page {
                vaddr,
                hash: hash(bytes),
            });
            self.pages.extend(pages);
        }
        ticket.look(object, &self.pages, &mut self.found);
        &self.found
    }
}

fn hash(piece: &Extent, page: &[u8]) -> Option<Hash> {
    if !piece.alike || (piece.zeros == Zeros::Drop && is_zero(page)) {
        return None;
    }
    blake3::hash(page).as_bytes().first_chunk().copied()
}

/// How many pages, at least one, go on with each other in both objects.
fn in_a_row(pages: &[Page], found: &[Option<Place>]) -> usize {
    let goes_on = |(pages, found): (&[Page], &[Option<Place>])| {
        let page = PAGE_SIZE as u64;
        match found {
            [Some(one), Some(next)] => {
                pages[1].vaddr == pages[0].vaddr + page && *next == (one.0, one.1 + page)
            }
            _ => false,
        }
    };
    let pairs = pages.windows(2).zip(found.windows(2));
    1 + pairs.take_while(|pair| goes_on(*pair)).count()
}
