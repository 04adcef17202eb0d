//! From records to how each socket is made: who is whose peer, who was accepted by whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gelid_image::messages::{SkShutdown, UnixSkEntry};
use gelid_sys::stand_in::Who;
use rustix::net::SocketType;

use super::super::{Error, Name, sk_opts};
use super::{Address, Bound, Listener, Lost, Origin, Packet, Sockets, Target, Unix, order, who};

/// A socket outside of the dumped tree (`uflags`).
const EXTERN: u32 = 1;
/// One by which a client has asked for the dump, who waits for the answer.
const SERVICE: u32 = 2;
/// One of a plugin.
const FOREIGN: u32 = 4;
/// `SOCK_SEQPACKET`
const SEQPACKET: u32 = 5;
/// `TCP_ESTABLISHED`
const CONNECTED: u32 = 1;
/// `TCP_LISTEN`
const LISTENING: u32 = 10;

/// Whether it is the record of a socket outside of the tree.
pub(in super::super) fn is_outside(entry: &UnixSkEntry) -> bool {
    entry.uflags & EXTERN != 0
}

fn is_service(entry: &UnixSkEntry) -> bool {
    entry.uflags & SERVICE != 0
}

/// The records of sockets, in the order of the image.
#[derive(Default)]
pub(in super::super) struct Records<'r> {
    own: Vec<&'r UnixSkEntry>,
    by_inode: BTreeMap<u32, Seen>,
}

/// What an inode stands for.
#[derive(Clone)]
enum Seen {
    /// A socket of the tree, by its place.
    Own(usize),
    /// One that the caller gives.
    Given,
    /// One outside, with its name.
    Outside(Option<Address>),
}

/// What a socket is to others.
#[derive(Clone)]
enum Relation {
    None,
    /// Its peer is closed.
    Closed,
    /// Each is the other's peer, the other being at that place.
    Mutual(usize),
    /// It waits for the one at that place to accept it.
    Waits(usize),
    /// It is connected with one that is connected with somebody else, or nobody.
    OneWay(Target),
}

impl<'r> Records<'r> {
    /// Adds a record; `given` if the caller gives the socket. Tells whether it is to be made.
    pub(in super::super) fn add(
        &mut self,
        entry: &'r UnixSkEntry,
        given: bool,
    ) -> Result<bool, Error> {
        if entry.uflags & FOREIGN != 0 {
            return Err(Error::Unsupported {
                object: label(entry),
                what: "a socket of a plugin",
                remedy: "dump the program without it",
            });
        }
        if is_service(entry) && (entry.r#type != SEQPACKET || entry.state != CONNECTED) {
            let rule = "requests are made by a connected socket of packets";
            return Err(Error::invalid(label(entry), "uflags", entry.uflags, rule));
        }
        let seen = if given {
            Seen::Given
        } else if is_outside(entry) {
            Seen::Outside(address(entry)?)
        } else {
            self.own.push(entry);
            Seen::Own(self.own.len() - 1)
        };
        let own = matches!(seen, Seen::Own(_));
        match self.by_inode.insert(entry.ino, seen) {
            None => Ok(own),
            Some(_) => Err(Error::Duplicate {
                image: "files.img".into(),
                what: "socket",
                id: entry.ino.into(),
            }),
        }
    }

