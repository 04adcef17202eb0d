//! From records of terminals to what is to be opened.

use std::collections::BTreeMap;

use gelid_image::messages::{TtyDataEntry, TtyFileEntry, TtyInfoEntry, TtyType};
use gelid_image::{Dir, ImageKind};
use gelid_sys::pty::{Line, Stop, Waiting, lines};
use gelid_sys::tty::Termios;

use super::super::{Description, Error, FileOptions, Flags, Kind, Name};
use super::pty::Pty;
use super::settings::{self, Settings};
use super::{Device, Session, State, Terminal};

/// More than waits in any pseudoterminal, each way.
const WAITING: usize = 128 << 10;
/// Numbers that images can tell end here.
const PTYS: u32 = 1000;

/// How a master is opened that nobody of the tree has: `O_RDWR`, `O_NOCTTY`.
const MASTER: u32 = 0x102;

/// What becomes of a terminal whose master was outside.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Outside {
    /// It gets a new one.
    gets_master: bool,
    /// The terminal of the restore stands in.
    is_own: bool,
}

impl Outside {
    pub(in super::super) fn new(options: &FileOptions) -> Self {
        Self {
            gets_master: options.orphan_pts_master,
            is_own: options.shell_job || options.console,
        }
    }
}

/// What `tty-info.img` and `tty-data.img` say.
pub(in super::super) struct Terminals {
    infos: BTreeMap<u32, TtyInfoEntry>,
    data: BTreeMap<u32, TtyDataEntry>,
}

/// The node that a terminal was opened by.
pub(in super::super) struct Node {
    pub(in super::super) name: Name,
    pub(in super::super) mode: u32,
}

impl Terminals {
    pub(in super::super) fn read(dir: &Dir) -> Result<Self, Error> {
        let (mut infos, mut data) = (BTreeMap::new(), BTreeMap::new());
        for entry in dir.read_all::<TtyInfoEntry>(ImageKind::TtyInfo, ())? {
            let id = entry.id;
            if infos.insert(id, entry).is_some() {
                return Err(twice("tty-info.img", id));
            }
        }
        for entry in dir.read_all::<TtyDataEntry>(ImageKind::TtyData, ())? {
            let id = entry.tty_id;
            let of_closed = entry
                .gelid
                .as_ref()
                .and_then(|gelid| gelid.to_slave.as_ref());
            let of_closed = of_closed.map_or(0, Vec::len);
            if entry.data.len().max(of_closed) > WAITING {
                let (object, rule) = (format!("terminal {id}"), "no terminal holds that much");
                return Err(Error::invalid(object, "data", entry.data.len(), rule));
            }
            if data.insert(id, entry).is_some() {
                return Err(twice("tty-data.img", id));
            }
        }
        Ok(Self { infos, data })
    }

    pub(in super::super) fn info(&self, by: &str, id: u32) -> Result<&TtyInfoEntry, Error> {
        self.infos.get(&id).ok_or_else(|| Error::Missing {
            by: by.to_owned(),
            what: "terminal",
            id: id.into(),
            image: "tty-info.img",
        })
    }

