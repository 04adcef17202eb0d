//! `/proc/PID/smaps`: mappings with their `VmFlags` and what of them is in memory.
//!
//! The only place where the kernel shows the flags of a mapping. Reading it makes the kernel look at every
//! page: measured, 4 us a mapping and 50 ms of processor time per GiB of small pages, where `maps` takes
//! 0.4 us a mapping and `PROCMAP_QUERY` 1 us, whatever their size. It cannot be read in part. So of a large
//! task it is best read by a thread of its own while something else is done.

use bitflags::bitflags;

use super::maps::{Mapping, parse_line};
use super::status::kilobytes;
use super::text::{Fields, Malformed, Result, decimal, lines, split_once, trim_start};
use super::{Error, TaskDir};

macro_rules! vm_flags {
    ($($bit:literal $name:ident $mnemonic:literal $about:literal;)*) => {
        bitflags! {
            /// The flags of a mapping, `VmFlags` of `proc_pid_smaps(5)`. The numbers are this crate's own.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
            pub struct VmFlags: u64 {
                $(#[doc = concat!("`", $mnemonic, "`: ", $about)]
                const $name = 1 << $bit;)*
                /// A flag that this crate does not know is set.
                const UNKNOWN = 1 << 63;
            }
        }

        /// The flag of each pair of letters.
        static BY_LETTERS: [VmFlags; LETTERS * LETTERS] = {
            let mut flags = [VmFlags::UNKNOWN; LETTERS * LETTERS];
            $(flags[letters($mnemonic.as_bytes()).unwrap()] = VmFlags::$name;)*
            flags
        };
    };
}

const LETTERS: usize = 26;

/// Where a pair of letters is in a table of all; `None` if it is none.
const fn letters(pair: &[u8]) -> Option<usize> {
    match *pair {
        [one @ b'a'..=b'z', two @ b'a'..=b'z'] => {
            Some((one - b'a') as usize * LETTERS + (two - b'a') as usize)
        }
        _ => None,
    }
}

impl VmFlags {
    /// The flag that a mnemonic of two letters stands for.
    fn from_mnemonic(mnemonic: &[u8]) -> Self {
        letters(mnemonic).map_or(Self::UNKNOWN, |at| BY_LETTERS[at])
    }
}

vm_flags! {
    0 READ "rd" "readable";
    1 WRITE "wr" "writable";
    2 EXEC "ex" "executable";
    3 SHARED "sh" "shared and writable through some descriptor";
    4 MAY_READ "mr" "may be made readable";
    5 MAY_WRITE "mw" "may be made writable";
    6 MAY_EXEC "me" "may be made executable";
    7 MAY_SHARE "ms" "made with `MAP_SHARED`";
    8 GROWS_DOWN "gd" "grows down";
    9 PFN_MAP "pf" "pure page frames, no page structures";
    10 DENY_WRITE "dw" "writing to the file is denied";
    11 LOCKED "lo" "locked in memory";
    12 IO "io" "memory-mapped input and output";
    13 SEQ_READ "sr" "`MADV_SEQUENTIAL`";
    14 RAND_READ "rr" "`MADV_RANDOM`";
    15 DONT_COPY "dc" "`MADV_DONTFORK`";
    16 DONT_EXPAND "de" "not to be grown by `mremap`";
    17 LOCK_ON_FAULT "lf" "locked page by page as they are touched";
    18 ACCOUNT "ac" "counted against the commit limit";
    19 NO_RESERVE "nr" "`MAP_NORESERVE`";
    20 HUGETLB "ht" "of hugetlbfs";
    21 SYNC "sf" "`MAP_SYNC`";
    22 ARCH "ar" "meaning depends on the machine";
    23 WIPE_ON_FORK "wf" "`MADV_WIPEONFORK`";
    24 DONT_DUMP "dd" "`MADV_DONTDUMP`";
    25 SOFT_DIRTY "sd" "soft-dirty";
    26 MIXED_MAP "mm" "pages and page frames mixed";
    27 HUGE_PAGE "hg" "`MADV_HUGEPAGE`";
    28 NO_HUGE_PAGE "nh" "`MADV_NOHUGEPAGE`";
    29 MERGEABLE "mg" "`MADV_MERGEABLE`";
    30 UFFD_MISSING "um" "userfaultfd: missing pages";
    31 UFFD_WP "uw" "userfaultfd: write-protection";
    32 UFFD_MINOR "ui" "userfaultfd: minor faults";
    33 SHADOW_STACK "ss" "a shadow stack";
    34 SEALED "sl" "`mseal`";
    35 DROPPABLE "dp" "`MAP_DROPPABLE`";
    36 BTI "bt" "arm64 branch target identification";
    37 MTE "mt" "arm64 memory tagging";
    38 NON_LINEAR "nl" "non-linear (kernels before 4.0)";
    39 MAYBE_GUARD "gu" "may hold guard markers (since Linux 6.19)";
}

