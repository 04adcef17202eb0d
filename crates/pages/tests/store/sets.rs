//! Sets of images that follow each other: pages that did not change are stored once, and found in whichever set has them.

use super::*;
use gelid_image::messages::{InventoryEntry, PagemapEntry, PagemapHead};
use gelid_image::{Dir, ImageKind};
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const BASE: u64 = 0x5000_0000_0000;
const TASK: Owner = Owner::Task(4711);

fn page(number: u8) -> Vec<u8> {
    vec![number; PAGE_SIZE]
}

/// Directories of sets, by their number.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, number: usize) -> PathBuf {
        let path = self.0.path().join(number.to_string());
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn dir(&self, number: usize) -> Dir {
        Dir::open(self.path(number)).unwrap()
    }

    fn sets(&self, number: usize) -> Sets {
        Sets::new(&self.dir(number), None).unwrap()
    }

    /// Makes a set that knows what comes before it.
    fn inventory(&self, number: usize, parent: Option<usize>) {
        let run_id = |number: usize| Some(format!("run-{number}"));
        let inventory = InventoryEntry {
            img_version: 2,
            dump_criu_run_id: run_id(number),
            parent_run_id: parent.and_then(run_id),
            ..InventoryEntry::default()
        };
        let dir = self.path(number);
        image(&dir, ImageKind::Inventory, "inventory.img", |bytes| {
            gelid_image::append(bytes, &inventory);
        });
        if let Some(parent) = parent {
            symlink(format!("../{parent}"), dir.join("parent")).unwrap();
        }
    }

    /// Makes a pagemap and a raw file of pages that hold their number in the set, and the set's.
    fn pagemap(&self, number: usize, pid: u32, entries: &[PagemapEntry]) {
        let name = format!("pagemap-{pid}.img");
        let dir = self.path(number);
        image(&dir, ImageKind::Pagemap, &name, |bytes| {
            gelid_image::append(bytes, &PagemapHead { pages_id: pid });
            entries
                .iter()
                .for_each(|entry| gelid_image::append(bytes, entry));
        });
        let stored = entries.iter().filter(|entry| entry.flags == Some(4));
        let pages: u64 = stored.map(|entry| entry.nr_pages.unwrap()).sum();
        let bytes = (0..pages).flat_map(|index| page((number % 5 * 50 + index as usize) as u8));
        let name = format!("pages-{pid}.img");
        std::fs::write(dir.join(name), bytes.collect::<Vec<_>>()).unwrap();
    }
}

fn image(dir: &Path, kind: ImageKind, name: &str, append: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = gelid_image::header(kind);
    append(&mut bytes);
    std::fs::write(dir.join(name), bytes).unwrap();
}

fn entry(pages: std::ops::Range<u64>, flags: u32) -> PagemapEntry {
    PagemapEntry {
        vaddr: BASE + pages.start * PAGE,
        nr_pages: Some(pages.end - pages.start),
        flags: Some(flags),
        ..PagemapEntry::default()
    }
}

/// Pages of a task, at an address of it.
fn same(pages: std::ops::Range<u64>, pid: u32, at: u64) -> PagemapEntry {
    PagemapEntry {
        same_as: Some(pid),
        same_at: Some(BASE + at * PAGE),
        ..entry(pages, 0)
    }
}

/// What a task gets, from its first page to its last: the first byte of each page.
fn filled(sets: &mut Sets, pages: usize) -> Result<Vec<u8>, SetError> {
    let pagemap = sets.pagemap(TASK)?;
    let memory = Arc::new(Memory::new(BASE, vec![0; pages * PAGE_SIZE]));
    let request = FillRequest {
        reader: Arc::new(sets.open(TASK, &pagemap)?),
        target: memory.clone(),
        placements: pagemap.by_page(),
        huge: vec![],
        compared: vec![],
    };
    Filler::new(None).fill(request).unwrap().wait().unwrap();
    Ok(memory.bytes().into_iter().step_by(PAGE_SIZE).collect())
}

