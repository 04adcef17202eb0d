//! Making sockets: pairs, names, connections, queues, options; in this order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::stand_in::Who;
use gelid_sys::unix;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, connect_unspec, listen,
    shutdown, socket_with, socketpair,
};

use super::super::open::{Opener, set_status};
use super::super::sk_opts::Fresh;
use super::super::{Error, Kind, sk_opts};
use super::bind::{self, Job, Place};
use super::somebody::Somebody;
use super::{Address, Bound, ById, Listener, Origin, Packet, Sender, Target, Unix, queue};
use crate::play::namespaces::{Birthplace, Hand};

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Makes all sockets. Whatever can be in flight between them must be open already.
pub(in super::super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let sockets = plan.descriptions.values();
    let sockets: ById<'_> = sockets
        .filter_map(|description| match &description.kind {
            Kind::Unix(socket) => Some((description.id, &**socket)),
            _ => None,
        })
        .collect();
    if sockets.is_empty() {
        return Ok(());
    }
    let all = plan.sockets.order.iter().filter_map(|id| {
        let socket = *sockets.get(id)?;
        Some((*id, socket))
    });
    let all: Vec<_> = all.collect();
    let mut maker = Maker {
        all: &all,
        sockets,
        others: BTreeMap::new(),
        places: BTreeMap::new(),
        lost: Vec::new(),
        strangers: Vec::new(),
        fresh: BTreeMap::new(),
        widened: BTreeSet::new(),
    };
    let birthplace = opener.birthplace;
    let enter = || {
        let inside = birthplace.map(Birthplace::enter).transpose();
        inside.map_err(Error::system("join", "the pid namespace of the tree"))
    };
    let inside = enter()?;
    maker.make(opener)?;
    drop(inside);
    maker.bind(opener)?;
    let _inside = enter()?;
    maker.listen(opener)?;
    maker.accept(opener)?;
    maker.ready_senders(opener)?;
    queue::fill(opener, &maker)?;
    queue::answer(opener, &maker)?;
    maker.connect(opener)?;
    maker.part(opener)?;
    maker.finish(opener)
}

/// What is known while sockets are made.
pub(super) struct Maker<'p> {
    pub(super) sockets: ById<'p>,
    /// The same in the order of the records.
    all: &'p [(u32, &'p Unix)],
    /// Other ends that exist for the time of the restore, by the id of what they are connected with.
    others: BTreeMap<u32, OwnedFd>,
    /// Where bound sockets can be reached.
    places: BTreeMap<Listener, Place>,
    /// Those who listen for the time of the restore.
    lost: Vec<OwnedFd>,
    /// Those who send for the time of the restore, and have a name for that.
    strangers: Vec<OwnedFd>,
    /// Options that new sockets have, by kind.
    fresh: BTreeMap<u32, Fresh>,
    /// Whose buffers have been made larger.
    widened: BTreeSet<RawFd>,
}

/// A new socket.
pub(super) fn socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind, FLAGS, None)
}

/// What to call a socket in messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    id: u32,
    inode: u32,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} (socket:[{}])", self.id, self.inode)
    }
}

pub(super) fn object(id: u32, socket: &Unix) -> Object {
    let inode = socket.inode;
    Object { id, inode }
}