    /// Decides what a description of a terminal is to be.
    pub(in super::super) fn plan(
        &self,
        object: &str,
        entry: &TtyFileEntry,
        node: Option<Node>,
        outside: Outside,
    ) -> Result<Terminal, Error> {
        let info = self.info(object, entry.tty_info_id)?;
        let Some(Node { name, mode }) = node else {
            return Err(Error::External {
                object: object.to_owned(),
                key: key(info),
            });
        };
        let key = info.id;
        match info.r#type() {
            TtyType::Pty | TtyType::Ctty if info.termios.is_none() => Ok(Terminal::HungUp {
                key,
                index: match info.r#type() {
                    TtyType::Pty => Some(index(object, info)?),
                    _ => None,
                },
                name,
            }),
            TtyType::Ctty => self.controlling(object, entry, name, outside),
            TtyType::Pty if key % 2 == 1 => Ok(Terminal::Master {
                index: index(object, info)?,
                name,
            }),
            TtyType::Pty if outside.gets_master || self.infos.contains_key(&(key | 1)) => {
                Ok(Terminal::Slave {
                    index: index(object, info)?,
                    name,
                    mode,
                })
            }
            TtyType::Pty => self.job(object, info, outside),
            TtyType::Console | TtyType::Vt | TtyType::Serial => Ok(Terminal::Device { key, name }),
            TtyType::ExtTty | TtyType::Unknown => Err(Error::Unsupported {
                object: object.to_owned(),
                what: "a terminal of an unknown kind",
                remedy: "dump the program without it",
            }),
        }
    }

    /// `/dev/tty`: a terminal of the tree, or that of the restore.
    fn controlling(
        &self,
        object: &str,
        entry: &TtyFileEntry,
        name: Name,
        outside: Outside,
    ) -> Result<Terminal, Error> {
        let info = self.info(object, entry.tty_info_id)?;
        let told = entry.gelid.as_ref().and_then(|gelid| gelid.terminal);
        let of_session = || {
            let mut infos = self.infos.values();
            let found = infos.find(|other| {
                let pair = other.id | 1;
                info.sid != 0 && other.sid == info.sid && self.is_master(pair)
            });
            Some(found?.id)
        };
        let id = told.filter(|id| self.is_master(id | 1)).or_else(of_session);
        let orphan = || {
            let found = self.alone().find(|slave| slave.sid == info.sid);
            found.filter(|_| outside.gets_master)
        };
        let pair = id.and_then(|id| self.infos.get(&(id | 1)));
        match pair.or_else(orphan) {
            Some(end) => Ok(Terminal::Named {
                index: index(object, end)?,
                name,
            }),
            None if outside.is_own => Ok(Terminal::Controlling(name)),
            None => Err(not_a_job(object, "the controlling terminal")),
        }
    }

    fn is_master(&self, id: u32) -> bool {
        let info = self.infos.get(&id);
        id % 2 == 1 && info.is_some_and(|info| info.r#type() == TtyType::Pty)
    }

    /// The terminal of the restore in place of one whose master was outside.
    fn job(&self, object: &str, info: &TtyInfoEntry, outside: Outside) -> Result<Terminal, Error> {
        if !outside.is_own {
            return Err(not_a_job(object, "a terminal"));
        }
        self.only_one(object)?;
        let termios = info.termios.as_ref();
        let settings = termios.map(|termios| settings::read(object, termios));
        Ok(Terminal::Job(settings.transpose()?))
    }

    /// Slaves whose masters were outside.
    fn alone(&self) -> impl Iterator<Item = &TtyInfoEntry> {
        self.infos.values().filter(|info| {
            let slave = info.r#type() == TtyType::Pty && info.id % 2 == 0;
            slave && info.termios.is_some() && !self.infos.contains_key(&(info.id | 1))
        })
    }

    fn only_one(&self, object: &str) -> Result<(), Error> {
        match self.alone().count() {
            0 | 1 => Ok(()),
            _ => Err(Error::Unsupported {
                object: object.to_owned(),
                what: "one of several terminals",
                remedy: "dump the program with only one",
            }),
        }
    }

    /// What the descriptions have behind them; `entries` are their records.
    pub(in super::super) fn state<'e>(
        &self,
        descriptions: &BTreeMap<u32, Description>,
        entries: impl Iterator<Item = &'e TtyFileEntry>,
    ) -> Result<State, Error> {
        let mut state = State::default();
        for entry in entries {
            let given = descriptions.get(&entry.id).map(|file| &file.kind);
            if let (Some(Kind::Given(_)), Some(info)) = (given, self.infos.get(&entry.tty_info_id))
                && let Some(session) = Session::new(info.sid, info.pgrp)
            {
                let session = Session {
                    is_given: true,
                    ..session
                };
                state.given.insert(entry.id, session);
            }
        }
        let is_terminal = |it: &&Description| matches!(it.kind, Kind::Terminal(_));
        for description in descriptions.values().filter(is_terminal) {
            let object = description.label();
            match &description.kind {
                Kind::Terminal(Terminal::Master { index, name }) => {
                    let master = (Some(description.id), description.flags);
                    let pty = self.pty(&object, master, *index, name.clone())?;
                    if state.ptys.insert(*index, pty).is_some() {
                        return Err(twice("files.img", 2 * index + 1));
                    }
                }
                Kind::Terminal(Terminal::Device { key, .. }) => {
                    let device = device(&object, self.info(&object, *key)?)?;
                    state.devices.insert(*key, device);
                }
                _ => {}
            }
        }
        for description in descriptions.values() {
            if let Kind::Terminal(Terminal::Slave { index, name, .. }) = &description.kind
                && !state.ptys.contains_key(index)
                && self.alone().any(|slave| slave.id == 2 * index)
            {
                let object = description.label();
                self.only_one(&object)?;
                let maker = name.sibling(b"ptmx").map_err(|_| no_maker(&object, name))?;
                let pty = self.pty(&object, (None, Flags(MASTER)), *index, maker)?;
                state.ptys.insert(*index, pty);
            }
        }
        for description in descriptions.values() {
            let (Kind::Terminal(Terminal::Slave { index, .. })
            | Kind::Terminal(Terminal::Named { index, .. })) = &description.kind
            else {
                continue;
            };
            let Some(pty) = state.ptys.get_mut(index) else {
                return Err(Error::Missing {
                    by: description.label(),
                    what: "master of terminal",
                    id: (*index).into(),
                    image: "files.img",
                });
            };
            pty.is_open = true;
            if let Kind::Terminal(Terminal::Slave { mode, .. }) = &description.kind {
                pty.mode = Some(mode & 0o777);
            }
        }
        Ok(state)
    }

    fn pty(
        &self,
        object: &str,
        (id, flags): (Option<u32>, Flags),
        index: u32,
        name: Name,
    ) -> Result<Pty, Error> {
        let slave = self.infos.get(&(2 * index));
        let slave = slave.filter(|info| info.r#type() == TtyType::Pty && info.termios.is_some());
        let master = self.infos.get(&(2 * index + 1));
        let either = match slave.or(master) {
            Some(either) => either,
            None => self.info(object, 2 * index + 1)?,
        };
        let termios = either.termios.as_ref();
        let settings = termios.map(|termios| settings::read(object, termios));
        let settings = settings
            .transpose()?
            .unwrap_or(Settings(Termios::default()));
        let locked = either.termios_locked.as_ref();
        let locked = locked.map(|termios| settings::read(object, termios));
        let gelids = [slave, master].map(|info| info?.gelid.clone());
        let stop = gelids.iter().flatten().find_map(|gelid| gelid.stop);
        let session = Session::new(either.sid, either.pgrp);
        Ok(Pty {
            id,
            name,
            flags,
            settings: settings.0,
            locked_settings: locked.transpose()?.map(|locked| locked.0),
            size: settings::size(object, either.winsize.as_ref())?,
            is_locked: master.is_some_and(|master| master.locked),
            exclusive: [master, slave].map(|end| end.is_some_and(|end| end.exclusive)),
            packets: master.is_some_and(|master| master.packet_mode),
            owner: slave.and_then(|slave| Some((slave.uid?, slave.gid?))),
            mode: None,
            is_open: false,
            was_open: gelids
                .iter()
                .flatten()
                .any(|gelid| gelid.closed == Some(true)),
            waiting: self.waiting(object, index, &settings.0, stop)?,
            session: session.or_else(|| master.and_then(|end| Session::new(end.sid, end.pgrp))),
        })
    }

    fn waiting(
        &self,
        object: &str,
        index: u32,
        settings: &Termios,
        stop: Option<u32>,
    ) -> Result<Waiting, Error> {
        let data = |id| self.data.get(&id).map(|entry| entry.data.clone());
        let told = |id| self.data.get(&id)?.gelid.as_ref();
        let told = told(2 * index).or(told(2 * index + 1));
        let of_closed = || told.and_then(|told| told.to_slave.clone());
        let to_slave = data(2 * index).or_else(of_closed).unwrap_or_default();
        let lines = match told.filter(|told| !told.lines.is_empty()) {
            None => lines(&to_slave, settings),
            Some(told) => told.lines.iter().map(line).collect(),
        };
        let length = lines
            .iter()
            .fold(0_u64, |sum, line| sum + u64::from(line.len));
        if length > to_slave.len() as u64 || lines.len() > WAITING {
            let rule = "lines are longer than what they are made of";
            return Err(Error::invalid(object, "lines", length, rule));
        }
        Ok(Waiting {
            to_slave,
            lines,
            to_master: data(2 * index + 1).unwrap_or_default(),
            stop: stop.map(|stop| match stop {
                2 => Stop::Held,
                _ => Stop::Character,
            }),
        })
    }
}

