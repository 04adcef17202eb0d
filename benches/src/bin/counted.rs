//! Pure work, a fixed amount of each kind, whose instructions are counted: `counted WORK [DIR]`.
//!
//! `start` does nothing: what any of the others costs beyond it is the work. `plan` reads the images in `DIR`.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;

use gelid_benches::memory;
use gelid_image::messages::FdinfoEntry;
use gelid_image::{Dir, ImageKind, ImageReader, Layout, append, header};
use gelid_pages::{ChunkSum, PAGE_SIZE, encode_checksums, is_zero, looks_random, parse_checksums};

type Failure = Box<dyn std::error::Error>;

/// Records of one image.
const RECORDS: u32 = 20_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["start"] => Ok(()),
        ["encode"] => {
            black_box(encoded());
            Ok(())
        }
        ["decode"] => decode(),
        ["pages"] => {
            pages();
            Ok(())
        }
        ["checksums"] => checksums(),
        ["plan", dir] => plan(dir),
        _ => Err("usage: counted start|encode|decode|pages|checksums|plan DIR".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("counted: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A table of descriptors as an image.
fn encoded() -> Vec<u8> {
    let mut image = header(ImageKind::Fdinfo);
    for number in 0..RECORDS {
        append(
            &mut image,
            &FdinfoEntry {
                id: number + 1,
                fd: number,
                ..FdinfoEntry::default()
            },
        );
    }
    image
}

fn decode() -> Result<(), Failure> {
    let image = encoded();
    let mut reader =
        ImageReader::from_stream(image.as_slice(), ImageKind::Fdinfo, "image", Layout::V1_1)?;
    let mut sum = 0_u64;
    while let Some(entry) = reader.next::<FdinfoEntry>()? {
        sum += u64::from(entry.fd);
    }
    black_box(sum);
    Ok(())
}

/// The tests of 16 MiB of pages before they are packed.
fn pages() {
    let heap = memory::heap(16 << 20);
    let zero = heap
        .chunks_exact(PAGE_SIZE)
        .filter(|page| is_zero(page))
        .count();
    let random = heap
        .chunks(1 << 20)
        .filter(|chunk| looks_random(chunk))
        .count();
    black_box((zero, random));
}

fn checksums() -> Result<(), Failure> {
    let sums: Vec<ChunkSum> = (0..20_000_u64)
        .map(|chunk| ChunkSum {
            xxh3: chunk.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            pages: 200,
        })
        .collect();
    let text = encode_checksums(&sums);
    if parse_checksums(&text)?.len() != sums.len() {
        return Err("checksums are lost".into());
    }
    Ok(())
}

fn plan(dir: &str) -> Result<(), Failure> {
    let plan = gelid_restore::plan(&Dir::open(dir)?, &gelid_restore::Options::default())?;
    black_box(&plan);
    Ok(())
}