#[test]
fn pages_are_found_in_the_set_that_has_them() {
    let place = Place::new();
    place.inventory(1, None);
    place.pagemap(
        1,
        4711,
        &[entry(0..3, 4), entry(5..7, 4), same(8..10, 9, 21)],
    );
    place.pagemap(1, 9, &[entry(20..24, 4)]);
    place.inventory(2, Some(1));
    // The obsolete form, of CRIU's first incremental dumps.
    let old = PagemapEntry {
        flags: None,
        nr_pages: None,
        compat_nr_pages: 2,
        in_parent: Some(true),
        ..entry(5..5, 0)
    };
    place.pagemap(
        2,
        4711,
        &[
            entry(0..1, 1),
            entry(1..2, 4),
            entry(2..3, 1),
            old,
            entry(8..10, 1),
        ],
    );
    place.inventory(3, Some(2));
    place.pagemap(
        3,
        4711,
        &[
            entry(0..3, 1),
            entry(4..5, 4),
            entry(5..7, 1),
            entry(9..10, 1),
        ],
    );
    let got = filled(&mut place.sets(3), 10).unwrap();
    assert_eq!(got, [50, 100, 52, 0, 150, 53, 54, 0, 0, 52]);
    // The same for a set to come.
    let mut sets = Sets::before(&place.dir(4), Path::new("../2")).unwrap();
    assert_eq!(sets.run_id(), Some("run-2"));
    let pagemap = sets.whole_pagemap(TASK).unwrap();
    assert!(!sets.is_packed(&pagemap));
    assert_eq!((pagemap.pages(), pagemap.parts.len()), (7, 3));
    // Pages that others have as well are theirs here, and one's own for who comes later.
    let both = PagemapEntry {
        same_as: Some(9),
        ..entry(2..4, 4)
    };
    place.pagemap(1, 4711, &[entry(0..2, 4), both, entry(4..6, 4)]);
    let mut sets = place.sets(1);
    let pagemap = sets.pagemap(TASK).unwrap();
    let firsts = pagemap.placements.iter().map(|place| place.first_page);
    assert_eq!(firsts.collect::<Vec<_>>(), [0, 4]);
    assert_eq!((pagemap.pages(), pagemap.same.len()), (4, 1));
    assert_eq!(sets.whole_pagemap(TASK).unwrap().pages(), 6);
    // What is among the pages of others is not lent to third ones.
    place.pagemap(1, 4711, &[same(8..10, 9, 21)]);
    place.pagemap(2, 4711, &[entry(8..9, 1)]);
    place.pagemap(1, 9, &[same(20..24, 9, 30), entry(30..34, 4)]);
    let wrong = filled(&mut place.sets(2), 10).unwrap_err().to_string();
    assert!(wrong.contains("does not have them"), "{wrong}");
}

#[test]
fn shared_memory_is_found_as_well() {
    let place = Place::new();
    for (number, flags) in [(1, 4), (2, 1)] {
        place.inventory(number, (number == 2).then_some(1));
        let dir = place.path(number);
        image(
            &dir,
            ImageKind::PagemapShmem,
            "pagemap-shmem-7.img",
            |bytes| {
                gelid_image::append(bytes, &PagemapHead { pages_id: 3 });
                gelid_image::append(bytes, &entry(0..2, flags));
            },
        );
        let pages = if flags == 4 {
            page(9).repeat(2)
        } else {
            vec![]
        };
        std::fs::write(dir.join("pages-3.img"), pages).unwrap();
    }
    let mut sets = place.sets(2);
    let pagemap = sets.pagemap(Owner::Shared(7)).unwrap();
    let reader = sets.open(Owner::Shared(7), &pagemap).unwrap();
    assert_eq!((pagemap.pages(), reader.pages()), (2, 2));
    std::fs::remove_file(place.path(1).join("pagemap-shmem-7.img")).unwrap();
    let missing = place.sets(2).pagemap(Owner::Shared(7)).unwrap_err();
    assert!(missing.is_missing());
}

#[test]
fn sets_that_do_not_fit_are_refused() {
    let refused = |make: &dyn Fn(&Place), words: &str| {
        let place = Place::new();
        place.inventory(2, Some(1));
        place.pagemap(2, 4711, &[entry(1..3, 1)]);
        make(&place);
        let wrong = filled(&mut place.sets(2), 4).unwrap_err().to_string();
        assert!(wrong.contains(words), "{wrong}");
    };
    refused(&|_| (), "leads nowhere");
    refused(&|place| drop(place.path(1)), "inventory.img");
    refused(&|place| place.inventory(1, None), "pagemap-4711.img");
    let first = |place: &Place, entries: &[PagemapEntry]| {
        place.inventory(1, None);
        place.pagemap(1, 4711, entries);
    };
    refused(&|place| first(place, &[entry(1..2, 4)]), "missing");
    refused(&|place| first(place, &[entry(2..9, 4)]), "missing");
    refused(
        &|place| first(place, &[entry(1..2, 4), entry(2..3, 1)]),
        "leads nowhere",
    );
    refused(&|place| first(place, &[entry(1..3, 2)]), "lazy");
    refused(&|place| first(place, &[entry(1..3, 5)]), "both here and in");
    refused(
        &|place| first(place, &[same(1..3, 77, 1)]),
        "pagemap-77.img",
    );
    let short = |place: &Place| {
        first(place, &[entry(1..3, 4)]);
        std::fs::write(place.path(1).join("pages-4711.img"), page(1)).unwrap();
    };
    refused(&short, "length differs");
    let another = |place: &Place| {
        first(place, &[entry(1..3, 4)]);
        place.inventory(7, None);
        let from = place.path(7).join("inventory.img");
        std::fs::rename(from, place.path(1).join("inventory.img")).unwrap();
    };
    refused(&another, "another set");
    let circle = |place: &Place| {
        first(place, &[entry(1..3, 1)]);
        symlink("../2", place.path(1).join("parent")).unwrap();
    };
    refused(&circle, "in a circle");
    let place = Place::new();
    place.inventory(1, None);
    let itself = Sets::before(&place.dir(1), Path::new("../1")).unwrap_err();
    assert!(itself.to_string().contains("in a circle"), "{itself}");
}

