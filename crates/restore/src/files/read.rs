//! From records to a [`FilesPlan`]: reading and checking, without any change of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gelid_image::messages::{
    FdTypes, FownEntry, MemfdFileEntry, PipeEntry, RegFileEntry, TtyFileEntry, UnixSkEntry,
};
use gelid_image::{Dir, ImageKind};

use super::memfd::{self, Memory};
use super::records::{Body, Entry, FILES, Records};
use super::regular::{self, Regular};
use super::remap::{self, Remap, Target};
use super::{
    Description, Error, FileOptions, FilesPlan, Flags, Given, Kind, Name, Unix, bpf_map, eventfd,
    eventpoll, fanotify, fifo, file_lock, ghost, inet, inotify, mqueue, netlink, ns, owner,
    packet_sock, pidfd, pipe, signalfd, table, tcp, timerfd, tty, tun, unix, vsock,
};

/// Reads everything. See [`FilesPlan::read`].
pub(super) fn read(dir: &Dir, tables: &[u32], options: &FileOptions) -> Result<FilesPlan, Error> {
    let records = Records::read(dir)?;
    let tables = table::read_all(dir, tables)?;
    let reader = Reader {
        dir,
        options,
        remaps: remap::read(dir)?,
        memories: memfd::read(dir)?,
        terminals: tty::Terminals::read(dir)?,
        bpf_maps: bpf_map::read(dir)?,
        tables: &tables,
        records: &records,
    };
    let mut plan = FilesPlan {
        dir: dir.clone(),
        descriptions: Arc::default(),
        tables: BTreeMap::new(),
        pipes: pipe::read(dir, ImageKind::PipesData)?,
        fifos: pipe::read(dir, ImageKind::FifoData)?,
        ghosts: BTreeMap::new(),
        memories: BTreeMap::new(),
        watches: BTreeMap::new(),
        sockets: unix::Sockets::default(),
        network: tcp::Network::read(dir)?,
        lock_entries: file_lock::read(dir)?,
        locks: Vec::new(),
        terminals: tty::State::default(),
        options: options.clone(),
    };
    plan.network.check(options)?;
    reader.descriptions(&mut plan)?;
    plan.terminals = reader
        .terminals
        .state(&plan.descriptions, records.terminals())?;
    plan.tables = table::check(tables, &records.kinds, &plan.descriptions)?;
    plan.check_packets()?;
    plan.resolve_watches()?;
    plan.resolve_notified()?;
    Ok(plan)
}

/// Turns records into descriptions.
struct Reader<'a> {
    dir: &'a Dir,
    options: &'a FileOptions,
    records: &'a Records,
    remaps: BTreeMap<u32, Target>,
    memories: BTreeMap<u64, Memory>,
    terminals: tty::Terminals,
    bpf_maps: bpf_map::Contents,
    tables: &'a [table::Table],
}

