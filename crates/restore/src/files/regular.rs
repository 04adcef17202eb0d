//! What is opened by a path: regular files, directories, devices, and whatever stands for a place only.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::messages::RegFileEntry;
use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;

use super::of_dead::StandIn;
use super::open::Opener;
use super::options::{FileOptions, Validation};
use super::place::Place;
use super::remap::Remap;
use super::{Error, Flags, Kind, Name, build_id, tmpfile};

/// Devices without state, as major and minor: null, zero, full, random, urandom; that of automounters.
const DEVICES: [(u32, u32); 6] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (10, 235)];

const TYPE: u32 = 0o170_000;
const PERMISSIONS: u32 = 0o7_777;

/// A file with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regular {
    /// Its path at the dump.
    pub name: Name,
    /// Where it is read and written next; `None` leaves it at the start.
    pub position: Option<u64>,
    /// `st_mode`, if it is to be compared.
    pub mode: Option<u32>,
    /// Size in bytes, if it is to be compared.
    pub size: Option<u64>,
    /// Build id of an ELF file, as recorded; empty if it has none.
    pub build_id: Vec<u32>,
    /// What stands in for the path.
    pub remap: Option<Remap>,
    /// The process that it shows something of, in `/proc`.
    pub process: Option<u32>,
}

/// Checks a record.
pub(super) fn plan(reg: &RegFileEntry, name: Name, remap: Option<Remap>) -> Result<Regular, Error> {
    let kind = reg.mode.map(|mode| mode & TYPE);
    if kind.is_some_and(|kind| FileType::from_raw_mode(kind) == FileType::Unknown) {
        let found = format!("{:#o}", reg.mode.unwrap_or_default());
        return Err(Error::invalid(
            format_args!("file {} ({name})", reg.id),
            "mode",
            found,
            "no file is of such a type",
        ));
    }
    // The contents of a ghost are those of the images.
    let ghost = matches!(remap, Some(Remap::Ghost(_)));
    Ok(Regular {
        process: match remap {
            Some(Remap::Process(_)) => None,
            _ => name.process(),
        },
        name,
        position: Some(reg.pos).filter(|pos| !matches!(*pos, 0 | u64::MAX)),
        mode: reg.mode,
        size: reg.size.filter(|_| !ghost),
        build_id: match ghost {
            true => Vec::new(),
            false => reg.build_id.clone(),
        },
        remap,
    })
}

/// Opens everything that has a path.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let mut ghosts: BTreeMap<u32, Vec<Job<'_>>> = BTreeMap::new();
    let mut dead: BTreeMap<u32, Vec<Job<'_>>> = BTreeMap::new();
    let mut others = Vec::new();
    for description in plan.descriptions.values() {
        let Kind::Regular(file) = &description.kind else {
            continue;
        };
        let job = Job {
            id: description.id,
            flags: description.flags,
            file,
        };
        match &file.remap {
            _ if file.process.is_some() => {}
            Some(Remap::Ghost(id)) => ghosts.entry(*id).or_default().push(job),
            Some(Remap::Process(pid)) => dead.entry(*pid).or_default().push(job),
            _ => others.push(job),
        }
    }
    for (pid, jobs) in dead {
        let Some(first) = jobs.first() else { continue };
        let stand_in = StandIn::born(pid, opener.birthplace, &first.object())?;
        let mut entered = false;
        for job in jobs {
            let name = &job.file.name;
            let place = Place::Path(match opener.birthplace {
                Some(place) if place.by_own_proc => {
                    name.renumbered(|number| (number == pid.cast_signed()).then(|| stand_in.pid()))
                }
                _ => name.clone(),
            });
            job.open(opener, &place)?;
            let mode = job.file.mode.unwrap_or_default();
            entered |= FileType::from_raw_mode(mode) == FileType::Directory;
        }
        if entered {
            opener.stand_ins.push(stand_in);
        }
    }
    for job in others {
        let place = opener.appear(job.file)?;
        job.open(opener, &place)?;
        opener.vanish(place, &job)?;
    }
    open_ghosts(opener, ghosts)
}

/// Opens files without a name. Directories come first, the outer before the inner, since others may be
/// inside them; they stay until all is open. The rest appears one after the other: several may have had
/// the same path.
fn open_ghosts(opener: &mut Opener<'_>, ghosts: BTreeMap<u32, Vec<Job<'_>>>) -> Result<(), Error> {
    let plan = opener.plan;
    let is_directory = |id: &u32| {
        let ghost = plan.ghosts.get(id);
        ghost.is_some_and(|ghost| ghost.file_type() == FileType::Directory)
    };
    let (mut directories, files): (Vec<_>, Vec<_>) =
        ghosts.into_iter().partition(|(id, _)| is_directory(id));
    directories.sort_by(|(_, one), (_, other)| {
        let name = |jobs: &Vec<Job<'_>>| jobs.first().map(|job| job.file.name.clone());
        name(one).cmp(&name(other))
    });
    for (id, jobs) in directories {
        let Some(first) = jobs.first() else { continue };
        let place = opener.appear(first.file)?;
        for job in &jobs {
            job.open(opener, &place)?;
        }
        opener.dress_later(first.id, id);
    }
    for (id, jobs) in files {
        if tmpfile::open(opener, id, &jobs)? {
            continue;
        }
        let Some(first) = jobs.first() else { continue };
        let place = opener.appear(first.file)?;
        for job in &jobs {
            match job.file.name == first.file.name {
                true => job.open(opener, &place)?,
                false => {
                    let also = opener.also(&place, &job.file.name, &job.object())?;
                    job.open(opener, &also)?;
                    opener.vanish(also, job)?;
                }
            }
        }
        opener.vanish(place, first)?;
    }
    Ok(())
}

