//! Mappings: what they are, and their records. Section 8 of the format.

use gelid_image::messages::VmaEntry;
use gelid_sys::PAGE_SIZE;
use gelid_sys::ipc::shm;
use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::{Area, VmFlags};

use crate::files::Mapped;

/// What a mapping is, as far as its record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The legacy page of system calls.
    Vsyscall,
    /// Code of the kernel in every task.
    Vdso,
    /// Data of that code.
    Vvar,
    /// Of the program break.
    Heap,
    /// Private anonymous memory, the stack too.
    Anonymous,
    /// A file, shared memory or a memfd is behind it.
    File,
    /// System V shared memory.
    Segment,
    /// The rings of a packet socket.
    Ring,
    /// The ring of an AIO context.
    Aio,
    /// Jumps to uprobes.
    Uprobes,
    /// Something else of the kernel's.
    Special,
}

/// Classifies a mapping.
pub(crate) fn kind(area: &Area) -> Kind {
    let path = area.map.path.as_slice();
    if area.map.has_file() && path.starts_with(b"/[aio]") {
        return Kind::Aio;
    }
    if area.map.has_file() && path.starts_with(b"socket:[") {
        return Kind::Ring;
    }
    // The first one of a namespace has the inode 0.
    if shm::is_name(path) {
        return Kind::Segment;
    }
    if area.map.has_file() {
        let private = !area.map.perms.contains(Perms::SHARED);
        let huge = area.flags.contains(VmFlags::HUGETLB) && path.starts_with(b"/anon_hugepage");
        return if huge && private {
            Kind::Anonymous
        } else {
            Kind::File
        };
    }
    match path {
        b"" | b"[stack]" => Kind::Anonymous,
        b"[heap]" => Kind::Heap,
        b"[vdso]" => Kind::Vdso,
        b"[vsyscall]" => Kind::Vsyscall,
        b"[uprobes]" => Kind::Uprobes,
        _ if path.starts_with(b"[vvar") => Kind::Vvar,
        // A name given by prctl(PR_SET_VMA).
        _ if path.starts_with(b"[anon:") => Kind::Anonymous,
        _ => Kind::Special,
    }
}

/// How the pages of a mapping are stored with the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// They are not: they are in a file, or shared, or nobody's.
    None,
    /// Those that are there, unless they are zero; `lazy` if they could be delivered later.
    Anonymous {
        /// Neither locked nor huge.
        lazy: bool,
    },
    /// Those that were copied on write.
    Copied,
    /// All.
    Whole,
}

/// Tells what of a mapping is stored with the task (section 8.5).
pub(crate) fn pages(area: &Area) -> Pages {
    if kind(area) == Kind::Aio {
        return Pages::Whole;
    }
    if area.map.perms.contains(Perms::SHARED) || area.flags.contains(VmFlags::DROPPABLE) {
        return Pages::None;
    }
    match kind(area) {
        Kind::Heap | Kind::Anonymous => Pages::Anonymous {
            lazy: !area
                .flags
                .intersects(VmFlags::LOCKED | VmFlags::LOCK_ON_FAULT | VmFlags::HUGETLB),
        },
        Kind::File => Pages::Copied,
        Kind::Vdso | Kind::Aio => Pages::Whole,
        Kind::Vsyscall | Kind::Vvar | Kind::Uprobes | Kind::Ring | Kind::Special => Pages::None,
        Kind::Segment => Pages::None,
    }
}

// `status`, section 8.3.
const REGULAR: u32 = 1;
const VSYSCALL: u32 = 1 << 2;
const VDSO: u32 = 1 << 3;
const HEAP: u32 = 1 << 5;
const FILE_PRIVATE: u32 = 1 << 6;
const FILE_SHARED: u32 = 1 << 7;
const ANON_SHARED: u32 = 1 << 8;
const ANON_PRIVATE: u32 = 1 << 9;
const SYSVIPC: u32 = 1 << 10;
const SOCKET: u32 = 1 << 11;
const VVAR: u32 = 1 << 12;
const AIORING: u32 = 1 << 13;
const MEMFD: u32 = 1 << 14;
const GUARD: u32 = 1 << 16;

