//! Unix sockets: made in the order that their connections demand, filled with what was on its way.
//! Section 14.4 of the format.

mod bind;
mod make;
mod order;
mod plan;
mod queue;
mod somebody;

use std::collections::BTreeMap;
use std::fmt;

use gelid_image::messages::GelidUcredEntry;
use gelid_sys::stand_in::Who;
use rustix::net::SocketType;

use super::Name;
use super::sk_opts::SocketOptions;

pub(super) use self::bind::Nodes;
pub(super) use self::make::open_all;
pub(super) use self::plan::{Records, is_outside, plan};
pub(super) use self::queue::{Packet, Sender, read as read_packets};

/// All Unix sockets of a tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Sockets {
    /// File ids in the order of the records: who waits to be accepted first comes first.
    pub(super) order: Vec<u32>,
    /// Those that connect with who is not their peer, in an order in which the kernel allows it.
    pub(super) connects: Vec<u32>,
    /// Names under which several sockets were accepted, but nobody listens any more.
    pub(super) lost: Vec<Lost>,
    /// Unread messages, in the order of the image.
    pub(super) packets: Vec<Packet>,
    /// Names of those who have sent some of them and are no sockets of the tree.
    pub(super) strangers: Vec<Address>,
    /// Those who wait to be told of the dump that they have asked for.
    pub(super) clients: Vec<u32>,
}

/// One who listened, and was closed before those that it has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) kind: SocketType,
    pub(super) name: Bound,
}

/// A Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unix {
    /// Its inode at the dump.
    pub inode: u32,
    /// Stream, datagrams or packets.
    pub kind: SocketType,
    /// Where it comes from.
    pub origin: Origin,
    /// Backlog of one that listens.
    pub backlog: Option<u32>,
    /// What it is bound to, unless that came with its connection.
    pub name: Option<Bound>,
    /// With whom it is connected without being their peer.
    pub target: Option<Target>,
    /// Directions that are shut down: 1 receiving, 2 sending.
    pub shutdown: u32,
    /// Options.
    pub options: SocketOptions,
    /// `SO_PEERCRED`.
    pub peer: Option<Who>,
    /// `ECONNRESET` waits to be told.
    pub reset: bool,
    /// `SO_PEEK_OFF`.
    pub peek_offset: Option<i32>,
    /// `SO_PASSPIDFD`.
    pub pass_pidfd: bool,
}

/// How a socket is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By itself.
    Alone,
    /// As an end of a pair, with the socket of that id as the other.
    Pair(u32),
    /// As an end of a pair whose other end is closed.
    Severed,
    /// By itself; then it connects, and what accepts it becomes the socket of that id.
    Connecting(u32),
    /// As a connection that was accepted from the socket of that id, or from one that is closed.
    Accepted {
        /// Who listens.
        by: Listener,
        /// Who has connected.
        from: Option<u32>,
    },
    /// By itself; then it connects to the socket of that id, which has not accepted it yet.
    Waiting(u32),
}

/// Who has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    /// The socket of that id.
    Socket(u32),
    /// One that is closed, by its place among those.
    Lost(usize),
    /// One that has sent something, by its place among those.
    Stranger(usize),
}

/// With whom a datagram socket is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A socket of the tree, by id.
    Socket(u32),
    /// One outside of it.
    Outside(Address),
}

/// What a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The name.
    pub address: Address,
    /// Where a relative path starts from.
    pub directory: Option<Name>,
    /// The file is gone.
    pub deleted: bool,
    /// Mode, user and group of the file.
    pub permissions: Option<(u32, u32, u32)>,
    /// A mount that tells which mount namespace the file is in.
    pub mount: Option<i32>,
}

impl Bound {
    /// A name whose file is gone.
    fn gone(address: &Address) -> Self {
        Self {
            address: address.clone(),
            directory: None,
            mount: None,
            deleted: true,
            permissions: None,
        }
    }
}

/// A name of a socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A path, relative or not.
    Path(Vec<u8>),
    /// A name without a file.
    Abstract(Vec<u8>),
}

impl Address {
    /// Takes a name from an image, or tells what is wrong with it.
    fn new(name: &[u8]) -> Result<Option<Self>, &'static str> {
        /// Bytes of `sun_path`.
        const LONGEST: usize = 108;
        match name {
            [] => Ok(None),
            [0, name @ ..] if name.len() < LONGEST => Ok(Some(Self::Abstract(name.to_vec()))),
            [0, ..] => Err("a name has up to 108 bytes"),
            path => match path.strip_suffix(&[0]).unwrap_or(path) {
                path if path.contains(&0) => Err("no path has a zero byte"),
                path if path.len() > LONGEST => Err("the path of a socket has up to 108 bytes"),
                path => Ok(Some(Self::Path(path.to_vec()))),
            },
        }
    }

    /// The name as it is recorded.
    fn is(&self, name: &[u8]) -> bool {
        Self::new(name).is_ok_and(|it| it.as_ref() == Some(self))
    }
}

/// Somebody as recorded; `None` if no process has such a number.
fn who(entry: &GelidUcredEntry) -> Option<Who> {
    let pid = i32::try_from(entry.pid).ok().filter(|pid| *pid > 0)?;
    Some(Who {
        pid,
        uid: entry.uid,
        gid: entry.gid,
    })
}

/// As readable as an error message on one line can have it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, bytes) = match self {
            Self::Path(path) => ("", path),
            Self::Abstract(name) => ("@", name),
        };
        write!(f, "{mark}{}", bytes.escape_ascii())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Unix {
    /// A line about it.
    pub(super) fn describe(&self) -> String {
        let kind = match self.kind {
            SocketType::STREAM => "stream",
            SocketType::DGRAM => "datagram",
            _ => "packet",
        };
        let origin = match self.origin {
            Origin::Alone => String::new(),
            Origin::Pair(other) => format!(", a pair with file {other}"),
            Origin::Severed => ", whose peer is closed".to_owned(),
            Origin::Connecting(peer) => format!(", connected with file {peer}"),
            Origin::Accepted { from, .. } => match from {
                Some(peer) => format!(", accepted from file {peer}"),
                None => ", accepted from a peer that is closed".to_owned(),
            },
            Origin::Waiting(listener) => format!(", waiting for file {listener} to accept it"),
        };
        let name = self.name.as_ref();
        let name = name.map(|name| format!(" {}", name.address));
        let backlog = self.backlog.map(|backlog| format!(", backlog {backlog}"));
        let target = match &self.target {
            Some(Target::Socket(id)) => format!(", connected to file {id}"),
            Some(Target::Outside(name)) => format!(", connected to {name}"),
            None => String::new(),
        };
        format!(
            "{kind} socket{}{origin}{target}{}",
            name.unwrap_or_default(),
            backlog.unwrap_or_default()
        )
    }
}

/// Sockets of the tree by file id.
type ById<'a> = BTreeMap<u32, &'a Unix>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        let address = |name: &[u8]| Address::new(name).map(|it| it.map(|it| it.to_string()));
        assert_eq!(address(b""), Ok(None));
        assert_eq!(address(b"/a\0"), Ok(Some("/a".into())));
        assert_eq!(address(b"\0a\0b"), Ok(Some("@a\\x00b".into())));
        assert_eq!(address(&[b'a'; 108]).map(|it| it.is_some()), Ok(true));
        for wrong in [&[b'a'; 109][..], b"a\0b\0", &[0; 109]] {
            assert!(address(wrong).is_err());
        }
    }
}
