//! Pipes: both ends made once, filled with what was in them, and reopened for every further description.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::messages::PipeDataEntry;
use gelid_image::{Dir, ImageKind, Payload, ReadError};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::open::{Opener, set_status};
use super::{Description, Error, FilesPlan, Flags, Kind};

/// Bytes a pipe holds where nothing is recorded.
const DEFAULT_SIZE: u32 = 64 << 10;

/// `O_LARGEFILE` as the kernel keeps it; on machines of 64 bits it is no flag to open with.
const LARGEFILE: u32 = 0o100_000;

/// A pipe, or the pipe behind a FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pipe {
    /// Capacity, bytes.
    pub size: Option<u32>,
    /// Bytes waiting to be read.
    pub bytes: u32,
    /// They are packets, which are read one by one.
    pub packets: bool,
}

/// The longest packet.
const PACKET: u32 = 4096;

/// Reads what is recorded of pipes (`pipes-data.img`) or FIFOs (`fifo-data.img`), by pipe id.
pub(super) fn read(dir: &Dir, kind: ImageKind) -> Result<BTreeMap<u32, Pipe>, Error> {
    let mut pipes = BTreeMap::new();
    each(dir, kind, |entry, _| {
        let object = || format!("{}: pipe {}", image(kind), entry.pipe_id);
        if entry.bytes > entry.size.unwrap_or(DEFAULT_SIZE) {
            let rule = "a pipe holds no more bytes than its size";
            return Err(Error::invalid(object(), "bytes", entry.bytes, rule));
        }
        if let Some(size) = entry.size
            && (size == 0 || i32::try_from(size).is_err())
        {
            let rule = "no pipe has such a size";
            return Err(Error::invalid(object(), "size", size, rule));
        }
        let pipe = Pipe {
            size: entry.size,
            bytes: entry.bytes,
            packets: !entry.packet.is_empty(),
        };
        if pipe.packets {
            let all: u64 = entry.packet.iter().map(|len| u64::from(*len)).sum();
            let odd = |len: &u32| !(1..=PACKET).contains(len);
            if all != u64::from(entry.bytes) || entry.packet.iter().any(odd) {
                let rule = "packets have 1 to 4096 bytes, and together all of them";
                return Err(Error::invalid(object(), "packet", all, rule));
            }
        }
        match pipes.insert(entry.pipe_id, pipe) {
            None => Ok(()),
            Some(_) => Err(Error::Duplicate {
                image: image(kind),
                what: "pipe",
                id: entry.pipe_id.into(),
            }),
        }
    })?;
    Ok(pipes)
}

/// Calls `visit` for each record and its data.
fn each(
    dir: &Dir,
    kind: ImageKind,
    mut visit: impl FnMut(&PipeDataEntry, &mut Payload<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(mut reader) = dir.reader_opt(kind, ())? else {
        return Ok(());
    };
    while let Some(entry) = reader.next::<PipeDataEntry>()? {
        visit(&entry, &mut reader.payload(entry.bytes.into())?)?;
    }
    Ok(())
}

fn image(kind: ImageKind) -> String {
    kind.file_name(()).unwrap_or_default()
}

impl FilesPlan {
    /// The pipe that an open file is an end of.
    pub(crate) fn pipe_of(&self, id: u32) -> Option<u32> {
        match self.descriptions.get(&id)?.kind {
            Kind::Pipe(pipe) => Some(pipe),
            _ => None,
        }
    }

    /// An open file of a pipe, one to write by if there is any.
    pub(crate) fn end_of(&self, pipe: u32) -> Option<(u32, Flags)> {
        let ends = self.descriptions.values();
        let ends = ends.filter(|end| matches!(end.kind, Kind::Pipe(id) if id == pipe));
        let best = ends.max_by_key(|end| end.flags.access() == 1);
        best.map(|end| (end.id, end.flags))
    }

    /// Refuses pipes in packet mode that are not empty, where it is not recorded where a packet ended.
    pub(super) fn check_packets(&self) -> Result<(), Error> {
        let packets = |it: &&Description| it.flags.access() != 0 && it.flags.has(OFlags::DIRECT);
        for description in self.descriptions.values().filter(packets) {
            let pipe = match &description.kind {
                Kind::Pipe(id) => self.pipes.get(id),
                Kind::Fifo(fifo) => self.fifos.get(&fifo.pipe),
                _ => None,
            };
            if pipe.is_some_and(|pipe| pipe.bytes > 0 && !pipe.packets) {
                return Err(Error::Unsupported {
                    object: description.label(),
                    what: "a pipe with unread packets",
                    remedy: "let the program read them before the dump",
                });
            }
        }
        Ok(())
    }
}

/// All pipes with what was in them, and who has them open.
pub(super) struct Made {
    users: BTreeMap<u32, Vec<(u32, Flags)>>,
    pipes: BTreeMap<u32, Ends>,
}

/// Makes all pipes and fills them. Nothing else has to be open for that.
pub(super) fn make_all(plan: &FilesPlan) -> Result<Made, Error> {
    let mut users: BTreeMap<u32, Vec<(u32, Flags)>> = BTreeMap::new();
    for description in plan.descriptions.values() {
        if let Kind::Pipe(id) = &description.kind {
            let users = users.entry(*id).or_default();
            users.push((description.id, description.flags));
        }
    }
    let mut pipes = BTreeMap::new();
    for id in users.keys() {
        pipes.insert(*id, Ends::make(*id, plan.pipes.get(id).copied())?);
    }
    fill(&plan.dir, ImageKind::PipesData, |id| {
        pipes.get(&id).map(|ends| ends.writer.as_fd())
    })?;
    Ok(Made { users, pipes })
}

impl Made {
    /// Opens all descriptions.
    pub(super) fn open(self, opener: &mut Opener<'_>) -> Result<(), Error> {
        for (id, ends) in self.pipes {
            ends.open(opener, id, &self.users[&id])?;
        }
        Ok(())
    }
}

/// What to call a description of a pipe in messages.
#[derive(Clone, Copy)]
struct End {
    file: u32,
    pipe: u32,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} (pipe {})", self.file, self.pipe)
    }
}

