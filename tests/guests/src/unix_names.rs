//! Unix sockets with names: bound, listening, accepted, and those who send to them.
//!
//! `unix-bound`: paths, relative ones, names without a file, files that are gone. `unix-node`: mode and owner of the file.
//! `unix-listening`: connections accepted, waiting in their order, still to come. `unix-listening-abstract`: the same
//! without a file. `unix-lost-listener`: accepted by sockets that are closed since. `unix-many`: a server and its
//! children. `unix-outside`, `unix-waiting-outside`, `unix-sent-early`,
//! `unix-closed-early`, `unix-urgent`: what cannot be dumped. `unix-abroad`: sends to somebody else, whom the first
//! argument names.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, Kid, ensure, nap, reap, same, until, wait_blocked};
use crate::unix::{KINDS, now, pair, say, socket, talk};
use rustix::io::Errno;
use rustix::net::{
    SocketAddrUnix, SocketType, accept, bind, connect, getpeername, getsockname, listen,
};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("unix-bound", bound),
    Entry("unix-node", node),
    Entry("unix-listening", listening_path),
    Entry("unix-listening-abstract", listening_abstract),
    Entry("unix-lost-listener", lost_listener),
    Entry("unix-many", many),
    Entry("unix-outside", outside),
    Entry("unix-abroad", abroad),
    Entry("unix-waiting-outside", waiting_outside),
    Entry("unix-sent-early", sent_early),
    Entry("unix-closed-early", closed_early),
    Entry("unix-urgent", urgent),
];

/// What the kernel calls a socket.
pub(crate) fn name(socket: impl AsFd) -> Check<String> {
    let address = SocketAddrUnix::try_from(getsockname(socket)?)?;
    Ok(shown(&address))
}

/// What it calls the peer.
pub(crate) fn peer(socket: impl AsFd) -> Check<String> {
    let address = getpeername(socket)?.ok_or("no peer")?;
    Ok(shown(&SocketAddrUnix::try_from(address)?))
}

pub(crate) fn shown(address: &SocketAddrUnix) -> String {
    match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => String::from_utf8_lossy(path).into_owned(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    }
}

/// A name that nobody else has.
pub(crate) fn unique(word: &str) -> String {
    format!("gelid-{}-{word}", std::process::id())
}

fn bound(guest: &Guest) -> Check {
    std::env::set_current_dir(&guest.dir)?;
    fs::create_dir("deep")?;
    fs::create_dir("gone")?;
    let mut sockets: Vec<(SocketAddrUnix, OwnedFd)> = Vec::new();
    for kind in KINDS {
        let number = kind.as_raw();
        for address in [
            SocketAddrUnix::new(guest.path(&format!("full-{number}")))?,
            SocketAddrUnix::new(format!("relative-{number}"))?,
            SocketAddrUnix::new(format!("./deep/relative-{number}"))?,
            SocketAddrUnix::new(format!("deep/../dotted-{number}"))?,
            SocketAddrUnix::new(guest.path(&format!("gone/full-{number}")))?,
            SocketAddrUnix::new(format!("gone/relative-{number}"))?,
            SocketAddrUnix::new_abstract_name(unique(&format!("{number}\0zero")).as_bytes())?,
        ] {
            let socket = socket(kind)?;
            bind(&socket, &address)?;
            sockets.push((address, socket));
        }
        let automatic = socket(kind)?;
        bind(&automatic, &SocketAddrUnix::new_unnamed())?;
        let address = SocketAddrUnix::try_from(getsockname(&automatic)?)?;
        sockets.push((address, automatic));
    }
    fs::remove_dir_all("gone")?;
    // A file has the name now that a socket had.
    let replaced = socket(SocketType::DGRAM)?;
    let address = SocketAddrUnix::new(guest.path("replaced"))?;
    bind(&replaced, &address)?;
    fs::remove_file("replaced")?;
    fs::write("replaced", "a file")?;
    sockets.push((address, replaced));
    guest.hold()?;
    for (address, socket) in &sockets {
        same!("name", name(socket)?, shown(address));
        let gone = shown(address).contains("gone") || shown(address).contains("replaced");
        let datagrams = rustix::net::sockopt::socket_type(socket)? == SocketType::DGRAM;
        if datagrams && !gone {
            let client = self::socket(SocketType::DGRAM)?;
            connect(&client, address)?;
            talk(&shown(address), client, socket)?;
        }
    }
    ensure!(!guest.path("gone").exists(), "the folder is back");
    same!("the file", fs::read_to_string("replaced")?, "a file");
    Ok(())
}