// `flags`, mmap(2).
const MAP_SHARED: u32 = 1;
const MAP_PRIVATE: u32 = 2;
const MAP_DROPPABLE: u32 = 8;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_GROWSDOWN: u32 = 0x100;
const MAP_LOCKED: u32 = 0x2000;
const MAP_NORESERVE: u32 = 0x4000;
/// With `MAP_LOCKED`: locked page by page, as they are touched. The kernel ignores it there, so that whoever
/// does not know it locks the mapping whole.
const MAP_NONBLOCK: u32 = 0x1_0000;
const MAP_HUGETLB: u32 = 0x4_0000;
const MAP_HUGE_SHIFT: u32 = 26;

/// Flags of a mapping and the advice that set them, madvise(2).
const ADVICE: [(VmFlags, u64); 8] = [
    (VmFlags::RAND_READ, 1),
    (VmFlags::SEQ_READ, 2),
    (VmFlags::DONT_COPY, 10),
    (VmFlags::MERGEABLE, 12),
    (VmFlags::HUGE_PAGE, 14),
    (VmFlags::NO_HUGE_PAGE, 15),
    (VmFlags::DONT_DUMP, 16),
    (VmFlags::WIPE_ON_FORK, 18),
];

/// The record of a mapping; `file` is what is behind it, of [`Kind::File`], [`Kind::Ring`] and [`Kind::Segment`].
pub(crate) fn entry(area: &Area, file: Option<Mapped>) -> VmaEntry {
    let shared = area.map.perms.contains(Perms::SHARED);
    let mut status = status(kind(area), shared);
    if file.as_ref().is_some_and(|file| file.memfd) {
        status = status & !FILE_SHARED & !FILE_PRIVATE
            | MEMFD
            | if shared { FILE_SHARED } else { FILE_PRIVATE };
    }
    let madv = madv(area);
    let mut flags = flags(area);
    if area.flags.contains(VmFlags::HUGETLB) {
        flags |= huge_flags(area);
    }
    VmaEntry {
        start: area.map.start,
        end: area.map.end,
        pgoff: if file.is_some() { area.map.offset } else { 0 },
        shmid: file.as_ref().map_or(0, |file| file.id.into()),
        prot: area.map.perms.bits() & 7,
        flags,
        status,
        fd: -1,
        madv: (madv != 0).then_some(madv),
        fdflags: match kind(area) {
            Kind::Aio => Some(2),
            _ => file.and_then(|file| file.fdflags),
        },
        accounted: was_writable(area).then_some(true),
        name: name(&area.map.path),
        protection_key: (area.protection_key != 0).then_some(area.protection_key),
        sealed: is_sealed(area).then_some(true),
    }
}

/// The name of anonymous memory.
fn name(path: &[u8]) -> Option<Vec<u8>> {
    let named = path.strip_prefix(b"[anon:");
    let named = named.or_else(|| path.strip_prefix(b"[anon_shmem:"))?;
    named.strip_suffix(b"]").map(<[u8]>::to_vec)
}

/// Whether a private mapping that cannot be written could be written once.
fn was_writable(area: &Area) -> bool {
    let perms = area.map.perms;
    !perms.intersects(Perms::SHARED | Perms::WRITE) && area.flags.contains(VmFlags::ACCOUNT)
}

/// Whether the program has sealed a mapping. Some kernels seal their own.
fn is_sealed(area: &Area) -> bool {
    let kernels = matches!(kind(area), Kind::Vsyscall | Kind::Vdso | Kind::Vvar);
    area.flags.contains(VmFlags::SEALED) && !kernels
}

/// The record of a range of guard markers.
pub(crate) fn guard(start: u64, end: u64) -> VmaEntry {
    VmaEntry {
        start,
        end,
        status: GUARD,
        fd: -1,
        ..VmaEntry::default()
    }
}

fn status(kind: Kind, shared: bool) -> u32 {
    match kind {
        Kind::Vsyscall => VSYSCALL | ANON_PRIVATE,
        Kind::Vdso => REGULAR | VDSO | ANON_PRIVATE,
        Kind::Vvar => REGULAR | VVAR | ANON_PRIVATE,
        Kind::Aio => AIORING,
        Kind::Ring => REGULAR | SOCKET,
        Kind::Segment => REGULAR | ANON_SHARED | SYSVIPC,
        Kind::Heap => REGULAR | HEAP | ANON_PRIVATE,
        Kind::File if shared => REGULAR | FILE_SHARED,
        Kind::File => REGULAR | FILE_PRIVATE,
        Kind::Anonymous | Kind::Uprobes | Kind::Special => REGULAR | ANON_PRIVATE,
    }
}