/// Both ends of a new pipe.
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Ends {
    fn make(id: u32, recorded: Option<Pipe>) -> Result<Self, Error> {
        // Without waiting: what does not fit is an error.
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let made = rustix::pipe::pipe_with(flags);
        let made = made.map_err(Error::system("make", format_args!("pipe {id}")));
        let (reader, writer) = made?;
        if let Some(size) = recorded.and_then(|pipe| pipe.size) {
            resize(writer.as_fd(), size, format_args!("pipe {id}"))?;
        }
        Ok(Self { reader, writer })
    }

    /// Opens the descriptions. One of each end is the end itself, the others are opened by way of `/proc`,
    /// as they were: only that gives `O_LARGEFILE`.
    fn open(self, opener: &mut Opener<'_>, id: u32, users: &[(u32, Flags)]) -> Result<(), Error> {
        let itself = |access| {
            let mut users = users.iter();
            users.position(|(_, flags)| {
                flags.access() == access && !flags.has(OFlags::from_bits_retain(LARGEFILE))
            })
        };
        let (first_reader, first_writer) = (itself(0), itself(1));
        let object = |user: &u32| End {
            file: *user,
            pipe: id,
        };
        for (at, (user, flags)) in users.iter().enumerate() {
            if Some(at) != first_reader && Some(at) != first_writer {
                let opened = reopen(opener, self.reader.as_fd(), *flags, object(user))?;
                opener.add(*user, opened);
            }
        }
        for (at, end) in [(first_reader, self.reader), (first_writer, self.writer)] {
            let Some((user, flags)) = at.and_then(|at| users.get(at)) else {
                continue;
            };
            let opened = opener.raise(end, object(user))?;
            set_status(opened.as_fd(), flags.status(), object(user))?;
            opener.add(*user, opened);
        }
        Ok(())
    }
}

/// Opens a pipe once more. One in packet mode cannot be opened as such.
pub(super) fn reopen(
    opener: &Opener<'_>,
    fd: BorrowedFd<'_>,
    flags: Flags,
    object: impl fmt::Display,
) -> Result<OwnedFd, Error> {
    if !flags.has(OFlags::DIRECT) {
        return opener.reopen(fd, flags, object);
    }
    let opened = opener.reopen(fd, Flags(flags.0 & !OFlags::DIRECT.bits()), &object)?;
    set_status(opened.as_fd(), flags.status(), object)?;
    Ok(opened)
}

/// Gives a pipe its capacity.
pub(super) fn resize(pipe: BorrowedFd<'_>, size: u32, object: impl ToString) -> Result<(), Error> {
    rustix::pipe::fcntl_setpipe_size(pipe, size as usize)
        .map(drop)
        .map_err(Error::system("set the size of", object))
}

/// Writes what was in the pipes, into those that `pipe` gives a descriptor for, which must not wait.
pub(super) fn fill<'f>(
    dir: &Dir,
    kind: ImageKind,
    pipe: impl Fn(u32) -> Option<BorrowedFd<'f>>,
) -> Result<(), Error> {
    let mut buffer = [0; 16 << 10];
    each(dir, kind, |entry, data| {
        let Some(fd) = pipe(entry.pipe_id) else {
            return Ok(());
        };
        let object = || format!("pipe {}", entry.pipe_id);
        let mut left = entry.bytes as usize;
        let mut packets = entry.packet.iter();
        let direct = |on| {
            let status = OFlags::NONBLOCK | if on { OFlags::DIRECT } else { OFlags::empty() };
            let set = fcntl_setfl(fd, status);
            set.map_err(|errno| Error::system("set the flags of", object())(errno))
        };
        if !entry.packet.is_empty() {
            direct(true)?;
        }
        while left > 0 {
            // Whole pages, each of which takes one buffer of the pipe: a full one has none to spare.
            let wanted = match packets.next() {
                Some(packet) => *packet as usize,
                None => left,
            };
            let wanted = wanted.min(left).min(buffer.len());
            data.read_exact(&mut buffer[..wanted]).map_err(|source| {
                Error::Read(ReadError::Io {
                    file: image(kind),
                    offset: 0,
                    what: "data of a pipe",
                    source,
                })
            })?;
            let written = write_all(fd, &buffer[..wanted]);
            written.map_err(|errno| Error::system("fill", object())(errno))?;
            left -= wanted;
        }
        match entry.packet.is_empty() {
            true => Ok(()),
            false => direct(false),
        }
    })
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
