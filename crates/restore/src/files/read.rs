//! From records to a [`FilesPlan`]: reading and checking, without any change of the machine.

use std::collections::{BTreeMap, BTreeSet};

use gelid_image::messages::{
    FdTypes, FifoEntry, FileEntry, FownEntry, MemfdFileEntry, PipeEntry, RegFileEntry,
    TtyFileEntry, UnixSkEntry,
};
use gelid_image::{Dir, ImageKind, Record};

use super::memfd::{self, Memory};
use super::regular::{self, Regular};
use super::remap::{self, Remap, Target};
use super::{
    Description, Error, FileOptions, FilesPlan, Flags, Given, Kind, Name, fifo, ghost, owner, pipe,
    table, tty,
};

/// Image that most references lead to.
const FILES: &str = "files.img";

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
        targets: records.targets(),
        wanted: table::first_users(&tables),
        records: &records,
    };
    let mut plan = FilesPlan {
        dir: dir.clone(),
        descriptions: BTreeMap::new(),
        tables: BTreeMap::new(),
        pipes: pipe::read(dir, ImageKind::PipesData)?,
        fifos: pipe::read(dir, ImageKind::FifoData)?,
        ghosts: BTreeMap::new(),
        memories: BTreeMap::new(),
        options: options.clone(),
    };
    reader.descriptions(&mut plan)?;
    plan.tables = table::check(tables, &records.kinds, &plan.descriptions)?;
    plan.check_packets()?;
    Ok(plan)
}

/// The records of all descriptions.
struct Records {
    entries: Vec<FileEntry>,
    regular: BTreeMap<u32, RegFileEntry>,
    /// Kind of each id, as descriptor tables repeat it.
    kinds: BTreeMap<u32, FdTypes>,
    /// Paths that belong to another record: those of FIFOs and terminals.
    parts: BTreeSet<u32>,
}

impl Records {
    fn read(dir: &Dir) -> Result<Self, Error> {
        let mut entries: Vec<FileEntry> = dir.read_all(ImageKind::Files, ())?;
        if entries.is_empty() {
            entries = obsolete(dir)?;
        }
        let mut records = Self {
            entries: Vec::new(),
            regular: BTreeMap::new(),
            kinds: BTreeMap::new(),
            parts: BTreeSet::new(),
        };
        for entry in &entries {
            let regf = entry.fifo.as_ref().and_then(|fifo| fifo.regf_id);
            let path = entry.tty.as_ref().and_then(|tty| tty.regf_id);
            records.parts.extend(regf.into_iter().chain(path));
        }
        let twice = |id: u32| Error::Duplicate {
            image: FILES.into(),
            what: "file",
            id: id.into(),
        };
        for entry in entries {
            let (id, kind) = (entry.id, entry.r#type());
            if let (FdTypes::Reg, Some(reg)) = (kind, &entry.reg)
                && records.regular.insert(id, reg.clone()).is_some()
            {
                return Err(twice(id));
            }
            if kind == FdTypes::Reg && records.parts.contains(&id) {
                continue;
            }
            if records.kinds.insert(id, kind).is_some() {
                return Err(twice(id));
            }
            records.entries.push(entry);
        }
        Ok(records)
    }

    /// Files that other files may be remapped to.
    fn targets(&self) -> BTreeMap<u32, &RegFileEntry> {
        self.regular.iter().map(|(id, reg)| (*id, reg)).collect()
    }
}

/// Records of the layout in which each kind had a file of its own (section 25), as those of today. Kinds
/// that are not supported are missed by the tables that refer to them.
fn obsolete(dir: &Dir) -> Result<Vec<FileEntry>, Error> {
    fn all<M: Record>(
        dir: &Dir,
        kind: ImageKind,
        to: &mut Vec<FileEntry>,
        wrap: impl Fn(M) -> FileEntry,
    ) -> Result<(), Error> {
        to.extend(dir.read_all::<M>(kind, ())?.into_iter().map(wrap));
        Ok(())
    }
    let mut entries = Vec::new();
    let of = |kind: FdTypes, id: u32| FileEntry {
        r#type: kind.into(),
        id,
        ..Default::default()
    };
    all(
        dir,
        ImageKind::RegFiles,
        &mut entries,
        |reg: RegFileEntry| FileEntry {
            reg: Some(reg.clone()),
            ..of(FdTypes::Reg, reg.id)
        },
    )?;
    all(dir, ImageKind::Pipes, &mut entries, |pipe: PipeEntry| {
        FileEntry {
            pipe: Some(pipe.clone()),
            ..of(FdTypes::Pipe, pipe.id)
        }
    })?;
    all(dir, ImageKind::Fifo, &mut entries, |fifo: FifoEntry| {
        FileEntry {
            fifo: Some(fifo.clone()),
            ..of(FdTypes::Fifo, fifo.id)
        }
    })?;
    all(
        dir,
        ImageKind::TtyFiles,
        &mut entries,
        |tty: TtyFileEntry| FileEntry {
            tty: Some(tty.clone()),
            ..of(FdTypes::Tty, tty.id)
        },
    )?;
    all(dir, ImageKind::Unixsk, &mut entries, |usk: UnixSkEntry| {
        FileEntry {
            usk: Some(usk.clone()),
            ..of(FdTypes::Unixsk, usk.id)
        }
    })?;
    Ok(entries)
}

/// Turns records into descriptions.
struct Reader<'a> {
    dir: &'a Dir,
    options: &'a FileOptions,
    records: &'a Records,
    remaps: BTreeMap<u32, Target>,
    memories: BTreeMap<u64, Memory>,
    terminals: tty::Terminals,
    targets: BTreeMap<u32, &'a RegFileEntry>,
    /// Table and descriptor that need a file first.
    wanted: BTreeMap<u32, (u32, i32)>,
}

