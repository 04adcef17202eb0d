//! An address space, as `mm-*.img` and `pagemap-*.img` tell it.

use std::ops::Range;

use gelid_image::messages::{MmEntry, VmaEntry};
use gelid_pages::{Owner, Pagemap, Sets};
use gelid_sys::PAGE_SIZE;

use super::PlanError;
use super::pagemap::Same;
use super::protection::{self, Protection};
use super::ranges::Ranged;

/// End of what a 64-bit task can map (`TASK_SIZE_MAX` with four levels of page tables).
pub(crate) const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Permissions, as `vma_entry.prot` has them.
pub(crate) mod prot {
    pub(crate) const READ: u32 = 1;
    pub(crate) const EXEC: u32 = 4;
}

/// Bits of `vma_entry.status` (format, section 8.3).
pub(crate) mod status {
    pub(crate) const VSYSCALL: u32 = 1 << 2;
    pub(crate) const VDSO: u32 = 1 << 3;
    pub(crate) const FILE_PRIVATE: u32 = 1 << 6;
    pub(crate) const FILE_SHARED: u32 = 1 << 7;
    pub(crate) const SYSVIPC: u32 = 1 << 10;
    pub(crate) const SOCKET: u32 = 1 << 11;
    pub(crate) const VVAR: u32 = 1 << 12;
    pub(crate) const AIORING: u32 = 1 << 13;
    pub(crate) const MEMFD: u32 = 1 << 14;
    pub(crate) const SHSTK: u32 = 1 << 15;
    pub(crate) const GUARD: u32 = 1 << 16;
    pub(crate) const UPROBES: u32 = 1 << 17;
    pub(crate) const EXT_PLUGIN: u32 = 1 << 27;
}

/// Flags of `mmap(2)`, as `vma_entry.flags` has them.
pub(crate) mod map {
    pub(crate) const SHARED: u32 = 1;
    pub(crate) const PRIVATE: u32 = 2;
    pub(crate) const DROPPABLE: u32 = 8;
    pub(crate) const ANONYMOUS: u32 = 0x20;
    pub(crate) const GROWSDOWN: u32 = 0x100;
    pub(crate) const LOCKED: u32 = 0x2000;
    pub(crate) const NORESERVE: u32 = 0x4000;
    /// With [`LOCKED`]: locked page by page, as they are touched. gelid's own.
    pub(crate) const ON_FAULT: u32 = 0x1_0000;
    pub(crate) const HUGETLB: u32 = 0x4_0000;
    /// Size of huge pages, as the binary logarithm in the upper bits.
    pub(crate) const HUGE_SIZE: u32 = 0x3f << 26;
    /// What may be given to `mmap` again.
    pub(crate) const KNOWN: u32 =
        SHARED | PRIVATE | DROPPABLE | ANONYMOUS | GROWSDOWN | NORESERVE | HUGETLB | HUGE_SIZE;
}

/// Bytes that the name of anonymous memory may have.
const NAME_MOST: usize = 79;

/// `MADV_NOHUGEPAGE`, by its number.
const NO_HUGE_PAGE: u64 = 1 << 15;

/// What is behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Nothing.
    Anonymous,
    /// A file of the image.
    File {
        /// Its file id.
        id: u32,
        /// Access mode to open it with: 0 read, 1 write, 2 both.
        access: u32,
        /// Byte offset.
        offset: u64,
    },
    /// System V shared memory.
    Segment {
        /// Its id.
        id: i32,
        /// It may be written.
        writes: bool,
        /// Byte offset.
        offset: u64,
        /// Bytes of the whole, once all segments are known.
        extent: u64,
        /// Bytes of a page of it, then.
        page: u64,
    },
}

/// How a mapping is locked into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// All of it.
    Whole,
    /// Each page once it is touched.
    OnFault,
}

