//! How terminals treat what goes through them.

use gelid_image::messages::{TermiosEntry, WinsizeEntry};
use gelid_sys::tty::Termios;
use rustix::termios::Winsize;

use super::super::Error;

/// Words that hold control characters, by the format.
const WORDS: usize = 19;

/// How a terminal treats what goes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings(pub(super) Termios);

/// Reads settings from a record.
pub(super) fn read(object: &str, entry: &TermiosEntry) -> Result<Settings, Error> {
    if entry.c_cc.len() < WORDS {
        let rule = "control characters are 19 words";
        return Err(Error::invalid(object, "c_cc", entry.c_cc.len(), rule));
    }
    let Ok(line) = u8::try_from(entry.c_line) else {
        let rule = "no line discipline has such a number";
        return Err(Error::invalid(object, "c_line", entry.c_line, rule));
    };
    let bytes = entry.c_cc.iter().flat_map(|word| word.to_le_bytes());
    let mut settings = Termios {
        iflag: entry.c_iflag,
        oflag: entry.c_oflag,
        cflag: entry.c_cflag,
        lflag: entry.c_lflag,
        line,
        ..Termios::default()
    };
    let controls = settings.cc.iter_mut().zip(bytes);
    controls.for_each(|(to, byte)| *to = byte);
    Ok(Settings(settings))
}

/// Reads a size from a record.
pub(super) fn size(object: &str, entry: Option<&WinsizeEntry>) -> Result<Winsize, Error> {
    let entry = entry.cloned().unwrap_or_default();
    let number = |field, number: u32| {
        u16::try_from(number)
            .map_err(|_| Error::invalid(object, field, number, "no terminal is that large"))
    };
    Ok(Winsize {
        ws_row: number("ws_row", entry.ws_row)?,
        ws_col: number("ws_col", entry.ws_col)?,
        ws_xpixel: number("ws_xpixel", entry.ws_xpixel)?,
        ws_ypixel: number("ws_ypixel", entry.ws_ypixel)?,
    })
}

impl Settings {
    /// These settings for a line that is as fast as `now`: how fast it is, is not for a job to say.
    pub(super) fn at_speed_of(&self, now: &Termios) -> Termios {
        const SPEED: u32 = 0x100f | 0x100f << 16;
        Termios {
            cflag: self.0.cflag & !SPEED | now.cflag & SPEED,
            line: now.line,
            ..self.0
        }
    }
}