impl<'p> Maker<'p> {
    /// All of them, with their names in messages.
    fn all(&self) -> impl Iterator<Item = (u32, &'p Unix, Object)> + use<'p> {
        let all = self.all.iter();
        all.map(|(id, socket)| (*id, *socket, object(*id, socket)))
    }

    /// Makes all but those that are accepted.
    fn make(&mut self, opener: &mut Opener<'_>) -> Result<(), Error> {
        let mut pairs = self.pairs(opener.hand);
        let mut pair = |id, kind| match pairs.remove(&id) {
            Some(pair) => Ok(pair),
            None => socketpair(AddressFamily::UNIX, kind, FLAGS, None),
        };
        for (id, socket, object) in self.all() {
            opener.enter_network(id, object)?;
            let failed = |errno| opener.failed("make", object, errno);
            match socket.origin {
                Origin::Accepted { .. } => {}
                Origin::Alone | Origin::Connecting(_) | Origin::Waiting(_) => {
                    let made = self::socket(socket.kind).map_err(failed)?;
                    opener.add_raised(id, made, object)?;
                }
                Origin::Pair(_) if opener.fd(id).is_some() => {}
                Origin::Pair(other) => {
                    let (one, two) = pair(id, socket.kind).map_err(failed)?;
                    opener.add_raised(id, one, object)?;
                    opener.add_raised(other, two, object)?;
                }
                Origin::Severed => {
                    let (one, two) = pair(id, socket.kind).map_err(failed)?;
                    opener.add_raised(id, one, object)?;
                    self.others.insert(id, two);
                }
            }
        }
        Ok(())
    }

    /// Pairs made as who had made them, by the id of the end that comes first; all of one maker at once.
    fn pairs(&self, hand: Option<&Hand<'_>>) -> BTreeMap<u32, (OwnedFd, OwnedFd)> {
        let mut makers: BTreeMap<Who, Vec<(u32, SocketType)>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (id, socket, _) in self.all() {
            let first = match socket.origin {
                Origin::Pair(other) => !seen.contains(&other),
                Origin::Severed => true,
                _ => false,
            };
            if let (true, Some(who)) = (first, socket.peer) {
                seen.insert(id);
                makers.entry(who).or_default().push((id, socket.kind));
            }
        }
        let mut pairs = BTreeMap::new();
        for (who, wanted) in makers {
            let kinds: Vec<SocketType> = wanted.iter().map(|(_, kind)| *kind).collect();
            let made = Somebody::new(who, hand).pairs(&kinds);
            let ids = wanted.into_iter().map(|(id, _)| id);
            pairs.extend(ids.zip(made.unwrap_or_default()));
        }
        pairs
    }

    /// Binds those that have a name of their own.
    fn bind(&mut self, opener: &mut Opener<'_>) -> Result<(), Error> {
        let plan = &opener.plan.sockets;
        let made = |kind, name: &Address| {
            let made = self::socket(kind);
            made.map_err(|errno| opener.failed("make", name.to_string(), errno))
        };
        for lost in &plan.lost {
            self.lost.push(made(lost.kind, &lost.name.address)?);
        }
        for name in &plan.strangers {
            self.strangers.push(made(SocketType::DGRAM, name)?);
        }
        let mut jobs = Vec::new();
        for (at, (lost, fd)) in opener.plan.sockets.lost.iter().zip(&self.lost).enumerate() {
            jobs.push(Job {
                owner: Listener::Lost(at),
                socket: fd.as_fd(),
                name: &lost.name,
                object: format!("a socket that has listened at {}", lost.name.address),
            });
        }
        for (id, socket, object) in self.all() {
            if let (Some(name), Some(fd)) = (&socket.name, opener.fd(id)) {
                jobs.push(Job {
                    owner: Listener::Socket(id),
                    socket: fd,
                    name,
                    object: object.to_string(),
                });
            }
        }
        // Their files are gone as soon as they are there.
        let names = plan.strangers.iter().map(Bound::gone);
        let names: Vec<Bound> = names.collect();
        for (at, (name, fd)) in names.iter().zip(&self.strangers).enumerate() {
            jobs.push(Job {
                owner: Listener::Stranger(at),
                socket: fd.as_fd(),
                name,
                object: "one who has sent something".to_owned(),
            });
        }
        let made = bind::all(opener.roots, opener.own(), &jobs)?;
        drop(jobs);
        self.places = made.places;
        opener.nodes.extend(made.nodes);
        Ok(())
    }

    /// Lets those listen that do. The backlog has room for all that will wait.
    fn listen(&mut self, opener: &Opener<'_>) -> Result<(), Error> {
        for lost in &self.lost {
            listen(lost, 1).map_err(Error::system("listen at", "a name of several sockets"))?;
        }
        for (id, socket, object) in self.all() {
            if let (Some(backlog), Some(fd)) = (socket.backlog, opener.fd(id)) {
                let all = self.all.len() as u64;
                let room = (u64::from(backlog) + all).min(i32::MAX as u64);
                listen(fd, room as i32).map_err(Error::system("listen at", object))?;
            }
        }
        Ok(())
    }

    /// Connects those that are connected through a socket that listens, and then those that wait for it.
    fn accept(&mut self, opener: &mut Opener<'_>) -> Result<(), Error> {
        let mut listening: BTreeMap<Listener, Who> = BTreeMap::new();
        for (id, socket, object) in self.all() {
            let Origin::Accepted { by, from } = socket.origin else {
                continue;
            };
            if from.is_none() {
                let made = self::socket(socket.kind);
                let made = made.map_err(|errno| opener.failed("make", object, errno))?;
                self.others.insert(id, made);
            }
            let client = match (from, self.others.get(&id)) {
                (None, Some(other)) => other.as_fd(),
                (from, _) => opener.need(from.unwrap_or(id), object)?,
            };
            let listener = match (by, self.lost.first()) {
                (Listener::Lost(at), Some(first)) => self.lost.get(at).unwrap_or(first).as_fd(),
                (Listener::Socket(id), _) => opener.need(id, object)?,
                _ => continue,
            };
            // Who connects sees who has listened, and who accepts sees who has connected.
            let seen = from.and_then(|from| self.sockets.get(&from)?.peer);
            let somebody = |who| Somebody::new(who, opener.hand);
            let listens = seen.map(|who| (by, somebody(who)));
            self.listen_as(listener, listens, &mut listening);
            self.place(by, object)?
                .connect(client, socket.peer.map(somebody), object)?;
            let accepted = accept_with(listener, FLAGS);
            let accepted = accepted.map_err(|errno| opener.failed("accept", object, errno))?;
            opener.add_raised(id, accepted, object)?;
        }
        for (id, socket, object) in self.all() {
            if let Origin::Waiting(id_of_listener) = socket.origin {
                let by = Listener::Socket(id_of_listener);
                let listener = opener.need(id_of_listener, object)?;
                let seen = socket.peer.map(|who| (by, Somebody::new(who, opener.hand)));
                self.listen_as(listener, seen, &mut listening);
                let place = self.place(by, object)?;
                place.connect(opener.need(id, object)?, None, object)?;
            }
        }
        Ok(())
    }

    /// Lets somebody else be seen as who listens, unless that is so already.
    fn listen_as(
        &self,
        listener: BorrowedFd<'_>,
        somebody: Option<(Listener, Somebody<'_>)>,
        listening: &mut BTreeMap<Listener, Who>,
    ) {
        let Some((listener_of, somebody)) = somebody else {
            return;
        };
        if listening.insert(listener_of, somebody.who()) == Some(somebody.who()) {
            return;
        }
        let room = i32::try_from(self.all.len() + 1).unwrap_or(i32::MAX);
        // It listens in any case.
        let _ = somebody.listen(listener, room);
    }

    fn place(&self, owner: Listener, object: impl fmt::Display) -> Result<&Place, Error> {
        let id = match owner {
            Listener::Socket(id) => id,
            Listener::Lost(at) | Listener::Stranger(at) => at as u32,
        };
        self.places.get(&owner).ok_or_else(|| Error::Missing {
            by: object.to_string(),
            what: "bound socket",
            id: id.into(),
            image: "files.img",
        })
    }

    /// Makes senders where there are none, and lets all hold as much as they send.
    fn ready_senders(&mut self, opener: &Opener<'_>) -> Result<(), Error> {
        // What the kernel needs for a message beside twice its bytes.
        const HEAD: u64 = 4096;
        let mut loads: BTreeMap<RawFd, u64> = BTreeMap::new();
        for packet in &opener.plan.sockets.packets {
            let Some(socket) = self.sockets.get(&packet.to).copied() else {
                continue;
            };
            let object = object(packet.to, socket);
            if packet.from == Sender::Nobody && !self.others.contains_key(&packet.to) {
                let made = self::socket(SocketType::DGRAM);
                let made = made.map_err(|errno| opener.failed("make a sender to", object, errno));
                self.others.insert(packet.to, made?);
            }
            let room = self.fresh(socket.kind, object)?.buffers.0.unsigned_abs();
            let (sender, _) = self.sender(opener, packet, object)?;
            let load = loads.entry(sender.as_raw_fd()).or_default();
            *load += 2 * u64::from(packet.len) + HEAD;
            if *load > u64::from(room) / 2 && !self.widened.contains(&sender.as_raw_fd()) {
                queue::widen(sender, object)?;
                let sender = sender.as_raw_fd();
                self.widened.insert(sender);
            }
        }
        Ok(())
    }

    /// The options of a new socket.
    fn fresh(&mut self, kind: SocketType, object: impl fmt::Display) -> Result<&Fresh, Error> {
        match self.fresh.entry(kind.as_raw()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let fresh = self::socket(kind).and_then(|new| Fresh::look(new.as_fd()));
                let fresh = fresh.map_err(Error::system("ask for the options of", object))?;
                Ok(vacant.insert(fresh))
            }
        }
    }

    /// The socket that sends a message, and where to if it is not connected with the receiver.
    pub(super) fn sender<'s>(
        &'s self,
        opener: &'s Opener<'_>,
        packet: &Packet,
        object: impl fmt::Display + Copy,
    ) -> Result<(BorrowedFd<'s>, Option<unix::Address>), Error> {
        let other = |list: Option<&'s OwnedFd>| match list {
            Some(fd) => Ok(fd.as_fd()),
            None => opener.need(packet.to, object),
        };
        let (sender, by_name) = match packet.from {
            Sender::Peer(id) => (opener.need(id, object)?, false),
            Sender::Named(id) => (opener.need(id, object)?, true),
            Sender::Gone => (other(self.others.get(&packet.to))?, false),
            Sender::Nobody => (other(self.others.get(&packet.to))?, true),
            Sender::Stranger(at) => (other(self.strangers.get(at))?, true),
        };
        let address = match by_name {
            true => self.place(Listener::Socket(packet.to), object)?.address(),
            false => None,
        };
        Ok((sender, address))
    }

    /// Connects datagram sockets with those who are not their peers.
    fn connect(&self, opener: &Opener<'_>) -> Result<(), Error> {
        for id in &opener.plan.sockets.connects {
            let Some(socket) = self.sockets.get(id) else {
                continue;
            };
            let Some(target) = &socket.target else {
                continue;
            };
            let object = object(*id, socket);
            let fd = opener.need(*id, object)?;
            match target {
                Target::Socket(id) => {
                    let place = self.place(Listener::Socket(*id), object)?;
                    place.connect(fd, None, object)?;
                }
                Target::Outside(address) => {
                    let place = Place::outside(&opener.names, address, object)?;
                    place.connect(fd, None, object)?;
                }
            }
        }
        Ok(())
    }

    /// Closes the other ends of those whose peer is gone.
    fn part(&mut self, opener: &Opener<'_>) -> Result<(), Error> {
        for (id, socket, object) in self.all() {
            let Some(other) = self.others.get(&id).filter(|_| socket.reset) else {
                continue;
            };
            // A peer that leaves with something unread is one that resets.
            let mut cut = rustix::io::write(opener.need(id, object)?, b"x").map(drop);
            if socket.kind == SocketType::DGRAM {
                cut = cut.and_then(|()| connect_unspec(other));
            }
            cut.map_err(Error::system("cut off", object))?;
        }
        self.others.clear();
        Ok(())
    }

    /// Sets options and flags as they were.
    fn finish(mut self, opener: &Opener<'_>) -> Result<(), Error> {
        let later = opener.plan.ends_of_late_queues();
        for (id, socket, object) in self.all() {
            // Messages are sent between sockets as they are when they are new.
            if later.contains(&id) {
                continue;
            }
            let fd = opener.need(id, object)?;
            let widened = self.widened.contains(&fd.as_raw_fd());
            let fresh = self.fresh(socket.kind, object)?;
            let set = socket.options.apply_fresh(fd, fresh, widened);
            set.map_err(Error::system("set the options of", object))?;
            set_rest(fd, socket).map_err(Error::system("set the options of", object))?;
            if let Some(backlog) = socket.backlog {
                let backlog = backlog.min(i32::MAX as u32) as i32;
                let somebody = socket.peer.map(|who| Somebody::new(who, opener.hand));
                let listening = somebody.map(|somebody| somebody.listen(fd, backlog));
                let plain = |_| listen(fd, backlog);
                listening
                    .unwrap_or(Err(Errno::SRCH))
                    .or_else(plain)
                    .map_err(Error::system("listen at", object))?;
            }
            let how = match socket.shutdown {
                1 => Some(Shutdown::Read),
                2 => Some(Shutdown::Write),
                3 => Some(Shutdown::Both),
                _ => None,
            };
            if let Some(how) = how {
                shutdown(fd, how).map_err(Error::system("shut down", object))?;
            }
            if let Some(description) = opener.plan.descriptions.get(&id) {
                set_status(fd, description.flags.status(), object)?;
            }
        }
        Ok(())
    }
}

pub(super) fn set_rest(fd: BorrowedFd<'_>, socket: &Unix) -> Result<(), Errno> {
    if socket.pass_pidfd {
        sk_opts::set(fd, IntOption::PASSPIDFD, 1)?;
    }
    match socket.peek_offset {
        Some(offset) => sockopt::set_int(fd, IntOption::PEEK_OFF, offset),
        None => Ok(()),
    }
}
