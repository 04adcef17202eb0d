//! What `madvise(2)`, `mlock(2)` and their kin leave on a mapping.
//!
//! `madvise-flags`: every advice that stays as a flag. `wipe-on-fork`, `dont-fork`: what a child of the restored
//! process finds. `guard-pages`: `MADV_GUARD_INSTALL`, which must still kill. `mlock`, `mlock-onfault`, `mlockall`.
//! `thp`: huge pages and their contents. `hugetlb`: pages of 2 MiB from the pool. `vma-names`: `PR_SET_VMA`.

use crate::Entry;
use crate::os::{Map, PAGE, has_flag, os, vm_flags};
use crate::protocol::{Check, Failure, Guest, ensure, reap, same, status_field};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("madvise-flags", madvise_flags),
    Entry("wipe-on-fork", wipe_on_fork),
    Entry("dont-fork", dont_fork),
    Entry("guard-pages", guard_pages),
    Entry("mlock", mlock),
    Entry("mlock-onfault", mlock_onfault),
    Entry("mlockall", mlockall),
    Entry("thp", thp),
    Entry("hugetlb", hugetlb),
    Entry("vma-names", vma_names),
];

const HUGE: usize = 2 << 20;

fn madvise_flags(guest: &Guest) -> Check {
    const ADVICE: [(i32, &str, &str); 8] = [
        (libc::MADV_SEQUENTIAL, "sr", "sequential"),
        (libc::MADV_RANDOM, "rr", "random"),
        (libc::MADV_DONTFORK, "dc", "dontfork"),
        (libc::MADV_DONTDUMP, "dd", "dontdump"),
        (libc::MADV_WIPEONFORK, "wf", "wipeonfork"),
        (libc::MADV_MERGEABLE, "mg", "mergeable"),
        (libc::MADV_HUGEPAGE, "hg", "hugepage"),
        (libc::MADV_NOHUGEPAGE, "nh", "nohugepage"),
    ];
    let mut maps = Vec::new();
    for (index, (advice, flag, name)) in ADVICE.into_iter().enumerate() {
        // PROT_NONE pages around keep the mappings apart.
        let map = Map::anon(10 * PAGE)?;
        map.protect(0, PAGE, libc::PROT_NONE)?;
        map.protect(9 * PAGE, PAGE, libc::PROT_NONE)?;
        map.fill(1, 9, index as u64);
        let advised = map.advise(PAGE, 8 * PAGE, advice);
        let flags = vm_flags(map.addr() + PAGE)?;
        // A kernel without KSM refuses that one.
        ensure!(advised.is_ok() || flag == "mg", "madvise {name}");
        ensure!(
            advised.is_err() || flags.iter().any(|have| have == flag),
            "madvise {name} leaves no flag: {flags:?}"
        );
        maps.push((map, name, flags));
    }
    guest.hold()?;
    for (index, (map, name, want)) in maps.iter().enumerate() {
        same!(
            format!("flags after {name}"),
            vm_flags(map.addr() + PAGE)?,
            *want
        );
        map.check(name, 1, 9, index as u64)?;
    }
    Ok(())
}

fn wipe_on_fork(guest: &Guest) -> Check {
    let map = Map::anon(8 * PAGE)?;
    map.fill(0, 8, 41);
    map.advise(0, 8 * PAGE, libc::MADV_WIPEONFORK)?;
    guest.hold()?;
    map.check("memory of the process itself", 0, 8, 41)?;
    guest
        .fork("child", |_| map.check_zero("memory in a child", 0, 8))?
        .join(guest)
}

fn dont_fork(guest: &Guest) -> Check {
    let map = Map::anon(8 * PAGE)?;
    map.fill(0, 8, 42);
    map.advise(0, 8 * PAGE, libc::MADV_DONTFORK)?;
    guest.hold()?;
    map.check("memory of the process itself", 0, 8, 42)?;
    let kid = guest.fork("child", |_| {
        ensure!(map.resident().is_err(), "the mapping is there in a child");
        Ok(())
    })?;
    kid.join(guest)
}

fn guard_pages(guest: &Guest) -> Check {
    const INSTALL: i32 = 102;
    const GUARDS: [usize; 3] = [5, 6, 40];
    let map = Map::anon(64 * PAGE)?;
    map.fill(0, 64, 43);
    for page in GUARDS {
        if let Err(failure) = map.advise(page * PAGE, PAGE, INSTALL) {
            return Err(Failure::skip(format!("no guard pages: {failure}")));
        }
    }
    guest.hold()?;
    for page in (0..64).filter(|page| !GUARDS.contains(page)) {
        map.check("memory beside guards", page, page + 1, 43)?;
    }
    for page in GUARDS {
        let kid = guest.fork("toucher", |_| {
            let limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            os!(libc::setrlimit(libc::RLIMIT_CORE, &raw const limit))?;
            os!(libc::signal(libc::SIGSEGV, libc::SIG_DFL))?;
            map.set(page * PAGE, 1);
            Ok(())
        })?;
        same!(
            format!("end of who touches guard page {page}"),
            reap(kid.pid)? & 0x7f,
            libc::SIGSEGV
        );
    }
    Ok(())
}

/// Kilobytes locked, as `status` says.
fn locked() -> Check<String> {
    status_field("VmLck")
}

