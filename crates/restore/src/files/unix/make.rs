//! Making sockets: pairs, names, connections, queues, options; in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::sockopt::{self, IntOption};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, connect_unspec, listen,
    shutdown, socket_with, socketpair,
};

use super::super::open::{Opener, set_status};
use super::super::{Error, Kind, sk_opts};
use super::bind::{self, Job, Place};
use super::{ById, Listener, Origin, Target, Unix, queue};

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
    let mut maker = Maker {
        order: &plan.sockets.order,
        sockets,
        others: BTreeMap::new(),
        places: BTreeMap::new(),
        lost: Vec::new(),
        widened: BTreeSet::new(),
    };
    maker.make(opener)?;
    maker.bind(opener)?;
    maker.listen(opener)?;
    maker.accept(opener)?;
    queue::fill(opener, &mut maker)?;
    maker.connect(opener)?;
    maker.part(opener)?;
    maker.finish(opener)
}

/// What is known while sockets are made.
pub(super) struct Maker<'p> {
    pub(super) sockets: ById<'p>,
    /// Their ids in the order of the records.
    order: &'p [u32],
    /// Other ends that exist for the time of the restore, by the id of what they are connected with.
    others: BTreeMap<u32, OwnedFd>,
    /// Where bound sockets can be reached.
    places: BTreeMap<Listener, Place>,
    /// Those who listen for the time of the restore.
    lost: Vec<OwnedFd>,
    /// Those to whom as much can be sent as there is.
    widened: BTreeSet<u32>,
}

/// A new socket.
pub(super) fn socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind, FLAGS, None)
}

/// What to call a socket in messages.
fn object(id: u32, socket: &Unix) -> String {
    format!("file {id} (socket:[{}])", socket.inode)
}

