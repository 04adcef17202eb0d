//! CRIU's RPC, as container runtimes speak it: protobuf messages over a socket of packets.
//!
//! **Model.** A [`Channel`] is one end of an `AF_UNIX` `SOCK_SEQPACKET` connection; each packet is one message
//! ([`messages`]). [`serve`] answers the requests on a channel in the order that CRIU's clients count on, and asks a
//! [`Handler`] to do what they ask for. While a request is under way, a [`Notifier`] tells the client of moments, and
//! waits for its consent. [`words`] turns the options of a request into those of the command line, so that both are
//! one and the same from there on.
//!
//! **Limitations.** Nothing here dumps or restores. Peers are hostile: no packet is larger than [`Channel::LIMIT`],
//! and no message makes this crate panic.
//!
//! ```
//! use gelid_rpc::messages::{RequestKind, Request};
//! use prost::Message;
//! let version = Request::decode(&[0x08, 0x0a][..]).unwrap();
//! assert_eq!(version.kind(), Some(RequestKind::Version));
//! ```
#![forbid(unsafe_code)]

mod channel;
pub mod messages;
mod notify;
mod serve;
mod words;

pub use channel::{Channel, Error, Peer};
pub use notify::Notifier;
pub use serve::{Answer, Failure, Handler, serve};
pub use words::{Connection, Refusal, Words, words};
