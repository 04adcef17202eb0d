//! The crew of workers: order, errors, panics, early ends, memory.

use super::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Memory without end that is made up as it is read; some chunks take longer than others.
struct MadeUp {
    is_slow: bool,
    fail_at: Option<u64>,
    panic_at: Option<u64>,
}

const CALM: MadeUp = MadeUp {
    is_slow: false,
    fail_at: None,
    panic_at: None,
};

impl PageSource for MadeUp {
    fn read(&self, ranges: &[Range<u64>], buf: &mut [u8]) -> io::Result<()> {
        let start = ranges[0].start;
        let holds =
            |at: Option<u64>| at.is_some_and(|at| ranges.iter().any(|range| range.contains(&at)));
        assert!(!holds(self.panic_at), "as the test wants it");
        if holds(self.fail_at) {
            return Err(io::Error::from_raw_os_error(3));
        }
        if self.is_slow && (start / CHUNK_BYTES as u64).is_multiple_of(3) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut page = ranges
            .iter()
            .flat_map(|range| range.clone().step_by(PAGE_SIZE));
        for bytes in buf.chunks_exact_mut(PAGE_SIZE) {
            bytes.fill((page.next().unwrap() / PAGE % 251) as u8 + 1);
        }
        Ok(())
    }
}

/// A store of so many workers; 0 is one without any.
fn crew(format: Format, workers: usize) -> Store {
    match workers {
        0 => Store::in_place(format),
        _ => Store::start(options(format, workers)).unwrap(),
    }
}

/// Notes what comes in; checks that it comes in order and one at a time.
#[derive(Clone, Default)]
struct Recorder {
    runs: Arc<Mutex<Vec<Run>>>,
    inside: Arc<AtomicUsize>,
    finished: Arc<AtomicUsize>,
}

impl PageSink for Recorder {
    fn chunk(&mut self, chunk: Chunk<'_>) -> io::Result<()> {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0);
        let mut bytes = chunk.bytes.chunks_exact(PAGE_SIZE);
        for run in chunk.runs.iter().filter(|run| run.is_present()) {
            for vaddr in run.range().step_by(PAGE_SIZE) {
                let page = bytes.next().unwrap();
                assert!(
                    page.iter()
                        .all(|byte| u64::from(*byte) == vaddr / PAGE % 251 + 1)
                );
            }
        }
        assert_eq!(bytes.len(), 0);
        self.runs.lock().unwrap().extend(chunk.runs);
        assert_eq!(self.inside.fetch_sub(1, Ordering::SeqCst), 1);
        Ok(())
    }

