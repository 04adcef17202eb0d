//! Why a network namespace could not be made.

use gelid_sys::Errno;

/// Something that a network namespace of the images has could not be made here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The kernel has refused something.
    #[error("network namespace {id}: cannot {operation} {object}: {errno}")]
    Kernel {
        /// Number of the namespace in the images.
        id: u32,
        /// What was tried.
        operation: &'static str,
        /// With what.
        object: String,
        /// Why not.
        errno: Errno,
    },
    /// A sysctl could not be set.
    #[error("network namespace {id}: cannot set the sysctl net/{name}: {source}{remedy}")]
    Sysctl {
        /// Number of the namespace in the images.
        id: u32,
        /// Path below `/proc/sys/net`.
        name: String,
        /// Why not.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The firewall has not taken its rules.
    #[error("network namespace {id}: {source}")]
    Firewall {
        /// Number of the namespace in the images.
        id: u32,
        /// Why not.
        source: gelid_netlock::Error,
    },
    /// A link of the restorer is missing.
    #[error(
        "network namespace {id}: the link {outer}, which --external gives for {inner}, is not there: {errno}"
    )]
    Outside {
        /// Number of the namespace in the images.
        id: u32,
        /// Name in the namespace.
        inner: String,
        /// Name in that of the restorer.
        outer: String,
        /// Why not.
        errno: Errno,
    },
    /// The caller has not given something.
    #[error("network namespace {id}: {object} was outside of the tree; give it with {option}")]
    NotGiven {
        /// Number of the namespace in the images.
        id: u32,
        /// What.
        object: String,
        /// How.
        option: String,
    },
}