/// A mapping to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) range: Range<u64>,
    /// `PROT_*`, until its [protection](Protection) is there.
    pub(crate) prot: u32,
    /// It gets one.
    pub(crate) guarded: bool,
    /// `MAP_*`, without `MAP_FIXED`.
    pub(crate) flags: u32,
    pub(crate) backing: Backing,
    /// `MADV_*` by number, one bit each.
    pub(crate) advice: u64,
    pub(crate) locked: Option<Lock>,
    /// Could be written once, and cannot now.
    pub(crate) accounted: bool,
    /// Pages of the image go here.
    pub(crate) filled: bool,
    /// `PR_SET_VMA_ANON_NAME`
    pub(crate) name: Option<Vec<u8>>,
}

impl Ranged for Area {
    fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

impl Area {
    pub(crate) fn is_private(&self) -> bool {
        self.flags & (map::PRIVATE | map::DROPPABLE) != 0
    }

    /// A part of it.
    pub(crate) fn part(&self, range: Range<u64>) -> Self {
        let backing = match self.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::File { id, access, offset } => Backing::File {
                id,
                access,
                offset: offset + (range.start - self.range.start),
            },
            Backing::Segment {
                id,
                writes,
                offset,
                extent,
                page,
            } => Backing::Segment {
                id,
                writes,
                offset: offset + (range.start - self.range.start),
                extent,
                page,
            },
        };
        Self {
            range,
            backing,
            ..self.clone()
        }
    }

    /// Pages may be put there before anything else is known of it; nothing is lost if they are not.
    pub(crate) fn is_reservation(&self) -> bool {
        let plain = self.flags & !(map::PRIVATE | map::ANONYMOUS | map::NORESERVE) == 0;
        plain
            && self.backing == Backing::Anonymous
            && self.advice == 0
            && !self.filled
            && !self.guarded
            && self.locked.is_none()
            && !self.accounted
            && self.name.is_none()
    }
}

/// Where the kernel's own mappings have to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vdso {
    /// Code.
    pub(crate) code: Range<u64>,
    /// Data, one range for each area recorded.
    pub(crate) data: Vec<Range<u64>>,
}

/// The ring of an AIO context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) range: Range<u64>,
    /// What the context is made for.
    pub(crate) requests: u32,
}

/// An address space to be built.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    /// Pid of the task whose images describe it.
    pub(crate) pid: i32,
    pub(crate) mm: MmEntry,
    pub(crate) areas: Vec<Area>,
    pub(crate) guards: Vec<Range<u64>>,
    pub(crate) protection: Protection,
    /// Ascending.
    pub(crate) rings: Vec<Ring>,
    pub(crate) vdso: Option<Vdso>,
    /// Where its own pages are.
    pub(crate) pagemap: Pagemap,
    /// Pages that are among those of other tasks, ascending.
    pub(crate) same: Vec<Same>,
}

impl Space {
    /// The address space of a task, as its image tells it; reads where its pages are.
    pub(crate) fn read(sets: &mut Sets, pid: i32, mm: MmEntry) -> Result<Self, PlanError> {
        let mut pagemap = sets.pagemap(Owner::Task(pid))?;
        let same = std::mem::take(&mut pagemap.same);
        let mut space = Self {
            pid,
            mm,
            areas: Vec::new(),
            guards: Vec::new(),
            protection: Protection::default(),
            rings: Vec::new(),
            vdso: None,
            pagemap,
            same: same.into_iter().map(Same::from).collect(),
        };
        space.sort_areas()?;
        space.mark_filled()?;
        if space.mm.mm_saved_auxv.len() > gelid_sys::mm::AUXV_MAX / 8 {
            return Err(space.wrong("the auxiliary vector is too long", &(0..0)));
        }
        Ok(space)
    }

