//! Pipes, named or not, with what is in them. Section 13 of the format.
//!
//! The contents are looked at with `tee(2)`, which takes nothing away.

use std::collections::{HashMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};

use gelid_image::messages::{FdTypes, FifoEntry, FileEntry, PipeDataEntry, PipeEntry};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::Errno;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::descriptions::Inode;
use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Place};

/// Pipes of one kind, and the image of their contents.
#[derive(Debug)]
pub(super) struct Pipes {
    writer: ImageWriter,
    known: HashMap<Inode, Pipe>,
    taken: HashSet<u32>,
}

#[derive(Debug)]
struct Pipe {
    id: u32,
    place: Place,
    name: Name,
    /// Bytes in it, once they were looked at.
    bytes: Option<u64>,
    /// Somebody writes packets, or they were seen.
    packets: bool,
}

impl Pipes {
    pub(super) fn new(staging: &Staging, kind: ImageKind) -> Result<Self, Error> {
        Ok(Self {
            writer: staging.writer(kind, ())?,
            known: HashMap::new(),
            taken: HashSet::new(),
        })
    }

    /// Refuses what turned out not to be representable, and closes the image.
    pub(super) fn finish(self) -> Result<(), Error> {
        for pipe in self.known.into_values() {
            if let Some(bytes @ 1..) = pipe.bytes
                && pipe.packets
            {
                return Err(Error::Packets {
                    place: pipe.place,
                    name: pipe.name,
                    bytes,
                });
            }
        }
        Ok(self.writer.finish()?)
    }

    /// Notes a description of a pipe, and its contents if they can be read through it. Gives its key.
    fn add(&mut self, object: &Object<'_>, flags: u32, tee: &mut Tee) -> Result<u32, Error> {
        let pipe = match self.known.get_mut(&object.inode()) {
            Some(pipe) => pipe,
            None => {
                let id = key(object.stat.st_ino, &mut self.taken);
                let pipe = Pipe {
                    id,
                    place: object.place,
                    name: Name(object.link.clone()),
                    bytes: None,
                    packets: false,
                };
                self.known.entry(object.inode()).or_insert(pipe)
            }
        };
        let writes = flags & 3 != OFlags::RDONLY.bits();
        let reads = flags & 3 != OFlags::WRONLY.bits();
        pipe.packets |= writes && flags & OFlags::DIRECT.bits() != 0;
        if reads && pipe.bytes.is_none() {
            let contents = tee.look(object)?;
            pipe.packets |= contents.packets;
            pipe.bytes = Some(contents.bytes.len() as u64);
            self.writer.push(&PipeDataEntry {
                pipe_id: pipe.id,
                bytes: u32::try_from(contents.bytes.len()).map_err(|_| Error::TooMany)?,
                size: Some(u32::try_from(contents.capacity).map_err(|_| Error::TooMany)?),
            })?;
            self.writer.push_payload(contents.bytes)?;
        }
        Ok(pipe.id)
    }
}

/// The number of an inode if it fits and nobody else has it, or else another one.
pub(super) fn key(inode: u64, taken: &mut HashSet<u32>) -> u32 {
    let mut key = inode as u32;
    while !taken.insert(key) {
        key = key.wrapping_add(1);
    }
    key
}

impl Collector<'_> {
    /// Records an end of a pipe.
    pub(super) fn pipe(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let id = self.new_id()?;
        let pipe_id = self.pipes.add(object, opening.flags, &mut self.tee)?;
        self.push(FileEntry {
            r#type: FdTypes::Pipe.into(),
            id,
            pipe: Some(PipeEntry {
                id,
                pipe_id,
                flags: opening.flags,
                fown: opening.fown,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Pipe, id))
    }

    /// Records an open FIFO.
    pub(super) fn fifo(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let id = self.new_id()?;
        let pipe_id = self.fifos.add(object, opening.flags, &mut self.tee)?;
        let regf_id = Some(self.regular(object, opening)?);
        self.push(FileEntry {
            r#type: FdTypes::Fifo.into(),
            id,
            fifo: Some(FifoEntry {
                id,
                pipe_id,
                regf_id,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Fifo, id))
    }
}

/// A pipe of the dumper's own, to look into those of the tree.
#[derive(Debug, Default)]
pub(super) struct Tee {
    own: Option<Own>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Own {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
}

/// What is in a pipe.
#[derive(Debug, PartialEq, Eq)]
struct Contents<'t> {
    capacity: usize,
    bytes: &'t [u8],
    /// They are several packets, which a reader would get one by one.
    packets: bool,
}

impl Tee {
    /// Looks into a pipe through a description that can be read.
    fn look(&mut self, object: &Object<'_>) -> Result<Contents<'_>, Error> {
        let capacity = rustix::pipe::fcntl_getpipe_size(object.file);
        let capacity = capacity.map_err(object.failed("ask for the capacity of"))?;
        let waiting = rustix::io::ioctl_fionread(object.file);
        let waiting = waiting.map_err(object.failed("ask for the contents of"))?;
        let len = usize::try_from(waiting).map_err(|_| Error::TooMany)?;
        if len == 0 {
            return Ok(Contents {
                capacity,
                bytes: &[],
                packets: false,
            });
        }
        let own = fit(&mut self.own, capacity)?;
        let teed = tee(object.file, own, len).map_err(object.failed("look into"))?;
        self.buffer.clear();
        self.buffer.resize(len, 0);
        // Reading stops at the end of a packet.
        let (mut read, mut reads) = (0, 0);
        while read < teed {
            match rustix::io::read(&own.reader, &mut self.buffer[read..]) {
                Ok(0) => break,
                Ok(more) => (read, reads) = (read + more, reads + 1),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(object.failed("read a copy of")(errno)),
            }
        }
        if read != len {
            return Err(Error::PipeTorn {
                place: object.place,
                name: Name(object.link.clone()),
                expected: len as u64,
                found: read as u64,
            });
        }
        Ok(Contents {
            capacity,
            bytes: &self.buffer,
            packets: reads > 1,
        })
    }
}

/// The dumper's own pipe, with room for all that is in one of `capacity` bytes.
fn fit(own: &mut Option<Own>, capacity: usize) -> Result<&Own, Error> {
    let failed = |operation| move |errno| Error::Own { operation, errno };
    if own.as_ref().is_none_or(|own| own.capacity < capacity) {
        let made = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (reader, writer) = made.map_err(failed("make a pipe"))?;
        let set = rustix::pipe::fcntl_setpipe_size(&writer, capacity);
        let capacity = set.map_err(failed("make a pipe as large as one of the tree"))?;
        *own = Some(Own {
            reader,
            writer,
            capacity,
        });
    }
    own.as_ref().ok_or(Error::TooMany)
}

fn tee(from: BorrowedFd<'_>, to: &Own, len: usize) -> Result<usize, Errno> {
    loop {
        match rustix::pipe::tee(from, &to.writer, len, SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
