//! What waits in a pseudoterminal: bytes on their way to either end, and a stop of the output.
//!
//! What is on its way to the slave has been through its line discipline: it is kept by lines, the last of which
//! may be incomplete. It is written again with every byte quoted that would mean something, so that it comes to
//! lie in the same lines.

mod account;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};

use super::{is_locked, peer, set_locked, set_packet_mode};
use crate::aside::{Shared, aside};
use crate::syscall::call;
use crate::tty::{Termios, set_settings};
use account::Account;

const ICANON: u32 = 0o2;
const IEXTEN: u32 = 0o100_000;
const EXTPROC: u32 = 0o200_000;
/// `ISIG` and all kinds of echo.
const NOISE: u32 = 0o1 | 0o10 | 0o20 | 0o40 | 0o100 | 0o1000 | 0o2000 | 0o4000;
const IXON: u32 = 0o2000;
const VEOF: usize = 4;
const VTIME: usize = 5;
const VMIN: usize = 6;
const VSTART: usize = 8;
const VSTOP: usize = 9;
const VEOL: usize = 11;
const VLNEXT: usize = 15;
const VEOL2: usize = 16;
const TCXONC: usize = 0x540a;
const TCOOFF: usize = 0;
const TCOON: usize = 1;
/// What the line discipline holds; what is beyond has not been through it.
const DISCIPLINE: u64 = 4095;
/// A change that does not show by then does not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long waiting is done by looking.
const HASTE: Duration = Duration::from_micros(200);

/// A complete line of what is on its way to a slave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Bytes, the end included unless that is an end of file.
    pub len: u32,
    /// It was ended by the end-of-file character, which nobody reads.
    pub eof: bool,
}

/// Why nothing comes out of a slave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By the stop character (`^S`).
    Character,
    /// By `tcflow(3)`.
    Held,
}

/// What waits in a pseudoterminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// What the slave reads next.
    pub to_slave: Vec<u8>,
    /// The complete lines at its beginning, if the terminal reads lines.
    pub lines: Vec<Line>,
    /// What the master reads next.
    pub to_master: Vec<u8>,
    /// Nothing more comes out.
    pub stop: Option<Stop>,
}

impl Waiting {
    /// Nothing waits, and nothing is stopped.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a terminal with these settings reads whole lines.
fn reads_lines(settings: &Termios) -> bool {
    settings.lflag & ICANON != 0 && settings.lflag & EXTPROC == 0
}

/// The lines of what waits to be read, if every byte that can end a line does: none if whole lines are not read.
#[must_use]
pub fn lines(bytes: &[u8], settings: &Termios) -> Vec<Line> {
    if !reads_lines(settings) {
        return Vec::new();
    }
    let ends = [settings.cc[VEOL], settings.cc[VEOL2]];
    let is_end = |byte: &u8| *byte == b'\n' || *byte != 0 && ends.contains(byte);
    let lines = bytes.split_inclusive(is_end);
    let complete = lines.filter(|line| line.last().is_some_and(is_end));
    let line = |line: &[u8]| Line {
        len: line.len() as u32,
        eof: false,
    };
    complete.map(line).collect()
}

/// Tells what waits in the pseudoterminal of a master, which has these settings and may be in packet mode. Whoever
/// else has it open must stand still; afterwards everything waits there again.
///
/// # Errors
///
/// Those of the calls; `ETIMEDOUT` if not all could be put back.
pub fn take(master: impl AsFd, settings: &Termios, packets: bool) -> Result<Waiting> {
    let master = master.as_fd();
    let locked = is_locked(master)?;
    let mut shared = Shared::<Account>::new()?;
    let account = &mut *shared;
    let job = || {
        if locked {
            set_locked(master, false)?;
        }
        let peer = peer(master)?;
        if locked {
            set_locked(master, true)?;
        }
        if packets {
            set_packet_mode(master, false)?;
        }
        let ends = Ends {
            master,
            peer: &peer,
            settings,
        };
        let done = ends.take(account);
        if packets {
            set_packet_mode(master, true)?;
        }
        done
    };
    aside(job)?;
    Ok(account.waiting())
}

/// Puts into a pseudoterminal what is to wait there, and gives it its settings. Nobody else may use it yet.
///
/// # Errors
///
/// Those of the calls; `ETIMEDOUT` if not all finds room.
pub fn put(master: impl AsFd, peer: &OwnedFd, settings: &Termios, what: &Waiting) -> Result<()> {
    let ends = Ends {
        master: master.as_fd(),
        peer,
        settings,
    };
    set_settings(peer, &ends.plain())?;
    ends.put(
        what.to_slave.as_slice(),
        &what.lines,
        &what.to_master,
        what.stop,
    )
}

/// Both ends of a pseudoterminal. Nothing here takes memory: it runs in a process that a `fork(2)` has made.
struct Ends<'a> {
    master: BorrowedFd<'a>,
    /// A description of its own of the slave, which does not wait.
    peer: &'a OwnedFd,
    settings: &'a Termios,
}

