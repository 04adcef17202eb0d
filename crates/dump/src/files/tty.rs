//! Terminals. Section 17 of the format.
//!
//! A description of a terminal refers to its end of it. What the ends have in common is asked when all descriptions
//! are known: the session, and what waits between master and slave. A slave whose master is outside of the tree is
//! the terminal of a shell's job, or one that the restore is given; what is under way in it is not the tree's.

mod outside;
mod pair;
mod record;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use gelid_image::messages::{
    FdTypes, FileEntry, GelidTtyFileEntry, TtyFileEntry, TtyInfoEntry, TtyType,
};
use gelid_sys::proc::stat::Stat as TaskStat;
use gelid_sys::{Errno, pty, tty};

use super::kind::DELETED;
use super::regfile::{self, Opening};
use super::{Collector, Error, Name, Object, Place, Unsupported, rdev};

/// Indices that stand for what has no number of its own.
const CONSOLE: u32 = 1002;
const VT: u32 = 1004;
const CONTROLLING: u32 = 1006;
const SERIAL: u32 = 1010;
const EXTERNAL: u32 = 1012;
/// Numbers of pseudoterminals end here.
const PTYS: u32 = 1000;

/// By which kind of node a terminal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The slave of a pseudoterminal, by its own name.
    Slave,
    /// The master of one.
    Master,
    /// `/dev/tty`.
    Controlling,
    /// `/dev/console`.
    Console,
    /// A virtual terminal.
    Vt,
    /// A serial line.
    Serial,
}

/// An end of a terminal.
#[derive(Debug)]
struct Terminal {
    info: TtyInfoEntry,
    place: Place,
    name: Name,
    file: OwnedFd,
}

/// Terminals met so far.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    /// By their key.
    ends: BTreeMap<u32, Terminal>,
    /// Session and foreground group of terminals of tasks of the tree, by device.
    sessions: HashMap<u32, (i32, i32, i32)>,
    /// Keys of external terminals, by device and device of the node.
    external: HashMap<(u32, u32), u32>,
    /// Terminals that are open by the name `/dev/tty`, and who has them.
    by_tty: Vec<ByTty>,
}

/// A description of `/dev/tty`.
#[derive(Debug)]
struct ByTty {
    /// The terminal that it is.
    device: u32,
    /// Device of the node, and the device that it is on.
    node: (u32, u32),
    place: Place,
    name: Name,
}

