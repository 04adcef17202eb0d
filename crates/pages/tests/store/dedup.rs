//! Equal pages of several objects: stored once, found again, the same ones each time.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// The first task has its memory here, each further one a little higher.
const BASE: u64 = 0x5000_0000_0000;
const STEP: u64 = (1 << 30) + 7 * PAGE;

/// What a page holds: its number, again and again; 0 are zeros.
fn page(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(PAGE_SIZE / 4)
}

/// The memory of a task: what each page holds.
type Task = Vec<u32>;

fn key(task: usize) -> ObjectKey {
    ObjectKey {
        pages_id: task as u32 + 1,
        owner: Owner::Task(task as i32 + 100),
    }
}

fn base(task: usize) -> u64 {
    BASE + task as u64 * STEP
}

fn bytes(task: &Task) -> Vec<u8> {
    task.iter().flat_map(|number| page(*number)).collect()
}

fn dedup(workers: usize) -> StoreOptions {
    StoreOptions {
        dedup: true,
        ..options(Format::Zstd { level: 1 }, workers)
    }
}

/// Stores the tasks one after the other.
fn store_all(options: StoreOptions, tasks: &[Task]) -> Vec<(Summary, Vec<u8>)> {
    let store = Store::start(options).unwrap();
    let begun = tasks.iter().enumerate().map(|(index, task)| {
        let source: Arc<dyn PageSource> = Arc::new(Memory::new(base(index), bytes(task)));
        let file = Buffer::default();
        let mut object = store.object(key(index), Box::new(file.clone()));
        let end = base(index) + task.len() as u64 * PAGE;
        if !task.is_empty() {
            let extent = Extent::anonymous(base(index)..end);
            object.push(&source, extent).unwrap();
        }
        (object.finish().unwrap(), file)
    });
    let begun: Vec<_> = begun.collect();
    let done = begun.into_iter();
    done.map(|(pending, file)| (pending.wait().unwrap(), file.bytes()))
        .collect()
}

/// The pages of a range of an object, in its file.
fn placements(summary: &Summary, range: &Range<u64>, to: u64) -> Vec<Placement> {
    let mut found = Vec::new();
    for place in Placement::of_pagemap(&summary.pagemap) {
        let end = place.vaddr + place.nr_pages * PAGE;
        let both = place.vaddr.max(range.start)..end.min(range.end);
        if !both.is_empty() {
            found.push(Placement {
                vaddr: to + (both.start - range.start),
                first_page: place.first_page + (both.start - place.vaddr) / PAGE,
                nr_pages: (both.end - both.start) / PAGE,
            });
        }
    }
    found
}

/// Fills a task's memory as a restore does: one request for each object that has some of its pages.
fn restored(tasks: &[Task], stored: &[(Summary, Vec<u8>)], index: usize) -> Vec<u8> {
    let summary = &stored[index].0;
    let mut by_owner: HashMap<u32, Vec<Placement>> = HashMap::new();
    let own = Placement::of_pagemap(&summary.pagemap);
    by_owner.insert(key(index).pages_id, own);
    for reference in &summary.references {
        let owner = reference.owner.pages_id;
        let there = reference.at..reference.at + reference.nr_pages * PAGE;
        let found = placements(&stored[owner as usize - 1].0, &there, reference.vaddr);
        let pages: u64 = found.iter().map(|place| place.nr_pages).sum();
        assert_eq!(pages, reference.nr_pages, "pages that are not stored");
        by_owner.entry(owner).or_default().extend(found);
    }
    let len = tasks[index].len() * PAGE_SIZE;
    let target = Arc::new(Memory::new(base(index), vec![0; len]));
    let filler = Filler::new(NonZeroUsize::new(3));
    for (owner, mut placements) in by_owner {
        placements.sort_by_key(|place| place.first_page);
        let file = stored[owner as usize - 1].1.clone();
        let request = FillRequest {
            reader: Arc::new(ObjectReader::open_zstd(key(index), Box::new(file)).unwrap()),
            target: target.clone(),
            placements,
            huge: vec![base(index)..base(index) + len as u64],
            compared: Vec::new(),
        };
        filler.fill(request).unwrap().wait().unwrap();
    }
    target.bytes()
}