impl Ends<'_> {
    fn take(&self, account: &mut Account) -> Result<()> {
        // What was written a moment ago goes through the line discipline now, if it has anything to wait for.
        ready(self.peer.as_fd(), PollFlags::IN)?;
        let lines = reads_lines(self.settings);
        if !lines && self.is_idle()? {
            return Ok(());
        }
        if lines {
            let quiet = Termios {
                lflag: self.settings.lflag & !NOISE,
                ..*self.settings
            };
            set_settings(self.peer, &quiet)?;
            account
                .to_slave
                .read_lines(self.peer, self.settings, &mut account.lines)?;
        }
        account.to_master.read(self.master)?;
        let stopped = !self.flows()?;
        // Without flow control, what the stop character has stopped flows again.
        set_settings(self.peer, &self.plain())?;
        if stopped && self.flows()? {
            account.stop = 1;
        } else if stopped {
            account.stop = 2;
            self.flow(TCOON)?;
        }
        account.to_master.read(self.master)?;
        account.to_slave.read(self.peer.as_fd())?;
        let stop = account.stop();
        let lines = account.lines.get();
        self.put(account.to_slave.get(), lines, account.to_master.get(), stop)
    }

    /// Puts everything where it belongs, beginning with empty queues and plain settings. The terminal has its own
    /// settings afterwards, even if not everything could be put back.
    fn put(
        &self,
        to_slave: &[u8],
        lines: &[Line],
        to_master: &[u8],
        stop: Option<Stop>,
    ) -> Result<()> {
        let mut done = self.refill(to_slave, lines, to_master);
        if stop == Some(Stop::Character) {
            let meanings = Meanings::beside(self.settings);
            set_settings(self.peer, &self.with_flow_control(&meanings))?;
            done = done.and(self.stop(&meanings));
        }
        set_settings(self.peer, self.settings)?;
        if stop == Some(Stop::Held) {
            done = done.and(self.flow(TCOOFF));
        }
        done
    }

    fn refill(&self, to_slave: &[u8], lines: &[Line], to_master: &[u8]) -> Result<()> {
        write_all(self.peer.as_fd(), to_master)?;
        if reads_lines(self.settings) && !(to_slave.is_empty() && lines.is_empty()) {
            return self.type_lines(to_slave, lines);
        }
        write_all(self.master, to_slave)?;
        let wanted = DISCIPLINE.min(to_slave.len() as u64);
        await_that(|| Ok(rustix::io::ioctl_fionread(self.peer)? >= wanted))
    }

    /// Types lines, so that each ends where it did.
    fn type_lines(&self, mut bytes: &[u8], lines: &[Line]) -> Result<()> {
        let meanings = Meanings::beside(self.settings);
        set_settings(self.peer, &meanings.of_lines(self.settings))?;
        let mut typist = Typist {
            to: self.master,
            meanings,
            buffer: [0; 256],
            len: 0,
        };
        for line in lines {
            let (line_bytes, rest) = bytes.split_at(bytes.len().min(line.len as usize));
            bytes = rest;
            match line_bytes.split_last() {
                Some((end, content)) if !line.eof => {
                    typist.quote(content)?;
                    typist.put(*end)?;
                }
                _ => {
                    typist.quote(line_bytes)?;
                    typist.put(typist.meanings.eof)?;
                }
            }
        }
        typist.quote(bytes)?;
        typist.flush()?;
        let meanings = typist.meanings;
        self.stop(&meanings)?;
        write_all(self.master, &[meanings.start])?;
        await_that(|| self.flows())
    }

    /// Stops the output by a character, which comes behind all that was written before.
    fn stop(&self, meanings: &Meanings) -> Result<()> {
        write_all(self.master, &[meanings.stop])?;
        await_that(|| Ok(!self.flows()?))
    }

    /// Nothing waits and nothing is stopped, as far as a terminal tells that does not read lines.
    fn is_idle(&self) -> Result<bool> {
        let is_empty = rustix::io::ioctl_fionread(self.peer)? == 0;
        Ok(is_empty && !ready(self.master, PollFlags::IN)? && self.flows()?)
    }

    /// Something written into the slave would go its way.
    fn flows(&self) -> Result<bool> {
        ready(self.peer.as_fd(), PollFlags::OUT)
    }

    fn flow(&self, action: usize) -> Result<()> {
        let fd = self.peer.as_raw_fd() as usize;
        // SAFETY: the call takes numbers.
        unsafe { call(libc::SYS_ioctl as usize, [fd, TCXONC, action, 0, 0, 0]) }.map(drop)
    }

    /// Settings by which every byte goes through as it is, and a read never waits.
    fn plain(&self) -> Termios {
        let mut plain = Termios {
            iflag: 0,
            oflag: 0,
            lflag: 0,
            ..*self.settings
        };
        plain.cc = [0; 19];
        plain.cc[VMIN] = 0;
        plain.cc[VTIME] = 0;
        plain
    }

    /// The settings of the terminal, but with these characters for flow control.
    fn with_flow_control(&self, meanings: &Meanings) -> Termios {
        let mut settings = Termios {
            iflag: self.settings.iflag | IXON,
            lflag: self.settings.lflag & !NOISE,
            ..*self.settings
        };
        settings.cc[VSTART] = meanings.start;
        settings.cc[VSTOP] = meanings.stop;
        settings
    }
}

