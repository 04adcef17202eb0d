//! FIFOs: opened without waiting for another end, filled with what was in them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use gelid_image::ImageKind;
use gelid_image::messages::FifoEntry;
use rustix::fs::{FileType, OFlags};

use super::open::Opener;
use super::place::Place;
use super::regular::Regular;
use super::{Error, Flags, Kind, pipe};

/// An open FIFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifo {
    /// Key of the pipe behind it.
    pub pipe: u32,
    /// Its path.
    pub file: Regular,
}

pub(super) fn plan(entry: &FifoEntry, file: Regular) -> Fifo {
    Fifo {
        pipe: entry.pipe_id,
        file,
    }
}

/// Opens all FIFOs. Those that share a pipe are one, whatever they are called.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let mut users: BTreeMap<u32, Vec<(u32, Flags, &Fifo)>> = BTreeMap::new();
    for description in plan.descriptions.values() {
        if let Kind::Fifo(fifo) = &description.kind {
            let users = users.entry(fifo.pipe).or_default();
            users.push((description.id, description.flags, fifo));
        }
    }
    let mut both = BTreeMap::new();
    for (id, users) in &users {
        let Some((user, _, fifo)) = users.first() else {
            continue;
        };
        let object = object(*user, fifo);
        let place = opener.appear(&fifo.file)?;
        let fd = open_both(opener, &place, &fifo.file, &object)?;
        opener.vanish(place, &object)?;
        if let Some(size) = plan.fifos.get(id).and_then(|pipe| pipe.size) {
            pipe::resize(fd.as_fd(), size, &object)?;
        }
        both.insert(*id, fd);
    }
    pipe::fill(&plan.dir, ImageKind::FifoData, |id| {
        both.get(&id).map(AsFd::as_fd)
    })?;
    for (id, users) in &users {
        for (user, flags, fifo) in users {
            let Some(fd) = both.get(id) else { continue };
            let opened = pipe::reopen(opener, fd.as_fd(), *flags, object(*user, fifo))?;
            opener.add(*user, opened);
        }
    }
    Ok(())
}

/// Opens a FIFO for both reading and writing, which waits for nobody.
fn open_both(
    opener: &Opener<'_>,
    place: &Place,
    file: &Regular,
    object: &str,
) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = opener
        .names
        .open(place, flags)
        .map_err(Error::system("open", object))?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::system("examine", object))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(Error::Changed {
            object: object.to_owned(),
            what: "type",
            recorded: "Fifo".to_owned(),
            found: format!("{:?}", FileType::from_raw_mode(stat.st_mode)),
            remedy: "make it a FIFO again",
        });
    }
    file.check(
        fd.as_fd(),
        &stat,
        Flags(flags.bits()),
        &|| object.to_owned(),
        &opener.plan.options,
    )?;
    Ok(fd)
}

fn object(user: u32, fifo: &Fifo) -> String {
    format!("file {user} (FIFO {})", fifo.file.name)
}