    /// From the records to what is to be made.
    fn sort_areas(&mut self) -> Result<(), PlanError> {
        let vmas = std::mem::take(&mut self.mm.vmas);
        self.protection = Protection::of(&self.mm).map_err(|what| self.wrong(what, &(0..0)))?;
        let mut end = 0;
        for vma in &vmas {
            let range = vma.start..vma.end;
            if vma.status & status::VSYSCALL != 0 {
                continue;
            }
            if !aligned(&range) || range.is_empty() || range.end > TASK_SIZE {
                return Err(self.wrong("an area has impossible bounds", &range));
            }
            if vma.status & status::GUARD != 0 {
                self.guards.push(range);
                continue;
            }
            if range.start < end {
                return Err(self.wrong("areas overlap", &range));
            }
            end = range.end;
            let noted = self.protection.note(vma);
            noted.map_err(|what| self.wrong(what, &range))?;
            self.take_vma(vma, range)?;
        }
        let protected = self.protection.check();
        protected.map_err(|what| self.wrong(what, &(0..0)))?;
        match self.rings.len() == self.mm.aios.len() {
            true => Ok(()),
            false => Err(self.wrong("there are AIO contexts without a ring", &(0..0))),
        }
    }

    /// The ring of the context that lies there.
    fn ring(&self, range: Range<u64>) -> Result<Ring, PlanError> {
        /// More than the kernel allows all processes together by default.
        const MOST: u32 = 1 << 20;
        let mut contexts = self.mm.aios.iter();
        let context = contexts.find(|context| context.id == range.start);
        let len = range.end - range.start;
        match context {
            Some(context)
                if u64::from(context.ring_len) == len && (1..=MOST).contains(&context.nr_req) =>
            {
                Ok(Ring {
                    range,
                    requests: context.nr_req,
                })
            }
            _ => Err(self.wrong("the ring of an AIO context does not fit to it", &range)),
        }
    }

    fn take_vma(&mut self, vma: &VmaEntry, range: Range<u64>) -> Result<(), PlanError> {
        if let Some(what) = unsupported(vma.status) {
            return Err(self.unsupported(what, &range));
        }
        if vma.status & status::VDSO != 0 {
            self.vdso.get_or_insert_default().code = range;
        } else if vma.status & status::VVAR != 0 {
            self.vdso.get_or_insert_default().data.push(range);
        } else if vma.status & status::AIORING != 0 {
            let ring = self.ring(range)?;
            self.rings.push(ring);
        } else if vma.status & status::UPROBES == 0 {
            let area = self.area(vma, range)?;
            self.areas.push(area);
        }
        Ok(())
    }

    fn area(&self, vma: &VmaEntry, range: Range<u64>) -> Result<Area, PlanError> {
        let file = status::FILE_PRIVATE | status::FILE_SHARED | status::MEMFD | status::SOCKET;
        let backing = if vma.status & status::SYSVIPC != 0 {
            let id = i32::try_from(vma.shmid)
                .map_err(|_| self.wrong("an area has an impossible segment", &range))?;
            Backing::Segment {
                id,
                writes: vma.fdflags.unwrap_or(2) & 3 != 0,
                offset: vma.pgoff,
                extent: 0,
                page: 0,
            }
        } else if vma.status & file != 0 {
            let id = u32::try_from(vma.shmid)
                .map_err(|_| self.wrong("an area has an impossible file id", &range))?;
            Backing::File {
                id,
                access: vma.fdflags.unwrap_or(0) & 3,
                offset: vma.pgoff,
            }
        } else {
            Backing::Anonymous
        };
        let mut flags = vma.flags & map::KNOWN;
        if backing == Backing::Anonymous {
            flags |= map::ANONYMOUS;
        } else {
            flags &= !map::ANONYMOUS;
        }
        let kinds = [map::SHARED, map::PRIVATE, map::DROPPABLE];
        let kind = flags & (map::SHARED | map::PRIVATE | map::DROPPABLE);
        if !kinds.contains(&kind)
            || vma.prot & !7 != 0
            || !vma.pgoff.is_multiple_of(PAGE_SIZE as u64)
        {
            return Err(self.wrong("an area has impossible flags", &range));
        }
        let odd = |name: &Vec<u8>| name.len() > NAME_MOST || name.contains(&0);
        if vma.name.as_ref().is_some_and(odd) {
            return Err(self.wrong("an area has an impossible name", &range));
        }
        Ok(Area {
            range,
            prot: protection::early(vma),
            guarded: protection::is_guarded(vma),
            flags,
            backing,
            advice: vma.madv.unwrap_or(0),
            locked: match vma.flags & (map::LOCKED | map::ON_FAULT) {
                map::LOCKED => Some(Lock::Whole),
                0 | map::ON_FAULT => None,
                _ => Some(Lock::OnFault),
            },
            accounted: vma.accounted == Some(true),
            filled: false,
            name: vma.name.clone(),
        })
    }

