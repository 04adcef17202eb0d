//! Unread messages: sent again, to where they had come. Section 14.5 of the format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::BorrowedFd;

use gelid_image::messages::SkPacketEntry;
use gelid_image::{Dir, ImageKind, Payload, ReadError};
use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::stand_in::Who;
use gelid_sys::unix;
use rustix::io::Errno;
use rustix::net::SocketType;

use super::super::open::{Opener, set_status};
use super::super::{Error, FilesPlan, Kind, OpenFiles};
use super::make::{Maker, set_rest};
use super::somebody::patiently;
use super::{Address, Origin, Sockets, Unix, who};

/// Image of unread messages.
const QUEUES: &str = "sk-queues.img";
/// `SCM_RIGHTS`
const RIGHTS: u32 = 1;
/// Descriptors that one message can carry, `SCM_MAX_FD`.
const MOST_RIGHTS: usize = 253;
/// Bytes of a stream sent at once.
const PIECE: u64 = 32 << 10;

/// What a client finds who has asked for the dump of itself: that it has succeeded, and was restored since.
const RESTORED: &[u8] = &[0x08, 0x01, 0x10, 0x01, 0x1a, 0x02, 0x08, 0x01];

/// An unread message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Packet {
    /// File id of the socket that would receive it.
    pub(super) to: u32,
    /// Bytes of it.
    pub(super) len: u32,
    /// Ids of the files in flight with it.
    pub(super) rights: Vec<u32>,
    /// Name of its sender.
    pub(super) source: Option<Address>,
    /// Who sends it again.
    pub(super) from: Sender,
    /// Who has sent it.
    pub(in super::super) sender: Option<Who>,
}

/// Who sends a message again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Sender {
    /// The peer, by file id.
    Peer(u32),
    /// The end that is closed then.
    Gone,
    /// Another socket of the tree, by file id.
    Named(u32),
    /// One that has the name of the sender for the moment, by its place among those.
    Stranger(usize),
    /// One without a name.
    Nobody,
}

impl Sockets {
    /// Decides who sends each message.
    pub(super) fn find_senders(&mut self, sockets: &BTreeMap<u32, Box<Unix>>) {
        let named = sockets.iter().filter_map(|(id, socket)| {
            let name = socket.name.as_ref()?;
            (socket.kind == SocketType::DGRAM).then_some((&name.address, *id))
        });
        let named: BTreeMap<&Address, u32> = named.collect();
        for packet in &mut self.packets {
            let known = |source: &Address| match named.get(source) {
                Some(id) => Some(Sender::Named(*id)),
                None => {
                    let mut strangers = self.strangers.iter();
                    strangers.position(|it| it == source).map(Sender::Stranger)
                }
            };
            packet.from = match sockets.get(&packet.to).map(|socket| socket.origin) {
                Some(
                    Origin::Pair(peer)
                    | Origin::Connecting(peer)
                    | Origin::Accepted {
                        from: Some(peer), ..
                    },
                ) => Sender::Peer(peer),
                Some(Origin::Severed | Origin::Accepted { .. }) => Sender::Gone,
                _ => packet
                    .source
                    .as_ref()
                    .and_then(known)
                    .unwrap_or(Sender::Nobody),
            };
        }
    }

    /// Checks that those of `sockets` can have got what is there; others are given by the caller.
    pub(in super::super) fn check_packets(
        &self,
        sockets: &BTreeMap<u32, Box<Unix>>,
    ) -> Result<(), Error> {
        let all = self.packets.iter();
        let mut own = all.filter_map(|packet| Some((packet, sockets.get(&packet.to)?)));
        own.try_for_each(|(packet, socket)| check(packet, socket))
    }
}