    fn relation(&self, at: usize) -> Result<Relation, Error> {
        let entry = self.own[at];
        let datagrams = kind(entry)? == SocketType::DGRAM;
        if is_service(entry) {
            // It finds the answer, and nobody behind it.
            return Ok(Relation::Closed);
        }
        if entry.peer == 0 {
            let nameless = entry.name.is_empty() && entry.state == CONNECTED;
            let gone = entry.gelid.as_ref().and_then(|gelid| gelid.peer_gone);
            return Ok(match datagrams {
                true if nameless || gone == Some(true) => Relation::Closed,
                false if entry.state == CONNECTED => Relation::Closed,
                _ => Relation::None,
            });
        }
        let external = || Error::External {
            object: label(entry),
            key: format!("socket:[{}]", entry.ino),
        };
        let wrong = |rule| Error::invalid(label(entry), "peer", entry.peer, rule);
        let other = match self.by_inode.get(&entry.peer) {
            None => {
                return Err(Error::Missing {
                    by: label(entry),
                    what: "socket",
                    id: entry.peer.into(),
                    image: "files.img",
                });
            }
            Some(Seen::Outside(Some(address))) if datagrams => {
                return Ok(Relation::OneWay(Target::Outside(address.clone())));
            }
            Some(Seen::Outside(_) | Seen::Given) => return Err(external()),
            Some(Seen::Own(other)) => *other,
        };
        let peer = self.own[other];
        if peer.r#type != entry.r#type {
            return Err(wrong("the peer is a socket of another type"));
        }
        if entry.state == LISTENING {
            return Err(wrong("a socket that listens has no peer"));
        }
        match datagrams {
            false if peer.state == LISTENING => Ok(Relation::Waits(other)),
            _ if peer.peer == entry.ino && other != at => Ok(Relation::Mutual(other)),
            false => Err(wrong("the peer is connected with another socket")),
            true => self.one_way(at, other),
        }
    }

    /// A datagram socket that connects with one of the tree by its name.
    fn one_way(&self, at: usize, other: usize) -> Result<Relation, Error> {
        let peer = self.own[other];
        match peer.name.is_empty() {
            true => Err(Error::Unsupported {
                object: label(self.own[at]),
                what: "connected with a socket without a name, which others are connected with",
                remedy: "let the program close it before the dump",
            }),
            false => Ok(Relation::OneWay(Target::Socket(peer.id))),
        }
    }

    /// Two datagram sockets with which others are connected, or to which others have sent something, were
    /// no pair from the start: who has a peer hears nobody else. So each connects with the other after that.
    fn part_friends(&self, relations: &mut [Relation], packets: &[Packet]) -> Result<(), Error> {
        let others = relations.iter().filter_map(|relation| match relation {
            Relation::OneWay(Target::Socket(id)) => Some(*id),
            _ => None,
        });
        let others: BTreeSet<u32> = others.collect();
        let sent = packets.iter().filter(|packet| packet.source.is_some());
        let sent = sent.map(|packet| (packet.to, &packet.source));
        let sent: BTreeMap<u32, &Option<Address>> = sent.collect();
        for at in 0..relations.len() {
            let Relation::Mutual(other) = relations[at] else {
                continue;
            };
            let (one, two) = (self.own[at], self.own[other]);
            let foreign = |to: &UnixSkEntry, peer: &UnixSkEntry| {
                let source = sent.get(&to.id).and_then(|source| source.as_ref());
                source.is_some_and(|source| !source.is(&peer.name))
            };
            let named = !one.name.is_empty() && !two.name.is_empty();
            if others.contains(&one.id)
                || others.contains(&two.id)
                || named && (foreign(one, two) || foreign(two, one))
            {
                relations[at] = self.one_way(at, other)?;
                relations[other] = self.one_way(other, at)?;
            }
        }
        Ok(())
    }

    /// Names of senders that no datagram socket of the tree has.
    fn strangers(&self, packets: &[Packet]) -> Vec<Address> {
        let sources = packets.iter().filter_map(|packet| packet.source.as_ref());
        let sources: BTreeSet<&Address> = sources.collect();
        let known = |source: &Address| {
            let mut own = self
                .own
                .iter()
                .filter(|it| matches!(kind(it), Ok(SocketType::DGRAM)));
            own.any(|entry| source.is(&entry.name))
        };
        sources
            .into_iter()
            .filter(|it| !known(it))
            .cloned()
            .collect()
    }
}

