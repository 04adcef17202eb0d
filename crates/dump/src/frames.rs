//! Pages that tasks of a tree have in common since a `fork(2)`, told by their frames: they are stored once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use foldhash::fast::RandomState;
use gelid_sys::pagemap::{self, read_entries};
use gelid_sys::proc::smaps::Area;
use gelid_sys::{Errno, PAGE_SIZE, Pid};

/// Whether private memory may have pages that others have too.
pub(crate) fn is_shared(area: &Area) -> bool {
    area.anonymous > 0 && area.shared_clean + area.shared_dirty > 0
}

/// All memory of that kind.
pub(crate) fn shared(areas: &[Area]) -> Vec<Range<u64>> {
    let areas = areas.iter().filter(|area| is_shared(area));
    areas.map(|area| area.map.range()).collect()
}

/// Bytes that are much to read twice.
const MUCH: u64 = 1 << 20;

/// About how many bytes of a task are stored with others, if all who have them are dumped.
pub(crate) fn elsewhere(areas: &[Area]) -> u64 {
    let areas = areas.iter().filter(|area| is_shared(area));
    let of = areas.map(|area| area.rss.saturating_sub(area.pss).min(area.anonymous));
    of.sum()
}

/// Pages that are looked at in one go.
const PAGES: usize = 512;

/// Pages that another task has at the same addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Same {
    pub(crate) range: Range<u64>,
    /// Whose images hold them.
    pub(crate) owner: Pid,
}

impl Same {
    /// Takes pages in that go on with these; false if they do not.
    pub(crate) fn take(&mut self, more: &Self) -> bool {
        let goes_on = self.range.end == more.range.start && self.owner == more.owner;
        if goes_on {
            self.range.end = more.range.end;
        }
        goes_on
    }
}

/// Frames seen so far.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Pages that others have are left out.
    pub(crate) is_packed: bool,
    /// The task that had each first, and where. There are hundreds of thousands, with numbers that the kernel gives.
    first: HashMap<u64, (Pid, u64), RandomState>,
    /// Memory of each task whose pages others may have, and which it has from nobody; ascending.
    owned: HashMap<Pid, Vec<Range<u64>>>,
    /// Whose pages were found last: who has more is asked before all frames are.
    last_owner: Option<Pid>,
    pagemaps: HashMap<Pid, Arc<OwnedFd>>,
}

/// What is to be done with pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// They are to be stored.
    Own(Range<u64>),
    /// Another task has them.
    Same(Same),
}

impl Frames {
    /// Without any. What is shared is stored once if the format is packed; else it is worth a look only where much is read
    /// that need not be.
    pub(crate) fn new(is_packed: bool) -> Self {
        Self {
            is_packed,
            first: HashMap::default(),
            owned: HashMap::new(),
            last_owner: None,
            pagemaps: HashMap::new(),
        }
    }

    /// Whether pages of a mapping may be those of others, and are worth a look.
    pub(crate) fn concern(&self, area: &Area) -> bool {
        let common = (area.shared_clean + area.shared_dirty).min(area.anonymous);
        is_shared(area) && (self.is_packed || common >= MUCH)
    }

    /// Takes a task up that has mappings which [`concern`](Self::concern) it; the pagemap is that of the process that has
    /// its memory: of the task itself or a copy.
    pub(crate) fn take_up(&mut self, pid: Pid, pagemap: Arc<OwnedFd>) {
        self.pagemaps.insert(pid, pagemap);
    }

