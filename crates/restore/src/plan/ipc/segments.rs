//! System V shared memory: `ipcns-shm-*.img`, and who is attached to it.

use std::collections::BTreeMap;

use gelid_image::ImageKind;
use gelid_image::messages::IpcShmEntry;
use gelid_pages::{Pagemap, Sets};
use gelid_sys::PAGE_SIZE;

use super::super::space::{Backing, Space};
use super::super::{PlanError, pagemap};
use super::{Identity, wrong};

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) identity: Identity,
    /// The key of its memory.
    pub(crate) key: u32,
    /// Bytes asked for.
    pub(crate) size: u64,
    /// Kind of huge pages, as the bits that `MAP_HUGETLB` takes; `None` for small ones.
    pub(crate) huge: Option<u32>,
    /// What it is known by if it may still be there.
    pub(crate) known: Option<Known>,
    /// It is in a namespace of others, who may have it as well.
    pub(crate) is_common: bool,
    pub(crate) pages: Pagemap,
}

/// When a segment was made or changed, and by whom it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) changed: i64,
    pub(crate) creator: i32,
}

/// Where the size of huge pages stands, as a binary logarithm.
const HUGE_KIND: u32 = 0x3f << 26;
/// Huge pages of unknown size are taken to be so large.
const HUGE_PAGE: u64 = 2 << 20;

impl Segment {
    /// Bytes of a page of it.
    pub(crate) fn page(&self) -> u64 {
        match self.huge.map(|kind| kind >> 26) {
            None => PAGE_SIZE as u64,
            Some(0) => HUGE_PAGE,
            Some(shift) => 1 << shift.min(40),
        }
    }

    /// Bytes of an attachment to the whole of it.
    pub(crate) fn extent(&self) -> u64 {
        self.size.saturating_add(self.page() - 1) / self.page() * self.page()
    }
}

/// Reads the segments of a namespace, by id.
pub(super) fn read(sets: &mut Sets, namespace: u32) -> Result<Vec<Segment>, PlanError> {
    const KIND: ImageKind = ImageKind::IpcnsShm;
    let mut segments = Vec::new();
    let Some(mut reader) = sets.dir().reader_opt(KIND, namespace)? else {
        return Ok(segments);
    };
    while let Some(entry) = reader.next::<IpcShmEntry>()? {
        let identity = Identity::read(KIND, &entry.desc)?;
        let id = entry.desc.id;
        let wrong = wrong(KIND, id);
        if entry.in_pagemaps != Some(true) {
            return Err(wrong(
                "has its contents in a form of the past; dump it anew",
            ));
        }
        if entry.size == 0 || i64::try_from(entry.size).is_err() {
            return Err(wrong("has a size that no segment has"));
        }
        let key = entry.pages.unwrap_or(id);
        let huge = entry.hugetlb_flag.filter(|flags| *flags != 0);
        let segment = Segment {
            identity,
            key,
            size: entry.size,
            huge: huge.map(|flags| flags & HUGE_KIND),
            known: entry.gelid.as_ref().map(|gelid| Known {
                changed: gelid.changed,
                creator: gelid.creator,
            }),
            is_common: false,
            pages: pagemap::of_nobody(sets, key)?.unwrap_or_default(),
        };
        if segment
            .pages
            .ranges()
            .any(|range| range.end > segment.extent())
        {
            return Err(wrong("has pages behind its end"));
        }
        segments.push(segment);
    }
    segments.sort_by_key(|segment| segment.identity.id);
    let twice = segments
        .windows(2)
        .find(|pair| pair[0].identity.id == pair[1].identity.id);
    match twice {
        None => Ok(segments),
        Some(pair) => Err(PlanError::Ipc {
            kind: KIND,
            id: pair[0].identity.id.cast_unsigned(),
            what: "is there twice",
        }),
    }
}

/// Finds the segments that an address space is attached to, by the keys of their memory.
pub(super) fn attach(
    segments: &BTreeMap<u32, &Segment>,
    space: &mut Space,
) -> Result<(), PlanError> {
    let pid = space.pid;
    for area in &mut space.areas {
        let start = area.range.start;
        let wrong = |what| PlanError::Space { pid, what, start };
        let len = area.range.end - start;
        let Backing::Segment {
            id,
            offset,
            extent,
            page,
            ..
        } = &mut area.backing
        else {
            continue;
        };
        let found = segments.get(&id.cast_unsigned());
        let segment = found.ok_or_else(|| wrong("a segment is mapped that is not there"))?;
        *id = segment.identity.id;
        (*extent, *page) = (segment.extent(), segment.page());
        let inside = offset.checked_add(len).is_some_and(|end| end <= *extent);
        let aligned = offset.is_multiple_of(*page) && len.is_multiple_of(*page);
        if !inside || !aligned || !start.is_multiple_of(*page) {
            return Err(wrong("a segment is mapped where it has no pages"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::Dir;
    use gelid_sys::ipc::Perm;

    fn segment(size: u64, huge: Option<u32>) -> Segment {
        let identity = Identity {
            id: 7,
            perm: Perm::default(),
        };
        Segment {
            identity,
            key: 7,
            size,
            huge,
            known: None,
            is_common: false,
            pages: Pagemap::default(),
        }
    }

    fn refused(entries: &[IpcShmEntry]) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let mut image = gelid_image::header(ImageKind::IpcnsShm);
        for entry in entries {
            gelid_image::append(&mut image, entry);
        }
        std::fs::write(scratch.path().join("ipcns-shm-3.img"), image).unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let mut sets = Sets::new(&dir, None).unwrap();
        read(&mut sets, 3).unwrap_err().to_string()
    }

    #[test]
    fn segments_that_cannot_be_are_refused() {
        let entry = IpcShmEntry {
            size: 5000,
            in_pagemaps: Some(true),
            ..IpcShmEntry::default()
        };
        let none = IpcShmEntry {
            size: 0,
            ..entry.clone()
        };
        assert!(refused(&[none]).contains("a size that no segment has"));
        let old = IpcShmEntry {
            in_pagemaps: None,
            size: 0,
            ..entry.clone()
        };
        assert!(refused(&[old]).contains("a form of the past"));
        let mut negative = entry.clone();
        negative.desc.id = u32::MAX;
        assert!(refused(&[negative]).contains("an id that no object has"));
        assert!(refused(&[entry.clone(), entry]).contains("is there twice"));
    }

    #[test]
    fn sizes_are_those_of_whole_pages() {
        assert_eq!(segment(5000, None).extent(), 8192);
        assert_eq!(segment(5000, Some(0)).extent(), 2 << 20);
        assert_eq!(segment(5000, Some(30 << 26)).extent(), 1 << 30);
        assert!(segment(u64::MAX, Some(63 << 26)).extent() < u64::MAX);
    }
}
