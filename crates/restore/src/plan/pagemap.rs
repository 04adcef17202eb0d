//! Where the pages of an address space are: among its own, or among those of a task that has them too.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use gelid_image::ImageKind;
use gelid_pages::{Owner, Pagemap, Sets};

use super::PlanError;
use super::ranges::meet;
use super::space::Space;

/// Pages that the images of another task hold, or those of the same one at other addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Same {
    pub(crate) range: Range<u64>,
    /// Pid of that task.
    pub(crate) owner: u32,
    /// Where that task has them.
    pub(crate) at: u64,
    /// Index of its address space, once all are known.
    pub(crate) space: usize,
}

/// Reads where the pages of all objects with these numbers are.
pub(crate) fn shared(
    sets: &mut Sets,
    ids: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, Pagemap>, PlanError> {
    let mut shared = HashMap::new();
    for id in ids {
        if let Some(pagemap) = of_nobody(sets, id)? {
            shared.insert(id, pagemap);
        }
    }
    Ok(shared)
}

/// Reads where the pages of memory are that belongs to no task; `None` if it has none, since it was never touched.
pub(crate) fn of_nobody(sets: &mut Sets, id: u32) -> Result<Option<Pagemap>, PlanError> {
    let pagemap = match sets.pagemap(Owner::Shared(id.into())) {
        Err(error) if error.is_missing() => {
            // Of an earlier set it must not be missing.
            let own = sets.dir().reader_opt(ImageKind::PagemapShmem, id)?;
            return own.map_or(Ok(None), |_| Err(error.into()));
        }
        pagemap => pagemap?,
    };
    match pagemap.same.first() {
        None => Ok(Some(pagemap)),
        Some(same) => Err(PlanError::Pagemap {
            pages_id: pagemap.pages_id,
            what: "pages that belong to no task are among those of one",
            vaddr: same.range.start,
        }),
    }
}

/// Which images hold pages, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// The address space whose images they are.
    pub(crate) space: usize,
    /// What leads from an address to where it is there, modulo 2^64: 0 for the same.
    pub(crate) shift: u64,
}

impl Source {
    fn unmoved(space: usize) -> Self {
        Self { space, shift: 0 }
    }
}

impl From<gelid_pages::Same> for Same {
    fn from(same: gelid_pages::Same) -> Self {
        Self {
            range: same.range,
            owner: same.owner,
            at: same.at,
            space: 0,
        }
    }
}

impl Same {
    fn source(&self) -> Source {
        Source {
            space: self.space,
            shift: self.at.wrapping_sub(self.range.start),
        }
    }

    fn is_moved(&self) -> bool {
        self.at != self.range.start
    }

    /// The addresses of the owner.
    fn there(&self) -> Range<u64> {
        self.at..self.at + (self.range.end - self.range.start)
    }
}

/// Where pages of an address space are, ascending, each with the images that hold them.
pub(crate) fn contents(spaces: &[Space], index: usize) -> Vec<(Range<u64>, Source)> {
    let space = &spaces[index];
    let own = space.own_pages();
    let mut contents: Vec<_> = own.map(|range| (range, Source::unmoved(index))).collect();
    let (moved, unmoved): (Vec<&Same>, _) = space.same.iter().partition(|same| same.is_moved());
    let pages = |same: &Same| (same.range.clone(), same.source());
    contents.extend(moved.into_iter().map(pages));
    for (owner, pages) in by_owner(unmoved.into_iter().map(pages)) {
        let there: Vec<_> = spaces[owner].own_pages().collect();
        // What neither has is zero in both.
        let pages = meet(&pages, &there).map(|(range, ..)| range);
        contents.extend(pages.map(|range| (range, Source::unmoved(owner))));
    }
    contents.sort_by_key(|(range, _)| range.start);
    contents
}

/// Pages, sorted by the address space whose images hold them; each with its shift.
pub(crate) fn by_owner(
    pages: impl IntoIterator<Item = (Range<u64>, Source)>,
) -> BTreeMap<usize, Vec<(Range<u64>, u64)>> {
    let mut owners: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for (range, source) in pages {
        let pages = owners.entry(source.space).or_default();
        pages.push((range, source.shift));
    }
    owners
}

/// Finds the address spaces whose pages others have too.
pub(crate) fn find_owners(spaces: &mut [Space]) -> Result<(), PlanError> {
    let by_pid: HashMap<u32, usize> = spaces
        .iter()
        .enumerate()
        .map(|(index, space)| (space.pid.cast_unsigned(), index))
        .collect();
    // What each has itself, and what it has from others.
    let own: Vec<Vec<Range<u64>>> = spaces
        .iter()
        .map(|space| space.own_pages().collect())
        .collect();
    let borrowed: Vec<Vec<Range<u64>>> = spaces
        .iter()
        .map(|space| space.same.iter().map(|same| same.range.clone()).collect())
        .collect();
    for (index, space) in spaces.iter_mut().enumerate() {
        let pages_id = space.pagemap.pages_id;
        for same in &mut space.same {
            let owner = by_pid.get(&same.owner).copied();
            let owner = owner.filter(|owner| match same.is_moved() {
                true => is_within(&same.there(), &own[*owner]),
                false => *owner != index && is_apart(&same.range, &borrowed[*owner]),
            });
            same.space = owner.ok_or(PlanError::Pagemap {
                pages_id,
                what: "pages are to be those of a task that does not have them",
                vaddr: same.range.start,
            })?;
        }
    }
    Ok(())
}

