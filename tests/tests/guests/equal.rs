//! Guests that have pages in common, or equal ones.

use super::{guest, unlike};
use gelid_tests::Case;

pub(super) const CASES: &[Case] = &[
    guest("cow-tree"),
    unlike(
        "cow-generations",
        "pages that three generations have in common",
    ),
    guest("cow-siblings"),
    guest("equal-memory"),
    guest("generations"),
];
