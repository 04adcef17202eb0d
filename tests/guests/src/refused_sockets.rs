//! Sockets, and what is on its way through them, that a dump refuses; the guest finds that nothing was disturbed.
//!
//! `refused-mptcp`, `refused-ktls`: connections that are more than TCP. `refused-notices`: of one that has something to
//! tell of what it has sent. `refused-family`: of a family that is not dumped. `refused-socket-mapped`: mapped.
//! `refused-renamed`: bound to a file with another name by now. `refused-pidfd-in-flight`, `refused-lock-in-flight`.
//! `refused-mixed-pipe`: bytes before packets.

use crate::Entry;
use crate::inet::{MPTCP, TCP, address, bound, own, set, set_bytes, socket};
use crate::os::{PAGE, os};
use crate::protocol::{Check, Failure, Guest, ensure, same, until};
use crate::tcp_connections::firewall;
use crate::unix_rights::{give, take_one};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, accept, connect, listen, recv, send};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("refused-mptcp", mptcp),
    Entry("refused-ktls", kernel_tls),
    Entry("refused-notices", notices),
    Entry("refused-family", family),
    Entry("refused-socket-mapped", mapped),
    Entry("refused-renamed", renamed),
    Entry("refused-pidfd-in-flight", pidfd_in_flight),
    Entry("refused-lock-in-flight", lock_in_flight),
    Entry("refused-mixed-pipe", mixed_pipe),
];

const STREAM: SocketType = SocketType::STREAM;

/// Both ends of a connection.
fn pair(protocol: u32) -> Check<[OwnedFd; 2]> {
    firewall()?;
    let listener = bound(STREAM, protocol, own())?;
    listen(&listener, 1)?;
    let client = socket(AddressFamily::INET, STREAM, protocol)?;
    connect(&client, &address(&listener)?)?;
    Ok([client, accept(&listener)?])
}

/// What one says, the other hears.
fn talk([one, other]: &[OwnedFd; 2]) -> Check {
    let mut buffer = [0; 16];
    for (from, to) in [(one, other), (other, one)] {
        send(from, b"hello", SendFlags::NOSIGNAL)?;
        let (got, _) = recv(to, &mut buffer[..], rustix::net::RecvFlags::empty())?;
        same!("heard", &buffer[..got], b"hello");
    }
    Ok(())
}

fn mptcp(guest: &Guest) -> Check {
    let ends = pair(MPTCP)?;
    talk(&ends)?;
    guest.hold()?;
    talk(&ends)
}

fn kernel_tls(guest: &Guest) -> Check {
    const TCP_ULP: i32 = 31;
    let ends = pair(TCP)?;
    if set_bytes(&ends[0], libc::SOL_TCP, TCP_ULP, b"tls").is_err() {
        return Err(Failure::skip("the kernel has no TLS"));
    }
    // As long as it has no key, it sends what it is given.
    guest.hold()?;
    talk(&ends)
}

fn notices(guest: &Guest) -> Check {
    /// Of what is sent, made by software.
    const TIMES: i32 = 2 | 16;
    let ends = pair(TCP)?;
    set(&ends[0], libc::SOL_SOCKET, libc::SO_TIMESTAMPING, TIMES)?;
    talk(&ends)?;
    let tells = || {
        let mut fds = [PollFd::from_borrowed_fd(
            ends[0].as_fd(),
            PollFlags::empty(),
        )];
        poll(&mut fds, Some(&Timespec::default()))?;
        Ok(fds[0].revents().contains(PollFlags::ERR))
    };
    until("a notice", tells)?;
    guest.hold()?;
    ensure!(tells()?, "the notice is gone");
    talk(&ends)
}

fn family(guest: &Guest) -> Check {
    // The kernel's cryptography, XDP, keys of IPsec, Bluetooth.
    let families = [
        (38, SocketType::SEQPACKET, 0),
        (44, SocketType::RAW, 0),
        (15, SocketType::RAW, 2),
    ];
    let made = families
        .map(|(family, kind, protocol)| socket(AddressFamily::from_raw(family), kind, protocol));
    let Some(socket) = made.into_iter().find_map(Result::ok) else {
        return Err(Failure::skip("the kernel has no such families"));
    };
    guest.hold()?;
    rustix::net::sockopt::socket_type(&socket)?;
    Ok(())
}

fn mapped(guest: &Guest) -> Check {
    let socket = socket(AddressFamily::INET, STREAM, TCP)?;
    // SAFETY: a new mapping, of which nobody has a reference.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(Failure::skip("sockets of TCP cannot be mapped"));
    }
    guest.hold()?;
    os!(libc::munmap(at, PAGE))?;
    Ok(())
}

fn renamed(guest: &Guest) -> Check {
    let (old, new) = (guest.path("old"), guest.path("new"));
    let listener = std::os::unix::net::UnixListener::bind(&old)?;
    fs::rename(&old, &new)?;
    guest.hold()?;
    let _client = std::os::unix::net::UnixStream::connect(&new)?;
    listener.accept()?;
    Ok(())
}

fn pidfd_in_flight(guest: &Guest) -> Check {
    let (one, other) = crate::unix::pair(SocketType::DGRAM)?;
    let own = rustix::process::getpid();
    let fd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty())?;
    give(&one, "pidfd", &[fd.as_fd()])?;
    drop(fd);
    guest.hold()?;
    let fd = take_one("pidfd", &other)?;
    let null = std::ptr::null::<libc::siginfo_t>();
    os!(libc::syscall(
        libc::SYS_pidfd_send_signal,
        fd.as_raw_fd(),
        0,
        null,
        0
    ))?;
    Ok(())
}

fn lock_in_flight(guest: &Guest) -> Check {
    use rustix::fs::{FlockOperation::NonBlockingLockExclusive, flock};
    let (one, other) = crate::unix::pair(SocketType::DGRAM)?;
    let path = guest.path("locked");
    let file = File::create(&path)?;
    flock(&file, NonBlockingLockExclusive)?;
    give(&one, "lock", &[file.as_fd()])?;
    drop(file);
    guest.hold()?;
    let again = File::open(&path)?;
    let locked = || flock(&again, NonBlockingLockExclusive);
    same!("lock", locked(), Err(Errno::WOULDBLOCK));
    drop(take_one("lock", &other)?);
    same!("lock", locked(), Ok(()));
    Ok(())
}

fn mixed_pipe(guest: &Guest) -> Check {
    let (reader, writer) = rustix::pipe::pipe()?;
    rustix::io::write(&writer, b"bytes, ")?;
    let flags = rustix::fs::fcntl_getfl(&writer)? | rustix::fs::OFlags::DIRECT;
    rustix::fs::fcntl_setfl(&writer, flags)?;
    rustix::io::write(&writer, b"a packet")?;
    guest.hold()?;
    drop(writer);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text)?;
    same!("text", text, "bytes, a packet");
    Ok(())
}