fn flags(area: &Area) -> u32 {
    let has = |flag| area.flags.contains(flag);
    let kind = kind(area);
    let mut flags = match () {
        () if area.map.perms.contains(Perms::SHARED) => MAP_SHARED,
        () if has(VmFlags::DROPPABLE) => MAP_DROPPABLE,
        () => MAP_PRIVATE,
    };
    if !matches!(kind, Kind::File | Kind::Ring | Kind::Aio) {
        flags |= MAP_ANONYMOUS;
    }
    if matches!(kind, Kind::Vsyscall | Kind::Vdso | Kind::Vvar) {
        return flags;
    }
    for (flag, bit) in [
        (VmFlags::GROWS_DOWN, MAP_GROWSDOWN),
        (VmFlags::LOCKED, MAP_LOCKED),
        (VmFlags::NO_RESERVE, MAP_NORESERVE),
        (VmFlags::LOCK_ON_FAULT, MAP_NONBLOCK),
    ] {
        if has(flag) {
            flags |= bit;
        }
    }
    flags
}

/// The size of huge pages, as in mmap(2).
fn huge_flags(area: &Area) -> u32 {
    let size = area.kernel_page_size.max(PAGE_SIZE as u64);
    MAP_HUGETLB | size.trailing_zeros() << MAP_HUGE_SHIFT
}

fn madv(area: &Area) -> u64 {
    let set = ADVICE.iter().filter(|(flag, _)| area.flags.contains(*flag));
    set.fold(0, |bits, (_, advice)| bits | 1 << advice)
}

