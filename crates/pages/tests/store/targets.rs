//! Shared memory files, and huge pages over chunk boundaries.

use super::*;
use gelid_sys::proc::smaps::VmFlags;
use gelid_sys::proc::{self, smaps};
use gelid_sys::userfaultfd::Holes;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn a_sparse_file_comes_back_with_its_holes() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("shm");
    let mut file = File::create_new(&path).unwrap();
    file.set_len(100 * PAGE + 10).unwrap();
    file.write_all_at(&pages(&[1, 2]), 5 * PAGE).unwrap();
    file.write_all_at(b"the tail", 100 * PAGE + 2).unwrap();
    file.seek(SeekFrom::Start(77)).unwrap();

    let open_again = || File::options().read(true).write(true).open(&path).unwrap();
    let source = FileSource::new(file.try_clone().unwrap());
    let ranges = source.data_ranges().unwrap();
    assert_eq!(ranges, [5 * PAGE..7 * PAGE, 100 * PAGE..101 * PAGE]);
    assert_eq!(
        file.stream_position().unwrap(),
        77,
        "the offset is the target's"
    );

    let source: Arc<dyn PageSource> = Arc::new(source);
    let extents: Vec<_> = ranges.into_iter().map(Extent::present).collect();
    let (summary, stored) = store(options(Format::Raw, 1), &source, &extents).unwrap();
    assert_eq!(summary.pages, 3);
    let mut tail = vec![0; PAGE_SIZE];
    tail[2..10].copy_from_slice(b"the tail");
    assert!(stored[2 * PAGE_SIZE..] == tail);

    let back = open_again();
    back.set_len(0).unwrap();
    back.set_len(101 * PAGE).unwrap();
    let request = FillRequest {
        reader: Arc::new(open(Format::Raw, &summary, stored).unwrap()),
        target: Arc::new(FileTarget::new(back)),
        placements: Placement::of_pagemap(&summary.pagemap),
        huge: vec![],
        compared: Vec::new(),
    };
    Filler::new(None).fill(request).unwrap().wait().unwrap();
    let back = FileSource::new(open_again());
    assert_eq!(
        back.data_ranges().unwrap(),
        [5 * PAGE..7 * PAGE, 100 * PAGE..101 * PAGE]
    );
    let mut two = vec![0; 2 * PAGE_SIZE];
    back.read(&[5 * PAGE..7 * PAGE], &mut two).unwrap();
    assert!(two == pages(&[1, 2]));
}

/// What comes of filling a target with all there is, by two workers.
fn filled_by_two(
    reader: Arc<ObjectReader>,
    target: Arc<dyn PageTarget>,
    summary: &Summary,
    huge: Vec<Range<u64>>,
) -> FillStats {
    let request = FillRequest {
        reader,
        target,
        placements: Placement::of_pagemap(&summary.pagemap),
        huge,
        compared: Vec::new(),
    };
    let filler = Filler::new(NonZeroUsize::new(2));
    filler.fill(request).unwrap().wait().unwrap()
}

/// Memory that insists on the rules of [`PageTarget::collapse`].
struct Strict {
    memory: Memory,
    collapsed: Mutex<Vec<Range<u64>>>,
    written: Mutex<Vec<Range<u64>>>,
    calls: AtomicUsize,
    gives: usize,
}

impl PageTarget for Strict {
    fn write(&self, bytes: &[u8], ranges: &[Range<u64>]) -> io::Result<()> {
        self.written.lock().unwrap().extend_from_slice(ranges);
        self.memory.write(bytes, ranges)
    }

    fn collapse(&self, areas: &[Range<u64>]) -> io::Result<usize> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let written = self.written.lock().unwrap();
        let mut collapsed = self.collapsed.lock().unwrap();
        for area in areas {
            assert!(area.start.is_multiple_of(HUGE_BYTES) && area.end - area.start == HUGE_BYTES);
            assert!(
                written
                    .iter()
                    .any(|page| area.start <= page.start && page.end <= area.end)
            );
            assert!(!collapsed.contains(area), "asked twice");
            collapsed.push(area.clone());
        }
        match self.gives {
            0 => Err(io::ErrorKind::OutOfMemory.into()),
            gives => Ok(areas.len().min(gives)),
        }
    }
}

#[test]
fn each_whole_area_is_collapsed_once() {
    let bytes = 9 * HUGE_BYTES as usize + 3 * PAGE_SIZE;
    let base = 16 * HUGE_BYTES - PAGE;
    let kinds = vec![1; bytes / PAGE_SIZE];
    let memory = pages(&kinds);
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(base, memory.clone()));
    let extent = Extent::present(base..base + bytes as u64);
    let (summary, file) = store(options(Format::Raw, 2), &source, &[extent]).unwrap();
    let reader = Arc::new(open(Format::Raw, &summary, file).unwrap());
    for gives in [usize::MAX, 0] {
        let target = Arc::new(Strict {
            memory: Memory::new(base, vec![0; bytes]),
            collapsed: Mutex::default(),
            written: Mutex::default(),
            calls: AtomicUsize::new(0),
            gives,
        });
        let huge = vec![0..base + 3 * HUGE_BYTES, base + 3 * HUGE_BYTES..u64::MAX];
        let stats = filled_by_two(reader.clone(), target.clone(), &summary, huge);
        assert!(target.memory.bytes() == memory);
        let collapsed = target.collapsed.lock().unwrap().len();
        if gives == 0 {
            // Each of the two workers may be at it when the other is refused, with all areas of a job.
            let calls = target.calls.load(Ordering::Relaxed);
            assert!(calls <= 2, "after a refusal no more is asked for");
        } else {
            // One area of nine lies in two mappings.
            assert_eq!((collapsed, stats.huge_pages), (8, 8));
        }
    }
}

