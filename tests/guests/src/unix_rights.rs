//! Descriptors in flight between Unix sockets.
//!
//! `unix-rights`: of every kind of file, some of which nobody else has. `unix-rights-most`: as many as a message can carry.
//! `unix-rights-stream`: between the bytes of a
//! stream. `unix-rights-sockets`: sockets in the queues of sockets, in their own, with queues of their own.
//! `unix-rights-between`: sent by one task, to be received by another.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, ensure, same};
use crate::unix::{now, pair, say, socket, talk};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg,
};
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("unix-rights", rights),
    Entry("unix-rights-most", most),
    Entry("unix-rights-stream", stream),
    Entry("unix-rights-sockets", sockets),
    Entry("unix-rights-between", between),
];

/// As many descriptors as the guests send at once.
const SPACE: usize = rustix::cmsg_space!(ScmRights(253));

pub(crate) fn give(socket: impl AsFd, text: &str, files: &[BorrowedFd<'_>]) -> Check {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(
        control.push(SendAncillaryMessage::ScmRights(files)),
        "no room"
    );
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(
        socket,
        &[IoSlice::new(text.as_bytes())],
        &mut control,
        flags,
    )?;
    Ok(())
}

/// A message and its descriptors.
pub(crate) fn take(socket: impl AsFd) -> Result<(String, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 256];
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut control,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    )?;
    let files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let files = files.collect();
    Ok((
        String::from_utf8_lossy(&buffer[..got.bytes]).into_owned(),
        files,
    ))
}

/// Exactly one message with exactly one descriptor.
pub(crate) fn take_one(what: &str, socket: impl AsFd) -> Check<OwnedFd> {
    let (text, mut files) = take(socket)?;
    same!("text", text, what);
    same!(format!("descriptors with {what}"), files.len(), 1);
    files.pop().ok_or_else(|| "none".into())
}

fn rights(guest: &Guest) -> Check {
    let (one, other) = pair(SocketType::DGRAM)?;
    let path = guest.path("file");
    fs::write(&path, "0123456789")?;
    let mut file = OpenOptions::new().read(true).append(true).open(&path)?;
    file.seek(SeekFrom::Start(4))?;
    let kept = file.try_clone()?;
    let gone = guest.path("gone");
    let mut deleted = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&gone)?;
    deleted.write_all(b"ghost")?;
    fs::remove_file(&gone)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    rustix::io::write(&writer, b"in the pipe")?;
    let event = rustix::event::eventfd(42, rustix::event::EventfdFlags::empty())?;
    let folder = File::open(&guest.dir)?;
    let memory = File::from(rustix::fs::memfd_create("rights", MemfdFlags::CLOEXEC)?);
    (&memory).write_all(b"in memory")?;
    for (what, file) in [
        ("file", file.as_fd()),
        ("deleted", deleted.as_fd()),
        ("reader", reader.as_fd()),
        ("writer", writer.as_fd()),
        ("event", event.as_fd()),
        ("folder", folder.as_fd()),
        ("memory", memory.as_fd()),
    ] {
        give(&one, what, &[file])?;
    }
    drop((file, deleted, reader, writer, event, folder, memory));
    guest.hold()?;
    let mut file = File::from(take_one("file", &other)?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    same!("rest of the file", text, "456789");
    // One description behind both.
    same!("position of the other", (&kept).stream_position()?, 10);
    let mut deleted = File::from(take_one("deleted", &other)?);
    deleted.seek(SeekFrom::Start(0))?;
    text.clear();
    deleted.read_to_string(&mut text)?;
    same!("the deleted file", text, "ghost");
    let (reader, writer) = (take_one("reader", &other)?, take_one("writer", &other)?);
    rustix::io::write(&writer, b" and more")?;
    drop(writer);
    text.clear();
    File::from(reader).read_to_string(&mut text)?;
    same!("the pipe", text, "in the pipe and more");
    let event = take_one("event", &other)?;
    let mut count = [0; 8];
    rustix::io::read(&event, &mut count)?;
    same!("the counter", u64::from_ne_bytes(count), 42);
    let folder = take_one("folder", &other)?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode);
    same!("the folder", kind, rustix::fs::FileType::Directory);
    let mut memory = File::from(take_one("memory", &other)?);
    same!("position in memory", memory.stream_position()?, 9);
    memory.rewind()?;
    text.clear();
    memory.read_to_string(&mut text)?;
    same!("the memory", text, "in memory");
    Ok(())
}

