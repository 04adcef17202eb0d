//! Where the pages of an image are, and how they come to their places.

use std::fs::File;
use std::ops::Range;
use std::slice;

use gelid_image::manifest::{Checksum, Manifest};
use gelid_image::{Dir, ReadError};
use gelid_pages::{ObjectKey, ObjectReader, Placement, Run, parse_checksums};

use crate::Error;
use crate::plan::ranges::{Ranged, meet, without};

const PAGE: u64 = gelid_pages::PAGE_SIZE as u64;

/// Opens the pages of one pagemap: packed or raw, whatever is there.
pub(crate) fn open(
    dir: &Dir,
    manifest: Option<&Manifest>,
    key: ObjectKey,
) -> Result<ObjectReader, Error> {
    let raw = format!("pages-{}.img", key.pages_id);
    match dir.raw(&format!("{raw}.zst")) {
        Ok(file) => Ok(ObjectReader::open_zstd(key, Box::new(file))?),
        Err(error) if error.is_missing() => open_raw(dir, manifest, key, &raw),
        Err(error) => Err(error.into()),
    }
}

fn open_raw(
    dir: &Dir,
    manifest: Option<&Manifest>,
    key: ObjectKey,
    name: &str,
) -> Result<ObjectReader, Error> {
    let file: File = dir.raw(name).map_err(|error: ReadError| error)?;
    let sums = match manifest.and_then(|manifest| manifest.get(name)) {
        Some((_, Checksum::Other(text))) => parse_checksums(text).ok(),
        _ => None,
    };
    Ok(ObjectReader::open_raw(
        key,
        Box::new(file),
        sums.as_deref(),
    )?)
}

impl Ranged for Placement {
    fn range(&self) -> Range<u64> {
        self.vaddr..self.vaddr + self.nr_pages * PAGE
    }
}

/// Where the pages of a pagemap go, leaving out those in `skip`.
pub(crate) fn placements(pagemap: &[Run], skip: &Range<u64>) -> Vec<Placement> {
    let all = 0..u64::MAX;
    let rest = without(slice::from_ref(&all), slice::from_ref(skip));
    within(&Placement::of_pagemap(pagemap), &rest)
}

/// The parts of placements that lie in `ranges`, which ascend as they do.
pub(crate) fn within(places: &[Placement], ranges: &[Range<u64>]) -> Vec<Placement> {
    let part = |(part, place, _): (Range<u64>, &Placement, _)| Placement {
        vaddr: part.start,
        first_page: place.first_page + (part.start - place.vaddr) / PAGE,
        nr_pages: (part.end - part.start) / PAGE,
    };
    meet(places, ranges).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_pages::RunFlags;

    #[test]
    fn placements_are_cut() {
        let place = |vaddr, first_page, nr_pages| Placement {
            vaddr,
            first_page,
            nr_pages,
        };
        let places = [
            place(0x10000, 5, 4),
            place(0x20000, 9, 2),
            place(0x30000, 20, 1),
        ];
        assert_eq!(within(&places, &[0..u64::MAX]), places);
        let ranges = [0x11000..0x12000, 0x13000..0x21000, 0x31000..0x40000];
        let cut = [
            place(0x11000, 6, 1),
            place(0x13000, 8, 1),
            place(0x20000, 9, 1),
        ];
        assert_eq!(within(&places, &ranges), cut);
    }

    #[test]
    fn pages_of_the_vdso_are_left_out() {
        let run = Run {
            vaddr: 0x10000,
            nr_pages: 8,
            flags: RunFlags::PRESENT,
        };
        let places = placements(&[run], &(0x12000..0x14000));
        let parts: Vec<_> = places
            .iter()
            .map(|place| (place.vaddr, place.first_page, place.nr_pages))
            .collect();
        assert_eq!(parts, [(0x10000, 0, 2), (0x14000, 4, 4)]);
        assert_eq!(placements(&[run], &(0..0)).len(), 1);
        assert_eq!(placements(&[run], &(0x20000..0x22000)).len(), 1);
    }
}
