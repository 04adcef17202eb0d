//! Pages and mappings of this process.

use std::os::fd::{AsRawFd, OwnedFd};

use gelid_sys::pagemap::{self, Categories, Entry, Query, Region, ScanFlags};
use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::VmFlags;
use gelid_sys::{Errno, PAGE_SIZE, map, proc, procmap};
use rustix::fs::OFlags;

const PAGE: u64 = PAGE_SIZE as u64;

fn own() -> proc::TaskDir {
    proc::task_dir(rustix::process::getpid()).unwrap()
}

fn pagemap() -> OwnedFd {
    own().open_file("pagemap", OFlags::RDONLY).unwrap()
}

/// Sixty-four pages of small-page memory, the odd ones written.
fn striped() -> (map::Anonymous, u64) {
    let mut memory = map::Anonymous::new(64 * PAGE_SIZE).unwrap();
    for page in (1..64).step_by(2) {
        memory[page * PAGE_SIZE] = 1;
    }
    let start = memory.as_ptr() as u64;
    (memory, start)
}

fn present() -> Query {
    Query {
        required: Categories::PRESENT,
        report: Categories::PRESENT,
        ..Query::default()
    }
}

/// False where the kernel has no `PAGEMAP_SCAN`.
fn has_scan() -> bool {
    gelid_sys::probe::probe(gelid_sys::probe::Feature::PagemapScan).is_yes()
}

#[test]
fn written_pages_are_found() {
    let (_memory, start) = striped();
    let fd = pagemap();
    let range = start..start + 64 * PAGE;
    let expected: Vec<_> = (1..64)
        .step_by(2)
        .map(|page| Region {
            start: start + page * PAGE,
            end: start + (page + 1) * PAGE,
            categories: Categories::PRESENT,
        })
        .collect();
    assert_eq!(
        pagemap::scan_entries(&fd, range.clone(), &present()).unwrap(),
        expected
    );
    if has_scan() {
        assert_eq!(pagemap::scan_all(&fd, range, &present()).unwrap(), expected);
    }
}

#[test]
fn a_small_vector_is_filled_again_and_again() {
    if !has_scan() {
        return;
    }
    let (_memory, start) = striped();
    let (fd, end) = (pagemap(), start + 64 * PAGE);
    let mut regions = Vec::with_capacity(5);
    let (mut at, mut found, mut calls) = (start, 0, 0);
    while at < end {
        at = pagemap::scan(&fd, at..end, &present(), &mut regions).unwrap();
        assert!(regions.len() <= regions.capacity());
        found += regions.len();
        calls += 1;
    }
    assert_eq!((found, at), (32, end));
    assert!(calls >= 6, "{calls}");
}

#[test]
fn queries_combine() {
    if !has_scan() {
        return;
    }
    let (memory, start) = striped();
    // Reading an untouched page maps the page of zeros.
    assert_eq!(memory[0], 0);
    let fd = pagemap();
    let all = start..start + 64 * PAGE;
    let zero = Query {
        required: Categories::PFNZERO,
        report: Categories::PFNZERO | Categories::PRESENT,
        ..Query::default()
    };
    let regions = pagemap::scan_all(&fd, all.clone(), &zero).unwrap();
    assert_eq!(regions.len(), 1);
    assert_eq!(regions[0].range(), start..start + PAGE);
    let not_zero = Query {
        inverted: Categories::PFNZERO,
        required: Categories::PFNZERO,
        any_of: Categories::PRESENT | Categories::SWAPPED,
        ..Query::default()
    };
    let regions = pagemap::scan_all(&fd, all, &not_zero).unwrap();
    assert_eq!(
        regions
            .iter()
            .map(|region| region.end - region.start)
            .sum::<u64>(),
        32 * PAGE
    );
    assert!(not_zero.matches(Categories::PRESENT));
    assert!(!not_zero.matches(Categories::PRESENT | Categories::PFNZERO));
}

#[test]
fn touching_runs_come_as_one() {
    if !has_scan() {
        return;
    }
    let mut memory = map::Anonymous::new(1024 * PAGE_SIZE).unwrap();
    memory.fill(1);
    let start = memory.as_ptr() as u64;
    let regions = pagemap::scan_all(pagemap(), start..start + 1024 * PAGE, &present()).unwrap();
    assert_eq!(regions.len(), 1);
    assert_eq!(regions[0].range(), start..start + 1024 * PAGE);
}