impl Reader<'_> {
    fn descriptions(&self, plan: &mut FilesPlan) -> Result<(), Error> {
        let mut sockets = self.sockets(plan)?;
        let linked: BTreeSet<u32> = self.remaps.values().filter_map(Target::file).collect();
        let mut descriptions = Vec::with_capacity(self.records.entries.len());
        for entry in &self.records.entries {
            // A link that stands in for another file is a name, not an open file.
            if linked.contains(&entry.id) && !self.remaps.contains_key(&entry.id) {
                continue;
            }
            if let Some(Body::Socket(socket)) = &entry.body
                && unix::is_outside(socket)
            {
                continue;
            }
            let description = self.description(entry, &mut sockets, plan)?;
            descriptions.push((entry.id, description));
        }
        plan.descriptions = Arc::new(descriptions.into_iter().collect());
        Ok(())
    }

    /// Plans the Unix sockets, as far as the caller does not give them.
    fn sockets(&self, plan: &mut FilesPlan) -> Result<BTreeMap<u32, Box<Unix>>, Error> {
        let mut records = unix::Records::default();
        for entry in &self.records.entries {
            if let Some(Body::Socket(socket)) = &entry.body {
                records.add(socket, self.given_socket(socket).is_some())?;
            }
        }
        let known = |id| self.records.kinds.contains_key(&id);
        let packets = unix::read_packets(self.dir, known)?;
        let (planned, sockets) = unix::plan(&records, packets)?;
        sockets.check_packets(&planned)?;
        plan.sockets = sockets;
        Ok(planned)
    }

    fn given_socket(&self, socket: &UnixSkEntry) -> Option<Kind> {
        self.given(|| format!("socket:[{}]", socket.ino).into_bytes(), false)
    }

    fn description(
        &self,
        entry: &Entry,
        sockets: &mut BTreeMap<u32, Box<Unix>>,
        plan: &mut FilesPlan,
    ) -> Result<Description, Error> {
        let id = entry.id;
        let part = match &entry.body {
            Some(Body::Regular) => self.regular(self.path("a file", Some(id))?, plan)?,
            Some(Body::Pipe(pipe)) => self.pipe(pipe),
            Some(Body::Fifo(fifo)) => {
                let by = format!("file {id} (a FIFO)");
                let reg = self.path(&by, fifo.regf_id)?;
                let file = self.file(reg, self.name(reg)?, plan)?;
                let kind = Kind::Fifo(fifo::plan(fifo, file));
                Part::new(kind, reg.flags, Some(&reg.fown))
            }
            Some(Body::Terminal(tty)) => self.terminal(tty)?,
            Some(Body::Tun(file)) => {
                let object = format!("file {id} (TUN device)");
                let reg = self.path(&object, Some(id))?;
                let kind = Kind::Tun(tun::plan(&object, file, self.name(reg)?)?);
                Part::new(kind, reg.flags, Some(&reg.fown))
            }
            Some(Body::Namespace(file)) => {
                let object = format!("file {id} (namespace)");
                let kind = Kind::Namespace(ns::plan(self.dir, &object, file)?);
                Part::new(kind, file.flags, None)
            }
            Some(Body::Memory(file)) => self.memory(file, plan)?,
            Some(Body::Eventfd(file)) => {
                let kind = Kind::Eventfd(eventfd::plan(format_args!("file {id} (eventfd)"), file)?);
                Part::new(kind, file.flags, Some(&file.fown))
            }
            Some(Body::Eventpoll(file)) => {
                let set = eventpoll::plan(&format!("file {id} (epoll set)"), file)?;
                Part::new(Kind::Eventpoll(set), file.flags, Some(&file.fown))
            }
            Some(Body::Signalfd(file)) => {
                let kind = Kind::Signalfd(signalfd::plan(file));
                Part::new(kind, file.flags, Some(&file.fown))
            }
            Some(Body::Inotify(file)) => {
                let queue = inotify::plan(&format!("file {id} (inotify)"), file)?;
                Part::new(Kind::Inotify(queue), file.flags, Some(&file.fown))
            }
            Some(Body::Fanotify(file)) => {
                let group = fanotify::plan(&format!("file {id} (fanotify)"), file)?;
                Part::new(Kind::Fanotify(group), file.flags, Some(&file.fown))
            }
            Some(Body::BpfMap(file)) => {
                let map = bpf_map::plan(&format!("file {id} (BPF map)"), file, &self.bpf_maps)?;
                Part::new(Kind::BpfMap(Box::new(map)), file.flags, Some(&file.fown))
            }
            Some(Body::Pidfd(file)) => {
                let pidfd = pidfd::plan(&format!("file {id} (pidfd)"), file)?;
                Part::new(Kind::Pidfd(pidfd), file.flags, None)
            }
            Some(Body::Timerfd(file)) => {
                let timer = timerfd::plan(&format!("file {id} (timerfd)"), file)?;
                Part::new(Kind::Timerfd(timer), file.flags, Some(&file.fown))
            }
            Some(Body::Socket(socket)) => {
                let own = || Some(Kind::Unix(sockets.remove(&id)?));
                match self.given_socket(socket).or_else(own) {
                    Some(kind) => Part::new(kind, socket.flags, Some(&socket.fown)),
                    None => return Err(self.unsupported(entry)),
                }
            }
            Some(Body::PacketSock(socket)) => {
                let object = format!("file {id} (packet socket)");
                let kind = Kind::PacketSock(Box::new(packet_sock::plan(&object, socket)?));
                Part::new(kind, socket.flags, Some(&socket.fown))
            }
            Some(Body::Netlink(socket)) => {
                let object = format!("file {id} (socket:[{}])", socket.ino);
                let kind = Kind::Netlink(Box::new(netlink::plan(&object, socket)?));
                Part::new(kind, socket.flags, Some(&socket.fown))
            }
            Some(Body::Internet(socket)) if vsock::is_one(socket) => {
                let object = format!("file {id} (socket:[{}])", socket.ino);
                let kind = Kind::Vsock(Box::new(vsock::plan(&object, socket)?));
                Part::new(kind, socket.flags, Some(&socket.fown))
            }
            Some(Body::Internet(socket)) => {
                let key = || format!("socket:[{}]", socket.ino).into_bytes();
                let kind = match self.given(key, false) {
                    Some(given) => given,
                    None => {
                        let object = format!("file {id} (socket:[{}])", socket.ino);
                        let context = inet::Context {
                            dir: self.dir,
                            options: self.options,
                        };
                        Kind::Internet(Box::new(inet::plan(context, &object, socket)?))
                    }
                };
                Part::new(kind, socket.flags, Some(&socket.fown))
            }
            None => return Err(self.unsupported(entry)),
        };
        let mut description = Description {
            id,
            flags: Flags(part.flags),
            kind: part.kind,
            owner: None,
            network: entry.body.as_ref().and_then(Body::network),
        };
        if let Some(fown) = part.owner.filter(|fown| owner::is_set(fown)) {
            description.owner = Some(owner::plan(&description.label(), fown)?);
        }
        Ok(description)
    }

    fn regular<'e>(&self, reg: &'e RegFileEntry, plan: &mut FilesPlan) -> Result<Part<'e>, Error> {
        if reg.mqueue == Some(true) {
            let queue = mqueue::plan(&format!("file {}", reg.id), reg)?;
            return Ok(Part::new(Kind::Queue(queue), reg.flags, Some(&reg.fown)));
        }
        if reg.ext == Some(true) {
            let Some(given) = self.given(|| reg.name.clone(), false) else {
                return Err(Error::External {
                    object: format!("file {}", reg.id),
                    key: String::from_utf8_lossy(&reg.name).into_owned(),
                });
            };
            return Ok(Part::new(given, reg.flags, Some(&reg.fown)));
        }
        let name = self.name(reg)?;
        let kind = match self.given(|| name.relative().to_vec(), false) {
            Some(given) => given,
            None => Kind::Regular(self.file(reg, name, plan)?),
        };
        Ok(Part::new(kind, reg.flags, Some(&reg.fown)))
    }

    /// A file with a path, with what stands in for its path.
    fn file(&self, reg: &RegFileEntry, name: Name, plan: &mut FilesPlan) -> Result<Regular, Error> {
        let label = || format!("file {} ({name})", reg.id);
        let remap = match self.remaps.get(&reg.id) {
            // Not every file of a process that has ended is said to be one.
            None => name
                .process()
                .filter(|pid| self.has_ended(*pid))
                .map(Remap::Process),
            Some(Target::Link(id)) => match self.records.regular.get(id) {
                Some(target) => Some(Remap::Link(self.name(target)?)),
                None => {
                    return Err(Error::Missing {
                        by: label(),
                        what: "link",
                        id: (*id).into(),
                        image: FILES,
                    });
                }
            },
            Some(Target::Ghost(id)) => {
                if !plan.ghosts.contains_key(id) {
                    plan.ghosts
                        .insert(*id, ghost::read(self.dir, *id, &label())?);
                }
                Some(Remap::Ghost(*id))
            }
            Some(Target::Process(pid)) if name.process() == Some(*pid) => {
                Some(Remap::Process(*pid))
            }
            Some(Target::Process(pid)) => {
                let rule = "it is the process that the path belongs to";
                return Err(Error::invalid(label(), "remap_id", pid, rule));
            }
        };
        regular::plan(reg, name, remap)
    }

    fn has_ended(&self, pid: u32) -> bool {
        let mut remaps = self.remaps.values();
        remaps.any(|target| *target == Target::Process(pid))
    }

    fn name(&self, reg: &RegFileEntry) -> Result<Name, Error> {
        let name = Name::new(&reg.name).map_err(|rule| {
            let found = reg.name.escape_ascii();
            Error::invalid(format!("{FILES}: file {}", reg.id), "name", found, rule)
        });
        Ok(name?.on(reg.mnt_id))
    }

    /// The record with the path of a FIFO.
    fn path(&self, by: &str, id: Option<u32>) -> Result<&RegFileEntry, Error> {
        let found = id
            .and_then(|id| self.records.regular.get(&id))
            .map(|reg| &**reg);
        found.ok_or_else(|| Error::Missing {
            by: by.to_owned(),
            what: "path",
            id: id.unwrap_or_default().into(),
            image: FILES,
        })
    }

    fn pipe<'e>(&self, entry: &'e PipeEntry) -> Part<'e> {
        let id = entry.pipe_id;
        let given = self.given(|| format!("pipe:[{id}]").into_bytes(), true);
        Part::new(
            given.unwrap_or(Kind::Pipe(id)),
            entry.flags,
            Some(&entry.fown),
        )
    }

    fn memory<'e>(
        &self,
        entry: &'e MemfdFileEntry,
        plan: &mut FilesPlan,
    ) -> Result<Part<'e>, Error> {
        let Some(memory) = self.memories.get(&entry.inode_id.into()) else {
            return Err(Error::Missing {
                by: format!("file {}", entry.id),
                what: "memory object",
                id: entry.inode_id.into(),
                image: "memfd.img",
            });
        };
        let key = || [b"/memfd:", &memory.name[..]].concat();
        let kind = self.given(key, true).unwrap_or_else(|| {
            plan.memories.insert(memory.inode, memory.clone());
            Kind::Memory(memfd::plan(entry))
        });
        Ok(Part::new(kind, entry.flags, Some(&entry.fown)))
    }

    fn terminal<'e>(&self, entry: &'e TtyFileEntry) -> Result<Part<'e>, Error> {
        let label = format!("file {} (terminal {})", entry.id, entry.tty_info_id);
        let info = self.terminals.info(&label, entry.tty_info_id)?;
        let kind = match self.given(|| tty::key(info).into_bytes(), false) {
            Some(given) => given,
            None => {
                let node = match entry.regf_id {
                    Some(_) => {
                        let reg = self.path(&label, entry.regf_id)?;
                        Some(tty::Node {
                            name: self.name(reg)?,
                            mode: reg.mode.unwrap_or(0o620),
                        })
                    }
                    None => None,
                };
                let outside = tty::Outside::new(self.options);
                Kind::Terminal(self.terminals.plan(&label, entry, node, outside)?)
            }
        };
        Ok(Part::new(kind, entry.flags, Some(&entry.fown)))
    }

    /// The descriptor that the caller gives for what is called `key`.
    fn given(&self, key: impl FnOnce() -> Vec<u8>, reopen: bool) -> Option<Kind> {
        if self.options.inherit.is_empty() {
            return None;
        }
        let key = key();
        let fd = self.options.inherited(&key)?;
        let key = String::from_utf8_lossy(&key).into_owned();
        Some(Kind::Given(Given { fd, key, reopen }))
    }

    /// The refusal of a kind, or of a record that lacks what its kind asks for.
    fn unsupported(&self, entry: &Entry) -> Error {
        let Some((what, remedy)) = refused(entry.kind) else {
            let rule = "the record lacks the part that its kind asks for, or that has another id";
            let object = format!("{FILES}: file {}", entry.id);
            return Error::invalid(object, "type", format!("{:?}", entry.kind), rule);
        };
        let object = match table::first_user(self.tables, entry.id) {
            Some((table, fd)) => format!("descriptor {fd} of table {table} (file {})", entry.id),
            None => format!("file {}", entry.id),
        };
        Error::Unsupported {
            object,
            what,
            remedy,
        }
    }
}