/// Reads what there is to be received. Files must be among those `known`.
pub(in super::super) fn read(dir: &Dir, known: impl Fn(u32) -> bool) -> Result<Vec<Packet>, Error> {
    let mut packets = Vec::new();
    each(dir, |entry, _| {
        let packet = packet(entry)?;
        let missing = |what, id: u32| Error::Missing {
            by: format!("a message of {QUEUES}"),
            what,
            id: id.into(),
            image: "files.img",
        };
        if !known(packet.to) {
            return Err(missing("socket", packet.to));
        }
        if let Some(id) = packet.rights.iter().find(|id| !known(**id)) {
            return Err(missing("file", *id));
        }
        packets.push(packet);
        Ok(())
    })?;
    Ok(packets)
}

impl Sockets {
    /// Numbers of those who have sent what was not read yet.
    pub(in super::super) fn senders(&self) -> impl Iterator<Item = i32> {
        let packets = self.packets.iter();
        packets.filter_map(|packet| packet.sender.map(|who| who.pid))
    }

    /// Ids of all files in flight.
    pub(in super::super) fn in_flight(&self) -> impl Iterator<Item = u32> {
        let packets = self.packets.iter();
        packets.flat_map(|packet| packet.rights.iter().copied())
    }
}

fn packet(entry: &SkPacketEntry) -> Result<Packet, Error> {
    let object = || format!("{QUEUES}: a message for file {}", entry.id_for);
    let mut rights = Vec::new();
    for part in &entry.scm {
        if part.r#type != RIGHTS {
            let rule = "only descriptors go with a message (1)";
            return Err(Error::invalid(object(), "scm.type", part.r#type, rule));
        }
        rights.extend_from_slice(&part.rights);
    }
    if rights.len() > MOST_RIGHTS {
        let (found, rule) = (rights.len(), "a message carries up to 253 descriptors");
        return Err(Error::invalid(object(), "scm.rights", found, rule));
    }
    let gelid = entry.gelid.as_ref();
    let source = gelid.and_then(|gelid| gelid.source.as_deref());
    let source = Address::new(source.unwrap_or_default()).map_err(|rule| {
        let found = source.unwrap_or_default().escape_ascii();
        Error::invalid(object(), "source", found, rule)
    })?;
    Ok(Packet {
        to: entry.id_for,
        len: entry.length,
        rights,
        source,
        from: Sender::Nobody,
        sender: gelid.and_then(|gelid| who(gelid.sender.as_ref()?)),
    })
}

fn check(packet: &Packet, socket: &Unix) -> Result<(), Error> {
    let object = || format!("{QUEUES}: a message for file {}", packet.to);
    let datagrams = socket.kind == SocketType::DGRAM;
    let receives = match socket.origin {
        Origin::Waiting(_) => false,
        Origin::Alone => datagrams && socket.name.is_some(),
        _ => true,
    };
    if !receives {
        let rule = "nothing can have been sent to that socket";
        return Err(Error::invalid(object(), "id_for", packet.to, rule));
    }
    if socket.kind == SocketType::STREAM && packet.len == 0 && !packet.rights.is_empty() {
        let rule = "in a stream descriptors go with bytes";
        return Err(Error::invalid(object(), "length", packet.len, rule));
    }
    Ok(())
}

/// Calls `visit` for each record and its data.
fn each(
    dir: &Dir,
    mut visit: impl FnMut(&SkPacketEntry, &mut Payload<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(mut reader) = dir.reader_opt(ImageKind::SkQueues, ())? else {
        return Ok(());
    };
    while let Some(entry) = reader.next::<SkPacketEntry>()? {
        visit(&entry, &mut reader.payload(entry.length.into())?)?;
    }
    Ok(())
}

impl FilesPlan {
    /// Sockets, by file id, that get their messages when processes are there: pidfds are in flight to them.
    fn late_queues(&self) -> BTreeSet<u32> {
        let packets = self.sockets.packets.iter();
        let late =
            packets.filter(|packet| packet.rights.iter().any(|id| self.waits_for_birth(*id)));
        late.map(|packet| packet.to).collect()
    }

    /// Both ends of those: they get their options after the messages.
    pub(super) fn ends_of_late_queues(&self) -> BTreeSet<u32> {
        let late = self.late_queues();
        let packets = self.sockets.packets.iter();
        let late = packets.filter(|packet| late.contains(&packet.to));
        late.flat_map(|packet| match packet.from {
            Sender::Peer(peer) => [packet.to, peer],
            _ => [packet.to; 2],
        })
        .collect()
    }

    /// Refuses pidfds in flight that cannot be sent once processes are there.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]
    pub(in super::super) fn check_late_queues(&self) -> Result<(), Error> {
        let late = self.late_queues();
        let mut packets = self.sockets.packets.iter();
        let is_open = |id: &u32| match self.descriptions.get(id).map(|file| &file.kind) {
            Some(Kind::Unix(socket)) => socket.shutdown == 0,
            _ => false,
        };
        let can = |packet: &Packet| {
            let by_peer = matches!(packet.from, Sender::Peer(peer) if is_open(&peer));
            let of_thread = packet.rights.iter().any(|id| self.is_late(*id));
            by_peer && !of_thread && packet.sender.is_none() && is_open(&packet.to)
        };
        match packets.find(|packet| late.contains(&packet.to) && !can(packet)) {
            None => Ok(()),
            Some(packet) => Err(Error::Unsupported {
                object: format!("file {}", packet.to),
                what: "a socket with a pidfd to be read, of a thread or from somebody who cannot send it again",
                remedy: "let the program receive it before the dump",
            }),
        }
    }
}

impl OpenFiles {
    /// Sends the messages with pidfds of processes, which are open by now, and all others to the same sockets.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg(2)`.
    pub fn fill_late_queues(&self) -> Result<(), Error> {
        let plan = &self.plan;
        let late = plan.late_queues();
        if late.is_empty() {
            return Ok(());
        }
        let mut packets = plan.sockets.packets.iter();
        each(&plan.dir, |_, data| {
            let Some(packet) = packets.next().filter(|packet| late.contains(&packet.to)) else {
                return Ok(());
            };
            let description = plan.descriptions.get(&packet.to);
            let (Some(Kind::Unix(socket)), Sender::Peer(peer)) =
                (description.map(|file| &file.kind), packet.from)
            else {
                return Ok(());
            };
            let object = super::make::object(packet.to, socket);
            let missing = |id: u32| in_flight(&object, id);
            let from = self.fd(peer).ok_or_else(|| missing(peer))?;
            let of = |id: &u32| {
                let fd = self.of_process(*id).or_else(|| self.fd(*id));
                fd.ok_or_else(|| missing(*id))
            };
            let rights = packet.rights.iter().map(of).collect::<Result<_, _>>()?;
            let send =
                |bytes: &[u8], rights: &[BorrowedFd<'_>]| unix::send(from, None, bytes, rights);
            pour(data, (packet, socket.kind, rights), send)?
                .map_err(Error::system("fill the queue of", object))
        })?;
        self.finish_late_queues()
    }

    /// Sets the options and flags of both ends as they were.
    fn finish_late_queues(&self) -> Result<(), Error> {
        for id in self.plan.ends_of_late_queues() {
            let description = self.plan.descriptions.get(&id);
            let Some((description, Kind::Unix(socket))) = description.map(|it| (it, &it.kind))
            else {
                continue;
            };
            let object = super::make::object(id, socket);
            let fd = self.fd(id).ok_or_else(|| in_flight(&object, id))?;
            socket.options.apply(fd, &object.to_string())?;
            set_rest(fd, socket).map_err(Error::system("set the options of", object))?;
            set_status(fd, description.flags.status(), object)?;
        }
        Ok(())
    }
}

fn in_flight(object: &impl ToString, id: u32) -> Error {
    Error::Missing {
        by: object.to_string(),
        what: "file in flight",
        id: id.into(),
        image: "files.img",
    }
}

/// Sends all messages again but those that have to wait for processes. Everything else that is in flight must be open.
pub(super) fn fill(opener: &Opener<'_>, maker: &Maker<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let late = plan.late_queues();
    let mut packets = plan.sockets.packets.iter();
    each(&plan.dir, |_, data| {
        let Some(packet) = packets.next().filter(|packet| !late.contains(&packet.to)) else {
            return Ok(());
        };
        let Some(socket) = maker.sockets.get(&packet.to).copied() else {
            return Ok(());
        };
        let object = super::make::object(packet.to, socket);
        let rights = packet.rights.iter().map(|id| {
            let fd = opener.fd(*id);
            fd.ok_or_else(|| in_flight(&object, *id))
        });
        let rights = rights.collect::<Result<_, _>>()?;
        let (from, to) = maker.sender(opener, packet, object)?;
        let send = |bytes: &[u8], rights: &[BorrowedFd<'_>]| match packet.sender {
            Some(who) => patiently(who, || who.send(from, to.as_ref(), bytes, rights))
                .or_else(|_| claim(who, from, to.as_ref(), bytes, rights)),
            None => unix::send(from, to.as_ref(), bytes, rights),
        };
        pour(data, (packet, socket.kind, rights), send)?
            .map_err(Error::system("fill the queue of", object))
    })
}

/// Sends a message, that of a stream in pieces; what `send` has failed with, or that there is no room.
fn pour(
    data: &mut Payload<'_>,
    (packet, kind, mut rights): (&Packet, SocketType, Vec<BorrowedFd<'_>>),
    send: impl Fn(&[u8], &[BorrowedFd<'_>]) -> Result<usize, Errno>,
) -> Result<Result<(), Errno>, Error> {
    let stream = kind == SocketType::STREAM;
    let (mut left, mut bytes) = (u64::from(packet.len), Vec::new());
    loop {
        bytes.clear();
        let wanted = if stream { left.min(PIECE) } else { left };
        take(data, wanted, &mut bytes)?;
        left -= wanted;
        if !stream || !bytes.is_empty() {
            match send(&bytes, &rights) {
                Ok(sent) if sent == bytes.len() => {}
                Ok(_) => return Ok(Err(Errno::NOBUFS)),
                Err(errno) => return Ok(Err(errno)),
            }
        }
        rights.clear();
        if left == 0 {
            return Ok(Ok(()));
        }
    }
}

/// Sends a message in the name of somebody whose number is taken; without any name where that is not possible.
fn claim(
    who: Who,
    from: BorrowedFd<'_>,
    to: Option<&unix::Address>,
    bytes: &[u8],
    rights: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    match who.claim(from, to, bytes, rights) {
        Err(Errno::PERM | Errno::SRCH | Errno::INVAL) => unix::send(from, to, bytes, rights),
        sent => sent,
    }
}

/// Answers the clients who have asked for their own dump.
pub(super) fn answer(opener: &Opener<'_>, maker: &Maker<'_>) -> Result<(), Error> {
    for id in &opener.plan.sockets.clients {
        let answer = Packet {
            to: *id,
            len: 0,
            rights: Vec::new(),
            source: None,
            from: Sender::Gone,
            sender: None,
        };
        let object = format!("file {id} (a client of the dump)");
        let (from, to) = maker.sender(opener, &answer, &object)?;
        let sent = unix::send(from, to.as_ref(), RESTORED, &[]);
        sent.map_err(Error::system("fill the queue of", &*object))?;
    }
    Ok(())
}

/// Appends so many bytes.
fn take(data: &mut Payload<'_>, len: u64, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let read = data.take(len).read_to_end(bytes);
    let short = read.and_then(|read| match read as u64 == len {
        true => Ok(()),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    });
    short.map_err(|source| {
        Error::Read(ReadError::Io {
            file: QUEUES.to_owned(),
            offset: 0,
            what: "a message",
            source,
        })
    })
}

/// Lets a socket hold as much of what it has sent as there is.
pub(super) fn widen(sender: BorrowedFd<'_>, object: impl ToString) -> Result<(), Error> {
    const WIDEST: i32 = i32::MAX / 2;
    match sockopt::set_int(sender, IntOption::SNDBUFFORCE, WIDEST) {
        // As far as it goes.
        Err(Errno::PERM) => sockopt::set_int(sender, IntOption::SNDBUF, WIDEST),
        set => set,
    }
    .map_err(Error::system("widen the buffer of the peer of", object))
}
