//! What the caller says about files.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use super::network::Networks;
use super::{Held, Spare};
use crate::Hooks;
use crate::files::Roots;
use crate::play::namespaces::further::Made;
use crate::play::namespaces::{Birthplace, Hand};

/// How a file is compared with the one that was dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// By size.
    Size,
    /// By size, and by the build id of an ELF file.
    #[default]
    BuildId,
}

/// `--inherit-fd`: a descriptor of the caller that stands for something of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherit {
    /// The descriptor.
    pub fd: RawFd,
    /// What it stands for: `pipe:[INODE]`, `socket:[INODE]`, `tty[RDEV:DEV]`, `file[MNT:INODE]`,
    /// `/memfd:NAME`, or a path without its leading slash.
    pub key: String,
}

/// Options that concern files.
#[derive(Debug, Clone, Default)]
pub struct FileOptions {
    /// `--file-validation`
    pub validation: Validation,
    /// `--skip-file-rwx-check`: permissions may have changed.
    pub skip_rwx_check: bool,
    /// `--shell-job`: the terminal of the restore stands in for that of the tree.
    pub shell_job: bool,
    /// A terminal whose master was outside gets a new one, which [hooks](crate::Hooks) are given.
    pub orphan_pts_master: bool,
    /// The terminal of the restore stands in for that of the tree, as far as there is nobody to take a new one.
    pub console: bool,
    /// `--tcp-established`: connections of TCP are made again.
    pub tcp_established: bool,
    /// `--tcp-close`: they are closed.
    pub tcp_close: bool,
    /// `--inherit-fd`, in the order given; of several with one key the last counts.
    pub inherit: Vec<Inherit>,
}

impl FileOptions {
    /// The descriptor that stands for `key`.
    pub(crate) fn inherited(&self, key: &[u8]) -> Option<RawFd> {
        let mut inherit = self.inherit.iter().rev();
        inherit
            .find(|given| given.key.as_bytes() == key)
            .map(|given| given.fd)
    }
}

/// Where files are opened.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Directories that paths start from, the roots of the tree's mount namespaces. Links do not lead out of them.
    pub roots: Roots<'a>,
    /// Everything is opened at numbers from here on; see
    /// [`FilesPlan::first_free`](super::FilesPlan::first_free).
    pub base: RawFd,
    /// Numbers that are held so far.
    pub held: &'a Held,
    /// For a tree some of whose files may be open elsewhere.
    pub(crate) spare: Option<&'a Spare>,
    /// The terminal that stands in for the one of the tree (`--shell-job`).
    pub terminal: Option<BorrowedFd<'a>>,
    /// Who is given the master of a console.
    pub(crate) hooks: Option<&'a Hooks>,
    /// Where processes are born that stand in for those of the tree, if that is elsewhere.
    pub(crate) birthplace: Option<&'a Birthplace>,
    /// The first process of the tree, where nobody can stand in for it.
    pub(crate) hand: Option<&'a Hand<'a>>,
    /// Who has the descriptors of this process where tasks may not take them from itself, by a pidfd.
    pub(crate) keeper: Option<BorrowedFd<'a>>,
    /// Where sockets are made.
    pub(crate) networks: &'a Arc<Networks>,
    /// IPC namespaces that the root is not in, if there are any.
    pub(crate) further: Option<&'a Made>,
}