/// What all kinds of records give.
struct Part<'a> {
    kind: Kind,
    flags: u32,
    owner: Option<&'a FownEntry>,
}

impl<'a> Part<'a> {
    fn new(kind: Kind, flags: u32, owner: Option<&'a FownEntry>) -> Self {
        Self { kind, flags, owner }
    }
}

/// What a kind is that is not supported, and what to do about it.
fn refused(kind: FdTypes) -> Option<(&'static str, &'static str)> {
    const WITHOUT: &str = "dump the program without it";
    Some(match kind {
        FdTypes::Reg | FdTypes::Pipe | FdTypes::Fifo | FdTypes::Tty | FdTypes::Memfd => {
            return None;
        }
        FdTypes::Unixsk | FdTypes::Inetsk => return None,
        FdTypes::Netlinksk | FdTypes::Packetsk => return None,
        FdTypes::Eventfd | FdTypes::Eventpoll | FdTypes::Signalfd | FdTypes::Timerfd => {
            return None;
        }
        FdTypes::Inotify | FdTypes::Fanotify | FdTypes::Pidfd | FdTypes::Bpfmap => return None,
        FdTypes::Ns | FdTypes::Tunf => return None,
        FdTypes::Und => ("of no kind", WITHOUT),
        FdTypes::Ext => ("a file of a plugin", WITHOUT),
        FdTypes::CtlTty | FdTypes::AutofsPipe => ("of a kind that images do not have", WITHOUT),
    })
}
