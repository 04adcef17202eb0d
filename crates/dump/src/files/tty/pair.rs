//! Both ends of terminals: whether they are in the tree, whose session has them, and what waits between them.

use std::collections::HashSet;
use std::os::fd::AsFd;

use gelid_image::messages::{GelidTtyDataEntry, GelidTtyInfoEntry, TtyDataEntry, TtyType};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::pty::{self, Stop, Waiting};
use gelid_sys::tty::{self, Termios};
use gelid_sys::{Errno, Pid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::namespace::Census;

use super::{Error, PTYS, Terminal, Terminals, Unsupported, outside};

/// The number of the pseudoterminal that a device is the slave of.
pub(super) fn number(device: u32) -> Option<u32> {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    (136..144).contains(&major).then_some(minor)
}

impl Terminals {
    /// A key that no terminal has.
    pub(super) fn free(&self) -> Result<u32, Error> {
        let free = |index: &u32| {
            let ends = [2 * index, 2 * index + 1];
            !ends.iter().any(|end| self.ends.contains_key(end))
        };
        let free = (0..PTYS).rev().find(free);
        free.map(|index| 2 * index).ok_or(Error::TooMany)
    }

    /// Writes all terminals, and what waits in them. `tree` are all processes of it.
    pub(in super::super) fn finish(
        mut self,
        orphan: bool,
        (tree, census): (&HashSet<i32>, &Census),
        staging: &Staging,
    ) -> Result<(), Error> {
        self.refuse_strays(orphan)?;
        self.name_foregrounds(census);
        self.note_sessions()?;
        self.refuse_holders(tree)?;
        let mut data = staging.writer(ImageKind::TtyData, ())?;
        let masters: Vec<u32> = self.masters().collect();
        for master in masters {
            self.look_into(master, &mut data)?;
        }
        data.finish()?;
        let mut writer = staging.writer(ImageKind::TtyInfo, ())?;
        for end in self.ends.into_values() {
            writer.push(&end.info)?;
        }
        Ok(writer.finish()?)
    }

    fn masters(&self) -> impl Iterator<Item = u32> {
        let ends = self.ends.iter();
        let is_master = |id: u32, end: &Terminal| id % 2 == 1 && end.info.r#type() == TtyType::Pty;
        ends.filter(move |(id, end)| is_master(**id, end))
            .map(|(id, _)| *id)
    }

    /// Refuses terminals whose other end is outside of the tree; for a shell's job, more than one of them.
    fn refuse_strays(&self, orphan: bool) -> Result<(), Error> {
        let slaves = self.ends.iter().filter(|(id, end)| {
            let is_slave = *id % 2 == 0 && **id < 2 * PTYS && end.info.termios.is_some();
            is_slave && end.info.r#type() == TtyType::Pty && !self.ends.contains_key(&(*id + 1))
        });
        let mut slaves = slaves.map(|(_, end)| end);
        let Some(own) = slaves.next() else {
            return self.refuse_stray_names(orphan);
        };
        if !orphan {
            return Err(own.stray());
        }
        match slaves.next() {
            Some(second) => Err(Error::SecondTerminal {
                place: second.place,
                name: second.name.clone(),
                other: own.name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The same of what is open as `/dev/tty` only.
    fn refuse_stray_names(&self, orphan: bool) -> Result<(), Error> {
        let stray = self.by_tty.iter().find(|name| {
            let number = number(name.device);
            !number.is_some_and(|number| self.ends.contains_key(&(2 * number + 1)))
        });
        match stray {
            Some(stray) if !orphan => Err(Error::Terminal {
                place: stray.place,
                name: stray.name.clone(),
                rdev: stray.node.0,
                dev: stray.node.1,
            }),
            _ => Ok(()),
        }
    }

    /// Refuses slaves that somebody outside of the tree has open too.
    fn refuse_holders(&self, tree: &HashSet<i32>) -> Result<(), Error> {
        let nodes = self.masters().filter_map(|master| {
            let (number, end) = (master / 2, self.ends.get(&master)?);
            let node = outside::node(end.place.task(), &end.name.0, number)?;
            Some((node, number))
        });
        let holder = outside::holder(&nodes.collect(), tree).map_err(|errno| Error::Own {
            operation: "list processes",
            errno,
        })?;
        let Some((number, pid)) = holder else {
            return Ok(());
        };
        match self.ends.get(&(2 * number + 1)) {
            Some(master) => Err(Error::SlaveOutside {
                place: master.place,
                number,
                pid,
            }),
            None => Ok(()),
        }
    }

    /// Finds the numbers of groups in the foreground of which nobody is left.
    fn name_foregrounds(&mut self, census: &Census) {
        let masters = self.ends.iter().filter(|(id, _)| *id % 2 == 1);
        for end in masters.map(|(_, end)| end) {
            let session = end
                .device()
                .and_then(|device| self.sessions.get_mut(&device));
            if let Some((_, pgrp @ 0, 1..)) = session {
                let file = end.file.as_fd();
                let ask = || tty::foreground(file).map(|group| [group.map_or(0, Pid::as_raw_pid)]);
                *pgrp = census.ask_inside(ask).map_or(0, |[group]| group);
            }
        }
    }

    /// Notes whose terminals they are.
    fn note_sessions(&mut self) -> Result<(), Error> {
        for (id, end) in &mut self.ends {
            let Some(device) = end.device() else { continue };
            if let Some((sid, pgrp, _)) = self.sessions.get(&device) {
                end.info.sid = sid.unsigned_abs();
                end.info.pgrp = pgrp.unsigned_abs();
                continue;
            }
            let is_master = id % 2 == 1 && *id < 2 * PTYS;
            let session = match is_master.then(|| tty::session(&end.file)) {
                None | Some(Err(Errno::NOTTY)) => None,
                Some(session) => session.map_err(end.failed("ask for the session of"))?,
            };
            if let Some(sid) = session {
                return Err(Error::SessionOutside {
                    place: end.place,
                    name: end.name.clone(),
                    sid: sid.as_raw_pid(),
                });
            }
        }
        Ok(())
    }

    /// Records what waits in the pseudoterminal of a master.
    fn look_into(&mut self, master: u32, data: &mut ImageWriter) -> Result<(), Error> {
        let slave = master - 1;
        let is_open = self
            .ends
            .get(&slave)
            .is_some_and(|end| end.info.termios.is_some());
        let Some(end) = self.ends.get_mut(&master) else {
            return Ok(());
        };
        let failed = end.failed("look into");
        let ready = ready(&end.file).map_err(&failed)?;
        if end.info.packet_mode && ready.contains(PollFlags::PRI) {
            return Err(Error::Unsupported {
                place: end.place,
                name: end.name.clone(),
                why: Unsupported::PacketStatus,
            });
        }
        let closed = !is_open && ready.contains(PollFlags::HUP);
        if !is_open && !closed {
            // It has never been open, and opening it could not be undone.
            return Ok(());
        }
        let settings = tty::settings(&end.file).map_err(&failed)?;
        let waiting = pty::take(&end.file, &settings, end.info.packet_mode).map_err(&failed)?;
        let stop = waiting.stop.map(|stop| match stop {
            Stop::Character => 1,
            Stop::Held => 2,
        });
        if closed || stop.is_some() {
            end.info.gelid = Some(GelidTtyInfoEntry {
                stop,
                closed: closed.then_some(true),
            });
        }
        for entry in entries(slave, closed, waiting, &settings) {
            data.push(&entry)?;
        }
        Ok(())
    }
}

/// The records of what waits.
fn entries(slave: u32, closed: bool, waiting: Waiting, settings: &Termios) -> Vec<TtyDataEntry> {
    let mut entries = Vec::new();
    let lines = &waiting.lines;
    let mut of_master = TtyDataEntry {
        tty_id: slave + 1,
        data: waiting.to_master,
        gelid: None,
    };
    if !waiting.to_slave.is_empty() || !lines.is_empty() {
        let obvious = *lines == pty::lines(&waiting.to_slave, settings);
        let coded = lines.iter().map(|line| line.len << 1 | u32::from(line.eof));
        let gelid = (!lines.is_empty() && !obvious).then(|| GelidTtyDataEntry {
            lines: coded.collect(),
            to_slave: None,
        });
        match closed {
            // It has no record that this could belong to.
            true => {
                let mut gelid = gelid.unwrap_or_default();
                gelid.to_slave = Some(waiting.to_slave);
                of_master.gelid = Some(gelid);
            }
            false => entries.push(TtyDataEntry {
                tty_id: slave,
                data: waiting.to_slave,
                gelid,
            }),
        }
    }
    if !of_master.data.is_empty() || of_master.gelid.is_some() {
        entries.push(of_master);
    }
    entries
}

fn ready(file: impl AsFd) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(fds[0].revents())
}

impl Terminal {
    /// The terminal itself; none if it was hung up.
    fn device(&self) -> Option<u32> {
        self.info.termios.as_ref()?;
        tty::device(&self.file).ok()
    }

    fn stray(&self) -> Error {
        Error::Terminal {
            place: self.place,
            name: self.name.clone(),
            rdev: self.info.rdev,
            dev: self.info.dev.unwrap_or_default(),
        }
    }

    /// Turns an errno into an error, for `map_err`.
    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> Error + use<> {
        let (place, name) = (self.place, self.name.clone());
        move |errno| Error::System {
            operation,
            place,
            name: name.clone(),
            errno,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::pty::Line;

    #[test]
    fn only_odd_lines_are_told() {
        let mut settings = Termios {
            lflag: 2,
            ..Termios::default()
        };
        settings.cc[11] = b';';
        let line = |len, eof| Line { len, eof };
        let lines = vec![line(2, false), line(2, false)];
        let mut waiting = Waiting {
            to_slave: b"a\nb;c".to_vec(),
            lines,
            to_master: b"out".to_vec(),
            stop: None,
        };
        let plain = entries(6, false, waiting.clone(), &settings);
        assert_eq!(plain[0].gelid, None);
        assert_eq!((plain[0].tty_id, plain[1].tty_id), (6, 7));
        waiting.lines.push(line(1, true));
        let closed = entries(6, true, waiting.clone(), &settings);
        let gelid = closed[0].gelid.clone().unwrap_or_default();
        assert_eq!(
            (closed.len(), gelid.to_slave),
            (1, Some(b"a\nb;c".to_vec()))
        );
        let odd = entries(6, false, waiting, &settings);
        let told = odd[0].gelid.as_ref().map(|gelid| gelid.lines.clone());
        assert_eq!(told, Some(vec![4, 4, 3]));
    }

    #[test]
    fn numbers_are_told_from_devices() {
        assert_eq!(number(0x8807), Some(7));
        assert_eq!(number(0x10_8807), Some(0x107));
        assert_eq!(number(0x501), None);
    }
}