/// Tasks made of parts: some of the same pages in a row, one page again and again, pages in disorder, zeros.
fn tasks() -> impl Strategy<Value = Vec<Task>> {
    let part = (0..4_u8, 0..600_u32, 1..400_u32).prop_map(|(kind, first, count)| {
        let part: Task = match kind {
            0 | 1 => (first..first + count).collect(),
            2 => vec![first; count as usize % 40],
            _ => (0..count).map(|at| first + at * 37 % 64).collect(),
        };
        part
    });
    let task = prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat());
    prop::collection::vec(task, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_was_left_out_comes_back(tasks in tasks(), workers in 1..6_usize) {
        let stored = store_all(dedup(workers), &tasks);
        for (index, task) in tasks.iter().enumerate() {
            prop_assert!(restored(&tasks, &stored, index) == bytes(task), "task {}", index);
            let summary = &stored[index].0;
            let left_out: u64 = summary.references.iter().map(|one| one.nr_pages).sum();
            let pages = summary.pages + summary.zero_pages + left_out;
            prop_assert_eq!(pages, task.len() as u64);
            for pair in summary.references.windows(2) {
                prop_assert!(pair[0].range().end <= pair[1].vaddr);
            }
        }
        // Whoever comes first.
        prop_assert!(store_all(dedup(7 - workers), &tasks) == stored);
    }
}

fn references(summary: &Summary) -> Vec<(u64, u64, u32, u64)> {
    let all = summary.references.iter();
    let one = |one: &Reference| (one.vaddr, one.nr_pages, one.owner.pages_id, one.at);
    all.map(one).collect()
}

#[test]
fn equal_memory_is_stored_once() {
    let equal: Task = (1..1000).collect();
    let tasks = vec![equal.clone(), equal.clone(), equal[100..200].to_vec()];
    let stored = store_all(dedup(2), &tasks);
    let pages: Vec<u64> = stored.iter().map(|(summary, _)| summary.pages).collect();
    assert_eq!(pages, [999, 0, 0]);
    assert_eq!(references(&stored[0].0), []);
    assert_eq!(references(&stored[1].0), [(base(1), 999, 1, base(0))]);
    let there = base(0) + 100 * PAGE;
    assert_eq!(references(&stored[2].0), [(base(2), 100, 1, there)]);
    // An object of its own may be the owner too.
    let twice = [&equal[..], &equal[..]].concat();
    let stored = store_all(dedup(3), &[twice]);
    // But for 25 pages in the chunk where they begin.
    let again = (base(0) + 1024 * PAGE, 974, 1, base(0) + 25 * PAGE);
    assert_eq!(references(&stored[0].0), [again]);
}

#[test]
fn few_pages_are_not_worth_it() {
    let owner: Task = (1..600).collect();
    let own = |count: u32| 10_000..10_000 + count;
    let some = |parts: &[Range<u32>]| parts.iter().cloned().flatten().collect::<Task>();
    let left_out = |task: Task| {
        let stored = store_all(dedup(1), &[owner.clone(), task]);
        let all = stored[1].0.references.iter();
        all.map(|one| one.nr_pages).sum::<u64>()
    };
    assert_eq!(left_out(some(&[own(50), 20..83])), 0);
    assert_eq!(left_out(some(&[own(50), 20..84])), 64);
    // The last ones of a row are in the next mebibyte of the owner's.
    assert_eq!(left_out(some(&[own(50), 200..264])), 64);
    assert_eq!(left_out(some(&[200..257, own(50), 257..264])), 0);
    // A page here and there, which add up.
    let spread: Vec<_> = (1..65).map(|at| at * 3..at * 3 + 1).collect();
    assert_eq!(left_out(some(&spread[..63])), 0);
    assert_eq!(left_out(some(&spread)), 64);
    // Few in the last mebibyte are enough, since there is little to be unpacked.
    assert_eq!(left_out(some(&[own(50), 580..600])), 0);
    assert_eq!(left_out(some(&[own(50), 570..600])), 30);
    // The same page again and again is nothing that zstd would not see.
    assert_eq!(left_out(vec![7; 200]), 0);
    // Pages of zeros are neither here nor there.
    assert_eq!(left_out(vec![0; 200]), 0);
}

