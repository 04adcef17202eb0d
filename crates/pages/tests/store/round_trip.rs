//! Any memory in any format comes back, and the pagemap says what is there.

use super::*;
use proptest::prelude::*;
use std::ops::Range;
use std::process::{Command, Stdio};

const BASE: u64 = 0x7f00_0000_0000;

#[derive(Debug, Clone)]
struct Case {
    kinds: Vec<u8>,
    extents: Vec<Extent>,
    format: Format,
    workers: usize,
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Raw),
        prop_oneof![Just(-5), Just(1), Just(3)].prop_map(|level| Format::Zstd { level }),
    ]
}

/// Lengths of gaps and extents in turn, with what each extent is.
fn case() -> impl Strategy<Value = Case> {
    let step = (0..4_u64, prop_oneof![1..20_u64, 200..400_u64], 0..4_u8);
    let steps = prop::collection::vec(step, 1..6);
    (steps, any::<u64>(), format(), 1..6_usize).prop_map(|(steps, seed, format, workers)| {
        let mut at = BASE + seed % 1000 * PAGE;
        let first = at;
        let mut extents = Vec::new();
        for (gap, nr_pages, kind) in steps {
            let start = at + gap * PAGE;
            at = start + nr_pages * PAGE;
            extents.push(match kind {
                0 => Extent::present(start..at),
                1 => Extent::in_parent(start..at),
                _ => Extent::anonymous(start..at),
            });
        }
        let nr_pages = ((at - first) / PAGE) as usize;
        // Runs of pages of one kind, and single ones in between.
        let kind = |page: usize| {
            (seed.rotate_left(page as u32 / 5) % 5) as u8 + u8::from(page.is_multiple_of(11))
        };
        let kinds = (0..nr_pages).map(kind).collect();
        Case {
            kinds,
            extents: shift(extents, first),
            format,
            workers,
        }
    })
}

/// Moves everything so that the first page of the memory lies at [`BASE`].
fn shift(extents: Vec<Extent>, first: u64) -> Vec<Extent> {
    let back = |range: Range<u64>| range.start - first + BASE..range.end - first + BASE;
    extents
        .into_iter()
        .map(|extent| Extent {
            range: back(extent.range),
            ..extent
        })
        .collect()
}

fn slice<'a>(memory: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &memory[(range.start - BASE) as usize..(range.end - BASE) as usize]
}

/// What should be stored, page by page.
fn expected(memory: &[u8], extents: &[Extent]) -> Vec<(u64, RunFlags)> {
    let mut pages = Vec::new();
    for extent in extents {
        for vaddr in extent.range.clone().step_by(PAGE_SIZE) {
            let is_zero = slice(memory, &(vaddr..vaddr + PAGE))
                .iter()
                .all(|byte| *byte == 0);
            if extent.zeros == Zeros::Keep || !is_zero {
                pages.push((vaddr, extent.flags));
            }
        }
    }
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn memory_comes_back(case in case()) {
        let memory = pages(&case.kinds);
        let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, memory.clone()));
        let (summary, file) = store(options(case.format, case.workers), &source, &case.extents).unwrap();

        let by_page = |run: &Run| {
            let flags = run.flags;
            run.range().step_by(PAGE_SIZE).map(move |vaddr| (vaddr, flags)).collect::<Vec<_>>()
        };
        let recorded: Vec<_> = summary.pagemap.iter().flat_map(by_page).collect();
        prop_assert_eq!(&recorded, &expected(&memory, &case.extents));
        for pair in summary.pagemap.windows(2) {
            let merges = pair[0].range().end == pair[1].vaddr && pair[0].flags == pair[1].flags;
            prop_assert!(pair[0].range().end <= pair[1].vaddr && !merges);
        }
        let present: Vec<_> = recorded.iter().filter(|(_, flags)| flags.contains(RunFlags::PRESENT)).collect();
        prop_assert_eq!(summary.pages, present.len() as u64);
        prop_assert_eq!(summary.stored_bytes, file.len() as u64);
        let raw: Vec<u8> = present.iter().flat_map(|(vaddr, _)| slice(&memory, &(*vaddr..vaddr + PAGE))).copied().collect();
        if case.format == Format::Raw {
            prop_assert_eq!(&file, &raw);
        }

        let reader = open(case.format, &summary, file).unwrap();
        prop_assert_eq!(reader.pages(), summary.pages);
        let mut back = vec![0; raw.len()];
        reader.read_at(&mut Scratch::new(), 0, &mut back).unwrap();
        prop_assert!(back == raw);

        let target = Arc::new(Memory::new(BASE, vec![0; memory.len()]));
        let request = FillRequest {
            reader: Arc::new(reader),
            target: target.clone(),
            placements: Placement::of_pagemap(&summary.pagemap),
            huge: vec![],
            compared: Vec::new(),
        };
        let filler = Filler::new(NonZeroUsize::new(case.workers));
        let stats = filler.fill(request).unwrap().wait().unwrap();
        prop_assert_eq!(stats.pages, summary.pages);
        let mut want = vec![0; memory.len()];
        for (vaddr, _) in present {
            let at = (vaddr - BASE) as usize;
            want[at..at + PAGE_SIZE].copy_from_slice(&memory[at..at + PAGE_SIZE]);
        }
        prop_assert!(target.bytes() == want);
    }

    #[test]
    fn the_same_memory_gives_the_same_bytes(case in case(), workers in 1..6_usize) {
        let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, pages(&case.kinds)));
        let first = store(options(case.format, case.workers), &source, &case.extents).unwrap();
        let second = store(options(case.format, workers), &source, &case.extents).unwrap();
        prop_assert!(first == second);
    }
}

