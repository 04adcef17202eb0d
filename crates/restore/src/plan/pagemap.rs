//! Where the pages of an address space are: among its own, or among those of a task that has them too.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use gelid_image::messages::{PagemapEntry, PagemapHead};
use gelid_image::{Dir, ImageKind, Key};
use gelid_pages::{Run, RunFlags};

use super::PlanError;
use super::ranges::both;
use super::space::{Space, aligned};

/// Pages that the images of another task hold, at the same addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Same {
    pub(crate) range: Range<u64>,
    /// Pid of that task.
    pub(crate) owner: u32,
    /// Index of its address space, once all are known.
    pub(crate) space: usize,
}

/// Memory that does not belong to one address space.
#[derive(Debug, Default)]
pub(crate) struct SharedPages {
    pub(crate) pages_id: u32,
    pub(crate) pagemap: Vec<Run>,
}

/// Reads the pages of all objects with these numbers.
pub(crate) fn shared(
    dir: &Dir,
    ids: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, SharedPages>, PlanError> {
    let mut shared = HashMap::new();
    for id in ids {
        match of_nobody(dir, ImageKind::PagemapShmem, id.into()) {
            Ok((pages_id, pagemap)) => {
                shared.insert(id, SharedPages { pages_id, pagemap });
            }
            // Memory that was never touched has no pages.
            Err(PlanError::Read(error)) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(shared)
}

/// Reads the pagemap of memory that belongs to no task: the id of its pages and the runs, ascending.
pub(crate) fn of_nobody(
    dir: &Dir,
    kind: ImageKind,
    key: Key,
) -> Result<(u32, Vec<Run>), PlanError> {
    let (pages_id, runs, same) = read(dir, kind, key)?;
    match same.first() {
        None => Ok((pages_id, runs)),
        Some(same) => Err(PlanError::Pagemap {
            pages_id,
            what: "pages that belong to no task are among those of one",
            vaddr: same.range.start,
        }),
    }
}

/// The same, with what is among the pages of other tasks.
pub(crate) fn read(
    dir: &Dir,
    kind: ImageKind,
    key: Key,
) -> Result<(u32, Vec<Run>, Vec<Same>), PlanError> {
    let mut reader = dir.reader(kind, key)?;
    let head: PagemapHead = reader.read_one()?;
    let (mut runs, mut all_same): (Vec<Run>, Vec<Same>) = (Vec::new(), Vec::new());
    let mut end = 0;
    for entry in reader.records::<PagemapEntry>() {
        let entry = entry?;
        let run = run(&entry);
        let wrong = |what| PlanError::Pagemap {
            pages_id: head.pages_id,
            what,
            vaddr: run.vaddr,
        };
        if run.nr_pages == 0 {
            continue;
        }
        let range = run.range();
        if !aligned(&range) || range.end == u64::MAX || range.start < end {
            return Err(wrong("runs overlap or have impossible bounds"));
        }
        end = range.end;
        if let Some(owner) = entry.same_as {
            all_same.push(Same {
                range,
                owner,
                space: 0,
            });
            continue;
        }
        if run.flags.contains(RunFlags::PARENT) {
            return Err(wrong(
                "pages are in a parent image, which is not supported yet",
            ));
        }
        if !run.is_present() {
            return Err(wrong("pages are still with a lazy page server"));
        }
        runs.push(run);
    }
    Ok((head.pages_id, runs, all_same))
}

/// Where pages of an address space are, ascending, each with the address space whose images hold them.
pub(crate) fn contents(spaces: &[Space], index: usize) -> Vec<(Range<u64>, usize)> {
    let space = &spaces[index];
    let mut contents: Vec<_> = space.own_pages().map(|range| (range, index)).collect();
    let same = space
        .same
        .iter()
        .map(|same| (same.range.clone(), same.space));
    for (owner, ranges) in by_owner(same) {
        let there: Vec<_> = spaces[owner].own_pages().collect();
        // What neither has is zero in both.
        let pages = both(&ranges, &there).into_iter();
        contents.extend(pages.map(|range| (range, owner)));
    }
    contents.sort_by_key(|(range, _)| range.start);
    contents
}

/// Pages, sorted by the address space whose images hold them.
pub(crate) fn by_owner(
    pages: impl IntoIterator<Item = (Range<u64>, usize)>,
) -> BTreeMap<usize, Vec<Range<u64>>> {
    let mut owners: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for (range, owner) in pages {
        owners.entry(owner).or_default().push(range);
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
    let borrowed: Vec<Vec<Range<u64>>> = spaces
        .iter()
        .map(|space| space.same.iter().map(|same| same.range.clone()).collect())
        .collect();
    for (index, space) in spaces.iter_mut().enumerate() {
        let pages_id = space.pages_id;
        for same in &mut space.same {
            let owner = by_pid.get(&same.owner).copied();
            let owner = owner.filter(|owner| {
                let others = &borrowed[*owner];
                let next = others.partition_point(|range| range.end <= same.range.start);
                let next = others.get(next);
                *owner != index && next.is_none_or(|next| next.start >= same.range.end)
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

/// A record in its present form (format, section 9.1).
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

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::MmEntry;

    const PAGE: u64 = gelid_pages::PAGE_SIZE as u64;

    fn space(pid: i32, own: &[Range<u64>], same: &[(Range<u64>, u32)]) -> Space {
        let run = |range: &Range<u64>| Run {
            vaddr: range.start * PAGE,
            nr_pages: range.end - range.start,
            flags: RunFlags::PRESENT,
        };
        let same = same.iter().map(|(range, owner)| Same {
            range: range.start * PAGE..range.end * PAGE,
            owner: *owner,
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
            pages_id: pid.cast_unsigned(),
            pagemap: own.iter().map(run).collect(),
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
            let pages = pages.map(|(range, owner)| (range.start / PAGE..range.end / PAGE, owner));
            pages.collect::<Vec<_>>()
        };
        assert_eq!(contents(0), [(1..4, 0), (6..9, 0)]);
        // Pages that the other does not have are zero in both.
        assert_eq!(contents(1), [(1..2, 0), (2..3, 1), (3..4, 0), (6..8, 0)]);
        assert_eq!(contents(2), [(2..3, 1), (6..7, 0)]);
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
        ] {
            assert!(wrong(spaces).contains("does not have them"));
        }
    }
}
