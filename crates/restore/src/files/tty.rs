//! Terminals: that of the restore stands in for the one that a shell job was started from.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::messages::{TermiosEntry, TtyInfoEntry, TtyType};
use gelid_image::{Dir, ImageKind};
use gelid_sys::proc;
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
};

use super::open::{Opener, set_status};
use super::{Error, Flags, Kind, Name};

/// Control characters a terminal has.
const CONTROLS: usize = 19;
/// Words that hold them, by the format.
const WORDS: usize = 19;

/// An open terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminal {
    /// The terminal of the restore, with these settings.
    Job(Option<Settings>),
    /// `/dev/tty`: whatever terminal the session has.
    Controlling(Name),
}

/// How a terminal treats what goes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    characters: [u8; CONTROLS],
}

/// What `tty-info.img` says.
pub(super) struct Terminals(BTreeMap<u32, TtyInfoEntry>);

impl Terminals {
    pub(super) fn read(dir: &Dir) -> Result<Self, Error> {
        let mut terminals = BTreeMap::new();
        for entry in dir.read_all::<TtyInfoEntry>(ImageKind::TtyInfo, ())? {
            let id = entry.id;
            if terminals.insert(id, entry).is_some() {
                return Err(Error::Duplicate {
                    image: "tty-info.img".into(),
                    what: "terminal",
                    id: id.into(),
                });
            }
        }
        Ok(Self(terminals))
    }

    pub(super) fn info(&self, by: &str, id: u32) -> Result<&TtyInfoEntry, Error> {
        self.0.get(&id).ok_or_else(|| Error::Missing {
            by: by.to_owned(),
            what: "terminal",
            id: id.into(),
            image: "tty-info.img",
        })
    }

    /// Decides what stands in for a terminal.
    pub(super) fn plan(
        &self,
        object: &str,
        info: &TtyInfoEntry,
        name: Option<Name>,
        shell_job: bool,
    ) -> Result<Terminal, Error> {
        let refused = |what, remedy| {
            Err(Error::Unsupported {
                object: object.to_owned(),
                what,
                remedy,
            })
        };
        let job =
            "use --shell-job, if the tree was started from a terminal like that of the restore";
        match (info.r#type(), name) {
            (TtyType::Ctty, Some(name)) if shell_job => Ok(Terminal::Controlling(name)),
            (TtyType::Ctty, _) => refused("the controlling terminal", job),
            (TtyType::Pty, _) if info.id % 2 == 1 || self.0.contains_key(&(info.id | 1)) => {
                refused(
                    "a pseudoterminal with its master",
                    "dump the program without it",
                )
            }
            (TtyType::Pty, _) if !shell_job => refused("a terminal", job),
            (TtyType::Pty, _) if self.slaves() > 1 => {
                refused("one of several terminals", "dump the program with only one")
            }
            (TtyType::Pty, _) => {
                let settings = info
                    .termios
                    .as_ref()
                    .map(|termios| settings(object, termios));
                Ok(Terminal::Job(settings.transpose()?))
            }
            _ => refused(
                "a terminal that is no pseudoterminal",
                "dump the program without it",
            ),
        }
    }

    fn slaves(&self) -> usize {
        let slave =
            |info: &&TtyInfoEntry| info.r#type() == TtyType::Pty && info.id.is_multiple_of(2);
        self.0.values().filter(slave).count()
    }
}

/// What `--inherit-fd` calls a terminal.
pub(super) fn key(info: &TtyInfoEntry) -> String {
    format!("tty[{:x}:{:x}]", info.rdev, info.dev.unwrap_or_default())
}

fn settings(object: &str, entry: &TermiosEntry) -> Result<Settings, Error> {
    if entry.c_cc.len() < WORDS {
        let rule = "control characters are 19 words";
        return Err(Error::invalid(object, "c_cc", entry.c_cc.len(), rule));
    }
    let bytes = entry.c_cc.iter().flat_map(|word| word.to_le_bytes());
    let mut characters = [0; CONTROLS];
    characters
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, byte)| *to = byte);
    Ok(Settings {
        input: entry.c_iflag,
        output: entry.c_oflag,
        control: entry.c_cflag,
        local: entry.c_lflag,
        characters,
    })
}

