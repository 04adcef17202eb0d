//! Where pages of a store go; some of them to many places.

use crate::PAGE_SIZE;
use crate::fill::FillError;
use crate::read::ObjectReader;
use crate::run::Run;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Consecutive pages of the store and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// First address in the target; a multiple of the page size.
    pub vaddr: u64,
    /// First page in the store.
    pub first_page: u64,
    /// Number of pages.
    pub nr_pages: u64,
}

impl Placement {
    /// Where the pages of a whole pagemap go: those of its present runs lie one behind the other.
    #[must_use]
    pub fn of_pagemap(runs: &[Run]) -> Vec<Self> {
        let mut first_page = 0_u64;
        let place = |run: &Run| {
            let placement = Self {
                vaddr: run.vaddr,
                first_page,
                nr_pages: run.nr_pages,
            };
            first_page = first_page.saturating_add(run.nr_pages);
            placement
        };
        runs.iter()
            .filter(|run| run.is_present())
            .map(place)
            .collect()
    }

    /// The addresses; their end saturates at the end of the address space.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let bytes = self.nr_pages.saturating_mul(PAGE_SIZE as u64);
        self.vaddr..self.vaddr.saturating_add(bytes)
    }

    pub(crate) fn pages(&self) -> Range<u64> {
        self.first_page..self.first_page + self.nr_pages
    }

    /// The addresses of the store's pages `pages`, which must belong to this placement.
    pub(crate) fn addresses(&self, pages: Range<u64>) -> Range<u64> {
        let at = |page: u64| self.vaddr + (page - self.first_page) * PAGE_SIZE as u64;
        at(pages.start)..at(pages.end)
    }
}

/// Placements come from an image: nothing about them is taken for granted.
pub(crate) fn check(reader: &ObjectReader, placements: &[Placement]) -> Result<(), FillError> {
    let mut last_first = 0;
    for placement in placements {
        let Placement {
            vaddr,
            first_page,
            nr_pages,
        } = *placement;
        let end_page = first_page
            .checked_add(nr_pages)
            .filter(|end| *end <= reader.pages());
        let end = nr_pages
            .checked_mul(PAGE_SIZE as u64)
            .and_then(|bytes| vaddr.checked_add(bytes));
        let (Some(_), Some(_)) = (end_page, end) else {
            return Err(FillError::Run {
                key: reader.key(),
                vaddr,
                nr_pages,
            });
        };
        if nr_pages == 0 || first_page < last_first || vaddr % PAGE_SIZE as u64 != 0 {
            return Err(FillError::Run {
                key: reader.key(),
                vaddr,
                nr_pages,
            });
        }
        last_first = first_page;
    }
    Ok(())
}

/// Placements that ask for the same pages lie in different layers, each of which ascends without overlap.
pub(crate) struct Layers(Vec<Vec<Placement>>);

impl Layers {
    /// Layers of placements that ascend by their first page; no more than there are places for the same page.
    pub(crate) fn new(placements: &[Placement]) -> Self {
        let mut layers: Vec<Vec<Placement>> = Vec::new();
        // Where each layer ends.
        let mut ends = BinaryHeap::new();
        for placement in placements {
            let Range { start, end } = placement.pages();
            let free = ends.peek().filter(|(Reverse(end), _)| *end <= start);
            let layer = match free {
                Some((_, layer)) => *layer,
                None => layers.len(),
            };
            if layer == layers.len() {
                layers.push(Vec::new());
            } else {
                ends.pop();
            }
            layers[layer].push(*placement);
            ends.push((Reverse(end), layer));
        }
        Self(layers)
    }

    /// The placements that have some of `pages`: which, and the addresses of those.
    pub(crate) fn placed(
        &self,
        pages: &Range<u64>,
    ) -> impl Iterator<Item = (Range<u64>, Range<u64>)> {
        let Range { start, end } = *pages;
        let placed = self.0.iter().flat_map(move |layer| {
            let first = layer.partition_point(|place| place.pages().end <= start);
            let placed = layer[first..].iter();
            placed.take_while(move |place| place.first_page < end)
        });
        placed.map(move |place| {
            let both = place.pages().start.max(start)..place.pages().end.min(end);
            (both.clone(), place.addresses(both))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn layers_have_each_placement_once(places in prop::collection::vec((0..40_u64, 1..20_u64), 0..30), from in 0..60_u64) {
            let mut placements: Vec<_> = places.iter().enumerate().map(|(index, (first_page, nr_pages))| Placement {
                vaddr: (index * 20 * PAGE_SIZE) as u64,
                first_page: *first_page,
                nr_pages: *nr_pages,
            }).collect();
            placements.sort_by_key(|place| place.first_page);
            let layers = Layers::new(&placements);
            for layer in &layers.0 {
                prop_assert!(layer.windows(2).all(|pair| pair[0].pages().end <= pair[1].first_page));
            }
            let depth = |page| placements.iter().filter(|place| place.pages().contains(&page)).count();
            prop_assert_eq!(layers.0.len(), (0..60).map(depth).max().unwrap_or(0));
            let wanted = from..from + 8;
            let mut placed: Vec<_> = layers.placed(&wanted).flat_map(|(pages, addresses)| {
                pages.zip(addresses.step_by(PAGE_SIZE)).collect::<Vec<_>>()
            }).collect();
            placed.sort_unstable();
            let pages = placements.iter().flat_map(|place| {
                let at = |page| (page, place.addresses(page..page).start);
                place.pages().filter(|page| wanted.contains(page)).map(at).collect::<Vec<_>>()
            });
            let mut pages: Vec<_> = pages.collect();
            pages.sort_unstable();
            prop_assert_eq!(placed, pages);
        }
    }
}