#[test]
fn any_part_can_be_read() {
    let kinds: Vec<u8> = (0..900).map(|page| (page / 7 % 2 + 1) as u8).collect();
    let memory = pages(&kinds);
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, memory.clone()));
    let extent = Extent::present(BASE..BASE + memory.len() as u64);
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        let (summary, file) =
            store(options(format, 2), &source, std::slice::from_ref(&extent)).unwrap();
        let reader = open(format, &summary, file).unwrap();
        let mut scratch = Scratch::new();
        for (page, count) in [(0, 1), (255, 2), (300, 600), (899, 1), (0, 900), (5, 0)] {
            let mut back = vec![0; count * PAGE_SIZE];
            reader
                .read_at(&mut scratch, page as u64, &mut back)
                .unwrap();
            assert!(
                back == memory[page * PAGE_SIZE..(page + count) * PAGE_SIZE],
                "{page} {count}"
            );
        }
        let error = reader
            .read_at(&mut scratch, 899, &mut vec![0; 2 * PAGE_SIZE])
            .unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::NoSuchPage {
                    page: 900,
                    pages: 900,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn an_empty_object_is_a_valid_file() {
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, vec![0; PAGE_SIZE]));
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        for extents in [vec![], vec![Extent::anonymous(BASE..BASE + PAGE)]] {
            let (summary, file) = store(options(format, 1), &source, &extents).unwrap();
            assert_eq!((summary.pages, summary.pagemap.len()), (0, 0));
            assert_eq!(open(format, &summary, file).unwrap().pages(), 0);
        }
    }
}

/// The promise to users: one standard command gives the raw file.
#[test]
fn the_zstd_tool_gives_the_raw_file() {
    let kinds: Vec<u8> = (0..1500).map(|page| (page / 300) as u8).collect();
    let memory = pages(&kinds);
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(BASE, memory.clone()));
    let extent = Extent::present(BASE..BASE + memory.len() as u64);
    let (_, file) = store(options(Format::Zstd { level: 1 }, 2), &source, &[extent]).unwrap();
    assert!(file.len() < memory.len() * 2 / 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pages-1.img.zst");
    std::fs::write(&path, &file).unwrap();
    let Ok(output) = Command::new("zstd")
        .arg("-dc")
        .arg(&path)
        .stderr(Stdio::inherit())
        .output()
    else {
        eprintln!("no zstd tool here");
        return;
    };
    assert!(output.status.success());
    assert!(output.stdout == memory);
}
