//! `pagemap-*.img` and the names of files of pages. Section 9 of the format.

use std::collections::HashMap;
use std::ops::Range;

use gelid_image::messages::{PagemapEntry, PagemapHead};
use gelid_image::{ImageKind, Staging};
use gelid_pages::{Format, Owner, PAGE_SIZE, Reference, Run, encode_checksums};

use crate::Error;
use crate::pages::Stored;

/// The file of pages number `pages_id`.
pub(crate) fn pages_file(pages_id: u32, format: Format) -> String {
    match format {
        Format::Raw => format!("pages-{pages_id}.img"),
        Format::Zstd { .. } | Format::Adaptive => format!("pages-{pages_id}.img.zst"),
    }
}

/// How names of files end that hold packed pages.
const PACKED: &str = ".zst";

/// What the manifest says of a file of frames, which carry checksums themselves.
const FRAMES: &str = "zstd frames";

impl Stored {
    /// Writes the pagemap, and notes the checksum of the file of pages. `all` has all objects of the dump, `number` tells
    /// what the process is called that was asked.
    pub(crate) fn write(
        &self,
        staging: &Staging,
        all: &HashMap<Owner, &Self>,
        number: impl Fn(i32) -> i32,
    ) -> Result<(), Error> {
        let mut writer = match self.owner {
            Owner::Task(pid) => staging.writer(ImageKind::Pagemap, number(pid))?,
            Owner::Shared(shmid) => staging.writer(ImageKind::PagemapShmem, shmid)?,
        };
        let pages_id = self.pages_id;
        writer.push(&PagemapHead { pages_id })?;
        let is_packed = self.file.ends_with(PACKED);
        let own = self.summary.pagemap.iter();
        let elsewhere = self.elsewhere(all).into_iter();
        let elsewhere = elsewhere.map(|pages| pages.entry(&number));
        let mut entries: Vec<_> = match is_packed {
            true => own.map(entry).chain(elsewhere).collect(),
            false => told(own, elsewhere),
        };
        entries.sort_by_key(|entry| entry.vaddr);
        for entry in &entries {
            writer.push(entry)?;
        }
        writer.finish()?;
        let checksum = if is_packed {
            FRAMES.to_owned()
        } else {
            encode_checksums(&self.summary.checksums)
        };
        staging.set_checksum(&self.file, checksum)?;
        Ok(())
    }

    /// The pages that it does not hold itself, each where they are held: what it has in common with another may be among
    /// what that one has left out, since a third has equal pages.
    fn elsewhere(&self, all: &HashMap<Owner, &Self>) -> Vec<Elsewhere> {
        let left_out = self.summary.references.iter();
        let mut elsewhere: Vec<_> = left_out
            .map(|reference| Elsewhere::of(reference, reference.range()))
            .collect();
        for same in &self.same {
            let owner = Owner::Task(same.owner.as_raw_pid());
            let theirs = all.get(&owner).map(|stored| &stored.summary.references[..]);
            let theirs = theirs.unwrap_or_default();
            let mut at = same.range.start;
            let first = theirs.partition_point(|reference| reference.range().end <= at);
            for reference in &theirs[first..] {
                let there = reference.range();
                let part = there.start.max(at)..there.end.min(same.range.end);
                if part.is_empty() {
                    break;
                }
                elsewhere.extend(Elsewhere::unmoved(owner, at..part.start));
                at = part.end;
                elsewhere.push(Elsewhere::of(reference, part));
            }
            elsewhere.extend(Elsewhere::unmoved(owner, at..same.range.end));
        }
        elsewhere
    }
}

/// Pages that are among those of another task, or elsewhere among its own.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere {
    range: Range<u64>,
    owner: Owner,
    at: u64,
}

impl Elsewhere {
    /// Some of the pages that were left out.
    fn of(reference: &Reference, range: Range<u64>) -> Self {
        Self {
            at: reference.at + (range.start - reference.vaddr),
            owner: reference.owner.owner,
            range,
        }
    }

    /// Pages, if any, that another has at the same addresses.
    fn unmoved(owner: Owner, range: Range<u64>) -> Option<Self> {
        let at = range.start;
        (!range.is_empty()).then_some(Self { range, owner, at })
    }

    fn entry(&self, number: impl Fn(i32) -> i32) -> PagemapEntry {
        PagemapEntry {
            vaddr: self.range.start,
            flags: Some(0),
            nr_pages: Some((self.range.end - self.range.start) / PAGE_SIZE as u64),
            same_as: match self.owner {
                Owner::Task(pid) => Some(number(pid).cast_unsigned()),
                // Nobody refers to shared memory.
                Owner::Shared(_) => None,
            },
            same_at: Some(self.at).filter(|at| *at != self.range.start),
            ..PagemapEntry::default()
        }
    }
}

