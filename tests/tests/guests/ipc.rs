//! Guests with System V IPC, on the host and in IPC namespaces.

use super::{changing, refused, unlike};
use gelid_tests::{Case, Mode};

/// What CRIU loses of several guests.
const OF_THE_HOST: &str = "System V IPC outside of an IPC namespace";

/// All of them.
pub(super) const CASES: &[Case] = &[
    changing("ipc-plain", &["ns/ipc"]),
    Case {
        ignore: &["ns/ipc"],
        ..unlike("ipc-shm", "segments that are attached in part")
    },
    Case {
        ignore: &["ns/ipc"],
        ..unlike("ipc-undo", "what semaphores get back")
    },
    Case {
        ignore: &["ns/ipc"],
        ..unlike("ipc-messages", "the room of a queue")
    },
    Case {
        ignore: &["ns/ipc"],
        ..unlike("ipc-settings", "POSIX message queues")
    },
    refused("ipc-unread", "cannot be looked at without being taken"),
    Case {
        ignore: &["ns/ipc"],
        ..unlike("ipc-forced", "segments that end with their last user")
    },
    refused("ipc-forced-idle", "shm_rmid_forced"),
    Case {
        // The original takes its set with it.
        without: &[Mode::Running],
        ..unlike("sem-undo", OF_THE_HOST)
    },
    Case {
        without: &[Mode::Running],
        ..unlike("sem-blocked", OF_THE_HOST)
    },
    unlike("shm", OF_THE_HOST),
    unlike("shm-huge", OF_THE_HOST),
    refused("shm-outside", "2 attachments, 1 of them in the tree"),
];