/// One description to open.
pub(super) struct Job<'a> {
    pub(super) id: u32,
    pub(super) flags: Flags,
    pub(super) file: &'a Regular,
}

/// What to call it in messages.
impl fmt::Display for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} ({})", self.id, self.file.name)
    }
}

impl Job<'_> {
    pub(super) fn object(&self) -> String {
        self.to_string()
    }

    fn open(&self, opener: &mut Opener<'_>, place: &Place) -> Result<(), Error> {
        if !self.flags.is_path() {
            self.check_device(opener, place)?;
        }
        let opened = opener.names.open(place, self.flags.to_open());
        let opened = opened.map_err(|errno| opener.failed("open", self, errno))?;
        let fd = match opener.is_high(&opened) {
            true => opened,
            false => opener.raise(opened, self)?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(self.failed("examine"))?;
        if let Place::Entry(entry) = place
            && entry
                .identity
                .is_some_and(|meant| meant != (stat.st_dev, stat.st_ino))
        {
            return Err(Error::Changed {
                object: self.object(),
                what: "inode",
                recorded: entry.identity.unwrap_or_default().1.to_string(),
                found: stat.st_ino.to_string(),
                remedy: "somebody replaced it meanwhile; try again",
            });
        }
        self.settle(opener, fd, &stat)
    }

    /// Compares what was opened with what was recorded, and gives it flags and position.
    pub(super) fn settle(
        &self,
        opener: &mut Opener<'_>,
        fd: OwnedFd,
        stat: &Stat,
    ) -> Result<(), Error> {
        let options = &opener.plan.options;
        let object = || self.object();
        self.file
            .check(fd.as_fd(), stat, self.flags, &object, options)?;
        if !self.flags.is_path() {
            if !self.flags.has(rustix::fs::OFlags::NONBLOCK) {
                let status = self.flags.status();
                rustix::fs::fcntl_setfl(&fd, status).map_err(self.failed("set the flags of"))?;
            }
            match (&self.file.remap, self.file.position) {
                // What it has told of another is not to be had; it tells nothing more in any case.
                (Some(Remap::Process(_)), _) | (_, None) => {}
                (_, position) => seek(fd.as_fd(), position, self)?,
            }
        }
        opener.add(self.id, fd);
        Ok(())
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> Error {
        Error::system(operation, self)
    }

    /// Refuses devices with a state of their own, before opening them does something.
    fn check_device(&self, opener: &Opener<'_>, place: &Place) -> Result<(), Error> {
        let harmless = [FileType::RegularFile, FileType::Directory];
        let recorded = self.file.mode.map(FileType::from_raw_mode);
        if recorded.is_some_and(|kind| harmless.contains(&kind)) {
            return Ok(());
        }
        let stat = opener
            .names
            .stat(place)
            .map_err(|errno| opener.failed("open", self, errno))?;
        let number = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => {}
            FileType::CharacterDevice if !DEVICES.contains(&number) => {}
            _ => return Ok(()),
        }
        Err(Error::Unsupported {
            object: self.object(),
            what: "a device with a state of its own",
            remedy: "give it with --inherit-fd 'fd[N]:PATH', PATH without the first slash",
        })
    }
}

/// Sets the position.
pub(super) fn seek(
    fd: BorrowedFd<'_>,
    to: Option<u64>,
    object: impl fmt::Display,
) -> Result<(), Error> {
    let Some(position) = to else { return Ok(()) };
    rustix::fs::seek(fd, SeekFrom::Start(position))
        .map(drop)
        .map_err(Error::system("set the position of", object))
}

impl Regular {
    /// Compares what was opened with what was recorded.
    pub(super) fn check(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        flags: Flags,
        object: &dyn Fn() -> String,
        options: &FileOptions,
    ) -> Result<(), Error> {
        let changed = |what, recorded: String, found: String, remedy| {
            Err(Error::Changed {
                object: object(),
                what,
                recorded,
                found,
                remedy,
            })
        };
        if let Some(mode) = self.mode {
            if mode & TYPE != stat.st_mode & TYPE {
                let kind = |mode| format!("{:?}", FileType::from_raw_mode(mode));
                let (recorded, found) = (kind(mode), kind(stat.st_mode));
                return changed("type", recorded, found, "bring the file back as it was");
            }
            let same = mode & PERMISSIONS == stat.st_mode & PERMISSIONS;
            if !same && !options.skip_rwx_check {
                let octal = |mode| format!("{:#o}", mode & PERMISSIONS);
                let remedy = "set it back, or use --skip-file-rwx-check";
                return changed("mode", octal(mode), octal(stat.st_mode), remedy);
            }
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        if let Some(recorded) = self.size
            && recorded != size
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        {
            let remedy = "bring the file back as it was";
            return changed("size", recorded.to_string(), size.to_string(), remedy);
        }
        let readable = !flags.is_path() && matches!(flags.access(), 0 | 2);
        if self.build_id.is_empty() || options.validation == Validation::Size || !readable {
            return Ok(());
        }
        let found = build_id::read(fd)
            .map_err(|errno| Error::system("read the build id of", object())(errno))?;
        let found = found.unwrap_or_default();
        if build_id::matches(&self.build_id, &found) {
            return Ok(());
        }
        let bytes: Vec<u8> = self
            .build_id
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let (recorded, found) = (build_id::hex(&bytes), build_id::hex(&found));
        let remedy = "bring the file back as it was, or use --file-validation=filesize";
        changed("build id", recorded, found, remedy)
    }
}