/// Characters that have a meaning while lines are typed.
#[derive(Clone, Copy)]
struct Meanings {
    eof: u8,
    quote: u8,
    start: u8,
    stop: u8,
    /// Ends of lines beside the newline, 0 for none.
    ends: [u8; 2],
}

impl Meanings {
    /// Characters that are not those by which lines end.
    fn beside(settings: &Termios) -> Self {
        let ends = [settings.cc[VEOL], settings.cc[VEOL2]];
        let mut free = (1..).filter(|byte| *byte != b'\n' && !ends.contains(byte));
        let mut next = || free.next().unwrap_or(1);
        Self {
            eof: next(),
            quote: next(),
            start: next(),
            stop: next(),
            ends,
        }
    }

    fn have(&self, byte: u8) -> bool {
        let own = [b'\n', self.eof, self.quote, self.start, self.stop];
        own.contains(&byte) || byte != 0 && self.ends.contains(&byte)
    }

    fn of_lines(&self, settings: &Termios) -> Termios {
        let mut lines = Termios {
            iflag: IXON,
            oflag: 0,
            lflag: ICANON | IEXTEN,
            ..*settings
        };
        lines.cc = [0; 19];
        lines.cc[VEOF] = self.eof;
        lines.cc[VLNEXT] = self.quote;
        lines.cc[VSTART] = self.start;
        lines.cc[VSTOP] = self.stop;
        [lines.cc[VEOL], lines.cc[VEOL2]] = self.ends;
        lines
    }
}

/// Types into a master, some bytes at a time.
struct Typist<'a> {
    to: BorrowedFd<'a>,
    meanings: Meanings,
    buffer: [u8; 256],
    len: usize,
}

impl Typist<'_> {
    fn quote(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            if self.meanings.have(*byte) {
                self.put(self.meanings.quote)?;
            }
            self.put(*byte)?;
        }
        Ok(())
    }

    fn put(&mut self, byte: u8) -> Result<()> {
        if self.len == self.buffer.len() {
            self.flush()?;
        }
        self.buffer[self.len] = byte;
        self.len += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        write_all(self.to, &self.buffer[..self.len])?;
        self.len = 0;
        Ok(())
    }
}

/// Writes everything, as long as there is room.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        await_that(|| ready(fd, PollFlags::OUT))?;
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn ready(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(fds[0].revents().contains(flags))
}

/// Waits until the kernel has done what it does on the side.
fn await_that(come: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !come()? {
        if begun.elapsed() > PATIENCE {
            return Err(Errno::TIMEDOUT);
        }
        match begun.elapsed() < HASTE {
            true => std::thread::yield_now(),
            false => std::thread::sleep(HASTE),
        }
    }
    Ok(())
}