    fn finish(&mut self, _: &[u8]) -> io::Result<()> {
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn many_objects_and_workers_keep_their_order() {
    keep_their_order(&crew(Format::Raw, 8));
}

#[test]
fn many_objects_keep_their_order_without_workers() {
    keep_their_order(&crew(Format::Raw, 0));
}

fn keep_their_order(store: &Store) {
    let source: Arc<dyn PageSource> = Arc::new(MadeUp {
        is_slow: true,
        ..CALM
    });
    let mut pending = Vec::new();
    for id in 0..40_u32 {
        let sink = Recorder::default();
        let key = ObjectKey {
            pages_id: id,
            owner: Owner::Shared(id.into()),
        };
        let mut object = store.object(key, Box::new(sink.clone()));
        let chunk = CHUNK_BYTES as u64;
        object
            .push(
                &source,
                Extent::anonymous(0..6 * chunk + u64::from(id) * PAGE),
            )
            .unwrap();
        for hole in 7..20 {
            object
                .push(
                    &source,
                    Extent::present(hole * chunk..hole * chunk + 3 * PAGE),
                )
                .unwrap();
        }
        object
            .push(&source, Extent::in_parent(30 * chunk..31 * chunk))
            .unwrap();
        pending.push((sink, object.finish().unwrap()));
    }
    for (id, (sink, pending)) in pending.into_iter().enumerate() {
        let summary = pending.wait().unwrap();
        assert_eq!(summary.pages, 6 * CHUNK_PAGES as u64 + id as u64 + 13 * 3);
        assert_eq!(summary.pagemap.len(), 15);
        assert_eq!(sink.finished.load(Ordering::SeqCst), 1);
        assert!(sink.runs.lock().unwrap().is_sorted_by_key(|run| run.vaddr));
    }
}

#[test]
fn small_extents_share_chunks() {
    let source: Arc<dyn PageSource> = Arc::new(CALM);
    let extents: Vec<_> = (0..512)
        .map(|at| Extent::present(at * 2 * PAGE..(at * 2 + 1) * PAGE))
        .collect();
    let (summary, _) = store(options(Format::Raw, 2), &source, &extents).unwrap();
    assert_eq!(summary.checksums.len(), 2);
    assert_eq!(summary.pagemap.len(), 512);
}

#[test]
fn long_extents_are_cut_where_huge_pages_begin() {
    let source: Arc<dyn PageSource> = Arc::new(CALM);
    let start = HUGE_BYTES - 5 * PAGE;
    let extent = Extent::present(start..start + 4 * HUGE_BYTES);
    let (summary, _) = store(options(Format::Raw, 2), &source, &[extent]).unwrap();
    let pages: Vec<_> = summary.checksums.iter().map(|sum| sum.pages).collect();
    assert_eq!(pages, [5, 256, 256, 256, 256, 256, 256, 256, 251]);
}

#[test]
fn extents_must_ascend() {
    let store = Store::start(options(Format::Raw, 1)).unwrap();
    let source: Arc<dyn PageSource> = Arc::new(CALM);
    for bad in [
        0..PAGE,
        4 * PAGE..4 * PAGE,
        5 * PAGE + 1..6 * PAGE,
        5 * PAGE..6 * PAGE - 1,
    ] {
        let mut object = store.object(KEY, Box::new(io::sink()));
        object
            .push(&source, Extent::present(PAGE..2 * PAGE))
            .unwrap();
        let error = object.push(&source, Extent::present(bad)).unwrap_err();
        assert!(matches!(error, StoreError::Extent { .. }), "{error}");
    }
}

/// Pushes until told to stop; the error of whoever says so.
fn run_into(store: &Store, source: MadeUp, sink: Box<dyn PageSink>) -> StoreError {
    let source: Arc<dyn PageSource> = Arc::new(source);
    let mut object = store.object(KEY, sink);
    let pushed = object.push(&source, Extent::present(0..100 * CHUNK_BYTES as u64));
    match pushed
        .and_then(|()| object.finish())
        .and_then(Pending::wait)
    {
        Ok(_) => panic!("nothing failed"),
        Err(error) => error,
    }
}

#[test]
fn a_dead_target_ends_the_dump_with_its_address() {
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        for workers in [0, 1, 2, 7] {
            let store = crew(format, workers);
            let other: Arc<dyn PageSource> = Arc::new(CALM);
            let mut unfinished = store.object(KEY, Box::new(io::sink()));
            unfinished.push(&other, Extent::present(0..PAGE)).unwrap();

            let source = MadeUp {
                is_slow: true,
                fail_at: Some(20 * CHUNK_BYTES as u64),
                ..CALM
            };
            let error = run_into(&store, source, Box::new(io::sink()));
            let want = "pages-7 (task 4711): reading between 0x1400000 and 0x1500000: No such process (os error 3)";
            assert_eq!(error.to_string(), want);
            // The failure is everybody's.
            assert_eq!(
                unfinished.finish().map(|_| ()).unwrap_err().to_string(),
                want
            );
        }
    }
}

#[test]
fn a_panic_in_a_worker_ends_the_dump() {
    for workers in [0, 1, 2, 7] {
        let store = crew(Format::Raw, workers);
        let source = MadeUp {
            is_slow: true,
            panic_at: Some(9 * CHUNK_BYTES as u64),
            ..CALM
        };
        assert!(matches!(
            run_into(&store, source, Box::new(io::sink())),
            StoreError::Panicked
        ));
    }
}

/// Takes so many bytes and no more.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::Error::from_raw_os_error(28))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_dump() {
    for workers in [0, 1, 2, 7] {
        let store = crew(Format::Raw, workers);
        let error = run_into(&store, CALM, Box::new(Full(30 * CHUNK_BYTES)));
        let StoreError::Write { chunk, source, .. } = error else {
            panic!("{error}");
        };
        // Chunks that are ready are written together, and the first of them is named.
        assert!((1..=30).contains(&chunk), "chunk {chunk}");
        assert_eq!(source.raw_os_error(), Some(28));
    }
}

