//! Pseudoterminals with both ends: made, filled, and given the state they had.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::pty::{self, Waiting};
use gelid_sys::stand_in;
use gelid_sys::tty::{self, Termios};
use rustix::fs::{Gid, Mode, Uid};
use rustix::termios::Winsize;

use super::super::open::{Opener, set_status};
use super::super::place::Place;
use super::super::{Error, Flags, Kind, Name};
use super::job;
use super::number::{self, Wanted};
use super::{Session, Terminal};

/// A pseudoterminal.
#[derive(Debug, Clone)]
pub(super) struct Pty {
    /// Id of the description of its master; none if that is for somebody else.
    pub(super) id: Option<u32>,
    /// Path of the device that makes masters.
    pub(super) name: Name,
    pub(super) flags: Flags,
    pub(super) settings: Termios,
    pub(super) locked_settings: Option<Termios>,
    pub(super) size: Winsize,
    /// The slave cannot be opened.
    pub(super) is_locked: bool,
    /// Of master and slave.
    pub(super) exclusive: [bool; 2],
    /// Packet mode.
    pub(super) packets: bool,
    /// User and group of the slave's node.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// The slave is open.
    pub(super) is_open: bool,
    /// It was, and is not any more.
    pub(super) was_open: bool,
    pub(super) waiting: Waiting,
    pub(super) session: Option<Session>,
}

/// Opens all pseudoterminals.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let hung_up = hung_up(opener);
    if plan.terminals.ptys.is_empty() && hung_up.is_empty() {
        return Ok(());
    }
    let wanted = plan.terminals.ptys.iter().map(|(index, pty)| {
        let way = Wanted {
            name: &pty.name,
            flags: pty.flags,
            object: match pty.id {
                Some(id) => format!("file {id} (master of terminal {index})"),
                None => format!("the master of terminal {index}, a console"),
            },
        };
        (*index, way)
    });
    let wanted: BTreeMap<u32, Wanted<'_>> = wanted.collect();
    let maker = maker()?;
    let liked = hung_up.values().filter_map(|group| {
        let index = group.index.filter(|index| !wanted.contains_key(index))?;
        Some((index, group.way(&maker)))
    });
    let liked = liked.collect();
    let mut masters = number::masters(opener, &wanted, &liked)?;
    for group in hung_up.into_values() {
        let master = group.index.filter(|index| liked.contains_key(index));
        let master = match master.and_then(|index| masters.remove(&index)) {
            Some(master) => master,
            None => number::any(opener, &group.way(&maker))?,
        };
        group.open(opener, &master)?;
    }
    for (index, pty) in &plan.terminals.ptys {
        let object = format!("terminal {index}");
        let master = masters.remove(index).ok_or_else(|| Error::TerminalTaken {
            object: object.clone(),
            index: *index,
        })?;
        pty.open(opener, *index, master, &object)?;
    }
    Ok(())
}

/// The device that makes masters, where no image says it.
fn maker() -> Result<Name, Error> {
    let rule = "a path";
    Name::new(b"/dev/ptmx").map_err(|_| Error::invalid("a terminal", "name", "/dev/ptmx", rule))
}

impl Pty {
    /// Makes it what it was, with all descriptions of its slave.
    fn open(
        &self,
        opener: &mut Opener<'_>,
        index: u32,
        master: OwnedFd,
        object: &str,
    ) -> Result<(), Error> {
        let failed = |operation| Error::system(operation, object);
        pty::set_locked(&master, false).map_err(failed("unlock"))?;
        if self.id.is_none() && !opener.give_console(&master) {
            return self.stand_in(opener, index);
        }
        rustix::termios::tcsetwinsize(&master, self.size).map_err(failed("set the size of"))?;
        let opened = self.is_open || self.was_open || !self.waiting.is_nothing();
        let peer = match opened {
            true => Some(pty::peer(&master).map_err(failed("open"))?),
            false => None,
        };
        match &peer {
            Some(peer) => pty::put(&master, peer, &self.settings, &self.waiting)
                .map_err(failed("put back what waits in"))?,
            None => tty::set_settings(&master, &self.settings).map_err(failed("set up"))?,
        }
        if let Some(locked) = self
            .locked_settings
            .filter(|locked| *locked != Termios::default())
        {
            tty::lock_settings(&master, &locked).map_err(failed("lock the settings of"))?;
        }
        if let Some(peer) = &peer {
            self.own(peer, object)?;
            self.open_slaves(opener, index, peer)?;
        }
        for (end, exclusive) in [Some(&master), peer.as_ref()]
            .into_iter()
            .zip(self.exclusive)
        {
            if let (Some(end), true) = (end, exclusive) {
                rustix::termios::ioctl_tiocexcl(end).map_err(failed("make exclusive"))?;
            }
        }
        if self.packets {
            pty::set_packet_mode(&master, true).map_err(failed("set packet mode of"))?;
        }
        if self.is_locked {
            pty::set_locked(&master, true).map_err(failed("lock"))?;
        }
        if let (Some(session), Some(peer)) = (self.session, peer) {
            let peer = opener.raise(peer, object)?;
            opener.of_sessions.insert(session.sid, peer);
        }
        set_status(master.as_fd(), self.flags.status(), object)?;
        if let Some(id) = self.id {
            opener.add(id, master);
        }
        Ok(())
    }