    /// Every page of the image must have an area that can take it.
    fn mark_filled(&mut self) -> Result<(), PlanError> {
        let code = self.vdso.clone().unwrap_or_default().code;
        let mut index = 0;
        for (range, is_present) in self.stored() {
            let mut at = range.start;
            while at < range.end {
                if code.contains(&at) {
                    at = code.end;
                    continue;
                }
                let mut rings = self.rings.iter().map(|ring| &ring.range);
                if let Some(ring) = rings.find(|ring| ring.contains(&at)) {
                    at = ring.end;
                    continue;
                }
                while self
                    .areas
                    .get(index)
                    .is_some_and(|area| area.range.end <= at)
                {
                    index += 1;
                }
                match self.areas.get_mut(index) {
                    Some(area) if area.range.start <= at && area.is_private() => {
                        area.filled |= is_present;
                        at = area.range.end;
                    }
                    _ => return Err(self.wrong("there are pages outside of all areas", &range)),
                }
            }
        }
        Ok(())
    }

    /// All runs of pages, ascending, and whether there are pages to be put in place.
    fn stored(&self) -> Vec<(Range<u64>, bool)> {
        let own = self.own_pages().map(|range| (range, true));
        let same = self.same.iter().map(|same| (same.range.clone(), true));
        let mut stored: Vec<_> = own.chain(same).collect();
        stored.sort_by_key(|(range, _)| range.start);
        stored
    }

    /// Where its own pages go; ascending.
    pub(crate) fn own_pages(&self) -> impl Iterator<Item = Range<u64>> {
        self.pagemap.ranges()
    }

    /// Ranges that huge pages may back.
    pub(crate) fn huge_ranges(&self) -> Vec<Range<u64>> {
        if self.mm.thp_disabled == Some(true) {
            return Vec::new();
        }
        let can = |area: &&Area| {
            area.backing == Backing::Anonymous
                && area.filled
                && area.advice & NO_HUGE_PAGE == 0
                && area.flags & (map::HUGETLB | map::GROWSDOWN) == 0
        };
        let areas = self.areas.iter().filter(can);
        areas.map(|area| area.range.clone()).collect()
    }

    /// Files that are mapped, with the access mode for it.
    pub(crate) fn files(&self) -> impl Iterator<Item = (u32, u32)> {
        self.areas.iter().filter_map(|area| match area.backing {
            Backing::File { id, access, .. } => Some((id, access)),
            Backing::Anonymous | Backing::Segment { .. } => None,
        })
    }

    /// All ranges that something will be in.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = Range<u64>> {
        let vdso = self.vdso.iter();
        let kernels = vdso.flat_map(|vdso| vdso.data.iter().chain([&vdso.code]).cloned());
        self.areas
            .iter()
            .map(|area| area.range.clone())
            .chain(self.rings.iter().map(|ring| ring.range.clone()))
            .chain(kernels)
    }

    fn wrong(&self, what: &'static str, range: &Range<u64>) -> PlanError {
        PlanError::Space {
            pid: self.pid,
            what,
            start: range.start,
        }
    }

    fn unsupported(&self, what: &'static str, range: &Range<u64>) -> PlanError {
        PlanError::UnsupportedArea {
            pid: self.pid,
            what,
            start: range.start,
        }
    }
}

/// What cannot be restored yet.
fn unsupported(bits: u32) -> Option<&'static str> {
    let kinds = [
        (status::SHSTK, "shadow stack"),
        (status::EXT_PLUGIN, "area of a plugin"),
    ];
    kinds
        .iter()
        .find(|(bit, _)| bits & bit != 0)
        .map(|(_, what)| *what)
}

pub(crate) fn aligned(range: &Range<u64>) -> bool {
    let page = PAGE_SIZE as u64;
    range.start.is_multiple_of(page) && range.end.is_multiple_of(page)
}
