//! The freezer of a cgroup, version 1 (`freezer.state`) or 2 (`cgroup.freeze`): `cgroups(7)`.
//!
//! It stops a whole group with one write, however fast it forks, but gives no access to registers. So
//! the tree is seized while its group is frozen, and the group is thawed into the requested stops.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gelid_sys::Errno;

use crate::CgroupError;
use crate::backoff::Backoff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The freezer of one cgroup.
#[derive(Debug)]
pub(crate) struct Freezer {
    path: PathBuf,
    version: Version,
}

impl Freezer {
    /// Finds out which freezer `path` has, and that the caller is not in it.
    pub(crate) fn open(path: &Path) -> Result<Self, CgroupError> {
        let version = if path.join("freezer.state").exists() {
            Version::One
        } else if path.join("cgroup.freeze").exists() {
            Version::Two
        } else {
            return Err(CgroupError::NoFreezer {
                path: path.to_owned(),
            });
        };
        refuse_own(path)?;
        Ok(Self {
            path: path.to_owned(),
            version,
        })
    }

    /// Freezes the group and waits until all of it stands still.
    pub(crate) fn freeze(
        self,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Frozen, CgroupError> {
        let found_frozen = self.is_asked_to_freeze()?;
        self.ask(true)?;
        // From here on every way out thaws.
        let mut frozen = Frozen {
            freezer: None,
            found_frozen,
        };
        let mut backoff = Backoff::new();
        let freezer = frozen.freezer.insert(self);
        while !freezer.is_frozen()? {
            if Instant::now() > deadline {
                return Err(CgroupError::Timeout {
                    path: freezer.path.clone(),
                    timeout,
                });
            }
            backoff.pause();
        }
        Ok(frozen)
    }

    fn ask(&self, freeze: bool) -> Result<(), CgroupError> {
        let (name, text) = match (self.version, freeze) {
            (Version::One, true) => ("freezer.state", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED"),
            (Version::Two, true) => ("cgroup.freeze", "1"),
            (Version::Two, false) => ("cgroup.freeze", "0"),
        };
        let path = self.path.join(name);
        std::fs::write(&path, text).map_err(|error| file_error("write", path, &error))
    }

    fn is_asked_to_freeze(&self) -> Result<bool, CgroupError> {
        Ok(match self.version {
            Version::One => self.read("freezer.state")?.trim() != "THAWED",
            Version::Two => self.read("cgroup.freeze")?.trim() == "1",
        })
    }

    fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(match self.version {
            Version::One => self.read("freezer.state")?.trim() == "FROZEN",
            Version::Two => self
                .read("cgroup.events")?
                .lines()
                .any(|line| line == "frozen 1"),
        })
    }

    fn read(&self, name: &str) -> Result<String, CgroupError> {
        let path = self.path.join(name);
        std::fs::read_to_string(&path).map_err(|error| file_error("read", path, &error))
    }
}

/// A frozen group. Dropping it thaws it, unless it was found frozen.
#[derive(Debug)]
pub(crate) struct Frozen {
    freezer: Option<Freezer>,
    found_frozen: bool,
}

impl Frozen {
    /// Whether a task stopped by job control must not be seized yet: the freezer of version 1 pins it where it
    /// is, and `PTRACE_SEIZE` waits for it to become a stop of the other kind.
    pub(crate) fn pins_stopped_tasks(&self) -> bool {
        self.freezer
            .as_ref()
            .is_some_and(|freezer| freezer.version == Version::One)
    }

    /// Lets the group run into the stops that have been asked for.
    pub(crate) fn thaw(mut self) -> Result<Thawed, CgroupError> {
        if let Some(freezer) = &self.freezer {
            freezer.ask(false)?;
        }
        let freezer = self.freezer.take().filter(|_| self.found_frozen);
        Ok(Thawed { freezer })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(freezer) = self.freezer.take()
            && let Err(error) = freezer.ask(self.found_frozen)
        {
            tracing::warn!(%error, "thawing a cgroup");
        }
    }
}

/// A group thawed while its tree is held by ptrace. Dropping it puts back how it was found.
#[derive(Debug)]
pub(crate) struct Thawed {
    freezer: Option<Freezer>,
}

impl Thawed {
    /// Whether the group was found frozen.
    pub(crate) fn freezes_again(&self) -> bool {
        self.freezer.is_some()
    }

    /// Freezes the group again if it was found frozen.
    pub(crate) fn restore(mut self) -> Result<(), CgroupError> {
        self.freezer
            .take()
            .map_or(Ok(()), |freezer| freezer.ask(true))
    }

    /// Leaves the group thawed: nobody in it is left alive.
    pub(crate) fn forget(mut self) {
        self.freezer = None;
    }
}

impl Drop for Thawed {
    fn drop(&mut self) {
        if let Some(freezer) = self.freezer.take()
            && let Err(error) = freezer.ask(true)
        {
            tracing::warn!(%error, "freezing a cgroup again");
        }
    }
}

/// Fails if the calling process is in the group or one below it.
fn refuse_own(path: &Path) -> Result<(), CgroupError> {
    let own = std::process::id().to_string();
    let file = path.join("cgroup.procs");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.lines().any(|line| line == own) => {
            return Err(CgroupError::ContainsSelf {
                path: path.to_owned(),
            });
        }
        // A threaded group of version 2 does not list processes.
        Ok(_) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(file_error("read", file, &error)),
    }
    let entries =
        std::fs::read_dir(path).map_err(|error| file_error("read", path.to_owned(), &error))?;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            refuse_own(&entry.path())?;
        }
    }
    Ok(())
}

fn file_error(operation: &'static str, path: PathBuf, error: &std::io::Error) -> CgroupError {
    CgroupError::File {
        operation,
        path,
        errno: Errno::from_io_error(error).unwrap_or(Errno::IO),
    }
}
