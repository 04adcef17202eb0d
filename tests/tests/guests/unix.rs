//! Guests with Unix sockets.

use super::{guest, refused, unlike};
use gelid_tests::Case;

/// All of them.
pub(super) const CASES: &[Case] = &[
    guest("unix-pairs"),
    guest("pidfd-in-flight"),
    guest("pidfd-queued"),
    guest("unix-alone"),
    guest("unix-queues"),
    unlike("unix-borders", "empty messages"),
    unlike("unix-half-closed", "that a peer of datagrams is closed"),
    unlike("unix-reset", "errors that wait"),
    guest("unix-shutdown"),
    guest("unix-options"),
    unlike("unix-late-options", "SO_PASSPIDFD, SO_REUSEADDR"),
    guest("unix-flags"),
    unlike("unix-peeking", "offsets of looking"),
    guest("unix-blocked"),
    Case {
        // The same bytes take less room when they are written in larger pieces.
        moving: true,
        ..guest("unix-full")
    },
    unlike("unix-bound", "directories made for names that are gone"),
    guest("unix-node"),
    unlike("unix-listening", "names of peers"),
    unlike("unix-listening-abstract", "names of peers"),
    unlike("unix-lost-listener", "names that several sockets have"),
    guest("unix-many"),
    guest("unix-star"),
    unlike("unix-chain", "who connects before whom"),
    refused("unix-reset-unread", "an error to tell"),
    refused("unix-outside", "is outside of the tree"),
    refused("unix-abroad", "--ext-unix-sk"),
    refused("unix-waiting-outside", "by a socket outside of the tree"),
    refused("unix-sent-early", "before the connection was accepted"),
    refused("unix-closed-early", "closed already"),
    refused("unix-urgent", "MSG_OOB"),
    guest("unix-rights"),
    unlike("unix-rights-most", "the last of 253 descriptors"),
    guest("unix-rights-stream"),
    unlike("unix-rights-sockets", "sockets that are in flight only"),
    guest("unix-rights-between"),
    unlike("unix-peers", "SO_PEERCRED"),
    unlike("unix-first", "SO_PEERCRED"),
    unlike("unix-senders", "names of senders"),
    unlike("unix-credentials", "credentials of messages"),
];
