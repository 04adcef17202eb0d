//! Internet sockets: made, bound, listening, connected, in this order. Section 14.2 of the format.

mod make;
mod multicast;
mod plan;

use std::net::SocketAddr;

use gelid_sys::multicast::Membership;
use rustix::net::{AddressFamily, SocketType};

use super::sk_opts::SocketOptions;
use super::socket_option::Values;
use super::tcp::Stream;

pub(super) use self::make::open_all;
pub(super) use self::plan::{Context, plan};

/// An internet socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Internet {
    /// Its inode at the dump.
    pub inode: u32,
    /// IPv4 or IPv6.
    pub family: AddressFamily,
    /// Stream, datagrams or raw.
    pub kind: SocketType,
    /// Number of its protocol.
    pub protocol: u32,
    /// What it is bound to.
    pub own: Option<SocketAddr>,
    /// What it does.
    pub role: Role,
    /// Interface of link-local addresses.
    pub interface: Option<String>,
    /// Options of the socket layer.
    pub options: SocketOptions,
    /// All other options, in the order in which they are set.
    pub values: Values,
    /// Multicast groups that it is in.
    pub memberships: Vec<Membership>,
    /// Directions that are shut down: 1 receiving, 2 sending.
    pub shutdown: u32,
    /// Bound to an address that the machine need not have, whatever the options say.
    pub absent: bool,
    /// User who owns it, unless that is the restorer.
    pub uid: Option<u32>,
}

/// What an internet socket does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Nothing, or datagrams to anybody.
    Alone,
    /// It listens, with this backlog.
    Listening(u32),
    /// Datagrams to somebody.
    Connected(SocketAddr),
    /// A connection with somebody.
    Stream(SocketAddr, Box<Stream>),
    /// It had a connection with somebody, which is to be over (`--tcp-close`).
    Parted(SocketAddr),
}

impl Internet {
    /// What it is called.
    fn protocol_name(&self) -> &'static str {
        match (self.kind, self.protocol) {
            (SocketType::RAW, _) => "raw",
            (SocketType::STREAM, plan::MPTCP) => "MPTCP",
            (SocketType::STREAM, _) => "TCP",
            (_, plan::UDPLITE) => "UDP-Lite",
            (_, plan::UDP) => "UDP",
            _ => "ICMP",
        }
    }

    /// What to call it in messages.
    pub(super) fn label(&self) -> String {
        let own = self.own.map(|own| format!(" {own}")).unwrap_or_default();
        format!("socket:[{}], {}{own}", self.inode, self.protocol_name())
    }

    /// A line about it.
    pub(super) fn describe(&self) -> String {
        let own = self.own.map(|own| format!(" {own}")).unwrap_or_default();
        let role = match &self.role {
            Role::Alone => String::new(),
            Role::Listening(backlog) => format!(", listening, backlog {backlog}"),
            Role::Connected(peer) => format!(", connected with {peer}"),
            Role::Stream(peer, stream) => format!(
                " to {peer}, {:?}, {} bytes received and {} sent",
                stream.state, stream.received, stream.sent
            ),
            Role::Parted(peer) => format!(" to {peer}, closed"),
        };
        format!("{} socket{own}{role}", self.protocol_name())
    }
}
