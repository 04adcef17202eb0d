//! Guests with memory that is protected by keys or seals.

use super::{guest, unlike};
use gelid_tests::Case;

/// Why CRIU does not dump a thread.
const FORBIDDEN: &str = "needs memory that it may write";

/// All of them.
pub(super) const CASES: &[Case] = &[
    guest("execute-only"),
    unlike("key", "protection keys"),
    unlike("key-read-only", FORBIDDEN),
    unlike("key-forbidden", FORBIDDEN),
    unlike("sealed", "seals"),
];
