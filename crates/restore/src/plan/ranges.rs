//! Sets of addresses, as ascending ranges that do not overlap.

use std::ops::Range;

/// Something that lies at addresses.
pub(crate) trait Ranged {
    /// Where.
    fn range(&self) -> Range<u64>;
}

impl Ranged for Range<u64> {
    fn range(&self) -> Range<u64> {
        self.clone()
    }
}

impl<T> Ranged for (Range<u64>, T) {
    fn range(&self) -> Range<u64> {
        self.0.clone()
    }
}

/// Where things of two sets meet: the range, and both.
pub(crate) fn meet<'a, A: Ranged, B: Ranged>(
    one: &'a [A],
    other: &'a [B],
) -> impl Iterator<Item = (Range<u64>, &'a A, &'a B)> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    std::iter::from_fn(move || {
        while let (Some(a), Some(b)) = (one.peek().copied(), other.peek().copied()) {
            let (first, second) = (a.range(), b.range());
            if first.end <= second.end {
                one.next();
            } else {
                other.next();
            }
            let common = first.start.max(second.start)..first.end.min(second.end);
            if !common.is_empty() {
                return Some((common, a, b));
            }
        }
        None
    })
}

/// What both sets have.
pub(crate) fn both(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    meet(one, other).map(|(common, ..)| common).collect()
}

/// What only the first set has.
pub(crate) fn without(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut holes = other.iter().peekable();
    for range in one {
        let mut start = range.start;
        while let Some(hole) = holes.peek() {
            if hole.start >= range.end {
                break;
            }
            if start < hole.start {
                left.push(start..hole.start);
            }
            start = start.max(hole.end);
            if hole.end >= range.end {
                // It may reach into the next one.
                break;
            }
            holes.next();
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(bits: u32) -> Vec<Range<u64>> {
        let mut set: Vec<Range<u64>> = Vec::new();
        for at in (0..32).filter(|at| bits & 1 << at != 0) {
            match set.last_mut() {
                // Neighbours need not be one.
                Some(last) if last.end == at && at % 5 != 0 => last.end = at + 1,
                _ => set.push(at..at + 1),
            }
        }
        set
    }

    fn bits(set: &[Range<u64>]) -> u32 {
        assert!(set.iter().all(|range| !range.is_empty()));
        assert!(set.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let all = set.iter().flat_map(Clone::clone);
        all.fold(0, |bits, at| bits | 1 << at)
    }

    proptest! {
        #[test]
        fn sets_are_sets(one: u32, other: u32) {
            prop_assert_eq!(bits(&both(&set(one), &set(other))), one & other);
            prop_assert_eq!(bits(&without(&set(one), &set(other))), one & !other);
        }
    }
}
