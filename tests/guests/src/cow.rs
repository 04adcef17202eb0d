//! Pages that processes have in common since a `fork(2)`: they must be the same pages again, not copies.
//!
//! `cow-generations`: a child and its child change, drop, protect and unmap parts of what they got, of anonymous memory
//! and of a private mapping of a file. `cow-siblings`: children born before and after their parent has changed
//! something.

use crate::Entry;
use crate::os::{Map, PAGE, os};
use crate::protocol::{Check, Failure, Gate, Guest, Kid, ensure, same};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("cow-generations", generations),
    Entry("cow-siblings", siblings),
];

const PAGES: usize = 512;

/// Where the pages of mappings are, told by each of several processes to all.
struct Frames {
    table: Map,
}

impl Frames {
    fn new(processes: usize) -> Check<Self> {
        let table = Map::shared(processes * 2 * PAGES * 8)?;
        Ok(Self { table })
    }

    /// The caller's, of two mappings.
    fn tell(&self, process: usize, maps: [&Map; 2]) -> Check {
        let pagemap = File::open("/proc/self/pagemap")?;
        for (half, map) in maps.into_iter().enumerate() {
            let mut entries = vec![0; PAGES * 8];
            let first = (map.addr() / PAGE * 8) as u64;
            pagemap.read_exact_at(&mut entries, first)?;
            for (page, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
                self.table
                    .set(at(process, half, page), frame(u64::from_ne_bytes(*entry)));
            }
        }
        Ok(())
    }

    fn get(&self, process: usize, half: usize, page: usize) -> u64 {
        self.table.get(at(process, half, page))
    }

    /// Pages which all of these processes have in common.
    fn common(&self, processes: &[usize]) -> Vec<(usize, usize)> {
        let all = (0..2 * PAGES).map(|index| (index / PAGES, index % PAGES));
        let is_common = |(half, page): &(usize, usize)| {
            let first = self.get(processes[0], *half, *page);
            first != 0
                && processes
                    .iter()
                    .all(|process| self.get(*process, *half, *page) == first)
        };
        all.filter(is_common).collect()
    }
}

fn at(process: usize, half: usize, page: usize) -> usize {
    ((process * 2 + half) * PAGES + page) * 8
}

/// The number of the frame, 0 if there is none.
fn frame(entry: u64) -> u64 {
    match entry >> 63 {
        0 => 0,
        _ => entry & ((1 << 55) - 1),
    }
}

/// Anonymous memory and a private mapping of a file, both written all over.
fn memory(guest: &Guest) -> Check<[Map; 2]> {
    let anonymous = Map::anon(PAGES * PAGE)?;
    anonymous.advise(0, PAGES * PAGE, libc::MADV_NOHUGEPAGE)?;
    let file = File::create_new(guest.path("file"))?;
    file.set_len((PAGES * PAGE) as u64)?;
    let file = File::open(guest.path("file"))?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let mapped = Map::new(PAGES * PAGE, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0)?;
    for map in [&anonymous, &mapped] {
        map.fill(0, PAGES, 61);
    }
    Ok([anonymous, mapped])
}

/// Pages that descendants have dropped, and unmapped.
const DROPPED: Range<usize> = 200..220;
const UNMAPPED: Range<usize> = 400..410;

/// Checks that both mappings hold what they held, but for `changed` with another seed. Descendants have less.
fn contents(maps: &[Map; 2], changed: &[(usize, usize, u64)], descends: bool) -> Check {
    for (map, page) in maps
        .iter()
        .flat_map(|map| (0..PAGES).map(move |page| (map, page)))
    {
        let own = changed
            .iter()
            .rev()
            .find(|(from, to, _)| (*from..*to).contains(&page));
        let seed = own.map_or(61, |(_, _, seed)| *seed);
        if descends && DROPPED.contains(&page) {
            map.check_zero("dropped page", page, page + 1)?;
        } else if !descends || !UNMAPPED.contains(&page) {
            map.check("page", page, page + 1, seed)?;
        }
    }
    Ok(())
}