fn line(coded: &u32) -> Line {
    Line {
        len: coded >> 1,
        eof: coded & 1 == 1,
    }
}

fn device(object: &str, info: &TtyInfoEntry) -> Result<Device, Error> {
    let termios = info.termios.as_ref();
    let settings = termios.map(|termios| settings::read(object, termios));
    let size = info.winsize.as_ref();
    let size = size.map(|size| settings::size(object, Some(size)));
    Ok(Device {
        rdev: info.rdev,
        settings: settings.transpose()?.map(|settings| settings.0),
        size: size.transpose()?,
        exclusive: info.exclusive,
        session: Session::new(info.sid, info.pgrp),
    })
}

/// What `--inherit-fd` calls a terminal.
pub(in super::super) fn key(info: &TtyInfoEntry) -> String {
    format!("tty[{:x}:{:x}]", info.rdev, info.dev.unwrap_or_default())
}

/// The number of a pseudoterminal, which its key repeats.
fn index(object: &str, info: &TtyInfoEntry) -> Result<u32, Error> {
    let index = info.pty.as_ref().map_or(info.id / 2, |pty| pty.index);
    if index >= PTYS || index != info.id / 2 {
        let rule = "it is below 1000, and half of the key";
        return Err(Error::invalid(object, "index", index, rule));
    }
    Ok(index)
}

fn no_maker(object: &str, name: &Name) -> Error {
    let rule = "it lies in a folder";
    Error::invalid(object, "name", name, rule)
}

fn not_a_job(object: &str, what: &'static str) -> Error {
    Error::Unsupported {
        object: object.to_owned(),
        what,
        remedy: "use --shell-job, if the tree was started from a terminal like that of the restore",
    }
}

fn twice(image: &str, id: u32) -> Error {
    Error::Duplicate {
        image: image.to_owned(),
        what: "terminal",
        id: id.into(),
    }
}