/// A mapping as `smaps` shows it. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Area {
    /// Range, permissions, file.
    pub map: Mapping,
    /// Page size of the kernel for this mapping; more than 4096 on hugetlbfs.
    pub kernel_page_size: u64,
    /// In memory.
    pub rss: u64,
    /// The share of that which is this mapping's own, where others have the same pages.
    pub pss: u64,
    /// In memory and changed, of this task alone.
    pub private_dirty: u64,
    /// In memory and unchanged, mapped elsewhere too.
    pub shared_clean: u64,
    /// In memory and changed, mapped elsewhere too.
    pub shared_dirty: u64,
    /// In memory and anonymous.
    pub anonymous: u64,
    /// In memory in transparent huge pages, anonymous.
    pub anon_huge_pages: u64,
    /// In swap.
    pub swap: u64,
    /// Locked.
    pub locked: u64,
    /// May hold transparent huge pages.
    pub thp_eligible: bool,
    /// Memory protection key, 0 where there are none.
    pub protection_key: u32,
    /// Flags.
    pub flags: VmFlags,
}

/// Reads and parses `smaps`: all mappings in ascending order.
pub fn read(task: &TaskDir) -> std::result::Result<Vec<Area>, Error> {
    read_by_parts(task, usize::MAX, |_| {})
}

/// The same; shows every `many` mappings as soon as they are known, if others follow.
pub fn read_by_parts(
    task: &TaskDir,
    many: usize,
    mut part: impl FnMut(&[Area]),
) -> std::result::Result<Vec<Area>, Error> {
    let mut areas: Vec<Area> = Vec::with_capacity(64);
    let mut shown = 0;
    task.each_line_of("smaps", PIECE, empty_fields, |line| {
        if is_head(line) && areas.len() - shown >= many {
            part(&areas[shown..]);
            shown = areas.len();
        }
        add(&mut areas, line)
    })?;
    // Of many processes each has them until all are written.
    areas.shrink_to_fit();
    Ok(areas)
}

/// The kernel puts at most 4096 bytes together for a read, and throws away what has no more room of a mapping that it has
/// looked at. So it is asked for less than that by what one takes.
const PIECE: usize = 3 << 10;

/// Whether a line begins a new area: the kernel prints addresses in lower case, and fields begin with a capital.
fn is_head(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'0'..=b'9' | b'a'..=b'f'))
}

/// Bytes of the fields at the start of a text that are as they are without a line. Every field that ends in kB has 28 bytes
/// or more, so that as many bytes that begin with a line and end in `0 kB` are one field.
fn empty_fields(text: &[u8]) -> usize {
    const EMPTY: &[u8; 6] = b" 0 kB\n";
    const LEN: usize = 28;
    let (fields, _) = text.as_chunks::<LEN>();
    let is_empty = |field: &&[u8; LEN]| field.ends_with(EMPTY) && !is_head(*field);
    LEN * fields.iter().take_while(is_empty).count()
}

/// Parses the text of `smaps`.
pub fn parse(text: &[u8]) -> Result<Vec<Area>> {
    let mut areas = Vec::new();
    for line in lines(text) {
        add(&mut areas, line)?;
    }
    Ok(areas)
}

/// How fields end that are as they are without a line. Most do.
const NOTHING: &[u8] = b" 0 kB";

