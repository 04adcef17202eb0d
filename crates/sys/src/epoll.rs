//! `epoll_ctl(2)` on tapes: its operation and the layout of its event.

/// Adds a file to a set.
pub const EPOLL_CTL_ADD: i32 = libc::EPOLL_CTL_ADD;

/// A watch ends its interest with the first event.
pub const EPOLLONESHOT: u32 = libc::EPOLLONESHOT.cast_unsigned();

/// Flags of a watch, as opposed to events: edge-triggered, one-shot, exclusive, keeps the machine awake.
pub const FLAGS: u32 =
    (libc::EPOLLET | libc::EPOLLONESHOT | libc::EPOLLEXCLUSIVE | libc::EPOLLWAKEUP).cast_unsigned();

/// Bytes of an event.
pub const EVENT_SIZE: usize = size_of::<libc::epoll_event>();

// On this machine alone there is no gap between the two.
const _: () = assert!(EVENT_SIZE == 12);

/// `struct epoll_event`.
#[must_use]
pub fn event(events: u32, data: u64) -> [u8; EVENT_SIZE] {
    let mut bytes = [0; EVENT_SIZE];
    bytes[..4].copy_from_slice(&events.to_ne_bytes());
    bytes[4..].copy_from_slice(&data.to_ne_bytes());
    bytes
}
