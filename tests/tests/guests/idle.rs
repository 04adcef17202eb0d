//! Guests at rest, which speed is measured with, and others with many threads.

use super::{INTERRUPTED, guest, unlike, with};
use gelid_tests::Case;

pub(super) const CASES: &[Case] = &[
    guest("idle-threads"),
    // Enough to be born while others get their state.
    with("idle-threads", &["300"]),
    Case {
        args: &["200"],
        ..unlike("naps", INTERRUPTED)
    },
    guest("idle-tree"),
    guest("idle-heap"),
    with("idle-heap", &["16", "noise", "beat"]),
    with("idle-heap", &["16", "shared", "beat"]),
    with("idle-heap", &["16", "huge"]),
    with("idle-heap", &["16", "zeros"]),
    with("idle-heap", &["16", "sparse"]),
    with("idle-workers", &["4", "2"]),
    // Enough for holes to be filled before they are born.
    with("idle-workers", &["4", "64"]),
    guest("idle-mappings"),
    // Enough to be told apart while they are filled.
    with("idle-mappings", &["3000"]),
    with("idle-mappings", &["200", "mixed"]),
    with("idle-mappings", &["3000", "mixed"]),
    guest("idle-descriptors"),
    with("idle-descriptors", &["3000"]),
];