#[test]
fn only_what_may_be_left_out_is() {
    let task: Task = (1..100).collect();
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, bytes(&task)));
    let extent = Extent::anonymous(BASE..BASE + 99 * PAGE);
    let apart = Extent {
        alike: false,
        ..extent.clone()
    };
    let raw = StoreOptions {
        format: Format::Raw,
        ..dedup(2)
    };
    let plain = options(Format::Zstd { level: 1 }, 2);
    for (options, extents, left_out) in [
        (dedup(2), [&extent, &extent], 99),
        (dedup(2), [&extent, &apart], 0),
        (dedup(2), [&apart, &extent], 0),
        (raw, [&extent, &extent], 0),
        (plain, [&extent, &extent], 0),
    ] {
        let store = Store::start(options).unwrap();
        let both = extents.iter().enumerate().map(|(index, extent)| {
            let mut object = store.object(key(index), Box::new(io::sink()));
            object.push(&source, (*extent).clone()).unwrap();
            object.finish().unwrap()
        });
        let both: Vec<_> = both.collect();
        let found: u64 = both
            .into_iter()
            .flat_map(|pending| pending.wait().unwrap().references)
            .map(|one| one.nr_pages)
            .sum();
        assert_eq!(found, left_out);
    }
}

#[test]
fn what_is_forgotten_is_stored_again() {
    let task: Task = (1..100).collect();
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, bytes(&task)));
    let mut store = Store::start(dedup(2)).unwrap();
    for (index, left_out) in [(0, 0), (1, 99), (2, 0), (3, 99)] {
        if index == 2 {
            assert!(store.forget());
        }
        let mut object = store.object(key(index), Box::new(io::sink()));
        let extent = Extent::anonymous(BASE..BASE + 99 * PAGE);
        object.push(&source, extent).unwrap();
        let references = object.finish().unwrap().wait().unwrap().references;
        let found: u64 = references.iter().map(|one| one.nr_pages).sum();
        assert_eq!(found, left_out);
        let is_new = |one: &Reference| (one.owner.pages_id > 2) == (index > 2);
        assert!(references.iter().all(is_new));
    }
    let mut plain = Store::start(options(Format::Raw, 1)).unwrap();
    assert!(!plain.forget());
}

/// A source of which every third chunk fails, or panics.
struct Failing(bool);

impl PageSource for Failing {
    fn read(&self, ranges: &[Range<u64>], _: &mut [u8]) -> io::Result<()> {
        match (ranges[0].start / CHUNK_BYTES as u64) % 3 {
            2 if self.0 => panic!("as the test wants it"),
            2 => Err(io::ErrorKind::Other.into()),
            _ => Ok(()),
        }
    }
}

#[test]
fn nobody_waits_for_a_turn_that_does_not_come() {
    for panics in [false, true] {
        for workers in [1, 2, 7] {
            let store = Store::start(dedup(workers)).unwrap();
            let source: Arc<dyn PageSource> = Arc::new(Failing(panics));
            let mut object = store.object(key(0), Box::new(io::sink()));
            let extent = Extent::anonymous(0..30 * CHUNK_BYTES as u64);
            let pushed = object.push(&source, extent);
            let finished = pushed.and_then(|()| object.finish()).map(Pending::wait);
            assert!(!matches!(finished, Ok(Ok(_))));
        }
    }
}