/// Runs of pages that are all stored, cut where another has them, too: CRIU's own form has no word for pages that are left
/// out, but a restore need not read them twice, and knows what was shared.
fn told<'a>(
    own: impl Iterator<Item = &'a Run>,
    elsewhere: impl Iterator<Item = PagemapEntry>,
) -> Vec<PagemapEntry> {
    let mut elsewhere = elsewhere.peekable();
    let mut entries = Vec::new();
    let mut push = |run: &Run, range: Range<u64>, same: Option<&PagemapEntry>| {
        if range.is_empty() {
            return;
        }
        entries.push(PagemapEntry {
            vaddr: range.start,
            nr_pages: Some((range.end - range.start) / PAGE_SIZE as u64),
            same_as: same.and_then(|same| same.same_as),
            ..entry(run)
        });
    };
    for run in own {
        let Range { start: mut at, end } = run.range();
        while let Some(same) = elsewhere.peek() {
            let there = same.vaddr..same.vaddr + same.nr_pages.unwrap_or(0) * PAGE_SIZE as u64;
            if there.start >= end {
                break;
            }
            let part = there.start.max(at)..there.end.min(end);
            if !part.is_empty() {
                push(run, at..part.start, None);
                push(run, part.clone(), Some(same));
                at = part.end;
            }
            if there.end > end {
                break;
            }
            elsewhere.next();
        }
        push(run, at..end, None);
    }
    entries
}

fn entry(run: &Run) -> PagemapEntry {
    PagemapEntry {
        vaddr: run.vaddr,
        flags: Some(run.flags.bits()),
        nr_pages: Some(run.nr_pages),
        ..PagemapEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use gelid_pages::{ObjectKey, RunFlags, Summary};
    use gelid_sys::Pid;

    use super::*;
    use crate::frames::Same;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn stored(
        pid: i32,
        same: &[(Range<u64>, i32)],
        references: &[(Range<u64>, i32, u64)],
    ) -> Stored {
        let same = same.iter().map(|(range, owner)| Same {
            range: range.start * PAGE..range.end * PAGE,
            owner: Pid::from_raw(*owner).unwrap(),
        });
        let references = references.iter().map(|(range, owner, at)| Reference {
            vaddr: range.start * PAGE,
            nr_pages: range.end - range.start,
            owner: ObjectKey {
                pages_id: owner.unsigned_abs(),
                owner: Owner::Task(*owner),
            },
            at: at * PAGE,
        });
        Stored {
            owner: Owner::Task(pid),
            pages_id: pid.unsigned_abs(),
            file: String::new(),
            scanned: 0,
            guards: Vec::new(),
            same: same.collect(),
            summary: Summary {
                references: references.collect(),
                ..Summary::default()
            },
        }
    }

    #[test]
    fn what_others_have_too_is_told_where_all_is_stored() {
        let run = |vaddr: u64, nr_pages| Run {
            vaddr: vaddr * PAGE,
            nr_pages,
            flags: RunFlags::PRESENT,
        };
        let own = [run(2, 6), run(10, 1), run(20, 4)];
        // Among them pages that are not stored, since they are zero.
        let all = [stored(
            7,
            &[(0..3, 1), (4..5, 2), (6..12, 1), (15..16, 1)],
            &[],
        )];
        let elsewhere = all[0].elsewhere(&HashMap::new());
        let elsewhere = elsewhere.iter().map(|pages| pages.entry(|pid| pid));
        let entries = told(own.iter(), elsewhere);
        let entries = entries.iter().map(|entry| {
            assert_eq!(entry.flags, Some(RunFlags::PRESENT.bits()));
            (entry.vaddr / PAGE, entry.nr_pages.unwrap(), entry.same_as)
        });
        let want = [
            (2, 1, Some(1)),
            (3, 1, None),
            (4, 1, Some(2)),
            (5, 1, None),
            (6, 2, Some(1)),
            (10, 1, Some(1)),
            (20, 4, None),
        ];
        assert_eq!(entries.collect::<Vec<_>>(), want);
    }

    #[test]
    fn what_is_elsewhere_is_where_it_is_stored() {
        let all = [
            stored(1, &[], &[]),
            stored(2, &[], &[(4..6, 1, 40), (8..12, 2, 20)]),
            stored(3, &[(1..9, 2), (11..14, 2), (30..31, 1)], &[(15..16, 3, 9)]),
        ];
        let by_owner = all.iter().map(|stored| (stored.owner, stored)).collect();
        let mut elsewhere = all[2].elsewhere(&by_owner);
        elsewhere.sort_by_key(|pages| pages.range.start);
        let entries = elsewhere.iter().map(|pages| {
            let entry = pages.entry(|pid| pid + 100);
            let pages = |address: u64| address / PAGE;
            let (same_as, same_at) = (entry.same_as.unwrap(), entry.same_at.map(pages));
            (
                pages(entry.vaddr),
                entry.nr_pages.unwrap(),
                same_as,
                same_at,
            )
        });
        let want = [
            (1, 3, 102, None),
            (4, 2, 101, Some(40)),
            (6, 2, 102, None),
            (8, 1, 102, Some(20)),
            (11, 1, 102, Some(23)),
            (12, 2, 102, None),
            (15, 1, 103, Some(9)),
            (30, 1, 101, None),
        ];
        assert_eq!(entries.collect::<Vec<_>>(), want);
    }
}
