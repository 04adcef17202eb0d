//! What is not dumped of internet sockets, and what to do about it.

use super::super::Name;

/// Something about an internet socket that could not be restored faithfully.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InetRefusal {
    /// Neither TCP, UDP, UDP-Lite, ICMP nor raw.
    #[error("which speaks protocol {protocol}; that is not dumped yet: close it first")]
    Protocol {
        /// Number of the protocol.
        protocol: u32,
    },
    /// A connection, but none is expected.
    #[error(
        "a TCP connection from {own} to {peer}: use --tcp-established, or --tcp-close to have it closed on restore"
    )]
    Established {
        /// Its own address.
        own: std::net::SocketAddr,
        /// That of its peer.
        peer: std::net::SocketAddr,
    },
    /// Connections that nobody has accepted.
    #[error(
        "where {count} connection(s) wait to be accepted: let the program accept them first, or use \
         --skip-in-flight to have them dropped"
    )]
    InFlight {
        /// How many.
        count: u32,
    },
    /// A datagram that is not complete.
    #[error(
        "where a datagram waits for its end (UDP_CORK, MSG_MORE), which nobody can look at: let the program end it \
         first"
    )]
    Corked,
    /// Urgent data.
    #[error(
        "in which urgent data (MSG_OOB) wait to be read, which images cannot tell: let the program read them first"
    )]
    Urgent,
    /// An error, or notifications of the kernel.
    #[error(
        "which has an error or notifications to tell (MSG_ERRQUEUE), which a look would take away: let the program ask \
         for them first"
    )]
    Error,
    /// Something between the socket and TCP.
    #[error(
        "whose stream goes through {name}, which keeps state of its own: run the program without it"
    )]
    Upper {
        /// Its name.
        name: Name,
    },
    /// A connection of MPTCP.
    #[error(
        "a connection of MPTCP, which is not dumped yet: run the program with plain TCP (GODEBUG=multipathtcp=0)"
    )]
    Mptcp,
    /// The kernel tells another story each time.
    #[error("whose queues change while they are read: keep packets away with --network-lock")]
    Unsteady,
    /// Its network namespace is another.
    #[error(
        "which was made in another network namespace; these are not dumped yet: make it after the change of namespace"
    )]
    Namespace,
}
