//! Guests that work without a pause.

use super::{INTERRUPTED, guest, unlike};
use gelid_tests::{Case, Mode};

pub(super) const CASES: &[Case] = &[
    Case {
        ignore: &["maps", "fd "],
        ..unlike("steady", INTERRUPTED)
    },
    // It is its own witness, and that of a thousand rounds.
    Case {
        moving: true,
        without: &[Mode::None, Mode::Raw, Mode::Zstd],
        ..guest("relay")
    },
];