impl<'p> Maker<'p> {
    /// All of them, with their names in messages.
    fn all(&self) -> impl Iterator<Item = (u32, &'p Unix, String)> + use<'p> {
        let sockets = self.sockets.clone();
        let all = self.order.iter();
        all.filter_map(move |id| {
            let socket = *sockets.get(id)?;
            Some((*id, socket, object(*id, socket)))
        })
    }

    /// Makes all but those that are accepted.
    fn make(&mut self, opener: &mut Opener<'_>) -> Result<(), Error> {
        for (id, socket, object) in self.all() {
            let failed = |errno| opener.failed("make", &object, errno);
            match socket.origin {
                Origin::Accepted { .. } => {}
                Origin::Alone | Origin::Connecting(_) | Origin::Waiting(_) => {
                    let made = self::socket(socket.kind).map_err(failed)?;
                    opener.add_raised(id, made, &object)?;
                }
                Origin::Pair(_) if opener.fd(id).is_some() => {}
                Origin::Pair(other) => {
                    let (one, two) = pair(socket.kind).map_err(failed)?;
                    opener.add_raised(id, one, &object)?;
                    opener.add_raised(other, two, &object)?;
                }
                Origin::Severed => {
                    let (one, two) = pair(socket.kind).map_err(failed)?;
                    opener.add_raised(id, one, &object)?;
                    self.others.insert(id, two);
                }
            }
        }
        Ok(())
    }

    /// Binds those that have a name of their own.
    fn bind(&mut self, opener: &mut Opener<'_>) -> Result<(), Error> {
        for lost in &opener.plan.sockets.lost {
            let made = self::socket(lost.kind);
            let object = lost.name.address.to_string();
            self.lost
                .push(made.map_err(|errno| opener.failed("make", &object, errno))?);
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
                    object,
                });
            }
        }
        let made = bind::all(opener.root, opener.own(), &jobs)?;
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
                let all = self.order.len() as u64;
                let room = (u64::from(backlog) + all).min(i32::MAX as u64);
                listen(fd, room as i32).map_err(Error::system("listen at", object))?;
            }
        }
        Ok(())
    }

    /// Connects those that are connected through a socket that listens, and then those that wait for it.
    fn accept(&mut self, opener: &mut Opener<'_>) -> Result<(), Error> {
        for (id, socket, object) in self.all() {
            let Origin::Accepted { by, from } = socket.origin else {
                continue;
            };
            if from.is_none() {
                let made = self::socket(socket.kind);
                let made = made.map_err(|errno| opener.failed("make", &object, errno))?;
                self.others.insert(id, made);
            }
            let client = match (from, self.others.get(&id)) {
                (None, Some(other)) => other.as_fd(),
                (from, _) => opener.need(from.unwrap_or(id), &object)?,
            };
            self.place(by, &object)?.connect(client, &object)?;
            let listener = match by {
                Listener::Socket(id) => opener.need(id, &object)?,
                Listener::Lost(at) => match self.lost.get(at) {
                    Some(fd) => fd.as_fd(),
                    None => continue,
                },
            };
            let accepted = accept_with(listener, FLAGS);
            let accepted = accepted.map_err(|errno| opener.failed("accept", &object, errno))?;
            opener.add_raised(id, accepted, &object)?;
        }
        for (id, socket, object) in self.all() {
            if let Origin::Waiting(listener) = socket.origin {
                let place = self.place(Listener::Socket(listener), &object)?;
                place.connect(opener.need(id, &object)?, &object)?;
            }
        }
        Ok(())
    }

    fn place(&self, owner: Listener, object: &str) -> Result<&Place, Error> {
        let id = match owner {
            Listener::Socket(id) => id,
            Listener::Lost(at) => at as u32,
        };
        self.places.get(&owner).ok_or_else(|| Error::Missing {
            by: object.to_owned(),
            what: "bound socket",
            id: id.into(),
            image: "files.img",
        })
    }

    /// A socket that sends to the one with this id.
    pub(super) fn sender<'s>(
        &'s mut self,
        opener: &'s Opener<'_>,
        to: u32,
        object: &str,
    ) -> Result<BorrowedFd<'s>, Error> {
        let peer = match self.sockets.get(&to).map(|socket| socket.origin) {
            Some(
                Origin::Pair(peer)
                | Origin::Connecting(peer)
                | Origin::Accepted {
                    from: Some(peer), ..
                },
            ) => Some(peer),
            _ => None,
        };
        if peer.is_none() && !self.others.contains_key(&to) {
            let made = self::socket(SocketType::DGRAM);
            let made = made.map_err(|errno| opener.failed("make a sender to", object, errno))?;
            let place = self.place(Listener::Socket(to), object)?;
            place.connect(made.as_fd(), object)?;
            self.others.insert(to, made);
        }
        let sender = match peer {
            Some(peer) => opener.need(peer, object)?,
            None => match self.others.get(&to) {
                Some(other) => other.as_fd(),
                None => opener.need(to, object)?,
            },
        };
        if self.widened.insert(to) {
            queue::widen(sender, object)?;
        }
        Ok(sender)
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
            let fd = opener.need(*id, &object)?;
            match target {
                Target::Socket(id) => {
                    let place = self.place(Listener::Socket(*id), &object)?;
                    place.connect(fd, &object)?;
                }
                Target::Outside(address) => {
                    let place = Place::outside(&opener.names, address, &object)?;
                    place.connect(fd, &object)?;
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
            let mut cut = rustix::io::write(opener.need(id, &object)?, b"x").map(drop);
            if socket.kind == SocketType::DGRAM {
                cut = cut.and_then(|()| connect_unspec(other));
            }
            cut.map_err(Error::system("cut off", &*object))?;
        }
        self.others.clear();
        Ok(())
    }

    /// Sets options and flags as they were.
    fn finish(self, opener: &Opener<'_>) -> Result<(), Error> {
        for (id, socket, object) in self.all() {
            let fd = opener.need(id, &object)?;
            socket.options.apply(fd, &object)?;
            set_rest(fd, socket).map_err(Error::system("set the options of", &*object))?;
            if let Some(backlog) = socket.backlog {
                let backlog = backlog.min(i32::MAX as u32) as i32;
                listen(fd, backlog).map_err(Error::system("listen at", &*object))?;
            }
            let how = match socket.shutdown {
                1 => Some(Shutdown::Read),
                2 => Some(Shutdown::Write),
                3 => Some(Shutdown::Both),
                _ => None,
            };
            if let Some(how) = how {
                shutdown(fd, how).map_err(Error::system("shut down", &*object))?;
            }
            if let Some(description) = opener.plan.descriptions.get(&id) {
                set_status(fd, description.flags.status(), &object)?;
            }
        }
        Ok(())
    }
}

fn set_rest(fd: BorrowedFd<'_>, socket: &Unix) -> Result<(), Errno> {
    if socket.pass_pidfd {
        sk_opts::set(fd, IntOption::PASSPIDFD, 1)?;
    }
    match socket.peek_offset {
        Some(offset) => sockopt::set_int(fd, IntOption::PEEK_OFF, offset),
        None => Ok(()),
    }
}

fn pair(kind: SocketType) -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, kind, FLAGS, None)
}
