//! Damaged and hostile files: an error that names object and chunk, never a wrong page, never a panic.

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

const MEMORY_PAGES: usize = 600;

struct Stored {
    format: Format,
    summary: Summary,
    file: Vec<u8>,
}

fn stored(format: Format) -> Stored {
    let kinds: Vec<u8> = (0..MEMORY_PAGES)
        .map(|page| (page / 256 + 1) as u8)
        .collect();
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(0, pages(&kinds)));
    let extent = Extent::present(0..MEMORY_PAGES as u64 * PAGE);
    let (summary, file) = store(options(format, 2), &source, &[extent]).unwrap();
    Stored {
        format,
        summary,
        file,
    }
}

/// Reads everything; the first error.
fn read_all(stored: &Stored, file: Vec<u8>) -> Result<Vec<u8>, ReadError> {
    let reader = open(stored.format, &stored.summary, file)?;
    let mut back = vec![0; reader.pages() as usize * PAGE_SIZE];
    reader.read_at(&mut Scratch::new(), 0, &mut back)?;
    Ok(back)
}

#[test]
fn every_flipped_bit_is_noticed() {
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        let stored = stored(format);
        let good = read_all(&stored, stored.file.clone()).unwrap();
        assert_eq!(good.len(), MEMORY_PAGES * PAGE_SIZE);
        let bits = stored.file.len() * 8;
        // All of the seek table and of the first frame's beginning, and some between.
        let ends = (0..150).chain(bits - 8 * 45..bits);
        for bit in ends.chain((0..bits).step_by(bits / 20)) {
            let mut bad = stored.file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A few bits mean nothing: a larger window, an unused bit of the footer.
            if let Ok(back) = read_all(&stored, bad) {
                assert!(back == good, "bit {bit} of {bits} in {format:?}");
            }
        }
    }
}

#[test]
fn errors_name_object_and_chunk() {
    let stored = stored(Format::Zstd { level: 1 });
    let mut bad = stored.file.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x10;
    let text = read_all(&stored, bad).unwrap_err().to_string();
    assert!(
        text.starts_with("pages-7 (task 4711): chunk 1 is damaged: "),
        "{text}"
    );

    let raw = self::stored(Format::Raw);
    let mut bad = raw.file.clone();
    bad[(256 + 10) * PAGE_SIZE] ^= 1;
    let text = read_all(&raw, bad).unwrap_err().to_string();
    assert_eq!(
        text,
        "pages-7 (task 4711): chunk 1 is damaged: checksum differs"
    );
}

#[test]
fn every_truncation_is_noticed() {
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        let stored = stored(format);
        let len = stored.file.len();
        for keep in (0..100)
            .chain((0..len).step_by(len / 23))
            .chain(len - 60..len)
        {
            let error = read_all(&stored, stored.file[..keep].to_vec());
            assert!(error.is_err(), "{keep} of {len} bytes in {format:?}");
        }
    }
}

#[test]
fn what_was_appended_is_noticed() {
    for format in [Format::Raw, Format::Zstd { level: 1 }] {
        let stored = stored(format);
        let mut longer = stored.file.clone();
        longer.extend([0; PAGE_SIZE]);
        assert!(read_all(&stored, longer).is_err());
    }
}

#[test]
fn frames_in_the_wrong_order_are_noticed_by_raw_checksums() {
    let stored = stored(Format::Raw);
    let mut swapped = stored.file.clone();
    let (first, second) = swapped.split_at_mut(CHUNK_BYTES);
    first.swap_with_slice(&mut second[..CHUNK_BYTES]);
    assert!(read_all(&stored, swapped).is_err());
}

/// A seek table of a given shape behind `data`.
fn with_table(data: &[u8], entries: &[(u32, u32)], frames: u32, descriptor: u8) -> Vec<u8> {
    let mut file = data.to_vec();
    file.extend(0x184D_2A5E_u32.to_le_bytes());
    file.extend((entries.len() as u32 * 8 + 9).to_le_bytes());
    for (packed, unpacked) in entries {
        file.extend(packed.to_le_bytes());
        file.extend(unpacked.to_le_bytes());
    }
    file.extend(frames.to_le_bytes());
    file.push(descriptor);
    file.extend(0x8F92_EAB1_u32.to_le_bytes());
    file
}

