//! Keeps packets away from connections while the tree that has them is not there.
//!
//! **Model.** A [`Lock`] is rules of the firewall that drop every packet of some connections in both directions, but
//! those that carry a [`MARK`]. The rules are CRIU's, so that either program lifts what the other has set. A lock goes
//! away when it is dropped, also if its process is killed: a shell of its own waits for that. What was [kept](Lock::keep)
//! is lifted by [`unlock`].
//!
//! **Limitations.** The network namespace of the caller. Without the shell (it was killed too) the rules stay.
//!
//! ```no_run
//! use gelid_netlock::{Connection, Lock, Method};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = Connection::new("192.0.2.1:80".parse()?, "192.0.2.7:4711".parse()?);
//! let lock = Lock::set(Method::Nftables, "5f2c", &[connection])?;
//! drop(lock);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod keeper;
mod rules;

use std::net::{IpAddr, SocketAddr};

pub use self::keeper::Error;
use self::keeper::Keeper;

/// What packets carry that are let through.
pub const MARK: u32 = 0xC114;

/// Who keeps packets away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// `iptables-restore(8)` and its relative for IPv6.
    #[default]
    Iptables,
    /// `nft(8)`.
    Nftables,
    /// The caller, if anybody.
    Skip,
}

impl Method {
    /// Its number in images.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Iptables => 0,
            Self::Nftables => 1,
            Self::Skip => 2,
        }
    }

    /// The one with a number; a missing one is `iptables`.
    #[must_use]
    pub fn numbered(number: Option<u32>) -> Option<Self> {
        let all = [Self::Iptables, Self::Nftables, Self::Skip];
        let number = number.unwrap_or_default();
        all.into_iter().find(|method| method.number() == number)
    }
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection {
    own: SocketAddr,
    peer: SocketAddr,
}

impl Connection {
    /// The connection of a socket. IPv4 that is spoken by a socket of IPv6 is IPv4.
    #[must_use]
    pub fn new(own: SocketAddr, peer: SocketAddr) -> Self {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self {
            own: plain(own),
            peer: plain(peer),
        }
    }

    fn is_v4(&self) -> bool {
        matches!(self.own.ip(), IpAddr::V4(_))
    }
}

/// Rules that keep packets away. Dropped, it lifts them.
#[derive(Debug)]
#[must_use = "dropped, it lifts the rules"]
pub struct Lock(Vec<Keeper>);

impl Lock {
    /// Keeps packets of these connections away. `run` is the name of the dump, of letters, digits and hyphens.
    ///
    /// # Errors
    ///
    /// [`Error`]: a program is missing or has failed. There are no rules then.
    pub fn set(method: Method, run: &str, connections: &[Connection]) -> Result<Self, Error> {
        let mut keepers = Vec::new();
        for rules in rules::of(method, run, connections) {
            let keeper = Keeper::start(&rules)?;
            keeper.set(&rules)?;
            keepers.push(keeper);
        }
        Ok(Self(keepers))
    }

    /// Leaves the rules where they are.
    ///
    /// # Errors
    ///
    /// [`Error::Keeper`]: they may be gone.
    pub fn keep(self) -> Result<(), Error> {
        self.0.into_iter().try_for_each(Keeper::keep)
    }
}

/// Lifts rules, as far as there are any.
///
/// # Errors
///
/// [`Error`]: a program is missing or could not be started.
pub fn unlock(method: Method, run: &str, connections: &[Connection]) -> Result<(), Error> {
    let all = rules::of(method, run, connections).into_iter();
    all.map(|rules| Keeper::start(&rules))
        .try_for_each(|keeper| {
            drop(keeper?);
            Ok(())
        })
}

/// Whether a method would work, as far as that can be told without a rule.
///
/// # Errors
///
/// [`Error`]: why not.
pub fn check(method: Method) -> Result<(), Error> {
    match method {
        Method::Skip => Ok(()),
        Method::Iptables => has("iptables-restore").and_then(|()| has("ip6tables-restore")),
        Method::Nftables => {
            let port = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let some = Connection::new(port(1), port(2));
            let mut rules = rules::of(method, "check", &[some]).into_iter();
            rules.try_for_each(|rules| {
                keeper::run(rules.program, &["-c", "-f", "-"], rules.set.as_bytes())
            })
        }
    }
}

/// Has a program of the firewall read `input`, in the network namespace of the calling thread.
///
/// # Errors
///
/// [`Error`]: it is missing, could not be started, or has not taken it.
pub fn feed(program: &'static str, arguments: &[&str], input: &[u8]) -> Result<(), Error> {
    keeper::run(program, arguments, input)
}

/// Whether a program of the firewall is there.
///
/// # Errors
///
/// [`Error`]: it is not, or does not run.
pub fn has(program: &'static str) -> Result<(), Error> {
    keeper::run(program, &["--version"], b"")
}

#[cfg(test)]
mod tests;
