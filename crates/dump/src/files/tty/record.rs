//! What a terminal is asked.

use gelid_image::messages::{TermiosEntry, TtyInfoEntry, TtyPtyEntry, TtyType, WinsizeEntry};
use gelid_sys::tty::{self, Termios};
use gelid_sys::{Errno, pty};

use super::super::{Error, Object, Unsupported, rdev};
use super::Way;

/// The record of a terminal that works.
pub(super) fn living(object: &Object<'_>, way: Way, id: u32) -> Result<TtyInfoEntry, Error> {
    let failed = object.failed("ask for the settings of");
    let settings = tty::settings(object.file).map_err(|errno| match errno {
        // It knows of none.
        Errno::INVAL => object.unsupported(Unsupported::LineDiscipline),
        errno => failed(errno),
    })?;
    if settings.line != 0 {
        return Err(object.unsupported(Unsupported::LineDiscipline));
    }
    let locked = tty::locked_settings(object.file).map_err(&failed)?;
    let size = rustix::termios::tcgetwinsize(object.file).map_err(&failed)?;
    let of_master = |ask: fn(&Object<'_>) -> Result<bool, Errno>| match way {
        Way::Master => ask(object).map_err(&failed),
        _ => Ok(false),
    };
    Ok(TtyInfoEntry {
        locked: of_master(|object| pty::is_locked(object.file))?,
        exclusive: tty::is_exclusive(object.file).map_err(&failed)?,
        packet_mode: of_master(|object| pty::is_in_packet_mode(object.file))?,
        termios: Some(termios(&settings)),
        termios_locked: Some(termios(&locked)),
        winsize: Some(WinsizeEntry {
            ws_row: size.ws_row.into(),
            ws_col: size.ws_col.into(),
            ws_xpixel: size.ws_xpixel.into(),
            ws_ypixel: size.ws_ypixel.into(),
        }),
        r#type: kind(way).into(),
        ..hung_up(object, id)
    })
}

/// The record of a terminal that the restore is given.
pub(super) fn external(object: &Object<'_>, way: Way, id: u32) -> Result<TtyInfoEntry, Error> {
    Ok(TtyInfoEntry {
        r#type: TtyType::ExtTty.into(),
        pty: None,
        ..living(object, way, id)?
    })
}

/// The record of a terminal that was hung up: there is nothing to ask.
pub(super) fn hung_up(object: &Object<'_>, id: u32) -> TtyInfoEntry {
    let device = rdev(object.stat.st_rdev);
    let index = id / 2;
    let way = match device {
        0x500 => Way::Controlling,
        _ => Way::Slave,
    };
    TtyInfoEntry {
        id,
        r#type: kind(way).into(),
        locked: false,
        exclusive: false,
        packet_mode: false,
        sid: 0,
        pgrp: 0,
        rdev: device,
        pty: (index < super::PTYS).then_some(TtyPtyEntry { index }),
        dev: Some(rdev(object.stat.st_dev)),
        uid: Some(object.stat.st_uid),
        gid: Some(object.stat.st_gid),
        termios: None,
        termios_locked: None,
        winsize: None,
        gelid: None,
    }
}

fn kind(way: Way) -> TtyType {
    match way {
        Way::Slave | Way::Master => TtyType::Pty,
        Way::Controlling => TtyType::Ctty,
        Way::Console => TtyType::Console,
        Way::Vt => TtyType::Vt,
        Way::Serial => TtyType::Serial,
    }
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
