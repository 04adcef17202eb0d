//! Connections that are looked at and made without a packet: `TCP_REPAIR` and its relatives of `tcp(7)`.
//!
//! A socket in repair tells its sequence numbers and queues, is connected by word alone, and vanishes silently when it
//! is closed. All of it takes `CAP_NET_ADMIN`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use crate::sockopt::{get, set};
use crate::syscall::call;

const TCP: i32 = libc::SOL_TCP;
const MAXSEG: i32 = 2;
const INFO: i32 = 11;
const REPAIR: i32 = 19;
const REPAIR_QUEUE: i32 = 20;
const QUEUE_SEQ: i32 = 21;
const REPAIR_OPTIONS: i32 = 22;
const TIMESTAMP: i32 = 24;
const REPAIR_WINDOW: i32 = 29;

/// What is negotiated when a connection is made; bits of [`Info::options`].
pub mod negotiated {
    /// Time stamps.
    pub const TIMESTAMPS: u32 = 1;
    /// Selective acknowledgements.
    pub const SACK: u32 = 2;
    /// Window scales.
    pub const WSCALE: u32 = 4;
}

/// How a socket comes into repair and out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Into it. `SO_REUSEADDR` is lost with that.
    On,
    /// Out of it; the peer is asked where it stands.
    Off,
    /// Out of it, without a packet.
    OffSilently,
}

/// A queue of a socket in repair, which is then read and written instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// None: neither works.
    None,
    /// What was received.
    Receive,
    /// What was sent.
    Send,
}

/// The part of `struct tcp_info` that is wanted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// State: 1 `ESTABLISHED` to 11 `CLOSING`.
    pub state: u8,
    /// What was negotiated.
    pub options: u32,
    /// Scale of the windows that the peer names.
    pub snd_wscale: u8,
    /// Scale of the own ones.
    pub rcv_wscale: u8,
    /// Of one that listens: connections that wait to be accepted.
    pub waiting: u32,
    /// Of one that listens: how many may wait.
    pub backlog: u32,
}

/// Both windows, `struct tcp_repair_window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub struct Window {
    pub snd_wl1: u32,
    pub snd_wnd: u32,
    pub max_window: u32,
    pub rcv_wnd: u32,
    pub rcv_wup: u32,
}

/// What a connection was negotiated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Negotiated {
    /// Largest segment.
    pub mss: u32,
    /// Scales of the windows to send and to receive.
    pub wscale: Option<(u8, u8)>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Time stamps.
    pub timestamps: bool,
}

/// State and options of a TCP socket.
///
/// # Errors
///
/// `EOPNOTSUPP` or `ENOPROTOOPT` if it is none.
pub fn info(socket: impl AsFd) -> Result<Info> {
    let bytes = get(socket, TCP, INFO, 104)?;
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    Ok(Info {
        state: byte(0),
        options: byte(5).into(),
        snd_wscale: byte(6) & 15,
        rcv_wscale: byte(6) >> 4,
        waiting: word(&bytes, 24),
        backlog: word(&bytes, 28),
    })
}

/// Brings a socket into repair, or out of it.
///
/// # Errors
///
/// `EPERM` without the right, or for one that listens.
pub fn repair(socket: impl AsFd, repair: Repair) -> Result<()> {
    let value = match repair {
        Repair::On => 1,
        Repair::Off => 0,
        Repair::OffSilently => -1i32,
    };
    set(socket, TCP, REPAIR, &value.to_ne_bytes())
}

/// Whether a socket is in repair. No memory is asked for.
pub fn is_in_repair(socket: BorrowedFd<'_>) -> bool {
    let (mut value, mut len) = (0_i32, size_of::<i32>() as u32);
    let args = (&raw mut value, &raw mut len);
    // SAFETY: the kernel writes a number, and its length.
    let told = unsafe { libc::getsockopt(socket.as_raw_fd(), TCP, REPAIR, args.0.cast(), args.1) };
    told == 0 && value != 0
}

/// Chooses the queue that the other calls are about.
pub fn choose(socket: impl AsFd, queue: Queue) -> Result<()> {
    let value: u32 = match queue {
        Queue::None => 0,
        Queue::Receive => 1,
        Queue::Send => 2,
    };
    set(socket, TCP, REPAIR_QUEUE, &value.to_ne_bytes())
}

/// The sequence number behind the chosen queue.
pub fn sequence(socket: impl AsFd) -> Result<u32> {
    value(socket, QUEUE_SEQ)
}

/// Sets it, of a socket that is not connected yet.
pub fn set_sequence(socket: impl AsFd, number: u32) -> Result<()> {
    set(socket, TCP, QUEUE_SEQ, &number.to_ne_bytes())
}

/// The largest segment that was negotiated, of a socket in repair.
pub fn max_segment(socket: impl AsFd) -> Result<u32> {
    value(socket, MAXSEG)
}

/// The clock of the time stamps.
pub fn timestamp(socket: impl AsFd) -> Result<u32> {
    value(socket, TIMESTAMP)
}

/// Sets the clock of the time stamps, of a socket in repair.
pub fn set_timestamp(socket: impl AsFd, time: u32) -> Result<()> {
    set(socket, TCP, TIMESTAMP, &time.to_ne_bytes())
}

/// The windows of a socket in repair.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 4.8.
pub fn window(socket: impl AsFd) -> Result<Window> {
    let bytes = get(socket, TCP, REPAIR_WINDOW, 20)?;
    match bytes.len() {
        20 => Ok(Window {
            snd_wl1: word(&bytes, 0),
            snd_wnd: word(&bytes, 4),
            max_window: word(&bytes, 8),
            rcv_wnd: word(&bytes, 12),
            rcv_wup: word(&bytes, 16),
        }),
        _ => Err(Errno::BADMSG),
    }
}