/// Takes one line: the head of a new area, or a field of the last.
fn add(areas: &mut Vec<Area>, line: &[u8]) -> Result<()> {
    if is_head(line) {
        areas.push(Area {
            map: parse_line(line)?,
            ..Area::default()
        });
        return Ok(());
    }
    let area = areas.last_mut().ok_or(Malformed("range"))?;
    if line.ends_with(NOTHING) {
        return Ok(());
    }
    let (key, value) = split_once(line, b':').ok_or(Malformed("line"))?;
    match key {
        b"KernelPageSize" => area.kernel_page_size = kilobytes(value, "KernelPageSize")?,
        b"Rss" => area.rss = kilobytes(value, "Rss")?,
        b"Pss" => area.pss = kilobytes(value, "Pss")?,
        b"Private_Dirty" => area.private_dirty = kilobytes(value, "Private_Dirty")?,
        b"Shared_Clean" => area.shared_clean = kilobytes(value, "Shared_Clean")?,
        b"Shared_Dirty" => area.shared_dirty = kilobytes(value, "Shared_Dirty")?,
        b"Anonymous" => area.anonymous = kilobytes(value, "Anonymous")?,
        b"AnonHugePages" => area.anon_huge_pages = kilobytes(value, "AnonHugePages")?,
        b"Swap" => area.swap = kilobytes(value, "Swap")?,
        b"Locked" => area.locked = kilobytes(value, "Locked")?,
        b"THPeligible" => area.thp_eligible = decimal::<u8>(trim_start(value), "THPeligible")? != 0,
        b"ProtectionKey" => area.protection_key = decimal(trim_start(value), "ProtectionKey")?,
        b"VmFlags" => area.flags = Fields(value).map(VmFlags::from_mnemonic).collect(),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"564b27fd3000-564b28002000 r--p 00000000 fe:00 247003      /usr/bin/bash\n\
        Size:                188 kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n\
        Rss:                 100 kB\nPss:                  98 kB\nShared_Dirty:          4 kB\n\
        Private_Dirty:        12 kB\nAnonymous:            16 kB\nAnonHugePages:         2 kB\n\
        Swap:                  8 kB\nSwapPss:               0 kB\nLocked:                1 kB\n\
        THPeligible:           1\nProtectionKey:         3\nVmFlags: rd mr mw me ac sd \n\
        7ffc0d4e1000-7ffc0d502000 rw-p 00000000 00:00 0                          [stack]\n\
        KernelPageSize:     2048 kB\nVmFlags: rd wr mr mw me gd ac zz \n";

    #[test]
    fn fields_go_to_their_area() {
        let areas = parse(TWO).unwrap();
        let [bash, stack] = &areas[..] else {
            panic!("{areas:?}")
        };
        assert_eq!(
            (bash.map.inode, &bash.map.path[..]),
            (247003, &b"/usr/bin/bash"[..])
        );
        assert_eq!(
            (bash.kernel_page_size, bash.rss, bash.pss, bash.swap),
            (4096, 100 << 10, 98 << 10, 8 << 10)
        );
        assert_eq!((bash.private_dirty, bash.shared_dirty), (12 << 10, 4 << 10));
        assert_eq!(
            (bash.anonymous, bash.anon_huge_pages, bash.locked),
            (16 << 10, 2 << 10, 1 << 10)
        );
        assert_eq!((bash.thp_eligible, bash.protection_key), (true, 3));
        let expected = VmFlags::READ | VmFlags::MAY_READ | VmFlags::MAY_WRITE | VmFlags::MAY_EXEC;
        assert_eq!(
            bash.flags,
            expected | VmFlags::ACCOUNT | VmFlags::SOFT_DIRTY
        );
        assert_eq!(stack.kernel_page_size, 2 << 20);
        assert!(stack.flags.contains(VmFlags::GROWS_DOWN | VmFlags::UNKNOWN));
        assert_eq!(stack.map.path, b"[stack]");
    }

    #[test]
    fn empty_fields_are_passed_over_as_far_as_they_are_whole() {
        let text = b"Shared_Clean:          0 kB\nShared_Dirty:          0 kB\nRss:                   4 kB\n";
        assert_eq!(empty_fields(text), 2 * 28);
        assert_eq!(empty_fields(&text[28..]), 28);
        assert_eq!(empty_fields(&text[..55]), 28);
        assert_eq!(
            empty_fields(b"THPeligible:           0\nVmFlags: rd mr\n"),
            0
        );
        assert_eq!(empty_fields(b""), 0);
        // As the kernel prints them.
        let task = TaskDir::open(rustix::process::getpid()).unwrap();
        let text = task.read("smaps", 1 << 16).unwrap();
        let empty: Vec<&[u8]> = lines(&text)
            .filter(|line| line.ends_with(NOTHING))
            .collect();
        assert!(!empty.is_empty() && empty.iter().all(|line| line.len() == 27));
    }

    #[test]
    fn wrong_texts_are_refused() {
        assert_eq!(parse(b"Rss: 4 kB\n"), Err(Malformed("range")));
        assert_eq!(
            parse(b"1000-2000 rw-p 0 0:0 0 \nRss: x kB\n"),
            Err(Malformed("Rss"))
        );
        assert_eq!(
            parse(b"1000-2000 rw-p 0 0:0 0 \nRss\n"),
            Err(Malformed("line"))
        );
        assert_eq!(parse(b""), Ok(vec![]));
    }
}