/// Plans all sockets.
pub(in super::super) fn plan(
    records: &Records<'_>,
    packets: Vec<Packet>,
) -> Result<(BTreeMap<u32, Box<Unix>>, Sockets), Error> {
    let clients = records.own.iter().filter(|entry| is_service(entry));
    let count = records.own.len();
    let relations = (0..count).map(|at| records.relation(at));
    let mut relations: Vec<Relation> = relations.collect::<Result<_, _>>()?;
    records.part_friends(&mut relations, &packets)?;
    let names = records.own.iter().map(|entry| bound(entry));
    let names: Vec<Option<Bound>> = names.collect::<Result<_, _>>()?;
    let mut sockets = Sockets {
        strangers: records.strangers(&packets),
        clients: clients.map(|entry| entry.id).collect(),
        packets,
        ..Sockets::default()
    };
    let accepted = acceptors(records, &relations, &names, &mut sockets.lost)?;
    let mut planned = Vec::with_capacity(count);
    for (at, (entry, relation)) in records.own.iter().zip(&relations).enumerate() {
        let id = |at: usize| records.own[at].id;
        let origin = match (accepted[at], relation) {
            (Some(by), Relation::Mutual(other)) => match accepted[*other] {
                None => Origin::Accepted {
                    by,
                    from: Some(id(*other)),
                },
                Some(_) => {
                    let rule = "of two peers only one can have the name of a socket that listens";
                    return Err(Error::invalid(label(entry), "peer", entry.peer, rule));
                }
            },
            (Some(by), _) => Origin::Accepted { by, from: None },
            (None, Relation::Mutual(other)) => match accepted[*other] {
                None => Origin::Pair(id(*other)),
                Some(_) => Origin::Connecting(id(*other)),
            },
            (None, Relation::Closed) => Origin::Severed,
            (None, Relation::Waits(listener)) => Origin::Waiting(id(*listener)),
            (None, Relation::None | Relation::OneWay(_)) => Origin::Alone,
        };
        let target = match relation {
            Relation::OneWay(target) => Some(target.clone()),
            _ => None,
        };
        let name = names[at].clone().filter(|_| accepted[at].is_none());
        let socket = socket(entry, origin, name, target)?;
        sockets.order.push(entry.id);
        planned.push((entry.id, Box::new(socket)));
    }
    let planned = planned.into_iter().collect();
    sockets.find_senders(&planned);
    sockets.connects = order::connects(&sockets.order, &planned)?;
    Ok((planned, sockets))
}

/// Who has accepted each socket; `None` for those that were bound themselves, or not at all.
///
/// A socket that was accepted has the name of the one that listens. So several sockets with one name,
/// which no two can be bound to, come from one listener, even if that is gone.
fn acceptors(
    records: &Records<'_>,
    relations: &[Relation],
    names: &[Option<Bound>],
    lost: &mut Vec<Lost>,
) -> Result<Vec<Option<Listener>>, Error> {
    type Place<'n> = (Option<&'n Name>, Option<i32>, Option<u32>);
    type Key<'n> = (u32, &'n Address, Place<'n>, bool);
    let mut groups: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
    for (at, entry) in records.own.iter().enumerate() {
        if let Some(name) = &names[at] {
            let directory = name.directory.as_ref();
            // In each mount namespace there may be one of the same name; in each network namespace, of names of no file.
            let network = entry.ns_id.filter(|_| entry.name.first() == Some(&0));
            let place = (directory, name.mount, network);
            let key = (entry.r#type, &name.address, place, name.deleted);
            groups.entry(key).or_default().push(at);
        }
    }
    let mut accepted = vec![None; records.own.len()];
    for ((.., deleted), members) in groups {
        let connected = |at: &usize| {
            let stream = !matches!(kind(records.own[*at]), Ok(SocketType::DGRAM));
            stream && matches!(relations[*at], Relation::Mutual(_) | Relation::Closed)
        };
        let first = members[0];
        let (connected, binders): (Vec<usize>, Vec<usize>) =
            members.into_iter().partition(connected);
        let mut listeners = binders.iter();
        let listener = listeners.find(|at| records.own[**at].state == LISTENING);
        let bound = binders.len() + usize::from(binders.is_empty());
        if bound > 1 && !deleted
            || listener.is_none() && !binders.is_empty() && !connected.is_empty()
        {
            let entry = records.own[first];
            let (name, rule) = (
                entry.name.escape_ascii(),
                "no two sockets can have one name",
            );
            return Err(Error::invalid(label(entry), "name", name, rule));
        }
        // Two who were made at once see the same peer; who was accepted sees another than who has connected.
        let accepted_alone = |at: usize| match relations[at] {
            Relation::Mutual(other) => peer(records.own[at]) != peer(records.own[other]),
            _ => false,
        };
        let by = match (listener, &connected[..]) {
            (Some(listener), _) => Listener::Socket(records.own[*listener].id),
            (None, [first, rest @ ..]) if !rest.is_empty() || accepted_alone(*first) => {
                let kind = kind(records.own[*first])?;
                if let Some(name) = names[*first].clone() {
                    lost.push(Lost { kind, name });
                }
                Listener::Lost(lost.len() - 1)
            }
            (None, _) => continue,
        };
        for at in connected {
            accepted[at] = Some(by);
        }
    }
    Ok(accepted)
}

