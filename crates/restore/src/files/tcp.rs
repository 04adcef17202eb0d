//! Connections of TCP: made in repair mode, without a packet, and let go when their tree is. Section 14.3 of the format.

mod forge;
mod make;
mod plan;
mod resume;

use gelid_sys::tcp::Window;

pub(super) use self::make::Making;
pub(super) use self::plan::Network;
pub use self::plan::State;

/// A connection, as its stream is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its state.
    pub state: State,
    /// Bytes received and not read.
    pub received: u32,
    /// Sequence number behind them.
    pub received_end: u32,
    /// Bytes written and not acknowledged.
    pub sent: u32,
    /// How many of them were never sent.
    pub unsent: u32,
    /// Sequence number behind them.
    pub sent_end: u32,
    /// What was negotiated.
    pub negotiated: gelid_sys::tcp::Negotiated,
    /// Clock of the time stamps.
    pub timestamp: Option<u32>,
    /// Both windows.
    pub window: Option<Window>,
    /// An error waits to be told.
    pub error: bool,
}
