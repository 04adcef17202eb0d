//! Terminals: pseudoterminals of which both ends are the tree's, devices, and that of the restore, which stands
//! in for the one that a shell job was started from.

mod device;
mod job;
mod number;
mod plan;
mod pty;
mod settings;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::open::Opener;
use super::{Error, FilesPlan, Name};

pub(super) use device::Device;
pub(super) use job::Before;
pub(super) use plan::{Node, Outside, Terminals, key};
pub use settings::Settings;

use pty::Pty;

/// An open terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminal {
    /// The terminal of the restore, with these settings.
    Job(Option<Settings>),
    /// `/dev/tty`: whatever terminal the session of the restore has.
    Controlling(Name),
    /// The master of a pseudoterminal, by the name of the device that makes them.
    Master {
        /// Its number.
        index: u32,
        /// Path of the device.
        name: Name,
    },
    /// The slave of one.
    Slave {
        /// Its number.
        index: u32,
        /// Its path.
        name: Name,
        /// Permissions of its node.
        mode: u32,
    },
    /// The slave of one, open as `/dev/tty`.
    Named {
        /// Its number.
        index: u32,
        /// The path.
        name: Name,
    },
    /// A slave whose master is gone.
    HungUp {
        /// What several descriptions have in common.
        key: u32,
        /// Number it had; none for `/dev/tty`.
        index: Option<u32>,
        /// Its path.
        name: Name,
    },
    /// A console, a virtual terminal, a serial line.
    Device {
        /// Key of its state.
        key: u32,
        /// Its path.
        name: Name,
    },
}

impl Terminal {
    /// What it is, for the plan.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Job(_) => "the terminal of the restore".to_owned(),
            Self::Controlling(name) | Self::Device { name, .. } => name.to_string(),
            Self::Master { index, name } => format!("master of terminal {index} by {name}"),
            Self::Slave { index, name, .. } | Self::Named { index, name } => {
                format!("slave of terminal {index} by {name}")
            }
            Self::HungUp { name, .. } => format!("{name}, hung up"),
        }
    }
}

/// What open terminals have behind them.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Pseudoterminals, by number.
    ptys: BTreeMap<u32, Pty>,
    /// Devices, by key.
    devices: BTreeMap<u32, Device>,
    /// Sessions of terminals that the caller gives, by description.
    given: BTreeMap<u32, Session>,
}

impl State {
    /// Users and groups of the nodes.
    pub(super) fn owners(&mut self) -> impl Iterator<Item = &mut (u32, u32)> {
        self.ptys.values_mut().filter_map(|pty| pty.owner.as_mut())
    }
}

/// A session that has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// Its leader.
    pub(crate) sid: i32,
    /// The group in the foreground; none if it is not known.
    pub(crate) foreground: Option<i32>,
    /// The caller has given the terminal.
    pub(crate) is_given: bool,
}

impl Session {
    /// What a record says.
    fn new(sid: u32, pgrp: u32) -> Option<Self> {
        let positive = |id: u32| i32::try_from(id).ok().filter(|id| *id > 0);
        Some(Self {
            sid: positive(sid)?,
            foreground: positive(pgrp),
            is_given: false,
        })
    }
}

impl FilesPlan {
    /// Sessions of which terminals of the tree are the controlling ones, as the images say.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = Session> {
        let ptys = self.terminals.ptys.values().map(|pty| pty.session);
        let devices = self.terminals.devices.values().map(|device| device.session);
        let given = self.terminals.given.values().copied();
        ptys.chain(devices).flatten().chain(given)
    }

    /// A number above all those that pseudoterminals are to have.
    pub(super) fn many_ptys(&self) -> usize {
        let highest = self.terminals.ptys.keys().next_back();
        highest.map_or(0, |index| *index as usize + 1)
    }
}

/// The terminals of sessions, by the number of the session.
pub(super) type OfSessions = BTreeMap<i32, OwnedFd>;

/// Opens all terminals.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    for (id, session) in &opener.plan.terminals.given {
        if let Some(fd) = opener.fd(*id) {
            let own = opener.again(fd, "a terminal that was given")?;
            opener.of_sessions.insert(session.sid, own);
        }
    }
    job::open_all(opener)?;
    device::open_all(opener)?;
    pty::open_all(opener)
}
