//! Who holds a file, and what it is called, for messages.

use std::fmt;
use std::os::fd::RawFd;

use gelid_sys::Pid;

/// Where a task holds a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Behind a descriptor.
    Descriptor {
        /// The task.
        pid: Pid,
        /// Its descriptor.
        fd: RawFd,
    },
    /// On its way to a socket.
    InFlight {
        /// The task that can receive it.
        pid: Pid,
        /// Its descriptor of the socket.
        fd: RawFd,
    },
    /// Behind a mapping.
    Mapping {
        /// The task.
        pid: Pid,
        /// First address.
        start: u64,
        /// Address after the last byte.
        end: u64,
    },
    /// As its executable.
    Executable {
        /// The task.
        pid: Pid,
    },
    /// As its working directory.
    Directory {
        /// The task.
        pid: Pid,
    },
    /// As its root directory.
    Root {
        /// The task.
        pid: Pid,
    },
}

impl Place {
    /// The task, as the dumper sees it.
    pub(crate) fn task(&self) -> Pid {
        match *self {
            Self::Descriptor { pid, .. }
            | Self::InFlight { pid, .. }
            | Self::Mapping { pid, .. }
            | Self::Executable { pid }
            | Self::Directory { pid }
            | Self::Root { pid } => pid,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor { pid, fd } => write!(f, "descriptor {fd} of task {pid}"),
            Self::InFlight { pid, fd } => {
                write!(f, "a descriptor in flight to descriptor {fd} of task {pid}")
            }
            Self::Mapping { pid, start, end } => {
                write!(f, "mapping {start:x}-{end:x} of task {pid}")
            }
            Self::Executable { pid } => write!(f, "executable of task {pid}"),
            Self::Directory { pid } => write!(f, "working directory of task {pid}"),
            Self::Root { pid } => write!(f, "root directory of task {pid}"),
        }
    }
}

/// What the kernel calls a file: its path, or a kind and a number. Shown on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub(crate) Vec<u8>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(&self.0).chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_on_one_line() {
        assert_eq!(Name(b"/a\nb \xff".to_vec()).to_string(), "/a\\nb \u{fffd}");
    }
}