fn node(guest: &Guest) -> Check {
    let path = guest.path("node");
    let socket = socket(SocketType::STREAM)?;
    bind(&socket, &SocketAddrUnix::new(&path)?)?;
    std::os::unix::fs::chown(&path, Some(12), Some(34))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4621))?;
    guest.hold()?;
    let meta = fs::symlink_metadata(&path)?;
    same!("mode", meta.mode() & 0o7777, 0o4621);
    same!("owner", (meta.uid(), meta.gid()), (12, 34));
    listen(&socket, 1)?;
    let client = self::socket(SocketType::STREAM)?;
    connect(&client, &SocketAddrUnix::new(&path)?)?;
    talk("hello", client, accept(&socket)?)
}

fn listening_path(guest: &Guest) -> Check {
    for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
        let path = guest.path(&format!("listen-{}", kind.as_raw()));
        bind(&socket(kind)?, &SocketAddrUnix::new(&path)?)?;
        fs::remove_file(&path)?;
    }
    listening(guest, |kind| {
        Ok(SocketAddrUnix::new(
            guest.path(&format!("listen-{}", kind.as_raw())),
        )?)
    })
}

fn listening_abstract(guest: &Guest) -> Check {
    listening(guest, |kind| {
        let name = unique(&kind.as_raw().to_string());
        Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
    })
}

fn listening(guest: &Guest, address: impl Fn(SocketType) -> Check<SocketAddrUnix>) -> Check {
    let kinds = [SocketType::STREAM, SocketType::SEQPACKET];
    let mut all = Vec::new();
    for kind in kinds {
        let address = address(kind)?;
        let listener = socket(kind)?;
        bind(&listener, &address)?;
        listen(&listener, 5)?;
        let connected = |client: OwnedFd| -> Check<OwnedFd> {
            connect(&client, &address)?;
            Ok(client)
        };
        let named = socket(kind)?;
        let own =
            SocketAddrUnix::new_abstract_name(unique(&format!("{}-c", kind.as_raw())).as_bytes())?;
        bind(&named, &own)?;
        let mut clients = vec![connected(named)?];
        let first = accept(&listener)?;
        clients.push(connected(socket(kind)?)?);
        let second = accept(&listener)?;
        say(&clients[0], "to the first")?;
        say(&second, "to the second client")?;
        // One whose client is gone, with something left to read.
        let gone = connected(socket(kind)?)?;
        let third = accept(&listener)?;
        say(&gone, "testament")?;
        drop(gone);
        // Three that wait.
        let waiting = [socket(kind)?, socket(kind)?, socket(kind)?];
        for client in [2, 0, 1] {
            connect(&waiting[client], &address)?;
        }
        all.push((address, listener, clients, [first, second, third], waiting));
    }
    guest.hold()?;
    for (address, listener, clients, accepted, waiting) in &all {
        for client in clients {
            same!("peer of a client", peer(client)?, shown(address));
        }
        for accepted in accepted {
            same!("name of an accepted one", name(accepted)?, shown(address));
        }
        ensure!(
            name(&clients[0])?.starts_with('@'),
            "the client has lost its name"
        );
        same!("peer of the first", peer(&accepted[0])?, name(&clients[0])?);
        same!("first", now(&accepted[0]), Ok("to the first".to_owned()));
        same!(
            "second",
            now(&clients[1]),
            Ok("to the second client".to_owned())
        );
        same!("third", now(&accepted[2]), Ok("testament".to_owned()));
        same!("end", now(&accepted[2]), Ok(String::new()));
        for (client, word) in waiting.iter().zip(["zero", "one", "two"]) {
            say(client, word)?;
        }
        for word in ["two", "zero", "one"] {
            same!(
                "accepted in order",
                now(accept(listener)?),
                Ok(word.to_owned())
            );
        }
        let late = socket(rustix::net::sockopt::socket_type(listener)?)?;
        connect(&late, address)?;
        talk("late", late, accept(listener)?)?;
    }
    backlog(&all[0].0, &all[0].1)
}