    /// The terminal of the restore instead, as nobody has taken the master.
    fn stand_in(&self, opener: &mut Opener<'_>, index: u32) -> Result<(), Error> {
        let plan = opener.plan;
        for description in plan.descriptions.values() {
            if let Kind::Terminal(
                Terminal::Slave { index: own, .. } | Terminal::Named { index: own, .. },
            ) = &description.kind
                && *own == index
            {
                let opened = job::own(opener, description.flags, &description.label())?;
                opener.add(description.id, opened);
            }
        }
        Ok(())
    }

    /// Gives the node of the slave its owner.
    fn own(&self, peer: &OwnedFd, object: &str) -> Result<(), Error> {
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(peer, Some(uid), Some(gid))
                .map_err(Error::system("give an owner to", object))?;
        }
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(peer, Mode::from_raw_mode(mode))
                .map_err(Error::system("set the mode of", object))?;
        }
        Ok(())
    }

    fn open_slaves(
        &self,
        opener: &mut Opener<'_>,
        index: u32,
        peer: &OwnedFd,
    ) -> Result<(), Error> {
        let plan = opener.plan;
        for description in plan.descriptions.values() {
            let (object, flags) = (description.label(), description.flags);
            let opened = match &description.kind {
                Kind::Terminal(Terminal::Slave {
                    index: own, name, ..
                }) if *own == index => opener
                    .names
                    .open(&Place::Path(name.clone()), flags.to_open())
                    .map_err(|errno| opener.failed("open", &object, errno))?,
                Kind::Terminal(Terminal::Named { index: own, name }) if *own == index => {
                    by_name(opener, peer.as_fd(), name, flags, &object)?
                }
                _ => continue,
            };
            let found = tty::device(&opened).map_err(Error::system("examine", &*object))?;
            if tty::device(peer) != Ok(found) {
                return Err(Error::Changed {
                    object,
                    what: "terminal",
                    recorded: index.to_string(),
                    found: format!("device {found:x}"),
                    remedy: "mount the file system of terminals where it was",
                });
            }
            set_status(opened.as_fd(), flags.status(), &object)?;
            opener.add_raised(description.id, opened, &object)?;
        }
        Ok(())
    }
}

/// Opens `/dev/tty` as somebody whose terminal this is.
fn by_name(
    opener: &Opener<'_>,
    peer: BorrowedFd<'_>,
    name: &Name,
    flags: Flags,
    object: &str,
) -> Result<OwnedFd, Error> {
    stand_in::open_in_session(
        peer,
        opener.roots.of(name),
        name.relative(),
        flags.to_open(),
    )
    .map_err(|errno| opener.failed("open", object, errno))
}

/// Descriptions of a slave that was hung up.
struct HungUp<'a> {
    index: Option<u32>,
    /// Ids, and paths.
    descriptions: Vec<(u32, Flags, &'a Name, String)>,
}

/// All slaves that were hung up, by key.
fn hung_up<'a>(opener: &Opener<'a>) -> BTreeMap<u32, HungUp<'a>> {
    let mut groups = BTreeMap::new();
    for description in opener.plan.descriptions.values() {
        if let Kind::Terminal(Terminal::HungUp { key, index, name }) = &description.kind {
            let group = groups.entry(*key).or_insert_with(|| HungUp {
                index: *index,
                descriptions: Vec::new(),
            });
            let label = description.label();
            group
                .descriptions
                .push((description.id, description.flags, name, label));
        }
    }
    groups
}

impl HungUp<'_> {
    fn way<'n>(&self, maker: &'n Name) -> Wanted<'n> {
        let object = self.descriptions.first().map(|(.., label)| label.clone());
        Wanted {
            name: maker,
            flags: Flags(2),
            object: object.unwrap_or_default(),
        }
    }

    /// Opens the slave of a master that goes as soon as that is done.
    fn open(&self, opener: &mut Opener<'_>, master: &OwnedFd) -> Result<(), Error> {
        for (id, flags, name, object) in &self.descriptions {
            let failed = |operation| Error::system(operation, &**object);
            pty::set_locked(master, false).map_err(failed("unlock"))?;
            let opened = match self.index {
                Some(_) => pty::peer_by(master, flags.to_open()).map_err(failed("open"))?,
                None => {
                    let peer = pty::peer(master).map_err(failed("open"))?;
                    by_name(opener, peer.as_fd(), name, *flags, object)?
                }
            };
            set_status(opened.as_fd(), flags.status(), object)?;
            opener.add_raised(*id, opened, object)?;
        }
        Ok(())
    }
}