/// This process, where huge pages are slow to get.
struct Slow {
    process: ProcessTarget,
    small: AtomicBool,
}

impl PageTarget for Slow {
    fn write(&self, bytes: &[u8], ranges: &[Range<u64>]) -> io::Result<()> {
        self.process.write(bytes, ranges)
    }

    fn collapse(&self, areas: &[Range<u64>]) -> io::Result<usize> {
        assert!(!areas.is_empty());
        std::thread::sleep(Duration::from_millis(2) * areas.len() as u32);
        Ok(0)
    }

    fn prefer_small(&self) -> bool {
        let small = self.process.prefer_small();
        self.small.store(small, Ordering::Relaxed);
        small
    }

    fn filled(&self) {
        self.process.filled();
    }
}

/// Pages for all of a range, and what they are stored as.
fn stored_for(range: &Range<u64>) -> (Vec<u8>, Summary, Arc<ObjectReader>) {
    let kinds = (0..(range.end - range.start) / PAGE).map(|page| 1 + page as u8 % 200);
    let memory = pages(&kinds.collect::<Vec<_>>());
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(range.start, memory.clone()));
    let extent = Extent::present(range.clone());
    let (summary, file) = store(options(Format::Raw, 2), &source, &[extent]).unwrap();
    let reader = open(Format::Raw, &summary, file).unwrap();
    (memory, summary, Arc::new(reader))
}

#[test]
fn holes_are_filled_where_huge_pages_are_slow() {
    let Ok(holes) = Holes::own() else {
        return eprintln!("skipped: no userfaultfd");
    };
    let bytes = 12 * HUGE_BYTES as usize;
    let mut map = memmap2::MmapMut::map_anon(bytes).unwrap();
    let start = map.as_ptr() as u64;
    let range = start..start + bytes as u64;
    // Pages that are there already, inside and outside.
    (0..bytes)
        .step_by(HUGE_BYTES as usize + 5 * PAGE_SIZE)
        .for_each(|at| map[at] = 1);
    let (memory, summary, reader) = stored_for(&range);
    let inner_start = start + 3 * HUGE_BYTES + 7 * PAGE;
    let inner = inner_start..range.end - HUGE_BYTES;
    let mappings = HoleMappings {
        holes,
        registered: Vec::new(),
        huge: vec![inner],
    };
    let target = Arc::new(Slow {
        process: ProcessTarget::with_holes(rustix::process::getpid(), mappings),
        small: AtomicBool::new(false),
    });
    let stats = filled_by_two(reader, target.clone(), &summary, vec![range]);
    assert_eq!(stats.pages, (bytes / PAGE_SIZE) as u64);
    assert!(target.small.load(Ordering::Relaxed));
    assert!(map[..] == memory);
    assert!(!is_registered(inner_start), "still registered");
}

/// Whether the mapping at an address is; other tests may have some, too.
fn is_registered(address: u64) -> bool {
    let own = proc::task_dir(rustix::process::getpid()).unwrap();
    let areas = smaps::read(&own).unwrap();
    let area = areas
        .iter()
        .find(|area| area.map.range().contains(&address));
    area.unwrap().flags.contains(VmFlags::UFFD_MISSING)
}

#[test]
fn registered_holes_are_filled_behind_whoever_makes_them_ready() {
    let Ok(holes) = Holes::own() else {
        return eprintln!("skipped: no userfaultfd");
    };
    let bytes = 12 * HUGE_BYTES as usize;
    let mut map = memmap2::MmapMut::map_anon(bytes).unwrap();
    let start = map.as_ptr() as u64;
    let range = start..start + bytes as u64;
    map[9 * PAGE_SIZE] = 1;
    let (memory, summary, reader) = stored_for(&range);
    holes.register(&range).unwrap();
    let mappings = HoleMappings {
        holes,
        registered: vec![start..start + 7 * PAGE, start + 7 * PAGE..range.end],
        huge: Vec::new(),
    };
    let target = ProcessTarget::with_holes(rustix::process::getpid(), mappings);
    assert!(!target.prefer_small(), "there are no other mappings");
    let request = FillRequest {
        reader,
        target: Arc::new(target),
        placements: Placement::of_pagemap(&summary.pagemap),
        huge: Vec::new(),
        compared: Vec::new(),
    };
    let filler = Filler::new(NonZeroUsize::new(2));
    assert!(is_registered(start));
    let mut ready = vec![start];
    let filling = filler.fill_behind::<FillError>(request, |end| {
        ready.push(end);
        Ok(())
    });
    let stats = filling.unwrap().wait().unwrap();
    assert_eq!(stats.pages, (bytes / PAGE_SIZE) as u64);
    assert!(ready.len() > 2 && ready.is_sorted(), "{ready:x?}");
    assert_eq!(ready.last(), Some(&range.end));
    assert!(!is_registered(start), "still registered");
    assert!(map[..] == memory);
}

#[test]
fn nothing_is_filled_if_the_target_does_not_become_ready() {
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(0, pages(&[1, 2])));
    let extent = Extent::present(0..2 * PAGE);
    let (summary, file) = store(options(Format::Raw, 1), &source, &[extent]).unwrap();
    let target = Arc::new(Memory::new(0, pages(&[0, 0])));
    let request = FillRequest {
        reader: Arc::new(open(Format::Raw, &summary, file).unwrap()),
        target: target.clone(),
        placements: Placement::of_pagemap(&summary.pagemap),
        huge: Vec::new(),
        compared: Vec::new(),
    };
    let refused = Filler::new(None).fill_behind(request, |end| {
        assert_eq!(end, 2 * PAGE);
        Err(FillError::Stopped)
    });
    assert!(matches!(refused, Err(FillError::Stopped)));
    assert!(target.bytes() == pages(&[0, 0]));
}
