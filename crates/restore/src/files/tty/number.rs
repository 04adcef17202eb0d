//! Masters with the numbers they had: the kernel gives the lowest that is free.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gelid_sys::pty;

use super::super::open::Opener;
use super::super::place::Place;
use super::super::{Error, Flags, Name};

/// So long others may have a number for a moment.
const PATIENCE: Duration = Duration::from_millis(500);

/// A master that is wanted.
pub(super) struct Wanted<'a> {
    /// Path of the device that makes them.
    pub(super) name: &'a Name,
    pub(super) flags: Flags,
    /// What to call it.
    pub(super) object: String,
}

/// Opens masters by their numbers. Those that are liked need not be had.
pub(super) fn masters(
    opener: &Opener<'_>,
    wanted: &BTreeMap<u32, Wanted<'_>>,
    liked: &BTreeMap<u32, Wanted<'_>>,
) -> Result<BTreeMap<u32, OwnedFd>, Error> {
    let begun = Instant::now();
    loop {
        let found = once(opener, wanted, liked)?;
        let missing = wanted.iter().find(|(index, _)| !found.contains_key(*index));
        match missing {
            None => return Ok(found),
            Some((index, missing)) if begun.elapsed() > PATIENCE => {
                return Err(Error::TerminalTaken {
                    object: missing.object.clone(),
                    index: *index,
                });
            }
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Takes one number after the other, until all are found or passed.
fn once(
    opener: &Opener<'_>,
    wanted: &BTreeMap<u32, Wanted<'_>>,
    liked: &BTreeMap<u32, Wanted<'_>>,
) -> Result<BTreeMap<u32, OwnedFd>, Error> {
    let mut found = BTreeMap::new();
    for (index, way) in wanted {
        if let Some(master) = opener.roots.master(*index) {
            found.insert(*index, opener.again(master, &way.object)?);
        }
    }
    let mut between = Vec::new();
    let all = || wanted.iter().chain(liked);
    let last = all().map(|(index, _)| *index).max().unwrap_or_default();
    while let Some((_, way)) = all().find(|(index, _)| !found.contains_key(*index)) {
        let (mut index, mut fd) = open(opener, way)?;
        let own = wanted.get(&index).or(liked.get(&index));
        if let Some(own) = own.filter(|own| own.name != way.name || own.flags != way.flags) {
            // The next one that is made has the same number.
            drop(fd);
            (index, fd) = open(opener, own)?;
        }
        if wanted.contains_key(&index) || liked.contains_key(&index) {
            found.insert(index, opener.raise(fd, &way.object)?);
        } else {
            between.push(fd);
        }
        if index > last {
            break;
        }
    }
    Ok(found)
}

/// Opens any master.
pub(super) fn any(opener: &Opener<'_>, way: &Wanted<'_>) -> Result<OwnedFd, Error> {
    let (_, fd) = open(opener, way)?;
    opener.raise(fd, &way.object)
}

fn open(opener: &Opener<'_>, way: &Wanted<'_>) -> Result<(u32, OwnedFd), Error> {
    let failed = |errno| opener.failed("open", &way.object, errno);
    let place = Place::Path(way.name.clone());
    let fd = opener
        .names
        .open(&place, way.flags.to_open())
        .map_err(failed)?;
    let index = pty::index(&fd).map_err(failed)?;
    Ok((index, fd))
}