/// A backlog of 5 takes 6 connections.
fn backlog(address: &SocketAddrUnix, listener: &OwnedFd) -> Check {
    let mut clients = Vec::new();
    loop {
        let client = socket(rustix::net::sockopt::socket_type(listener)?)?;
        rustix::io::ioctl_fionbio(&client, true)?;
        match connect(&client, address) {
            Ok(()) => clients.push(client),
            Err(errno) => {
                same!("errno", errno, Errno::AGAIN);
                break;
            }
        }
    }
    same!("connections until the backlog is full", clients.len(), 6);
    Ok(())
}

fn lost_listener(guest: &Guest) -> Check {
    let mut all = Vec::new();
    let path = guest.path("lost");
    for address in [
        SocketAddrUnix::new_abstract_name(unique("lost").as_bytes())?,
        SocketAddrUnix::new(&path)?,
        SocketAddrUnix::new(guest.path("deleted"))?,
        SocketAddrUnix::new_abstract_name(unique("single").as_bytes())?,
    ] {
        let listener = socket(SocketType::STREAM)?;
        bind(&listener, &address)?;
        listen(&listener, 8)?;
        let count = if shown(&address).contains("single") {
            1
        } else {
            3
        };
        for index in 0..count {
            let client = socket(SocketType::STREAM)?;
            connect(&client, &address)?;
            let accepted = accept(&listener)?;
            say(&client, &format!("client {index}"))?;
            all.push((shown(&address), index, client, accepted));
        }
    }
    fs::remove_file(guest.path("deleted"))?;
    // One more whose client is gone.
    drop(std::mem::replace(
        &mut all[2].2,
        socket(SocketType::STREAM)?,
    ));
    guest.hold()?;
    for (at, (address, index, client, accepted)) in all.iter().enumerate() {
        same!("name", &name(accepted)?, address);
        same!("message", now(accepted), Ok(format!("client {index}")));
        if at == 2 {
            same!("end", now(accepted), Ok(String::new()));
            continue;
        }
        same!("peer", &peer(client)?, address);
        talk("back", accepted, client)?;
    }
    ensure!(path.exists(), "the file of the lost listener is gone");
    ensure!(!guest.path("deleted").exists(), "a deleted file is back");
    let client = socket(SocketType::STREAM)?;
    let refused = connect(&client, &SocketAddrUnix::new(&path)?);
    same!("connecting to it", refused, Err(Errno::CONNREFUSED));
    Ok(())
}

fn many(guest: &Guest) -> Check {
    let address = SocketAddrUnix::new(guest.path("server"))?;
    let listener = socket(SocketType::STREAM)?;
    bind(&listener, &address)?;
    listen(&listener, 16)?;
    let server = guest.fork("server", |_| {
        // One is served, one waits for the next question, and then the server blocks in accept.
        for _ in 0..9 {
            let client = accept(&listener)?;
            let mut buffer = [0; 64];
            loop {
                let (got, _) =
                    rustix::net::recv(&client, &mut buffer[..], rustix::net::RecvFlags::empty())?;
                if got == 0 {
                    break;
                }
                rustix::net::send(&client, &buffer[..got], rustix::net::SendFlags::NOSIGNAL)?;
            }
        }
        Ok(())
    })?;
    drop(listener);
    let gate = Gate::new()?;
    let ask = |address: &SocketAddrUnix, gate: &Gate, guest: &Guest| -> Check {
        let client = socket(SocketType::STREAM)?;
        connect(&client, address)?;
        gate.arrive()?;
        guest.wait();
        let mut buffer = [0; 64];
        say(&client, "question")?;
        let (got, _) =
            rustix::net::recv(&client, &mut buffer[..], rustix::net::RecvFlags::empty())?;
        same!("answer", &buffer[..got], b"question");
        Ok(())
    };
    let kids: Check<Vec<Kid>> = (0..8)
        .map(|index| {
            guest.fork(&format!("client{index}"), |guest| {
                ask(&address, &gate, guest)
            })
        })
        .collect();
    gate.wait(8)?;
    wait_blocked(server.pid, libc::SYS_recvfrom)?;
    guest.hold()?;
    for kid in kids? {
        kid.join(guest)?;
    }
    let last = socket(SocketType::STREAM)?;
    connect(&last, &address)?;
    drop(last);
    server.join(guest)
}

