//! Harness of the integration tests: guests that are dumped and restored on the running kernel.
//!
//! A test starts a guest program ([`Guest`]), looks at it from outside ([`Snapshot`]), puts it through
//! dump, death and restore in some [`Mode`], compares what `/proc` shows with what it showed before,
//! and lets the guest check itself. [`Engine`] is the `gelid` executable of the same build, or
//! the one that `GELID_BIN` names (`criu` too, to check the tests themselves).
//!
//! # Model
//!
//! The test process is the subreaper of everything below it: a dumped tree's zombies and the root of a
//! restored tree become its children, so that it can collect them, and knows that their ids are free. It
//! kills only processes that it has seen in a tree of its own and that still descend from it.
//!
//! # Limitations
//!
//! Needs root. What cannot be seen in `/proc` (contents of memory, of pipes, shared tables) is the
//! guest's part. A task id taken by a stranger between dump and restore fails a test.
//!
//! # Example
//!
//! ```
//! use gelid_tests::diff;
//! let before = [("umask".to_string(), "0022".to_string())].into();
//! let after = [("umask".to_string(), "0077".to_string())].into();
//! assert_eq!(diff("task 7", &before, &after), ["task 7 umask: 0022 became 0077"]);
//! ```

#![forbid(unsafe_code)]

mod boxed;
mod case;
mod client;
mod compare;
mod directory;
mod engine;
mod guest;
mod mode;
mod process;
mod snapshot;

pub use boxed::furnish;
pub use case::{Case, Verdict, terminals};
pub use client::{Client, Reply, consent, request};
pub use compare::{compare, diff};
pub use directory::DirectoryState;
pub use engine::{Engine, Outcome, Running};
pub use guest::{Guest, Started};
pub use mode::{Mode, rounds};
pub use process::{
    Tree, adopt_orphans, build, output, run_to_end, spawn, succeeds, succeeds_alone,
};
pub use snapshot::{Facts, Snapshot, TaskFacts};
