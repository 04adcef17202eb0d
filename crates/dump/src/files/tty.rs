//! The terminal of a shell's job. Section 17 of the format.
//!
//! Its other end is outside of the tree, so nothing that is under way in it is the tree's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use gelid_image::messages::{
    FdTypes, FileEntry, TermiosEntry, TtyFileEntry, TtyInfoEntry, TtyPtyEntry, TtyType,
    WinsizeEntry,
};
use gelid_image::{ImageKind, Staging};
use gelid_sys::proc::stat;
use gelid_sys::tty::{self, Termios};
use gelid_sys::{Errno, proc};
use rustix::fs::minor;

use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Unsupported, rdev};

/// Index that stands for `/dev/tty`.
const CONTROLLING: u32 = 1006;

/// Terminals met so far, by their key.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    infos: BTreeMap<u32, TtyInfoEntry>,
    /// Device and path of the one terminal the tree may use.
    own: Option<(u64, Name)>,
}

impl Terminals {
    /// Writes them.
    pub(super) fn finish(self, staging: &Staging) -> Result<(), Error> {
        let mut writer = staging.writer(ImageKind::TtyInfo, ())?;
        for info in self.infos.into_values() {
            writer.push(&info)?;
        }
        Ok(writer.finish()?)
    }
}

/// By which name a terminal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Its own.
    Slave,
    /// `/dev/tty`.
    Controlling,
}

impl Collector<'_> {
    /// Records an open terminal.
    pub(super) fn terminal(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        way: Way,
        task: &proc::TaskDir,
    ) -> Result<(FdTypes, u32), Error> {
        if !self.options.shell_job {
            return Err(Error::Terminal {
                place: object.place,
                name: Name(object.link.clone()),
            });
        }
        let id = self.new_id()?;
        let tty_info_id = self.terminal_info(object, way, task)?;
        let regf = Opening {
            flags: opening.flags,
            mount: opening.mount,
            ..Opening::reference()
        };
        let regf_id = Some(self.regular(object, regf)?);
        self.push(FileEntry {
            r#type: FdTypes::Tty.into(),
            id,
            tty: Some(TtyFileEntry {
                id,
                tty_info_id,
                flags: opening.flags,
                fown: opening.fown,
                regf_id,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Tty, id))
    }

    /// The key of the terminal, which is recorded at the end.
    fn terminal_info(
        &mut self,
        object: &Object<'_>,
        way: Way,
        task: &proc::TaskDir,
    ) -> Result<u32, Error> {
        let index = match way {
            Way::Slave => {
                self.only_terminal(object)?;
                minor(object.stat.st_rdev)
            }
            Way::Controlling => CONTROLLING,
        };
        let id = index.checked_mul(2).ok_or(Error::TooMany)?;
        let info = match self.terminals.infos.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(info(object, way, id)?),
        };
        if info.sid == 0 {
            // The kernel tells the session of a terminal only to those who are in it.
            let stat = stat::read(task)?;
            let own = stat.tty_nr.cast_unsigned();
            if own == info.rdev || way == Way::Controlling && own != 0 {
                info.sid = u32::try_from(stat.sid).unwrap_or(0);
                info.pgrp = u32::try_from(stat.tpgid).unwrap_or(0);
            }
        }
        Ok(id)
    }

    /// Refuses a second terminal: a restore has but one to give.
    fn only_terminal(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let own = &mut self.terminals.own;
        let (device, path) =
            own.get_or_insert_with(|| (object.stat.st_rdev, Name(object.link.clone())));
        if *device == object.stat.st_rdev {
            return Ok(());
        }
        Err(Error::SecondTerminal {
            place: object.place,
            name: Name(object.link.clone()),
            other: path.clone(),
        })
    }
}

fn info(object: &Object<'_>, way: Way, id: u32) -> Result<TtyInfoEntry, Error> {
    let failed = |errno| match errno {
        Errno::IO => object.unsupported(Unsupported::HungUp),
        errno => object.failed("ask for the settings of")(errno),
    };
    let settings = tty::settings(object.file).map_err(failed)?;
    let locked = tty::locked_settings(object.file).map_err(failed)?;
    let exclusive = tty::is_exclusive(object.file).map_err(failed)?;
    let size = rustix::termios::tcgetwinsize(object.file).map_err(failed)?;
    let (r#type, pty) = match way {
        Way::Slave => (TtyType::Pty, Some(TtyPtyEntry { index: id / 2 })),
        Way::Controlling => (TtyType::Ctty, None),
    };
    Ok(TtyInfoEntry {
        id,
        r#type: r#type.into(),
        locked: false,
        exclusive,
        packet_mode: false,
        sid: 0,
        pgrp: 0,
        rdev: rdev(object.stat.st_rdev),
        termios: Some(termios(&settings)),
        termios_locked: Some(termios(&locked)),
        winsize: Some(WinsizeEntry {
            ws_row: size.ws_row.into(),
            ws_col: size.ws_col.into(),
            ws_xpixel: size.ws_xpixel.into(),
            ws_ypixel: size.ws_ypixel.into(),
        }),
        pty,
        dev: Some(rdev(object.stat.st_dev)),
        uid: Some(object.stat.st_uid),
        gid: Some(object.stat.st_gid),
    })
}

/// The control characters go byte by byte into the first of 19 words.
fn termios(settings: &Termios) -> TermiosEntry {
    let word = |bytes: &[u8]| {
        let bytes = bytes.iter().rev();
        bytes.fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    let mut c_cc: Vec<u32> = settings.cc.chunks(4).map(word).collect();
    c_cc.resize(19, 0);
    TermiosEntry {
        c_iflag: settings.iflag,
        c_oflag: settings.oflag,
        c_cflag: settings.cflag,
        c_lflag: settings.lflag,
        c_line: settings.line.into(),
        c_ispeed: 0,
        c_ospeed: 0,
        c_cc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_packed() {
        let mut settings = Termios::default();
        settings.cc[..4].copy_from_slice(&[3, 0x1c, 0x7f, 0x15]);
        settings.cc[18] = 7;
        let entry = termios(&settings);
        assert_eq!(entry.c_cc.len(), 19);
        assert_eq!(
            (entry.c_cc[0], entry.c_cc[4], entry.c_cc[5]),
            (360_651_779, 7 << 16, 0)
        );
    }
}