fn generations(guest: &Guest) -> Check {
    let maps = memory(guest)?;
    let (frames, gate) = (Frames::new(3)?, Gate::new()?);
    let all = [&maps[0], &maps[1]];
    let kid = guest.fork("child", |guest| {
        for map in all {
            map.fill(100, 150, 62);
            map.advise(
                DROPPED.start * PAGE,
                DROPPED.len() * PAGE,
                libc::MADV_DONTNEED,
            )?;
            map.protect(300 * PAGE, 20 * PAGE, libc::PROT_READ)?;
            os!(libc::munmap(
                map.at(UNMAPPED.start * PAGE),
                UNMAPPED.len() * PAGE
            ))?;
        }
        let inner = Gate::new()?;
        let kid = guest.fork("grandchild", |guest| {
            for map in all {
                map.fill(0, 10, 63);
                map.fill(120, 130, 63);
            }
            frames.tell(2, all)?;
            inner.arrive()?;
            guest.wait();
            let own = [(100, 150, 62), (0, 10, 63), (120, 130, 63)];
            contents(&maps, &own, true)?;
            frames.tell(2, all)
        })?;
        inner.wait(1)?;
        frames.tell(1, all)?;
        gate.arrive()?;
        guest.wait();
        contents(&maps, &[(100, 150, 62)], true)?;
        frames.tell(1, all)?;
        kid.join(guest)
    })?;
    gate.wait(1)?;
    let looked = frames.tell(0, all);
    let groups = [&[0, 1, 2][..], &[0, 1], &[1, 2], &[0, 2]];
    let before = groups.map(|group| frames.common(group));
    let want = [422, 432, 462, 422].map(|pages| 2 * pages);
    let seen = before.each_ref().map(Vec::len);
    if looked.is_err() || seen[0] == 0 {
        return Err(Failure::skip("frame numbers are not told"));
    }
    same!("pages in common", seen, want);
    guest.hold()?;
    contents(&maps, &[], false)?;
    frames.tell(0, all)?;
    kid.join(guest)?;
    for (group, before) in groups.iter().zip(before) {
        let after = frames.common(group);
        let lost = before.iter().filter(|page| !after.contains(page)).count();
        ensure!(
            lost == 0,
            "{lost} pages that {group:?} had in common are copies"
        );
    }
    Ok(())
}

fn siblings(guest: &Guest) -> Check {
    const KIDS: usize = 4;
    let maps = memory(guest)?;
    let all = [&maps[0], &maps[1]];
    let (frames, gate) = (Frames::new(KIDS + 1)?, Gate::new()?);
    let mut kids: Vec<Kid> = Vec::new();
    for index in 0..KIDS {
        let seed = |of: usize| 70 + of as u64;
        kids.push(guest.fork(&format!("child-{index}"), |guest| {
            frames.tell(index + 1, all)?;
            gate.arrive()?;
            guest.wait();
            let changed: Vec<_> = (0..index)
                .map(|of| (of * 20, of * 20 + 20, seed(of)))
                .collect();
            contents(&maps, &changed, false)?;
            frames.tell(index + 1, all)?;
            // Nobody else may see it.
            all.iter()
                .for_each(|map| map.fill(0, PAGES, 90 + index as u64));
            Ok(())
        })?);
        // The next one is born with this.
        all.iter()
            .for_each(|map| map.fill(index * 20, index * 20 + 20, seed(index)));
    }
    gate.wait(KIDS)?;
    frames.tell(0, all)?;
    let group: Vec<usize> = (0..=KIDS).collect();
    let before = frames.common(&group);
    if before.is_empty() {
        return Err(Failure::skip("frame numbers are not told"));
    }
    same!("pages in common", before.len(), 2 * (PAGES - KIDS * 20));
    guest.hold()?;
    frames.tell(0, all)?;
    kids.iter().try_for_each(|kid| kid.join(guest))?;
    let after = frames.common(&group);
    let lost = before.iter().filter(|page| !after.contains(page)).count();
    ensure!(lost == 0, "{lost} pages that all had in common are copies");
    let changed: Vec<_> = (0..KIDS)
        .map(|of| (of * 20, of * 20 + 20, 70 + of as u64))
        .collect();
    contents(&maps, &changed, false)
}
