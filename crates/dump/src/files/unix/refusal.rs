//! What is not dumped of Unix sockets, and what to do about it.

use super::super::Name;

/// Something about a Unix socket that could not be restored faithfully.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnixRefusal {
    /// It was made elsewhere.
    #[error(
        "which was made in another network namespace; these are not dumped yet: \
         make it after the change of namespace"
    )]
    Namespace,
    /// Data out of band.
    #[error(
        "in which data out of band (MSG_OOB) wait to be read, which images cannot tell: \
         let the program read them first"
    )]
    Urgent,
    /// An error that is not known to come back.
    #[error("which has an error to tell, as a peer has left it: let the program ask for it first")]
    Error,
    /// An error that a look into the queue would take away.
    #[error(
        "which has an error to tell before what waits in its queue, which no look leaves as it is:          let the program ask for it first"
    )]
    ErrorFirst,
    /// A pidfd is in its queue, which can be sent again when its process is there, and not before.
    #[error(
        "which has a pidfd to be read, of a thread or from somebody who cannot send it again: let the program receive it first"
    )]
    Pidfd,
    /// Its peer is not in the tree.
    #[error(
        "whose peer socket:[{peer}]{} is outside of the tree: choose a root that is the ancestor of both, or use \
         {}", shown(.name), remedy(*.inode, .name, *.datagrams)
    )]
    Outside {
        /// Its own inode.
        inode: u32,
        /// The peer's.
        peer: u32,
        /// Name of the peer, if it has one.
        name: Option<Name>,
        /// It is a datagram socket.
        datagrams: bool,
    },
    /// A connection to somebody outside.
    #[error(
        "whose connection waits to be accepted by a socket outside of the tree: let that accept it first"
    )]
    Unaccepted,
    /// A connection from somebody outside.
    #[error(
        "where a connection from outside of the tree waits to be accepted: let the program accept it first"
    )]
    Visitor,
    /// A connection that was closed before it was accepted.
    #[error(
        "where a connection that is closed already waits to be accepted, which images cannot tell: \
         let the program accept it first"
    )]
    Gone,
    /// A connection that is not accepted has data.
    #[error(
        "through which data were sent before the connection was accepted, which nobody can read but who \
         accepts it: let the other program accept it first"
    )]
    SentEarly,
    /// The name does not lead to it.
    #[error(
        "which is bound to {bound}, but its file is now {node}: give that its old name again, or remove it"
    )]
    Moved {
        /// The name it is bound to.
        bound: Name,
        /// Where its file is.
        node: Name,
    },
    /// What is in its queue could not be read whole.
    #[error("in whose queue {expected} bytes wait, of which only {found} could be read")]
    Torn {
        /// Bytes in the queue.
        expected: u32,
        /// Bytes read.
        found: u64,
    },
    /// Descriptors were in flight that are not known.
    #[error(
        "in whose queue are more descriptors than the dumper can hold: raise its limit of open files"
    )]
    Crowded,
}

fn shown(name: &Option<Name>) -> String {
    let name = name.as_ref();
    name.map(|name| format!(" ({name})")).unwrap_or_default()
}

fn remedy(inode: u32, name: &Option<Name>, datagrams: bool) -> String {
    match (datagrams, name) {
        (true, Some(_)) => "--ext-unix-sk, which connects it again by that name".to_owned(),
        _ => format!(
            "--external 'unix[{inode}]' and give it back with --inherit-fd 'fd[N]:socket:[{inode}]'"
        ),
    }
}
