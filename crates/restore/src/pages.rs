//! Which pages of an image go where.

use std::ops::Range;

use gelid_pages::Placement;

const PAGE: u64 = gelid_pages::PAGE_SIZE as u64;

/// Where some of the pages of `stored` go, ascending by where they are in the store. Each of `wanted` is where they go, and
/// what leads from there to their addresses in the pagemap, modulo 2^64.
pub(crate) fn placements(
    stored: &[Placement],
    wanted: impl IntoIterator<Item = (Range<u64>, u64)>,
) -> Vec<Placement> {
    let end = |place: &Placement| place.range().end;
    let mut placements = Vec::new();
    for (range, shift) in wanted {
        let (from, to) = (
            range.start.wrapping_add(shift),
            range.end.wrapping_add(shift),
        );
        let first = stored.partition_point(|place| end(place) <= from);
        let there = stored[first..].iter().take_while(|place| place.vaddr < to);
        placements.extend(there.map(|place| {
            let (from, to) = (place.vaddr.max(from), end(place).min(to));
            Placement {
                vaddr: from.wrapping_sub(shift),
                first_page: place.first_page + (from - place.vaddr) / PAGE,
                nr_pages: (to - from) / PAGE,
            }
        }));
    }
    placements.sort_by_key(|place| place.first_page);
    placements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_cut_and_moved() {
        let place = |vaddr, first_page, nr_pages| Placement {
            vaddr,
            first_page,
            nr_pages,
        };
        let pagemap = [
            place(0x10000, 0, 4),
            place(0x20000, 4, 2),
            place(0x30000, 6, 1),
        ];
        let placements = |wanted: &[(Range<u64>, u64)]| {
            let placements = placements(&pagemap, wanted.iter().cloned());
            let places = placements.iter();
            let places = places.map(|place| (place.vaddr, place.first_page, place.nr_pages));
            places.collect::<Vec<_>>()
        };
        assert_eq!(placements(&[]), []);
        let all = [(0x10000, 0, 4), (0x20000, 4, 2), (0x30000, 6, 1)];
        assert_eq!(placements(&[(0..u64::MAX, 0)]), all);
        let cut = [
            (0x11000..0x12000, 0),
            (0x13000..0x21000, 0),
            (0x31000..0x40000, 0),
        ];
        let parts = [(0x11000, 1, 1), (0x13000, 3, 1), (0x20000, 4, 1)];
        assert_eq!(placements(&cut), parts);
        // One below, one above where they are stored, and one of the same pages.
        let moved = [
            (0x1000..0x3000, 0x1f000),
            (0x12000..0x14000, 0),
            (0x50000..0x52000, 0x12000_u64.wrapping_sub(0x50000)),
        ];
        let parts = [(0x12000, 2, 2), (0x50000, 2, 2), (0x1000, 4, 2)];
        assert_eq!(placements(&moved), parts);
    }
}