/// Sets the windows of a connected socket in repair.
///
/// # Errors
///
/// `EINVAL` if they do not fit the sequence numbers.
pub fn set_window(socket: impl AsFd, window: Window) -> Result<()> {
    let Window {
        snd_wl1,
        snd_wnd,
        max_window,
        rcv_wnd,
        rcv_wup,
    } = window;
    let words = [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup];
    set(
        socket,
        TCP,
        REPAIR_WINDOW,
        words.map(u32::to_ne_bytes).as_flattened(),
    )
}

/// Sets what was negotiated, of a connected socket in repair that nothing was written to yet.
pub fn negotiate(socket: impl AsFd, negotiated: Negotiated) -> Result<()> {
    // Pairs of `struct tcp_repair_opt`, numbered as in a segment.
    let mut words = vec![[2, negotiated.mss]];
    if let Some((send, receive)) = negotiated.wscale {
        words.push([3, u32::from(send) | u32::from(receive) << 16]);
    }
    if negotiated.sack {
        words.push([4, 0]);
    }
    if negotiated.timestamps {
        words.push([8, 0]);
    }
    let words = words
        .as_flattened()
        .iter()
        .flat_map(|word| word.to_ne_bytes());
    let bytes: Vec<u8> = words.collect();
    set(socket, TCP, REPAIR_OPTIONS, &bytes)
}

/// Bytes that were received and not read: `SIOCINQ`.
pub fn unread(socket: impl AsFd) -> Result<u32> {
    const SIOCINQ: usize = 0x541b;
    amount(socket, SIOCINQ)
}

/// Bytes that were written and not acknowledged, of any socket: `SIOCOUTQ`. An end of the stream counts as one.
pub fn unacknowledged(socket: impl AsFd) -> Result<u32> {
    const SIOCOUTQ: usize = 0x5411;
    amount(socket, SIOCOUTQ)
}

/// Those of them that were not sent: `SIOCOUTQNSD`.
pub fn unsent(socket: impl AsFd) -> Result<u32> {
    const SIOCOUTQNSD: usize = 0x894b;
    amount(socket, SIOCOUTQNSD)
}

fn amount(socket: impl AsFd, request: usize) -> Result<u32> {
    let mut amount = 0i32;
    let fd = socket.as_fd().as_raw_fd() as usize;
    let args = [fd, request, &raw mut amount as usize, 0, 0, 0];
    // SAFETY: the requests used here make the kernel write one `int`.
    unsafe { call(libc::SYS_ioctl as usize, args) }?;
    u32::try_from(amount).map_err(|_| Errno::BADMSG)
}

fn value(socket: impl AsFd, name: i32) -> Result<u32> {
    Ok(word(&get(socket, TCP, name, 4)?, 0))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn one_that_listens_tells_who_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = info(&listener).unwrap();
        assert_eq!((seen.state, seen.waiting, seen.backlog), (10, 0, 128));
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(info(&listener).unwrap().waiting, 1);
    }

    #[test]
    fn a_connection_is_made_by_word_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"unread").unwrap();
        if repair(&client, Repair::On) == Err(Errno::PERM) {
            println!("skipped: no CAP_NET_ADMIN");
            return;
        }
        assert_eq!(
            (unread(&client), unacknowledged(&client), unsent(&client)),
            (Ok(6), Ok(0), Ok(0))
        );
        choose(&client, Queue::Send).unwrap();
        let sent = sequence(&client).unwrap();
        choose(&client, Queue::Receive).unwrap();
        let received = sequence(&client).unwrap();
        let (seen, window) = (info(&client).unwrap(), window(&client).unwrap());
        let (mss, clock) = (max_segment(&client).unwrap(), timestamp(&client).unwrap());
        let (own, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        drop(client);

        let kind = rustix::net::SocketType::STREAM;
        let again = rustix::net::socket(rustix::net::AddressFamily::INET, kind, None).unwrap();
        repair(&again, Repair::On).unwrap();
        choose(&again, Queue::Send).unwrap();
        set_sequence(&again, sent).unwrap();
        choose(&again, Queue::Receive).unwrap();
        set_sequence(&again, received - 6).unwrap();
        rustix::net::bind(&again, &own).unwrap();
        rustix::net::connect(&again, &peer).unwrap();
        let scales = (seen.snd_wscale, seen.rcv_wscale);
        negotiate(
            &again,
            Negotiated {
                mss,
                wscale: (seen.options & negotiated::WSCALE != 0).then_some(scales),
                sack: seen.options & negotiated::SACK != 0,
                timestamps: seen.options & negotiated::TIMESTAMPS != 0,
            },
        )
        .unwrap();
        set_timestamp(&again, clock).unwrap();
        assert_eq!(rustix::io::write(&again, b"unread"), Ok(6));
        set_window(&again, window).unwrap();
        choose(&again, Queue::None).unwrap();
        repair(&again, Repair::Off).unwrap();
        client = again.into();
        let mut buffer = [0; 6];
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"unread");
        client.write_all(b"on").unwrap();
        server.read_exact(&mut buffer[..2]).unwrap();
        assert_eq!(&buffer[..2], b"on");
        let now = info(&client).unwrap();
        assert_eq!(
            (now.options & 7, now.snd_wscale, now.rcv_wscale),
            (seen.options & 7, seen.snd_wscale, seen.rcv_wscale)
        );
    }
}
