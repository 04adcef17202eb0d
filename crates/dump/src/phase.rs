//! The phases of a dump, in their order.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use crate::Error;

/// A step of a dump. Each has a span in the log and a point where it can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Stopping every task.
    Freeze,
    /// Looking at processes, sessions, namespaces and mappings; refusing what cannot be dumped.
    Tree,
    /// Setting the pages on their way.
    Memory,
    /// Playing tapes: what only the tasks themselves can tell.
    Tasks,
    /// Looking into namespaces that are not the dumper's.
    Namespaces,
    /// Descriptors, executables, mapped files, shared memory.
    Files,
    /// Waiting for the last page.
    Pages,
    /// Writing the records.
    Write,
    /// Making the set visible.
    Commit,
    /// Killing the tree, or letting it go.
    Finish,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Freeze,
        Self::Tree,
        Self::Memory,
        Self::Tasks,
        Self::Namespaces,
        Self::Files,
        Self::Pages,
        Self::Write,
        Self::Commit,
        Self::Finish,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Tree => "tree",
            Self::Memory => "memory",
            Self::Tasks => "tasks",
            Self::Namespaces => "namespaces",
            Self::Files => "files",
            Self::Pages => "pages",
            Self::Write => "write",
            Self::Commit => "commit",
            Self::Finish => "finish",
        }
    }

    /// Whether what it does cannot be taken back, so that its fault comes first.
    fn is_final(self) -> bool {
        matches!(self, Self::Commit | Self::Finish)
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
    "there is no phase {name:?}; there are freeze, tree, memory, tasks, namespaces, files, pages, write, commit, finish"
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

/// Goes through the phases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phases {
    fault: Option<Phase>,
}

impl Phases {
    pub(crate) fn new(fault: Option<Phase>) -> Self {
        Self { fault }
    }

    /// Does the work of a phase in its span, and fails where it is told to: when the work is done, so that there
    /// is something to undo, or before, where it could not be undone.
    pub(crate) fn run<T>(
        self,
        phase: Phase,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _span = tracing::info_span!("dump", phase = phase.name()).entered();
        let start = Instant::now();
        let fault = self.fault == Some(phase);
        if fault && phase.is_final() {
            return Err(Error::Fault { phase });
        }
        let done = work()?;
        tracing::debug!(took = ?start.elapsed(), "{phase} done");
        if fault {
            return Err(Error::Fault { phase });
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for phase in Phase::ALL {
            assert_eq!(phase.name().parse(), Ok(phase));
        }
        let error = "nap".parse::<Phase>().unwrap_err().to_string();
        for phase in Phase::ALL {
            assert!(error.contains(phase.name()), "{error}");
        }
    }
}
