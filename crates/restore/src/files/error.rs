//! Why files cannot be planned or opened.

use gelid_image::ReadError;
use rustix::io::Errno;

/// What stands in the way of restoring open files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Two records have the same key.
    #[error("{image}: {what} {id} occurs twice")]
    Duplicate {
        /// The image file.
        image: String,
        /// What the key belongs to.
        what: &'static str,
        /// The key.
        id: u64,
    },
    /// A value in a record cannot be right.
    #[error("{object}: {field} is {found}: {rule}")]
    Invalid {
        /// The object described.
        object: String,
        /// The field of its record.
        field: &'static str,
        /// Value found.
        found: String,
        /// What is expected instead.
        rule: &'static str,
    },
    /// A record refers to one that is not there.
    #[error("{by} refers to {what} {id}, which {image} does not have")]
    Missing {
        /// What refers to it.
        by: String,
        /// What it is.
        what: &'static str,
        /// Its key.
        id: u64,
        /// The image it should be in.
        image: &'static str,
    },
    /// A kind of file is not supported.
    #[error("{object} is {what}, which cannot be restored yet; {remedy}")]
    Unsupported {
        /// The description, and the descriptor that needs it.
        object: String,
        /// What it is.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A file of the outside was not given.
    #[error("{object} was outside of the tree; give it with --inherit-fd 'fd[N]:{key}'")]
    External {
        /// The description.
        object: String,
        /// Key of the descriptor that stands for it.
        key: String,
    },
    /// There is no terminal to stand in for that of the tree.
    #[error(
        "{object} was the terminal of the tree, and the restore has none; run it from a terminal"
    )]
    NoTerminal {
        /// The description.
        object: String,
    },
    /// The number of a process that has ended belongs to another one.
    #[error(
        "{object} belongs to process {pid}, which has ended; another one has that number now: end it first"
    )]
    NumberTaken {
        /// The description.
        object: String,
        /// The number.
        pid: u32,
    },
    /// The number of a terminal belongs to another one.
    #[error("{object}: another program has terminal {index} now; end that program first")]
    TerminalTaken {
        /// The description.
        object: String,
        /// Number of the terminal.
        index: u32,
    },
    /// The file is not the one that was dumped.
    #[error("{object} has changed: {what} {recorded} is now {found}; {remedy}")]
    Changed {
        /// The description.
        object: String,
        /// What differs.
        what: &'static str,
        /// Its value at the dump.
        recorded: String,
        /// Its value now.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A name belongs to somebody else now.
    #[error("{object}: another program has that name or address now; stop it first")]
    Occupied {
        /// The description.
        object: String,
    },
    /// Packets are still kept away from connections.
    #[error(transparent)]
    Netlock(#[from] gelid_netlock::Error),
    /// A segment that was sent within the machine has not come.
    #[error(
        "{object} is not in its state, as segments of this machine to itself do not come; look for firewall rules"
    )]
    Unmoved {
        /// The socket.
        object: String,
    },
    /// What was in a queue could not be read.
    #[error("cannot read what {object} has in its queues: {source}")]
    Contents {
        /// The socket.
        object: String,
        /// Why not.
        source: std::io::Error,
    },
    /// An option of a socket cannot be set.
    #[error("cannot set option {name} of level {level} of {object}: {errno}")]
    Option {
        /// The socket.
        object: String,
        /// Level of the option.
        level: i32,
        /// Its number there.
        name: i32,
        /// What the kernel said.
        errno: Errno,
    },
    /// More descriptors are needed than the limit allows.
    #[error(
        "cannot {operation} {object}: descriptors from {base} on are needed, the limit is {limit}; \
         raise the hard limit of open files"
    )]
    Descriptors {
        /// What was tried.
        operation: &'static str,
        /// For what.
        object: String,
        /// First number that may be used.
        base: i32,
        /// `RLIMIT_NOFILE`.
        limit: u64,
    },
    /// A system call failed.
    #[error("cannot {operation} {object}: {errno}{}", remedy(*.errno))]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What to do about an errno, as the end of a sentence.
fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT | Errno::NOTDIR => "; bring the file back, as it was at the dump",
        Errno::EXIST => "; remove what is there now",
        Errno::ACCESS | Errno::PERM => "; run the restore as root",
        Errno::ROFS => "; make the file system writable",
        Errno::TXTBSY => "; stop the program that runs from it",
        Errno::NOSPC | Errno::DQUOT => "; make room on the file system",
        Errno::NOMEM => "; free memory or huge pages",
        Errno::ADDRNOTAVAIL => "; give the machine that address",
        Errno::NXIO | Errno::NODEV => "; make the device available",
        _ => "",
    }
}

impl Error {
    /// Turns an errno into an error, for `map_err`.
    pub(crate) fn system(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(Errno) -> Self {
        move |errno| Error::System {
            operation,
            object: object.to_string(),
            errno,
        }
    }

    pub(crate) fn invalid(
        object: impl ToString,
        field: &'static str,
        found: impl ToString,
        rule: &'static str,
    ) -> Self {
        Error::Invalid {
            object: object.to_string(),
            field,
            found: found.to_string(),
            rule,
        }
    }
}