impl Reader<'_> {
    fn descriptions(&self, plan: &mut FilesPlan) -> Result<(), Error> {
        let linked: BTreeSet<u32> = self.remaps.values().filter_map(Target::file).collect();
        for entry in &self.records.entries {
            // A link that stands in for another file is a name, not an open file.
            if linked.contains(&entry.id) && !self.remaps.contains_key(&entry.id) {
                continue;
            }
            let description = self.description(entry, plan)?;
            plan.descriptions.insert(entry.id, description);
        }
        Ok(())
    }

    fn description(&self, entry: &FileEntry, plan: &mut FilesPlan) -> Result<Description, Error> {
        let id = entry.id;
        let lacking = || {
            let rule = "the record lacks the part that its kind asks for, or that has another id";
            Error::invalid(
                format!("{FILES}: file {id}"),
                "type",
                kind_name(entry).0,
                rule,
            )
        };
        let part = match entry.r#type() {
            FdTypes::Reg => {
                let reg = entry
                    .reg
                    .as_ref()
                    .filter(|reg| reg.id == id)
                    .ok_or_else(lacking)?;
                self.regular(reg, plan)?
            }
            FdTypes::Pipe => {
                let pipe = entry
                    .pipe
                    .as_ref()
                    .filter(|pipe| pipe.id == id)
                    .ok_or_else(lacking)?;
                self.pipe(pipe)
            }
            FdTypes::Fifo => {
                let fifo = entry
                    .fifo
                    .as_ref()
                    .filter(|fifo| fifo.id == id)
                    .ok_or_else(lacking)?;
                let by = format!("file {id} (a FIFO)");
                let reg = self.path(&by, fifo.regf_id)?;
                let file = self.file(reg, plan)?;
                let kind = Kind::Fifo(fifo::plan(fifo, file));
                Part::new(kind, reg.flags, Some(&reg.fown))
            }
            FdTypes::Tty => {
                let tty = entry
                    .tty
                    .as_ref()
                    .filter(|tty| tty.id == id)
                    .ok_or_else(lacking)?;
                self.terminal(tty)?
            }
            FdTypes::Memfd => {
                let file = entry
                    .memfd
                    .as_ref()
                    .filter(|file| file.id == id)
                    .ok_or_else(lacking)?;
                let Some(memory) = self.memories.get(&file.inode_id.into()) else {
                    return Err(Error::Missing {
                        by: format!("file {id}"),
                        what: "memory object",
                        id: file.inode_id.into(),
                        image: "memfd.img",
                    });
                };
                self.memory(file, memory, plan)
            }
            FdTypes::Unixsk => {
                let socket = entry
                    .usk
                    .as_ref()
                    .filter(|usk| usk.id == id)
                    .ok_or_else(lacking)?;
                let key = format!("socket:[{}]", socket.ino);
                match self.given(key.into_bytes(), false) {
                    Some(kind) => Part::new(kind, socket.flags, Some(&socket.fown)),
                    None => return Err(self.unsupported(entry)),
                }
            }
            _ => return Err(self.unsupported(entry)),
        };
        let mut description = Description {
            id,
            flags: Flags(part.flags),
            kind: part.kind,
            owner: None,
        };
        if let Some(fown) = part.owner {
            description.owner = owner::plan(&description.label(), fown)?;
        }
        Ok(description)
    }

    fn regular<'e>(&self, reg: &'e RegFileEntry, plan: &mut FilesPlan) -> Result<Part<'e>, Error> {
        let external = reg.ext == Some(true);
        let key = match external {
            true => reg.name.clone(),
            false => self.name(reg)?.relative().to_vec(),
        };
        let kind = match self.given(key, false) {
            Some(given) => given,
            None if external => {
                return Err(Error::External {
                    object: format!("file {}", reg.id),
                    key: String::from_utf8_lossy(&reg.name).into_owned(),
                });
            }
            None => Kind::Regular(self.file(reg, plan)?),
        };
        Ok(Part::new(kind, reg.flags, Some(&reg.fown)))
    }

    /// A file with a path, with what stands in for its path.
    fn file(&self, reg: &RegFileEntry, plan: &mut FilesPlan) -> Result<Regular, Error> {
        let name = self.name(reg)?;
        let label = format!("file {} ({name})", reg.id);
        let remap = match self.remaps.get(&reg.id) {
            None => None,
            Some(Target::Link(id)) => match self.targets.get(id) {
                Some(target) => Some(Remap::Link(self.name(target)?)),
                None => {
                    return Err(Error::Missing {
                        by: label,
                        what: "link",
                        id: (*id).into(),
                        image: FILES,
                    });
                }
            },
            Some(Target::Ghost(id)) => {
                if !plan.ghosts.contains_key(id) {
                    plan.ghosts.insert(*id, ghost::read(self.dir, *id, &label)?);
                }
                Some(Remap::Ghost(*id))
            }
            Some(Target::Process) => return Err(regular::of_process(&label)),
        };
        if remap.is_none() && name.process().is_some() {
            return Err(regular::of_process(&label));
        }
        regular::plan(label, reg, name, remap)
    }

    fn name(&self, reg: &RegFileEntry) -> Result<Name, Error> {
        Name::new(&reg.name).map_err(|rule| {
            let found = reg.name.escape_ascii();
            Error::invalid(format!("{FILES}: file {}", reg.id), "name", found, rule)
        })
    }

    /// The record with the path of a FIFO.
    fn path(&self, by: &str, id: Option<u32>) -> Result<&RegFileEntry, Error> {
        let found = id.and_then(|id| self.records.regular.get(&id));
        found.ok_or_else(|| Error::Missing {
            by: by.to_owned(),
            what: "path",
            id: id.unwrap_or_default().into(),
            image: FILES,
        })
    }

    fn pipe<'e>(&self, entry: &'e PipeEntry) -> Part<'e> {
        let id = entry.pipe_id;
        let given = self.given(format!("pipe:[{id}]").into_bytes(), true);
        Part::new(
            given.unwrap_or(Kind::Pipe(id)),
            entry.flags,
            Some(&entry.fown),
        )
    }

    fn memory<'e>(
        &self,
        entry: &'e MemfdFileEntry,
        memory: &Memory,
        plan: &mut FilesPlan,
    ) -> Part<'e> {
        let key = [b"/memfd:", &memory.name[..]].concat();
        let kind = self.given(key, true).unwrap_or_else(|| {
            plan.memories.insert(memory.inode, memory.clone());
            Kind::Memory(memfd::plan(entry))
        });
        Part::new(kind, entry.flags, Some(&entry.fown))
    }

    fn terminal<'e>(&self, entry: &'e TtyFileEntry) -> Result<Part<'e>, Error> {
        let label = format!("file {} (terminal {})", entry.id, entry.tty_info_id);
        let info = self.terminals.info(&label, entry.tty_info_id)?;
        let kind = match self.given(tty::key(info).into_bytes(), false) {
            Some(given) => given,
            None => {
                let name = match entry.regf_id {
                    Some(_) => Some(self.name(self.path(&label, entry.regf_id)?)?),
                    None => None,
                };
                let shell_job = self.options.shell_job;
                Kind::Terminal(self.terminals.plan(&label, info, name, shell_job)?)
            }
        };
        Ok(Part::new(kind, entry.flags, Some(&entry.fown)))
    }

    /// The descriptor that the caller gives for what is called `key`.
    fn given(&self, key: Vec<u8>, reopen: bool) -> Option<Kind> {
        let fd = self.options.inherited(&key)?;
        let key = String::from_utf8_lossy(&key).into_owned();
        Some(Kind::Given(Given { fd, key, reopen }))
    }

    fn unsupported(&self, entry: &FileEntry) -> Error {
        let (what, remedy) = kind_name(entry);
        let object = match self.wanted.get(&entry.id) {
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

/// What a record describes, and what to do if that is not supported.
fn kind_name(entry: &FileEntry) -> (&'static str, &'static str) {
    const WITHOUT: &str = "dump the program without it";
    const SOCKET: &str = "close it before the dump";
    match entry.r#type() {
        FdTypes::Und => ("of no kind", WITHOUT),
        FdTypes::Reg => ("a file with a path", WITHOUT),
        FdTypes::Pipe => ("a pipe", WITHOUT),
        FdTypes::Fifo => ("a FIFO", WITHOUT),
        FdTypes::Inetsk => ("an internet socket", SOCKET),
        FdTypes::Unixsk => (
            "a Unix socket",
            "close it before the dump, or give it with --inherit-fd 'fd[N]:socket:[INODE]'",
        ),
        FdTypes::Eventfd => ("an eventfd", WITHOUT),
        FdTypes::Eventpoll => ("an epoll instance", WITHOUT),
        FdTypes::Inotify => ("an inotify instance", WITHOUT),
        FdTypes::Signalfd => ("a signalfd", WITHOUT),
        FdTypes::Packetsk => ("a packet socket", SOCKET),
        FdTypes::Tty => ("a terminal", WITHOUT),
        FdTypes::Fanotify => ("a fanotify group", WITHOUT),
        FdTypes::Netlinksk => ("a netlink socket", SOCKET),
        FdTypes::Ns => ("a namespace", WITHOUT),
        FdTypes::Tunf => ("a tun device", WITHOUT),
        FdTypes::Ext => (
            "a file of a plugin",
            "gelid has no plugins; dump the program without it",
        ),
        FdTypes::Timerfd => ("a timerfd", WITHOUT),
        FdTypes::Memfd => ("a memfd", WITHOUT),
        FdTypes::Bpfmap => ("a BPF map", WITHOUT),
        FdTypes::Pidfd => ("a pidfd", WITHOUT),
        FdTypes::CtlTty | FdTypes::AutofsPipe => ("of a kind that images do not have", WITHOUT),
    }
}