/// Whether ascending ranges have nothing of a range.
fn is_apart(range: &Range<u64>, others: &[Range<u64>]) -> bool {
    let next = others.partition_point(|other| other.end <= range.start);
    let next = others.get(next);
    next.is_none_or(|next| next.start >= range.end)
}

/// Whether ascending ranges have all of a range.
fn is_within(range: &Range<u64>, others: &[Range<u64>]) -> bool {
    let first = others.partition_point(|other| other.end <= range.start);
    let mut at = range.start;
    for other in &others[first..] {
        if at >= range.end || other.start > at {
            break;
        }
        at = other.end;
    }
    at >= range.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::MmEntry;
    use gelid_pages::Placement;

    const PAGE: u64 = gelid_pages::PAGE_SIZE as u64;

    fn space(pid: i32, own: &[Range<u64>], same: &[(Range<u64>, u32)]) -> Space {
        let same = same.iter().cloned();
        let same = same.map(|(range, owner)| (range.clone(), owner, range.start));
        moved(pid, own, &same.collect::<Vec<_>>())
    }

    fn moved(pid: i32, own: &[Range<u64>], same: &[(Range<u64>, u32, u64)]) -> Space {
        let mut first_page = 0;
        let place = |range: &Range<u64>| {
            let place = Placement {
                vaddr: range.start * PAGE,
                first_page,
                nr_pages: range.end - range.start,
            };
            first_page += place.nr_pages;
            place
        };
        let same = same.iter().map(|(range, owner, at)| Same {
            range: range.start * PAGE..range.end * PAGE,
            owner: *owner,
            at: at * PAGE,
            space: 0,
        });
        Space {
            pid,
            mm: MmEntry::default(),
            areas: Vec::new(),
            guards: Vec::new(),
            protection: crate::plan::protection::Protection::default(),
            rings: Vec::new(),
            vdso: None,
            pagemap: Pagemap {
                pages_id: pid.cast_unsigned(),
                placements: own.iter().map(place).collect(),
                ..Pagemap::default()
            },
            same: same.collect(),
        }
    }

    #[test]
    fn pages_are_found_where_they_are() {
        let mut spaces = [
            space(7, &[1..4, 6..9], &[]),
            space(8, &[2..3], &[(1..2, 7), (3..8, 7)]),
            space(9, &[], &[(2..3, 8), (6..7, 7)]),
        ];
        find_owners(&mut spaces).unwrap();
        let contents = |index| {
            let pages = contents(&spaces, index).into_iter();
            let pages = pages.map(|(range, source)| {
                assert_eq!(source.shift, 0);
                (range.start / PAGE..range.end / PAGE, source.space)
            });
            pages.collect::<Vec<_>>()
        };
        assert_eq!(contents(0), [(1..4, 0), (6..9, 0)]);
        // Pages that the other does not have are zero in both.
        assert_eq!(contents(1), [(1..2, 0), (2..3, 1), (3..4, 0), (6..8, 0)]);
        assert_eq!(contents(2), [(2..3, 1), (6..7, 0)]);
    }

    #[test]
    fn moved_pages_are_found_where_they_are() {
        let mut spaces = [
            moved(7, &[1..4, 4..9], &[(20..22, 7, 3)]),
            moved(8, &[3..4], &[(4..6, 7, 1), (6..7, 8, 3)]),
        ];
        find_owners(&mut spaces).unwrap();
        let contents = |index| {
            let pages = contents(&spaces, index).into_iter();
            let pages = pages.map(|(range, source)| {
                let at = range.start.wrapping_add(source.shift) / PAGE;
                (range.start / PAGE..range.end / PAGE, source.space, at)
            });
            pages.collect::<Vec<_>>()
        };
        assert_eq!(contents(0), [(1..4, 0, 1), (4..9, 0, 4), (20..22, 0, 3)]);
        assert_eq!(contents(1), [(3..4, 1, 3), (4..6, 0, 1), (6..7, 1, 3)]);
    }

    #[test]
    fn pages_of_nobody_are_refused() {
        let wrong = |mut spaces: Vec<Space>| find_owners(&mut spaces).unwrap_err().to_string();
        let owner = || space(7, &[1..9], &[]);
        for spaces in [
            vec![owner(), space(8, &[], &[(1..2, 6)])],
            vec![owner(), space(8, &[], &[(1..2, 8)])],
            // In a circle, and one after the other.
            vec![space(7, &[], &[(1..2, 8)]), space(8, &[], &[(1..2, 7)])],
            vec![
                owner(),
                space(8, &[], &[(1..4, 7)]),
                space(9, &[], &[(3..5, 8)]),
            ],
            // Moved: of nobody, not all there, zero there, among those of others.
            vec![owner(), moved(8, &[], &[(1..2, 6, 3)])],
            vec![owner(), moved(8, &[], &[(1..3, 7, 8)])],
            vec![owner(), moved(8, &[], &[(5..6, 7, 0)])],
            vec![space(7, &[1..4, 5..9], &[]), moved(8, &[], &[(1..4, 7, 2)])],
            vec![
                owner(),
                space(8, &[5..6], &[(1..4, 7)]),
                moved(9, &[], &[(3..5, 8, 2)]),
            ],
            vec![moved(7, &[1..3], &[(4..5, 7, 5), (5..6, 7, 4)])],
        ] {
            assert!(wrong(spaces).contains("does not have them"));
        }
    }
}