#[test]
fn a_full_disk_at_the_very_end_is_an_error_too() {
    let store = Store::start(options(Format::Zstd { level: 1 }, 2)).unwrap();
    let object = store.object(KEY, Box::new(Full(3)));
    let finished = object.finish().and_then(Pending::wait);
    assert!(matches!(finished, Err(StoreError::Write { chunk: 0, .. })));
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn dropping_an_object_or_the_store_leaves_no_thread() {
    guest::alone("pipeline::drop_often", "yes");
}

/// The child of the test above; alone it does nothing.
#[test]
fn drop_often() {
    if guest::role().is_none() {
        return;
    }
    let before = threads();
    for round in 0..50 {
        let store = Store::start(options(Format::Raw, 4)).unwrap();
        assert_eq!(threads(), before + 4);
        let source: Arc<dyn PageSource> = Arc::new(MadeUp {
            is_slow: true,
            ..CALM
        });
        let mut object = store.object(KEY, Box::new(io::sink()));
        object
            .push(&source, Extent::present(0..10 * CHUNK_BYTES as u64))
            .unwrap();
        let pending = object.finish().unwrap();
        // Pushing it waits until most of the other has been done.
        if round % 2 == 1 {
            let mut abandoned = store.object(KEY, Box::new(io::sink()));
            abandoned
                .push(&source, Extent::present(0..10 * CHUNK_BYTES as u64))
                .unwrap();
        }
        let mut outliving = store.object(KEY, Box::new(io::sink()));
        drop(store);
        let pushed = outliving.push(&source, Extent::present(0..10 * CHUNK_BYTES as u64));
        assert!(matches!(pushed, Err(StoreError::Stopped)));
        // Either it was done in time, or it was given up; it is not waited for in vain.
        if let Err(error) = pending.wait() {
            assert!(matches!(error, StoreError::Stopped), "{error}");
        }
        assert_eq!(threads(), before);
    }
}

/// Dumps two gibibytes with sixteen workers in a fresh process and looks at its peak.
#[test]
fn peak_memory_does_not_depend_on_the_target() {
    for format in ["raw", "zstd"] {
        let text = guest::alone("pipeline::big_dump", format);
        let peak = text
            .lines()
            .find_map(|line| line.strip_prefix("peak KiB "))
            .unwrap();
        let peak: u64 = peak.trim().parse().unwrap();
        assert!(peak < 64 << 10, "{peak} KiB with {format}");
    }
}

/// The child of the test above; alone it does nothing.
#[test]
fn big_dump() {
    let format = match guest::role().as_deref() {
        Some("raw") => Format::Raw,
        Some(_) => Format::Zstd { level: 1 },
        None => return,
    };
    let store = Store::start(options(format, 16)).unwrap();
    let source: Arc<dyn PageSource> = Arc::new(CALM);
    let mut object = store.object(KEY, Box::new(io::sink()));
    object.push(&source, Extent::anonymous(0..2 << 30)).unwrap();
    assert_eq!(
        object.finish().unwrap().wait().unwrap().pages,
        (2 << 30) / PAGE
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    println!("\npeak KiB {}", peak.trim().trim_end_matches(" kB"));
}

/// Takes a few bytes at a time.
#[derive(Clone, Default)]
struct Narrow(Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>);

impl io::Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let calls = self.1.fetch_add(1, Ordering::SeqCst);
        if calls.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // Others are done meanwhile, and wait behind this one.
        std::thread::sleep(Duration::from_micros(200));
        let len = bytes.len().min(3 * PAGE_SIZE + 7);
        self.0.lock().unwrap().extend(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn chunks_written_at_once_are_written_whole_and_in_order() {
    let store = Store::start(options(Format::Raw, 4)).unwrap();
    let source: Arc<dyn PageSource> = Arc::new(CALM);
    let sink = Narrow::default();
    let key = ObjectKey {
        pages_id: 1,
        owner: Owner::Task(1),
    };
    let mut object = store.object(key, Box::new(sink.clone()));
    let pages = 20 * CHUNK_BYTES as u64 / PAGE + 3;
    object
        .push(&source, Extent::present(0..pages * PAGE))
        .unwrap();
    let summary = object.finish().unwrap().wait().unwrap();
    assert_eq!(summary.stored_bytes, pages * PAGE);
    let bytes = sink.0.lock().unwrap();
    assert_eq!(bytes.len() as u64, pages * PAGE);
    for (page, bytes) in (0..pages).zip(bytes.chunks_exact(PAGE_SIZE)) {
        assert!(
            bytes.iter().all(|byte| u64::from(*byte) == page % 251 + 1),
            "page {page}"
        );
    }
}
