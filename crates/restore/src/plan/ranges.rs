//! Sets of addresses, as ascending ranges that do not overlap.

use std::ops::Range;

/// What both sets have.
pub(crate) fn both(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut both = Vec::new();
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        let common = a.start.max(b.start)..a.end.min(b.end);
        if a.end <= b.end {
            one.next();
        } else {
            other.next();
        }
        if !common.is_empty() {
            both.push(common);
        }
    }
    both
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
