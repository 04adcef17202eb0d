//! Guests with an object that no dump takes.

use super::refused;
use gelid_tests::Case;

/// All of them.
pub(super) const CASES: &[Case] = &[
    refused("refused-bpf", "BPF"),
    refused("refused-perf", "perf"),
    refused("refused-userfaultfd", "userfaultfd"),
    refused("refused-device", "device"),
    refused("refused-sealed", "seal"),
    refused("refused-thread-files", "descriptors"),
    refused("refused-leader-death", "PR_SET_PDEATHSIG"),
    Case {
        args: &["pid mnt", "sessions"],
        ..refused("below", "in another mnt namespace")
    },
    refused("users-shared", "shares its working directory"),
    refused("below-gone", "a pid namespace that has ended"),
    refused("below-put", "put into a pid namespace"),
    refused("refused-dispatch", "PR_SET_SYSCALL_USER_DISPATCH"),
    refused("io-uring", "an io_uring"),
    refused("io-uring-mapped", "an io_uring"),
];