fn most(guest: &Guest) -> Check {
    let (one, other) = pair(SocketType::SEQPACKET)?;
    let folder = File::open(&guest.dir)?;
    for _ in 0..3 {
        give(&one, "many", &vec![folder.as_fd(); 253])?;
    }
    guest.hold()?;
    for _ in 0..3 {
        same!("many", take(&other)?.1.len(), 253);
    }
    Ok(())
}

fn stream(guest: &Guest) -> Check {
    let mut pairs = Vec::new();
    for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
        let (one, other) = pair(kind)?;
        let (first, second) = (rustix::pipe::pipe()?, rustix::pipe::pipe()?);
        say(&one, "before ")?;
        give(&one, "with", &[first.1.as_fd(), second.1.as_fd()])?;
        say(&one, " between ")?;
        give(&one, "again", &[first.1.as_fd()])?;
        say(&one, " after")?;
        pairs.push((kind, other, first.0, second.0));
    }
    guest.hold()?;
    for (kind, other, first, second) in &pairs {
        let mut got = Vec::new();
        while let Ok((text, files)) = take(other) {
            if text.is_empty() {
                break;
            }
            for file in &files {
                rustix::io::write(file, text.as_bytes())?;
            }
            got.push((text, files.len()));
        }
        let all: String = got.iter().map(|(text, _)| text.as_str()).collect();
        same!("all bytes", all, "before with between again after");
        let counts: Vec<usize> = got.iter().map(|(_, count)| *count).collect();
        same!(
            format!("{kind:?}: descriptors"),
            counts.iter().sum::<usize>(),
            3
        );
        ensure!(
            got.iter().all(|(text, count)| *count == 0
                || text.contains("with") && *count == 2
                || text.contains("again") && *count == 1),
            "descriptors came with other bytes: {got:?}"
        );
        let mut texts = [String::new(), String::new()];
        for (pipe, text) in [first, second].into_iter().zip(&mut texts) {
            File::from(pipe.try_clone()?).read_to_string(text)?;
        }
        ensure!(
            texts[0].contains("with") && texts[0].contains("again"),
            "{texts:?}"
        );
        ensure!(
            texts[1].contains("with") && !texts[1].contains("again"),
            "{texts:?}"
        );
    }
    Ok(())
}

fn sockets(guest: &Guest) -> Check {
    // One end of a pair in the queue of another, whose own queue is not empty.
    let (one, other) = pair(SocketType::DGRAM)?;
    let (left, right) = pair(SocketType::STREAM)?;
    say(&left, "waiting inside")?;
    give(&one, "right", &[right.as_fd()])?;
    drop(right);
    // A socket in its own queue, and in that of its peer.
    give(&one, "itself", &[other.as_fd()])?;
    give(&other, "across", &[other.as_fd()])?;
    // Three levels, known by nobody but the queues.
    let (outer, mut inner) = pair(SocketType::SEQPACKET)?;
    for level in ["third", "second", "first"] {
        let (near, far) = pair(SocketType::SEQPACKET)?;
        give(&near, level, &[inner.as_fd()])?;
        inner = far;
    }
    // One that listens.
    let listener = socket(SocketType::STREAM)?;
    let address = rustix::net::SocketAddrUnix::new(guest.path("in-flight"))?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 3)?;
    give(&one, "listener", &[listener.as_fd()])?;
    drop(listener);
    guest.hold()?;
    let right = take_one("right", &other)?;
    same!("its queue", now(&right), Ok("waiting inside".to_owned()));
    talk("afterwards", &right, &left)?;
    let itself = take_one("itself", &other)?;
    say(&one, "to itself")?;
    let listener = take_one("listener", &itself)?;
    same!("through the copy", now(&itself), Ok("to itself".to_owned()));
    drop(take_one("across", &one)?);
    let client = socket(SocketType::STREAM)?;
    rustix::net::connect(&client, &address)?;
    talk("in", client, rustix::net::accept(&listener)?)?;
    for level in ["first", "second", "third"] {
        inner = take_one(level, &inner)?;
    }
    talk("the innermost", outer, inner)
}

fn between(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let (own, theirs) = pair(SocketType::STREAM)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let kid = guest.fork("receiver", |guest| {
        os!(libc::close(reader.as_raw_fd()))?;
        os!(libc::close(writer.as_raw_fd()))?;
        gate.arrive()?;
        guest.wait();
        let writer = take_one("pipe", &theirs)?;
        rustix::io::write(&writer, b"from the child")?;
        Ok(())
    })?;
    gate.wait(1)?;
    give(&own, "pipe", &[writer.as_fd()])?;
    drop(writer);
    guest.hold()?;
    kid.join(guest)?;
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text)?;
    same!("what came through the pipe", text, "from the child");
    Ok(())
}