#[test]
fn impossible_seek_tables_are_refused() {
    let open = |file| ObjectReader::open_zstd(KEY, Box::new(file));
    assert!(
        open(with_table(&[0; 16], &[(16, 4096)], 1, 0)).is_ok(),
        "the frame is looked at later"
    );
    let data = [0; 16];
    for (why, file) in [
        (
            "more frames than entries",
            with_table(&data, &[(16, 4096)], 2, 0),
        ),
        (
            "frames beyond the format",
            with_table(&data, &[(16, 4096)], u32::MAX, 0),
        ),
        ("reserved bits", with_table(&data, &[(16, 4096)], 1, 0x40)),
        (
            "frame of no bytes",
            with_table(&data, &[(16, 4096), (0, 4096)], 2, 0),
        ),
        ("frame of no pages", with_table(&data, &[(16, 0)], 1, 0)),
        ("half a page", with_table(&data, &[(16, 2048)], 1, 0)),
        (
            "too much from one frame",
            with_table(&data, &[(16, MAX_FRAME_BYTES as u32 + 4096)], 1, 0),
        ),
        ("beyond the file", with_table(&data, &[(17, 4096)], 1, 0)),
        (
            "bytes between frames and table",
            with_table(&data, &[(15, 4096)], 1, 0),
        ),
        ("nothing", vec![]),
    ] {
        assert!(
            matches!(open(file), Err(ReadError::Damaged { .. })),
            "{why}"
        );
    }
}

/// A file that claims to be enormous and holds zeros everywhere.
struct Hollow(u64);

impl ReadAt for Hollow {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        buf.fill(0);
        if offset + 9 == self.0 {
            buf[..4].copy_from_slice(&0x0800_0000_u32.to_le_bytes());
            buf[5..].copy_from_slice(&0x8F92_EAB1_u32.to_le_bytes());
        }
        if buf.len() == 8 {
            buf[..4].copy_from_slice(&0x184D_2A5E_u32.to_le_bytes());
            buf[4..].copy_from_slice(&(8 * 0x0800_0000_u32 + 9).to_le_bytes());
        }
        Ok(())
    }
}

#[test]
fn a_hollow_file_costs_no_memory() {
    // A gibibyte of entries, all of them zero: refused at the first.
    let error = ObjectReader::open_zstd(KEY, Box::new(Hollow(1 << 40)))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    // Eight exbibytes of raw zeros take no index.
    let reader = ObjectReader::open_raw(KEY, Box::new(Hollow(1 << 62)), None).unwrap();
    let mut page = vec![1; PAGE_SIZE];
    reader
        .read_at(&mut Scratch::new(), reader.pages() - 1, &mut page)
        .unwrap();
    assert_eq!(page, vec![0; PAGE_SIZE]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..300), frames in 0..4_u32) {
        let body = bytes.len() as u32 + 9;
        let mut file = 0x184D_2A5E_u32.to_le_bytes().to_vec();
        file.extend(body.to_le_bytes());
        file.append(&mut bytes);
        file.extend(frames.to_le_bytes());
        file.push(0);
        file.extend(0x8F92_EAB1_u32.to_le_bytes());
        if let Ok(reader) = ObjectReader::open_zstd(KEY, Box::new(file)) {
            let mut page = vec![0; PAGE_SIZE];
            let _ = reader.read_at(&mut Scratch::new(), 0, &mut page);
        }
    }

    #[test]
    fn changed_frames_are_never_other_bytes(at in 0_usize..3000, byte in any::<u8>()) {
        static STORED: LazyLock<Stored> = LazyLock::new(|| stored(Format::Zstd { level: 1 }));
        let stored = &*STORED;
        let mut bad = stored.file.clone();
        bad[at] = byte;
        // One bit of a frame's header means nothing (RFC 8878, section 3.1.1.1.1).
        if let Ok(back) = read_all(stored, bad) {
            prop_assert_eq!(back, read_all(stored, stored.file.clone()).unwrap());
        }
    }
}

#[test]
fn placements_that_do_not_fit_are_refused() {
    let stored = stored(Format::Raw);
    let reader = Arc::new(open(stored.format, &stored.summary, stored.file.clone()).unwrap());
    let filler = Filler::new(None);
    let place = |vaddr, first_page, nr_pages| Placement {
        vaddr,
        first_page,
        nr_pages,
    };
    let last = MEMORY_PAGES as u64;
    for placements in [
        vec![place(0, 0, last + 1)],
        vec![place(0, u64::MAX, 1)],
        vec![place(0, 0, u64::MAX)],
        vec![place(1, 0, 1)],
        vec![place(0, 0, 0)],
        vec![place(u64::MAX - 4095, 0, 2)],
        vec![place(0, 5, 2), place(0x10000, 4, 1)],
    ] {
        let target = Arc::new(Memory::new(0, vec![]));
        let request = FillRequest {
            reader: reader.clone(),
            target,
            placements,
            huge: vec![0..u64::MAX],
            compared: Vec::new(),
        };
        let error = filler.fill(request).map(|_| ()).unwrap_err();
        assert!(matches!(error, FillError::Run { .. }), "{error}");
    }
}
