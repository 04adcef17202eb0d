//! Guests that work without a pause.

use super::{INTERRUPTED, changing, unlike};
use gelid_tests::Case;

/// What they change themselves.
const CHANGED: &[&str] = &["maps", "fd "];

pub(super) const CASES: &[Case] = &[
    Case {
        ignore: CHANGED,
        ..unlike("steady", INTERRUPTED)
    },
    changing("relay", CHANGED),
];