    /// Tells the pages of a task apart, which must be one of those taken up.
    ///
    /// The kernel may move pages meanwhile. So frames are compared again with those of the first task, between two
    /// looks at this one.
    ///
    /// # Errors
    ///
    /// As `read(2)` of the pagemap.
    pub(crate) fn sort(
        &mut self,
        pid: Pid,
        range: Range<u64>,
        out: &mut Vec<Piece>,
    ) -> Result<(), Errno> {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + (PAGES * PAGE_SIZE) as u64);
            self.sort_some(pid, start..end, out)?;
            start = end;
        }
        Ok(())
    }

    fn sort_some(
        &mut self,
        pid: Pid,
        range: Range<u64>,
        out: &mut Vec<Piece>,
    ) -> Result<(), Errno> {
        let before = self.frames(pid, &range)?;
        let mut owners = vec![None; before.len()];
        self.ask_last_owner(pid, &range, &before, &mut owners)?;
        self.ask_all(pid, &range, &before, &mut owners)?;
        if owners.iter().any(Option::is_some) {
            let after = self.frames(pid, &range)?;
            for (index, owner) in owners.iter_mut().enumerate() {
                *owner = owner.filter(|_| after[index] == before[index]);
            }
        }
        for (index, owner) in owners.into_iter().enumerate() {
            let at = range.start + (index * PAGE_SIZE) as u64;
            append(out, at..at + PAGE_SIZE as u64, owner);
            match owner {
                Some(owner) => self.last_owner = Some(owner),
                None if before[index].is_some() => self.note_owned(pid, at),
                None => {}
            }
        }
        Ok(())
    }

    /// Finds the pages that the last owner has too.
    fn ask_last_owner(
        &self,
        pid: Pid,
        range: &Range<u64>,
        frames: &[Option<u64>],
        owners: &mut [Option<Pid>],
    ) -> Result<(), Errno> {
        let Some(other) = self.last_owner.filter(|other| *other != pid) else {
            return Ok(());
        };
        let owned = self.owned.get(&other).map_or(&[][..], Vec::as_slice);
        let first = owned.partition_point(|owned| owned.end <= range.start);
        let owned = owned[first..]
            .iter()
            .take_while(|owned| owned.start < range.end);
        let mut owned = owned.peekable();
        if owned.peek().is_none() {
            return Ok(());
        }
        let there = self.frames(other, range)?;
        for owned in owned {
            let page = |address: u64| ((address - range.start) / PAGE_SIZE as u64) as usize;
            let pages = page(owned.start.max(range.start))..page(owned.end.min(range.end));
            for index in pages {
                let is_same = frames[index].is_some() && there[index] == frames[index];
                owners[index] = is_same.then_some(other);
            }
        }
        Ok(())
    }

    /// Finds who had the frames first that nobody has been found for, and has them still.
    fn ask_all(
        &mut self,
        pid: Pid,
        range: &Range<u64>,
        frames: &[Option<u64>],
        owners: &mut [Option<Pid>],
    ) -> Result<(), Errno> {
        let mut there = HashMap::new();
        let addresses = (range.start..range.end).step_by(PAGE_SIZE);
        for (index, address) in addresses.enumerate() {
            let (Some(frame), None) = (frames[index], owners[index]) else {
                continue;
            };
            let (other, at) = *self.first.entry(frame).or_insert((pid, address));
            if other == pid || at != address {
                continue;
            }
            let there = match there.entry(other) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.frames(other, range)?),
            };
            let is_same = there[index] == Some(frame);
            owners[index] = is_same.then_some(other);
        }
        Ok(())
    }

    /// Notes that a page of a task is stored for it. Those that do not come in ascending order are looked for by their
    /// frames alone.
    fn note_owned(&mut self, pid: Pid, address: u64) {
        let owned = self.owned.entry(pid).or_default();
        let end = address + PAGE_SIZE as u64;
        match owned.last_mut() {
            Some(last) if last.end == address => last.end = end,
            Some(last) if last.end > address => {}
            _ => owned.push(address..end),
        }
    }

    /// The frames of pages that are not the task's alone.
    fn frames(&self, pid: Pid, range: &Range<u64>) -> Result<Vec<Option<u64>>, Errno> {
        let pages = ((range.end - range.start) as usize / PAGE_SIZE).min(PAGES);
        let pagemap: BorrowedFd<'_> = self.pagemaps.get(&pid).ok_or(Errno::SRCH)?.as_fd();
        let mut entries = vec![pagemap::Entry(0); pages];
        let read = read_entries(pagemap, range.start, &mut entries)?;
        entries.truncate(read);
        let mut frames: Vec<_> = entries.iter().map(frame).collect();
        frames.resize(pages, None);
        Ok(frames)
    }
}

fn frame(entry: &pagemap::Entry) -> Option<u64> {
    let is_common = entry.present() && !entry.exclusive() && !entry.is_file();
    entry.pfn().filter(|_| is_common)
}

/// Appends pages, as one piece with the last if they go on with it.
fn append(out: &mut Vec<Piece>, range: Range<u64>, owner: Option<Pid>) {
    let Some(owner) = owner else {
        return match out.last_mut() {
            Some(Piece::Own(last)) if last.end == range.start => last.end = range.end,
            _ => out.push(Piece::Own(range)),
        };
    };
    let same = Same { range, owner };
    let goes_on = match out.last_mut() {
        Some(Piece::Same(last)) => last.take(&same),
        _ => false,
    };
    if !goes_on {
        out.push(Piece::Same(same));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_as_long_as_they_have_one_owner() {
        let owner = Pid::from_raw(7);
        let mut out = Vec::new();
        for (page, owner) in [
            (0, None),
            (1, None),
            (2, owner),
            (3, owner),
            (5, owner),
            (6, None),
        ] {
            append(&mut out, page..page + 1, owner);
        }
        let same = |range| {
            let owner = Pid::from_raw(7).unwrap();
            Piece::Same(Same { range, owner })
        };
        assert_eq!(
            out,
            [Piece::Own(0..2), same(2..4), same(5..6), Piece::Own(6..7)]
        );
    }

    #[test]
    fn a_task_has_nothing_in_common_with_itself() {
        let mut frames = Frames::new(true);
        let own = rustix::process::getpid();
        let dir = gelid_sys::proc::task_dir(own).unwrap();
        let pagemap = dir.open_file("pagemap", rustix::fs::OFlags::RDONLY);
        frames.take_up(own, Arc::new(pagemap.unwrap()));
        let page = vec![1_u8; 4 * PAGE_SIZE];
        let start = (page.as_ptr().addr() as u64).next_multiple_of(PAGE_SIZE as u64);
        let range = start..start + 2 * PAGE_SIZE as u64;
        for _ in 0..2 {
            let mut out = Vec::new();
            frames.sort(own, range.clone(), &mut out).unwrap();
            assert_eq!(out, [Piece::Own(range.clone())]);
        }
        let other = Pid::from_raw(1).unwrap();
        assert_eq!(frames.sort(other, range, &mut Vec::new()), Err(Errno::SRCH));
    }
}
