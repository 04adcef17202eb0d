//! Live processes as sources and targets.

use super::*;
use crate::guest::Guest;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The mappings of a guest with the given permissions, of at most a gibibyte.
fn mappings(guest: &Guest, permissions: &str) -> Vec<Range<u64>> {
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let range = number(start)..number(end);
        let is_special = rest.contains("[v");
        (rest.starts_with(permissions) && !is_special && range.end - range.start < 1 << 30)
            .then_some(range)
    };
    guest.maps().lines().filter_map(parse).collect()
}

fn mem(guest: &Guest) -> File {
    let path = format!("/proc/{}/mem", guest.pid().as_raw_nonzero());
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_live_process_is_dumped_as_it_is() {
    let guest = Guest::start(5 << 20, 3);
    let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(guest.pid()));
    let mut extents: Vec<_> = mappings(&guest, "rw-p")
        .into_iter()
        .map(Extent::anonymous)
        .collect();
    extents.extend(mappings(&guest, "r--p").into_iter().map(Extent::present));
    extents.sort_by_key(|extent| extent.range.start);
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        let (summary, file) = store(options(format, 2), &source, &extents).unwrap();
        assert!(summary.pages > 1280 && summary.zero_pages > 0);
        let reader = open(format, &summary, file).unwrap();
        let mem = mem(&guest);
        let mut page = 0;
        let mut scratch = Scratch::new();
        for run in &summary.pagemap {
            let bytes = (run.nr_pages * PAGE) as usize;
            let (mut stored, mut live) = (vec![0; bytes], vec![0; bytes]);
            reader.read_at(&mut scratch, page, &mut stored).unwrap();
            mem.read_exact_at(&mut live, run.vaddr).unwrap();
            assert!(stored == live, "{run:x?}");
            page += run.nr_pages;
        }
    }
}

#[test]
fn memory_without_read_permission_is_read_by_force() {
    let guest = Guest::start(PAGE_SIZE, 3);
    // Test threads have malloc arenas, most of which are reserved without any permission.
    let reserved = mappings(&guest, "---p")
        .into_iter()
        .find(|range| range.end - range.start > 1 << 20);
    let reserved = reserved.expect("an arena of a thread");
    let before = reserved.start - PAGE;
    let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(guest.pid()));
    let extents = [
        before..before + PAGE,
        reserved.start..reserved.start + 5 * PAGE,
        guest.start..guest.start + PAGE,
    ];
    let mut extents = extents.map(Extent::present);
    extents.sort_by_key(|extent| extent.range.start);
    let (summary, _) = store(options(Format::Raw, 1), &source, &extents).unwrap();
    assert_eq!(summary.pages, 7);
}

#[test]
fn a_process_that_is_gone_is_an_error() {
    let guest = Guest::start(PAGE_SIZE, 3);
    let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(guest.pid()));
    let extent = Extent::present(guest.start..guest.start + PAGE);
    drop(guest);
    let error = store(options(Format::Raw, 2), &source, &[extent]).unwrap_err();
    assert!(
        error.to_string().ends_with("No such process (os error 3)"),
        "{error}"
    );
}

#[test]
fn an_address_that_is_not_mapped_is_an_error() {
    let guest = Guest::start(PAGE_SIZE, 3);
    let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(guest.pid()));
    let error = store(
        options(Format::Raw, 2),
        &source,
        &[Extent::present(PAGE..2 * PAGE)],
    )
    .unwrap_err();
    let want =
        "pages-7 (task 4711): reading between 0x1000 and 0x2000: Input/output error (os error 5)";
    assert_eq!(error.to_string(), want);
}

/// Stores `memory`, then fills `target` with it from `at` on.
fn fill(
    memory: &[u8],
    target: Arc<dyn PageTarget>,
    at: u64,
    huge: Vec<Range<u64>>,
) -> Result<FillStats, FillError> {
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(at, memory.to_vec()));
    let extent = Extent::present(at..at + memory.len() as u64);
    let format = Format::Zstd { level: 1 };
    let (summary, file) = store(options(format, 2), &source, &[extent]).unwrap();
    let reader = Arc::new(open(format, &summary, file).unwrap());
    let placements = Placement::of_pagemap(&summary.pagemap);
    Filler::new(NonZeroUsize::new(2))
        .fill(FillRequest {
            reader,
            target,
            placements,
            huge,
            compared: Vec::new(),
        })?
        .wait()
}

#[test]
fn a_live_process_is_filled() {
    let memory = pages(&[1; 2000]);
    let guest = Guest::start(memory.len(), 9);
    let target = Arc::new(ProcessTarget::new(guest.pid()));
    assert_eq!(
        fill(&memory, target, guest.start, vec![]).unwrap().pages,
        2000
    );
    let mut back = vec![0; memory.len()];
    mem(&guest).read_exact_at(&mut back, guest.start).unwrap();
    assert!(back == memory);
}

#[test]
fn huge_pages_are_made_where_allowed() {
    let memory = pages(&[2; 512 * 6]);
    for allowed in [false, true] {
        let guest = Guest::start(memory.len(), 0);
        let whole = guest.start..guest.start + memory.len() as u64;
        let target = Arc::new(ProcessTarget::new(guest.pid()));
        let huge = if allowed { vec![whole] } else { vec![] };
        let stats = fill(&memory, target, guest.start, huge).unwrap();
        let mut back = vec![0; memory.len()];
        mem(&guest).read_exact_at(&mut back, guest.start).unwrap();
        assert!(back == memory);
        // How many there are is up to the kernel; that they are not made unasked is up to us.
        assert!(allowed || stats.huge_pages == 0);
        assert!(stats.huge_pages <= 6);
        let rollup = format!("/proc/{}/smaps_rollup", guest.pid().as_raw_nonzero());
        let rollup = std::fs::read_to_string(rollup).unwrap();
        let anon_huge = rollup
            .lines()
            .find_map(|line| line.strip_prefix("AnonHugePages:"))
            .unwrap();
        let kib: u64 = anon_huge.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(
            kib >= stats.huge_pages * 2048,
            "{kib} KiB for {} huge pages",
            stats.huge_pages
        );
    }
}

#[test]
fn memory_without_write_permission_is_filled_by_force() {
    let guest = Guest::start(PAGE_SIZE, 3);
    let target = Arc::new(ProcessTarget::new(guest.pid()));
    let at = mappings(&guest, "r--p")[0].start;
    let memory = pages(&[1]);
    assert_eq!(fill(&memory, target, at, vec![]).unwrap().pages, 1);
    let mut back = vec![0; PAGE_SIZE];
    mem(&guest).read_exact_at(&mut back, at).unwrap();
    assert!(back == memory);
}

#[test]
fn a_target_that_is_gone_is_an_error() {
    let guest = Guest::start(PAGE_SIZE, 3);
    let (target, at) = (Arc::new(ProcessTarget::new(guest.pid())), guest.start);
    drop(guest);
    let error = fill(&pages(&[1; 300]), target, at, vec![]).unwrap_err();
    assert!(
        matches!(error, FillError::Write { key: KEY, .. }),
        "{error}"
    );
    assert!(
        error.to_string().ends_with("No such process (os error 3)"),
        "{error}"
    );
}
