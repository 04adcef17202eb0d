//! Guests with maps of BPF.

use super::{refused, seldom, unlike};
use gelid_tests::Case;

/// One of which CRIU knows nothing where it was built without libbpf.
const fn map(name: &'static str) -> Case {
    unlike(name, "maps of BPF")
}

pub(super) const CASES: &[Case] = &[
    map("bpf-hash"),
    map("bpf-array"),
    map("bpf-frozen"),
    seldom(map("bpf-large")),
    refused("refused-bpf-map", "a BPF map of another type"),
    refused("refused-bpf-types", "described by types (BTF)"),
];