#[test]
fn a_chain_has_an_end() {
    let place = Place::new();
    for number in 1..80 {
        place.inventory(number, (number > 1).then_some(number - 1));
        let flags = if number == 1 { 4 } else { 1 };
        place.pagemap(number, 4711, &[entry(0..1, flags)]);
    }
    assert_eq!(filled(&mut place.sets(64), 1).unwrap(), [50]);
    let wrong = filled(&mut place.sets(65), 1).unwrap_err().to_string();
    assert!(wrong.contains("64 sets"), "{wrong}");
    // A link that nobody needs may lead anywhere.
    place.pagemap(65, 4711, &[entry(0..1, 4)]);
    filled(&mut place.sets(65), 1).unwrap();
}

/// Dumps memory into a set on top of the one before; how many pages it stores.
fn dump(place: &Place, number: usize, format: Format, memory: &[u8]) -> u64 {
    let parent = (number > 1).then(|| number - 1);
    let earlier = parent.map(|parent| {
        let path = PathBuf::from(format!("../{parent}"));
        let mut sets = Sets::before(&place.dir(number), &path).unwrap();
        let pagemap = sets.whole_pagemap(TASK).unwrap();
        let reader = sets.open(TASK, &pagemap).unwrap();
        Arc::new(Earlier::new(reader, pagemap.placements).unwrap())
    });
    let bytes: Vec<u8> = memory.iter().flat_map(|number| page(*number)).collect();
    let end = BASE + bytes.len() as u64;
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, bytes));
    let options = StoreOptions {
        dedup: true,
        ..options(format, 2)
    };
    let store = Store::start(options).unwrap();
    let file = Buffer::default();
    let mut object = store.object(KEY, Box::new(file.clone()));
    earlier
        .into_iter()
        .for_each(|earlier| object.compare_with(earlier));
    object.push(&source, Extent::anonymous(BASE..end)).unwrap();
    let summary = object.finish().unwrap().wait().unwrap();
    place.inventory(number, parent);
    let mut entries: Vec<_> = summary
        .pagemap
        .iter()
        .map(|run| PagemapEntry {
            vaddr: run.vaddr,
            nr_pages: Some(run.nr_pages),
            flags: Some(run.flags.bits()),
            ..PagemapEntry::default()
        })
        .collect();
    entries.extend(summary.references.iter().map(|reference| PagemapEntry {
        vaddr: reference.vaddr,
        nr_pages: Some(reference.nr_pages),
        flags: Some(0),
        same_as: Some(4711),
        same_at: Some(reference.at),
        ..PagemapEntry::default()
    }));
    entries.sort_by_key(|entry| entry.vaddr);
    place.pagemap(number, 4711, &entries);
    let (raw, packed) = ("pages-4711.img", "pages-4711.img.zst");
    let dir = place.path(number);
    std::fs::rename(dir.join(raw), dir.join("pages-7.img")).unwrap();
    if format.is_packed() {
        std::fs::write(dir.join(packed), file.bytes()).unwrap();
    } else {
        std::fs::write(dir.join(raw), file.bytes()).unwrap();
    }
    summary.pages
}

/// What each page of a set gets: its own pages, and those of its own at other addresses.
fn restored(place: &Place, number: usize, pages: usize) -> Vec<u8> {
    let mut sets = place.sets(number);
    let mut got = filled(&mut sets, pages).unwrap();
    for same in sets.pagemap(TASK).unwrap().same {
        let index = |address: u64| ((address - BASE) / PAGE) as usize;
        for offset in 0..index(same.range.end) - index(same.range.start) {
            got[index(same.range.start) + offset] = got[index(same.at) + offset];
        }
    }
    got
}

#[test]
fn what_has_not_changed_is_stored_once() {
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        let place = Place::new();
        let mut memory: Vec<u8> = (0..1000).map(|page| (page % 250) as u8 + 1).collect();
        dump(&place, 1, format, &memory);
        (memory[3], memory[500], memory[999]) = (255, 254, 0);
        assert_eq!(dump(&place, 2, format, &memory), 2);
        assert_eq!(restored(&place, 2, 1000), memory);
        memory[3] = 0;
        memory[4] = 253;
        assert_eq!(dump(&place, 3, format, &memory), 1);
        assert_eq!(restored(&place, 3, 1000), memory);
        assert_eq!(dump(&place, 4, format, &memory), 0);
        assert_eq!(restored(&place, 4, 1000), memory);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn memory_of_each_set_comes_back(
        memories in prop::collection::vec(prop::collection::vec(0..5_u8, 300), 1..5),
        packed: [bool; 4],
    ) {
        let place = Place::new();
        for (index, memory) in memories.iter().enumerate() {
            let format = if packed[index] { Format::Zstd { level: 1 } } else { Format::Raw };
            let stored = dump(&place, index + 1, format, memory);
            let changed = match index {
                0 => memory.len(),
                _ => memory.iter().zip(&memories[index - 1]).filter(|(now, then)| now != then).count(),
            };
            prop_assert!(stored <= changed as u64);
        }
        for (index, memory) in memories.iter().enumerate() {
            prop_assert_eq!(&restored(&place, index + 1, memory.len()), memory);
        }
    }
}
