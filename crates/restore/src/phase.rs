//! The phases of a restore, in their order.

use std::fmt;
use std::str::FromStr;

/// A step of a restore. Each has a span in the log and a point where it can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Reading and checking images; nothing is changed.
    Plan,
    /// Making namespaces.
    Namespaces,
    /// Opening files.
    Files,
    /// Creating tasks.
    Births,
    /// Building address spaces.
    Memory,
    /// Creating threads.
    Threads,
    /// Setting the state of tasks and threads.
    State,
    /// Letting go of everything.
    Release,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Plan,
        Self::Namespaces,
        Self::Files,
        Self::Births,
        Self::Memory,
        Self::Threads,
        Self::State,
        Self::Release,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Namespaces => "namespaces",
            Self::Files => "files",
            Self::Births => "births",
            Self::Memory => "memory",
            Self::Threads => "threads",
            Self::State => "state",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no phase has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no phase {name:?}; there are plan, namespaces, files, births, memory, threads, state, release"
)]
pub struct NoSuchPhase {
    /// The name.
    pub name: String,
}

impl FromStr for Phase {
    type Err = NoSuchPhase;

    fn from_str(name: &str) -> Result<Self, NoSuchPhase> {
        let found = Self::ALL.into_iter().find(|phase| phase.name() == name);
        found.ok_or_else(|| NoSuchPhase { name: name.into() })
    }
}
