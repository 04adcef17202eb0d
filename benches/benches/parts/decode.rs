//! Records of an image are read, beside a copy of their bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use gelid_image::messages::FdinfoEntry;
use gelid_image::{ImageKind, ImageReader, Layout, append, header};

const RECORDS: u32 = 20_000;

pub(crate) fn decode(c: &mut Criterion) {
    let image = image();
    let mut group = super::group(c, "decode images", Throughput::Bytes(image.len() as u64));
    let mut copy = vec![0; image.len()];
    group.bench_function("limit: copy of the bytes", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(&image));
    });
    group.bench_function("20,000 records", |b| b.iter(|| decoded(black_box(&image))));
    group.finish();
}

/// A table of descriptors.
fn image() -> Vec<u8> {
    let mut image = header(ImageKind::Fdinfo);
    for fd in 0..RECORDS {
        let entry = FdinfoEntry {
            id: fd + 1,
            fd,
            ..FdinfoEntry::default()
        };
        append(&mut image, &entry);
    }
    image
}

fn decoded(image: &[u8]) -> u64 {
    let kind = ImageKind::Fdinfo;
    let mut reader = ImageReader::from_stream(image, kind, "image", Layout::V1_1).unwrap();
    let mut sum = 0;
    while let Some(entry) = reader.next::<FdinfoEntry>().unwrap() {
        sum += u64::from(entry.fd);
    }
    sum
}
