//! Guests with pipes and FIFOs.

use super::{guest, unlike};
use gelid_tests::Case;

/// All of them.
pub(super) const CASES: &[Case] = &[
    guest("pipe-data"),
    guest("pipe-sizes"),
    guest("pipe-between"),
    guest("pipe-flags"),
    guest("pipe-half-closed"),
    guest("pipe-reopened"),
    unlike("pipe-packets", "where a packet ends"),
    guest("fifo-data"),
    guest("fifo-deleted"),
    guest("fifo-half"),
];