impl Settings {
    fn apply(&self, to: &mut Termios) {
        // The line is that of the terminal: how fast it is, is not for a job to say.
        const SPEED: u32 = 0x100f | 0x100f << 16;
        let keep = to.control_modes.bits() & SPEED;
        to.input_modes = InputModes::from_bits_retain(self.input);
        to.output_modes = OutputModes::from_bits_retain(self.output);
        to.control_modes = ControlModes::from_bits_retain(self.control & !SPEED | keep);
        to.local_modes = LocalModes::from_bits_retain(self.local);
        for (index, byte) in INDICES.iter().zip(self.characters) {
            to.special_codes[*index] = byte;
        }
    }
}

/// Control characters in the order of the kernel.
const INDICES: [SpecialCodeIndex; 17] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];

/// The settings a terminal had before the restore; dropped, it gets them back.
#[derive(Debug)]
pub(super) struct Before {
    terminal: OwnedFd,
    settings: Option<Termios>,
}

impl Before {
    /// Leaves the terminal as it is now.
    pub(super) fn forget(mut self) {
        self.settings = None;
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            // A terminal that has gone needs no settings.
            let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, settings);
        }
    }
}

/// Opens all terminals.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let mut wanted = None;
    for description in plan.descriptions.values() {
        let Kind::Terminal(terminal) = &description.kind else {
            continue;
        };
        let label = description.label();
        let opened = match terminal {
            Terminal::Controlling(name) => opener.controlling(name, description.flags, &label)?,
            Terminal::Job(settings) => {
                wanted = wanted.or(*settings);
                let own = opener.terminal.filter(|fd| rustix::termios::isatty(fd));
                let Some(own) = own else {
                    return Err(Error::NoTerminal { object: label });
                };
                open_own(opener, own, description.flags, &label)?
            }
        };
        opener.add(description.id, opened);
    }
    if let (Some(settings), Some(terminal)) = (wanted, opener.terminal) {
        opener.before = set(opener, terminal, &settings)?;
    }
    Ok(())
}

/// A description of its own of the terminal, as the tree had one; the same one where it cannot be opened.
fn open_own(
    opener: &Opener<'_>,
    terminal: BorrowedFd<'_>,
    flags: Flags,
    object: &str,
) -> Result<OwnedFd, Error> {
    match opener.reopen(terminal, flags, object) {
        Err(Error::System {
            errno: Errno::IO | Errno::NXIO | Errno::ACCESS | Errno::NOENT | Errno::PERM,
            ..
        }) => opener.again(terminal, object),
        opened => opened,
    }
}

/// Gives the terminal the settings that the tree had made, if the restore is in the foreground: a shell
/// that has put it into the background does so itself later.
fn set(
    opener: &Opener<'_>,
    terminal: BorrowedFd<'_>,
    settings: &Settings,
) -> Result<Option<Before>, Error> {
    let object = "the terminal";
    let own = proc::task_dir(rustix::process::getpid()).and_then(|task| proc::stat::read(&task));
    let foreground = rustix::termios::tcgetpgrp(terminal).map(|group| group.as_raw_pid());
    // The own group is 0 if its leader lives outside the pid namespace: `getpgrp` of rustix cannot say so.
    if !own.is_ok_and(|own| Ok(own.pgrp) == foreground) {
        return Ok(None);
    }
    let before = rustix::termios::tcgetattr(terminal)
        .map_err(Error::system("read the settings of", object))?;
    let mut now = before.clone();
    settings.apply(&mut now);
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &now)
        .map_err(Error::system("change the settings of", object))?;
    Ok(Some(Before {
        terminal: opener.again(terminal, object)?,
        settings: Some(before),
    }))
}

impl Opener<'_> {
    /// Opens `/dev/tty`.
    fn controlling(&self, name: &Name, flags: Flags, object: &str) -> Result<OwnedFd, Error> {
        let place = super::place::Place::Path(name.clone());
        let opened = self.names.open(&place, flags.to_open());
        let opened = opened.map_err(|errno| match errno {
            Errno::NXIO => Error::NoTerminal {
                object: object.to_owned(),
            },
            errno => self.failed("open", object, errno),
        })?;
        let fd = self.raise(opened, object)?;
        set_status(fd.as_fd(), flags.status(), object)?;
        Ok(fd)
    }
}