fn socket(
    entry: &UnixSkEntry,
    origin: Origin,
    name: Option<Bound>,
    target: Option<Target>,
) -> Result<Unix, Error> {
    let object = Label(entry);
    let kind = kind(entry)?;
    let listens = entry.state == LISTENING;
    if listens && (kind == SocketType::DGRAM || name.is_none()) {
        let rule = "a socket that listens is bound and knows connections";
        return Err(Error::invalid(object, "state", entry.state, rule));
    }
    let shutdown = match entry.shutdown.map(SkShutdown::try_from) {
        None | Some(Ok(SkShutdown::None)) => 0,
        Some(Ok(SkShutdown::Read)) => 1,
        Some(Ok(SkShutdown::Write)) => 2,
        Some(Ok(SkShutdown::Both)) => 3,
        Some(Err(_)) => {
            let found = entry.shutdown.unwrap_or_default();
            let rule = "it is one or both of two directions";
            return Err(Error::invalid(object, "shutdown", found, rule));
        }
    };
    let gelid = entry.gelid.clone().unwrap_or_default();
    let peek_offset = gelid.peek_off.map(|offset| {
        let rule = "no offset is that large";
        i32::try_from(offset).map_err(|_| Error::invalid(object, "peek_off", offset, rule))
    });
    Ok(Unix {
        inode: entry.ino,
        kind,
        origin,
        backlog: listens.then_some(entry.backlog),
        name,
        target,
        shutdown,
        options: sk_opts::plan(object, &entry.opts)?,
        peer: peer(entry),
        reset: gelid.reset == Some(true),
        peek_offset: peek_offset.transpose()?,
        pass_pidfd: gelid.passpidfd == Some(true),
    })
}

fn peer(entry: &UnixSkEntry) -> Option<Who> {
    who(entry.gelid.as_ref()?.peer.as_ref()?)
}

fn kind(entry: &UnixSkEntry) -> Result<SocketType, Error> {
    match entry.r#type {
        1 => Ok(SocketType::STREAM),
        2 => Ok(SocketType::DGRAM),
        5 => Ok(SocketType::SEQPACKET),
        other => {
            let rule = "a Unix socket is of type 1, 2 or 5";
            Err(Error::invalid(label(entry), "type", other, rule))
        }
    }
}

fn address(entry: &UnixSkEntry) -> Result<Option<Address>, Error> {
    Address::new(&entry.name).map_err(|rule| {
        let found = entry.name.escape_ascii();
        Error::invalid(label(entry), "name", found, rule)
    })
}

fn bound(entry: &UnixSkEntry) -> Result<Option<Bound>, Error> {
    let Some(address) = address(entry)? else {
        return Ok(None);
    };
    if let Address::Abstract(_) = address {
        return Ok(Some(Bound {
            address,
            directory: None,
            deleted: false,
            permissions: None,
            mount: None,
        }));
    }
    let directory = entry.name_dir.as_ref().filter(|it| !it.is_empty());
    let directory = directory.map(|directory| {
        Name::new(directory).map_err(|rule| {
            let found = directory.escape_ascii();
            Error::invalid(label(entry), "name_dir", found, rule)
        })
    });
    let permissions = entry.file_perms.as_ref();
    Ok(Some(Bound {
        address,
        directory: directory.transpose()?,
        deleted: entry.deleted == Some(true),
        mount: entry.mnt_id,
        permissions: permissions.map(|file| (file.mode & 0o7777, file.uid, file.gid)),
    }))
}

fn label(entry: &UnixSkEntry) -> String {
    Label(entry).to_string()
}

/// The same, written down only where there is a message.
#[derive(Clone, Copy)]
struct Label<'e>(&'e UnixSkEntry);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} (socket:[{}])", self.0.id, self.0.ino)
    }
}