impl Collector<'_> {
    /// Notes the session of a task, and the terminal it has.
    pub(super) fn in_session(&mut self, stat: &TaskStat) {
        if stat.tty_nr != 0 {
            let number = |outer| self.census.numbers.number(outer);
            let foreground = stat.tpgid.max(0);
            let session = (number(stat.sid), number(foreground), foreground);
            self.terminals
                .sessions
                .insert(stat.tty_nr.cast_unsigned(), session);
        }
    }

    /// Records an open terminal.
    pub(super) fn terminal(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        way: Way,
    ) -> Result<(FdTypes, u32), Error> {
        let id = self.new_id()?;
        let external = self.external_terminal(object, way)?;
        let device = match tty::device(object.file) {
            Err(Errno::IO) => None,
            device => Some(device.map_err(object.failed("ask about"))?),
        };
        let tty_info_id = match (external, device) {
            (Some(key), _) => key,
            (None, Some(_)) => self.living(object, way)?,
            (None, None) => self.hung_up(object, way)?,
        };
        let regf_id = match external {
            Some(_) => None,
            None => Some(self.node(object, &opening, device.is_none())?),
        };
        let mut gelid = None;
        if let (Way::Controlling, Some(device), None) = (way, device, external) {
            self.terminals.by_tty.push(ByTty {
                device,
                node: (rdev(object.stat.st_rdev), rdev(object.stat.st_dev)),
                place: object.place,
                name: Name(object.link.clone()),
            });
            let terminal = pair::number(device).map(|number| 2 * number);
            gelid = terminal.map(|terminal| GelidTtyFileEntry {
                terminal: Some(terminal),
            });
        }
        self.push(FileEntry {
            r#type: FdTypes::Tty.into(),
            id,
            tty: Some(TtyFileEntry {
                id,
                tty_info_id,
                flags: opening.flags,
                fown: opening.fown,
                regf_id,
                gelid,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Tty, id))
    }

    /// The record of the node that a terminal was opened by.
    fn node(
        &mut self,
        object: &Object<'_>,
        opening: &Opening,
        hung_up: bool,
    ) -> Result<u32, Error> {
        let node = Opening {
            flags: opening.flags,
            mount: opening.mount,
            ..Opening::reference()
        };
        match object.link.strip_suffix(DELETED) {
            // The node went with the master; another one may have its name.
            Some(name) if hung_up => {
                let id = self.new_id()?;
                let mut entry = regfile::entry(object.stat, id, name.to_vec(), node);
                entry.mnt_id = self.mount_of(object);
                self.push_regular(entry)?;
                Ok(id)
            }
            _ => self.regular(object, node),
        }
    }

    /// The key of a terminal that `--external` names.
    fn external_terminal(&mut self, object: &Object<'_>, way: Way) -> Result<Option<u32>, Error> {
        let key = (rdev(object.stat.st_rdev), rdev(object.stat.st_dev));
        if !self.options.terminals.contains(&key) {
            return Ok(None);
        }
        let count = u32::try_from(self.terminals.external.len()).map_err(|_| Error::TooMany)?;
        let id = *self
            .terminals
            .external
            .entry(key)
            .or_insert(2 * (EXTERNAL + count));
        self.end(object, id, || record::external(object, way, id))?;
        Ok(Some(id))
    }

    /// The key of a terminal that works.
    fn living(&mut self, object: &Object<'_>, way: Way) -> Result<u32, Error> {
        let number = match way {
            Way::Master => {
                let index = pty::index(object.file).map_err(object.failed("ask about"))?;
                2 * number(object, index)? + 1
            }
            Way::Slave => 2 * number(object, rustix::fs::minor(object.stat.st_rdev))?,
            Way::Controlling => 2 * CONTROLLING,
            Way::Console => 2 * CONSOLE,
            Way::Vt => self.device(object, VT)?,
            Way::Serial => self.device(object, SERIAL)?,
        };
        self.end(object, number, || record::living(object, way, number))?;
        Ok(number)
    }

    /// The key of a device of which there may be several.
    fn device(&self, object: &Object<'_>, index: u32) -> Result<u32, Error> {
        let rdev = rdev(object.stat.st_rdev);
        let same = |end: &Terminal| end.info.rdev == rdev && end.info.r#type() != TtyType::Ctty;
        if let Some((id, _)) = self.terminals.ends.iter().find(|(_, end)| same(end)) {
            return Ok(*id);
        }
        match self.terminals.ends.contains_key(&(2 * index)) {
            true => self.terminals.free(),
            false => Ok(2 * index),
        }
    }

    /// The key of a terminal that was hung up. Its number may be that of another by now.
    fn hung_up(&mut self, object: &Object<'_>, way: Way) -> Result<u32, Error> {
        let id = match way {
            Way::Controlling => 2 * CONTROLLING,
            _ => 2 * number(object, rustix::fs::minor(object.stat.st_rdev))?,
        };
        let id = match self.terminals.ends.get(&id) {
            Some(end) if end.info.termios.is_some() => self.terminals.free()?,
            _ => id,
        };
        self.end(object, id, || Ok(record::hung_up(object, id)))?;
        Ok(id)
    }

    /// Takes note of an end, unless it is known.
    fn end(
        &mut self,
        object: &Object<'_>,
        id: u32,
        info: impl FnOnce() -> Result<TtyInfoEntry, Error>,
    ) -> Result<(), Error> {
        if let Entry::Vacant(vacant) = self.terminals.ends.entry(id) {
            let file = object.file.try_clone_to_owned();
            let file = file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE));
            vacant.insert(Terminal {
                info: info()?,
                place: object.place,
                name: Name(object.link.clone()),
                file: file.map_err(object.failed("duplicate"))?,
            });
        }
        Ok(())
    }
}

/// A number that images can tell.
fn number(object: &Object<'_>, number: u32) -> Result<u32, Error> {
    match number < PTYS {
        true => Ok(number),
        false => Err(object.unsupported(Unsupported::ManyTerminals)),
    }
}