/// The areas of the vvar lie side by side under several names, and are one in the images.
pub(crate) fn join_vvar(entries: &mut Vec<VmaEntry>) {
    entries.dedup_by(|next, last| {
        let joined =
            last.status & VVAR != 0 && next.status == last.status && last.end == next.start;
        if joined {
            last.end = next.end;
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::proc::smaps;

    fn areas(text: &str) -> Vec<Area> {
        smaps::parse(text.as_bytes()).unwrap()
    }

    fn only(text: &str, file: Option<Mapped>) -> VmaEntry {
        entry(&areas(text)[0], file)
    }

    #[test]
    fn names_of_anonymous_memory_are_kept() {
        let named = |path: &str| {
            let text = format!("1000-2000 rw-p 0 00:00 0 {path}\nVmFlags: rd wr mr mw me ac \n");
            only(&text, None).name
        };
        assert_eq!(named("[anon:a name]").as_deref(), Some(&b"a name"[..]));
        assert_eq!(named("[anon_shmem:x]").as_deref(), Some(&b"x"[..]));
        assert_eq!((named("[heap]"), named("")), (None, None));
    }

    #[test]
    fn combinations_are_those_of_the_format() {
        let anonymous = only(
            "1000-2000 rw-p 0 00:00 0 \nVmFlags: rd wr mr mw me ac \n",
            None,
        );
        assert_eq!(
            (anonymous.status, anonymous.flags, anonymous.prot),
            (0x201, 0x22, 3)
        );
        assert_eq!(
            (anonymous.madv, anonymous.fdflags, anonymous.fd),
            (None, None, -1)
        );
        let heap = only(
            "1000-2000 rw-p 0 00:00 0 [heap]\nVmFlags: rd wr ac \n",
            None,
        );
        assert_eq!((heap.status, heap.flags), (0x221, 0x22));
        let stack = only(
            "1000-2000 rw-p 0 00:00 0 [stack]\nVmFlags: rd wr gd ac \n",
            None,
        );
        assert_eq!((stack.status, stack.flags), (0x201, 0x122));
        let vsyscall = only("1000-2000 --xp 0 00:00 0 [vsyscall]\nVmFlags: ex \n", None);
        assert_eq!(
            (vsyscall.status, vsyscall.flags, vsyscall.prot),
            (0x204, 0x22, 4)
        );
        let vdso = only(
            "1000-2000 r-xp 0 00:00 0 [vdso]\nVmFlags: rd ex de \n",
            None,
        );
        assert_eq!((vdso.status, vdso.flags), (0x209, 0x22));
    }

    #[test]
    fn keys_and_seals_are_recorded() {
        let text = "1000-2000 rw-p 0 00:00 0 \nProtectionKey: 0\nVmFlags: rd wr mr mw me ac \n\
            2000-3000 rw-p 0 00:00 0 \nProtectionKey: 3\nVmFlags: rd wr mr mw me ac sl \n\
            7000-9000 r-xp 0 00:00 0 [vdso]\nProtectionKey: 0\nVmFlags: rd ex mr mw me de sl \n";
        let entries = areas(text).into_iter().map(|area| entry(&area, None));
        let found: Vec<_> = entries.map(|it| (it.protection_key, it.sealed)).collect();
        assert_eq!(found, [(None, None), (Some(3), Some(true)), (None, None)]);
    }

    #[test]
    fn the_vvar_is_one() {
        let text = "1000-5000 r--p 0 00:00 0 [vvar]\nVmFlags: rd mr pf io de dd \n\
            5000-7000 r--p 0 00:00 0 [vvar_vclock]\nVmFlags: rd mr pf io de dd \n\
            7000-9000 r-xp 0 00:00 0 [vdso]\nVmFlags: rd ex mr mw me de \n";
        let mut entries: Vec<_> = areas(text).iter().map(|area| entry(area, None)).collect();
        join_vvar(&mut entries);
        assert_eq!(entries.len(), 2);
        let vvar = &entries[0];
        assert_eq!(
            (vvar.start, vvar.end, vvar.status),
            (0x1000, 0x7000, 0x1201)
        );
        assert_eq!((vvar.madv, vvar.prot), (Some(0x10000), 1));
    }

    #[test]
    fn files_and_memfds_name_what_is_behind() {
        let mapped = |memfd| Mapped {
            id: 9,
            fdflags: Some(2),
            memfd,
        };
        let text = "1000-2000 rw-s 3000 fe:00 7 /tmp/x\nVmFlags: rd wr sh mr mw me ms \n";
        let shared = only(text, Some(mapped(false)));
        assert_eq!(
            (shared.status, shared.flags, shared.pgoff),
            (0x81, 1, 0x3000)
        );
        assert_eq!((shared.shmid, shared.fdflags), (9, Some(2)));
        assert_eq!(only(text, Some(mapped(true))).status, 0x4081);
        let text = "1000-2000 r--p 3000 fe:00 7 /tmp/x\nVmFlags: rd mr mw me \n";
        assert_eq!(only(text, Some(mapped(false))).status, 0x41);
        assert_eq!(only(text, Some(mapped(true))).status, 0x4041);
    }

    #[test]
    fn segments_are_known_by_their_names() {
        let text = "1000-3000 rw-s 1000 00:01 98305 /SYSV0000beef (deleted)\n\
            VmFlags: rd wr sh mr mw me ms \n";
        let segment = Mapped {
            id: 98305,
            fdflags: Some(2),
            memfd: false,
        };
        let entry = only(text, Some(segment));
        assert_eq!((entry.status, entry.flags), (0x501, 0x21));
        assert_eq!(
            (entry.shmid, entry.pgoff, entry.fdflags),
            (98305, 0x1000, Some(2))
        );
        assert_eq!(pages(&areas(text)[0]), Pages::None);
    }

    #[test]
    fn flags_and_advice_come_from_smaps() {
        let text = "1000-2000 rw-p 0 00:00 0 \nVmFlags: rd wr lo nr sr dc hg mg dd wf \n";
        let all = only(text, None);
        assert_eq!(all.flags, 0x6022);
        assert_eq!(
            all.madv,
            Some(1 << 2 | 1 << 10 | 1 << 12 | 1 << 14 | 1 << 16 | 1 << 18)
        );
        let text = "200000-400000 rw-p 0 00:10 7 /anon_hugepage (deleted)\nKernelPageSize: 2048 kB\n\
            VmFlags: rd wr mr mw me de ht \n";
        let huge = only(text, None);
        assert_eq!(
            (huge.status, huge.flags),
            (0x201, 0x22 | 0x40000 | 21 << 26)
        );
        assert_eq!(pages(&areas(text)[0]), Pages::Anonymous { lazy: false });
        let text = "1000-2000 rw-p 0 00:00 0 \nVmFlags: rd wr lo lf \n";
        assert_eq!(only(text, None).flags, 0x1_2022);
        let text = "1000-2000 rw-p 0 00:00 0 \nVmFlags: rd wr dp \n";
        assert_eq!(
            (only(text, None).flags, pages(&areas(text)[0])),
            (0x28, Pages::None)
        );
    }
}