#[test]
fn wrong_queries_are_refused() {
    let (_memory, start) = striped();
    let fd = pagemap();
    let range = start..start + PAGE;
    let pfnzero = Query {
        required: Categories::PFNZERO,
        ..Query::default()
    };
    assert_eq!(
        pagemap::scan_entries(&fd, range.clone(), &pfnzero),
        Err(Errno::OPNOTSUPP)
    );
    assert_eq!(
        pagemap::scan_entries(&fd, start + 1..range.end, &present()),
        Err(Errno::INVAL)
    );
    let none = &mut Vec::new();
    assert_eq!(
        pagemap::scan(&fd, range.clone(), &present(), none),
        Err(Errno::INVAL)
    );
    if has_scan() {
        assert_eq!(
            pagemap::scan_all(&fd, start + 1..range.end, &present()),
            Err(Errno::INVAL)
        );
        let flags = ScanFlags::CHECK_WPASYNC;
        let checked = Query { flags, ..present() };
        assert_eq!(
            pagemap::scan_all(&fd, range.clone(), &checked),
            Err(Errno::PERM)
        );
    }
    let file = std::fs::File::open("/proc/self/maps").unwrap();
    assert_eq!(
        pagemap::scan_all(&file, range, &present()),
        Err(Errno::NOTTY)
    );
}

#[test]
fn frames_are_told_to_the_privileged() {
    let (_memory, start) = striped();
    let mut entries = [Entry::default(); 64];
    assert_eq!(
        pagemap::read_entries(pagemap(), start, &mut entries),
        Ok(64)
    );
    assert!(!entries[0].present() && entries[1].present() && entries[1].exclusive());
    if gelid_sys::probe::probe(gelid_sys::probe::Feature::CapSysAdmin).is_yes() {
        let frames: std::collections::HashSet<_> =
            entries.iter().filter_map(|entry| entry.pfn()).collect();
        assert_eq!(frames.len(), 32);
    }
}

#[test]
fn three_lists_of_mappings_agree() {
    // Other tests map and unmap meanwhile, so only what this one made is compared.
    let path = tempfile::Builder::new().prefix("a b\n").tempfile().unwrap();
    path.as_file().set_len(3 * PAGE).unwrap();
    let file = map::ReadOnly::map(path.as_file()).unwrap();
    let start = file.as_ptr() as u64;
    let task = own();
    let maps = proc::maps::read(&task).unwrap();
    let map = maps.iter().find(|map| map.start == start).unwrap();
    assert_eq!(
        (map.size(), map.perms),
        (3 * PAGE, Perms::READ | Perms::SHARED)
    );
    assert_eq!(map.path, path.path().as_os_str().as_encoded_bytes());
    assert_eq!(map.inode, rustix::fs::fstat(path.as_file()).unwrap().st_ino);

    let areas = proc::smaps::read(&task).unwrap();
    let area = areas.iter().find(|area| area.map.start == start).unwrap();
    assert_eq!((&area.map, area.kernel_page_size), (map, PAGE));
    assert!(area.flags.contains(VmFlags::READ | VmFlags::MAY_SHARE));
    assert!(
        areas
            .iter()
            .all(|area| !area.flags.contains(VmFlags::UNKNOWN)),
        "{areas:#?}"
    );

    let file = task.open_file("maps", OFlags::RDONLY).unwrap();
    let mut query = procmap::Query::new(&file);
    match query.next_from(start + PAGE) {
        Ok(found) => {
            let found = found.unwrap();
            assert_eq!((&found.map, found.page_size), (map, PAGE));
            assert_eq!(query.next_from(1 << 60).unwrap(), None);
            let names: Vec<_> = procmap::list(&file)
                .unwrap()
                .into_iter()
                .map(|found| found.map.path)
                .collect();
            assert!(names.iter().any(|name| name == b"[stack]"));
        }
        Err(errno) => assert_eq!(errno, Errno::NOTTY), // Linux before 6.11
    }
    assert!(path.as_file().as_raw_fd() >= 0);
}

#[test]
fn advice_shows_in_the_flags() {
    let memory = map::Anonymous::huge(4 << 20).unwrap();
    let start = memory.as_ptr() as u64;
    let areas = proc::smaps::read(&own()).unwrap();
    // The kernel may have joined it with a neighbour that has the same advice.
    let area = areas
        .iter()
        .find(|area| area.map.range().contains(&start))
        .unwrap();
    if gelid_sys::prctl::thp_disabled() == Ok(false)
        && std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists()
    {
        assert!(area.flags.contains(VmFlags::HUGE_PAGE));
    }
    assert!(
        area.flags
            .contains(VmFlags::READ | VmFlags::WRITE | VmFlags::MAY_READ)
    );
}