/// A process that is no part of the tree, and does `body` until `go` is there.
pub(crate) fn stranger(guest: &Guest, body: impl FnOnce() -> Check) -> Check {
    let middle = guest.fork("middle", |guest| {
        guest.fork("stranger", |guest| {
            os!(libc::setsid())?;
            body()?;
            fs::write(guest.path("stranger"), "")?;
            // Nobody ends it if the test fails, or is over before it looks again.
            while guest.waiting() && guest.dir.exists() {
                nap(Duration::from_millis(5));
            }
            Ok(())
        })?;
        Ok(())
    })?;
    same!("status", reap(middle.pid)?, 0);
    until("the stranger", || Ok(guest.path("stranger").exists()))
}

fn outside(guest: &Guest) -> Check {
    let (own, theirs) = pair(SocketType::STREAM)?;
    stranger(guest, || Ok(say(&theirs, "hello")?))?;
    drop(theirs);
    guest.hold()?;
    same!("what the stranger said", now(&own), Ok("hello".to_owned()));
    Ok(())
}

fn abroad(guest: &Guest) -> Check {
    let known = guest.args.first();
    let path = known.map_or_else(|| guest.path("strange"), PathBuf::from);
    let address = SocketAddrUnix::new(path)?;
    if known.is_none() {
        let address = address.clone();
        stranger(guest, move || {
            let socket = socket(SocketType::DGRAM)?;
            bind(&socket, &address)?;
            std::mem::forget(socket);
            Ok(())
        })?;
    }
    let own = socket(SocketType::DGRAM)?;
    connect(&own, &address)?;
    say(&own, "before")?;
    guest.hold()?;
    same!("peer", peer(&own)?, shown(&address));
    if known.is_some() {
        say(&own, "after")?;
    }
    Ok(())
}

fn waiting_outside(guest: &Guest) -> Check {
    let address = SocketAddrUnix::new(guest.path("strange"))?;
    let (kind, path) = (SocketType::STREAM, address.clone());
    stranger(guest, move || {
        let listener = socket(kind)?;
        bind(&listener, &path)?;
        listen(&listener, 4)?;
        std::mem::forget(listener);
        Ok(())
    })?;
    let client = socket(kind)?;
    connect(&client, &address)?;
    guest.hold()?;
    same!("peer", peer(&client)?, shown(&address));
    Ok(())
}

/// A socket that listens, and a client that it has not accepted.
fn meeting(guest: &Guest) -> Check<(OwnedFd, OwnedFd)> {
    let address = SocketAddrUnix::new(guest.path("meeting"))?;
    let (listener, client) = (socket(SocketType::STREAM)?, socket(SocketType::STREAM)?);
    bind(&listener, &address)?;
    listen(&listener, 4)?;
    connect(&client, &address)?;
    Ok((listener, client))
}

fn sent_early(guest: &Guest) -> Check {
    let (listener, client) = meeting(guest)?;
    say(&client, "early")?;
    guest.hold()?;
    same!("message", now(accept(&listener)?), Ok("early".to_owned()));
    Ok(())
}

fn closed_early(guest: &Guest) -> Check {
    let (listener, client) = meeting(guest)?;
    drop(client);
    guest.hold()?;
    same!("end", now(accept(&listener)?), Ok(String::new()));
    Ok(())
}

fn urgent(guest: &Guest) -> Check {
    let (one, other) = pair(SocketType::STREAM)?;
    let sent = os!(libc::send(
        one.as_raw_fd(),
        c"!".as_ptr().cast(),
        1,
        libc::MSG_OOB
    ))?;
    same!("sent", sent, 1);
    guest.hold()?;
    let mut byte = 0_u8;
    let got = os!(libc::recv(
        other.as_raw_fd(),
        (&raw mut byte).cast(),
        1,
        libc::MSG_OOB
    ))?;
    same!("urgent byte", (got, byte), (1, b'!'));
    Ok(())
}