fn mlock(guest: &Guest) -> Check {
    let map = Map::anon(64 * PAGE)?;
    os!(libc::mlock(map.at(8 * PAGE), 16 * PAGE))?;
    map.fill(8, 12, 44);
    let before = locked()?;
    guest.hold()?;
    same!("VmLck", locked()?, before);
    let resident = map.resident()?;
    ensure!(
        resident[8..24].iter().all(|present| *present),
        "locked pages are not present"
    );
    map.check("locked memory", 8, 12, 44)?;
    map.check_zero("locked memory never written", 12, 24)
}

fn mlock_onfault(guest: &Guest) -> Check {
    const ONFAULT: i32 = 1;
    let map = Map::anon(64 * PAGE)?;
    map.protect(0, PAGE, libc::PROT_NONE)?;
    os!(libc::syscall(
        libc::SYS_mlock2,
        map.at(PAGE),
        63 * PAGE,
        ONFAULT
    ))?;
    map.fill(4, 8, 45);
    let (before, flags) = (locked()?, vm_flags(map.addr() + PAGE)?);
    guest.hold()?;
    same!("VmLck", locked()?, before);
    same!("flags", vm_flags(map.addr() + PAGE)?, flags);
    let resident = map.resident()?;
    ensure!(
        !resident[16..].iter().any(|present| *present),
        "pages were faulted in"
    );
    map.check("locked memory", 4, 8, 45)
}

fn mlockall(guest: &Guest) -> Check {
    os!(libc::mlockall(
        libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT
    ))?;
    let map = Map::anon(64 * PAGE)?;
    map.fill(0, 16, 46);
    let before = locked()?;
    guest.hold()?;
    same!("VmLck", locked()?, before);
    ensure!(has_flag(&map, "lo")?, "mapping is no longer locked");
    map.check("locked memory", 0, 16, 46)?;
    let later = Map::anon(PAGE * 300)?;
    let start = later.addr();
    let maps = fs::read_to_string("/proc/self/smaps")?;
    drop(later);
    // MCL_FUTURE covers what is mapped now; the new mapping may have been merged with a neighbour.
    let mut inside = false;
    let flags = maps.lines().find(|line| {
        if let Some((from, to)) = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'))
        {
            let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            inside = (parse(from)..parse(to)).contains(&start);
        }
        inside && line.starts_with("VmFlags:")
    });
    ensure!(
        flags.is_some_and(|line| line.contains(" lo")),
        "a new mapping is not locked: {flags:?}"
    );
    Ok(())
}

/// A mapping with `pages` huge ones aligned to 2 MiB inside; the offset of the first.
fn aligned(huge: usize) -> Check<(Map, usize)> {
    let map = Map::anon((huge + 1) * HUGE)?;
    let offset = map.addr().next_multiple_of(HUGE) - map.addr();
    Ok((map, offset))
}

fn thp(guest: &Guest) -> Check {
    let mode = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")?;
    if mode.contains("[never]") {
        return Err(Failure::skip("transparent huge pages are switched off"));
    }
    let (map, offset) = aligned(8)?;
    map.advise(offset, 8 * HUGE, libc::MADV_HUGEPAGE)?;
    let first = offset / PAGE;
    let pages = HUGE / PAGE;
    map.fill(first, first + 4 * pages, 47); // four whole ones
    map.fill(first + 5 * pages + 7, first + 5 * pages + 9, 47); // a corner of another
    guest.hold()?;
    map.check("huge pages", first, first + 4 * pages, 47)?;
    map.check(
        "corner of a huge page",
        first + 5 * pages + 7,
        first + 5 * pages + 9,
        47,
    )?;
    map.check_zero(
        "rest of a huge page",
        first + 5 * pages,
        first + 5 * pages + 7,
    )?;
    map.check_zero("huge page never used", first + 6 * pages, first + 7 * pages)
}

fn hugetlb(guest: &Guest) -> Check {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let free = || -> Check<usize> {
        Ok(
            fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")?
                .trim()
                .parse()?,
        )
    };
    if free().is_err() {
        return Err(Failure::skip("no pool of huge pages"));
    }
    if free()? < 5 {
        return Err(Failure::skip("the pool has no 5 huge pages to spare"));
    }
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let private = Map::new(3 * HUGE, prot, flags, -1, 0)?;
    let shared = Map::new(
        2 * HUGE,
        prot,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB,
        -1,
        0,
    )?;
    let pages = HUGE / PAGE;
    private.fill(0, 2 * pages, 48);
    shared.fill(pages, 2 * pages, 49);
    guest.hold()?;
    private.check("private huge pages", 0, 2 * pages, 48)?;
    private.check_zero("private huge page never used", 2 * pages, 3 * pages)?;
    shared.check("shared huge page", pages, 2 * pages, 49)?;
    ensure!(
        has_flag(&private, "ht")? && has_flag(&shared, "ht")?,
        "the mappings are no longer of huge pages"
    );
    Ok(())
}

fn vma_names(guest: &Guest) -> Check {
    const SET_VMA: i32 = 0x5356_4d41;
    let map = Map::anon(16 * PAGE)?;
    map.protect(0, PAGE, libc::PROT_NONE)?;
    let named = os!(libc::prctl(
        SET_VMA,
        0,
        map.at(PAGE),
        15 * PAGE,
        c"gelid guest".as_ptr()
    ));
    if named.is_err() {
        return Err(Failure::skip(
            "this kernel has no names for anonymous memory",
        ));
    }
    map.fill(1, 8, 50);
    guest.hold()?;
    let start = format!("{:x}-", map.addr() + PAGE);
    let maps = fs::read_to_string("/proc/self/maps")?;
    let line = maps
        .lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_default();
    ensure!(line.ends_with("[anon:gelid guest]"), "name is lost: {line}");
    map.check("named memory", 1, 8, 50)
}
