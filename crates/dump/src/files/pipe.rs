//! Pipes, named or not, with what is in them. Section 13 of the format.
//!
//! The contents are looked at with `tee(2)`, which takes nothing away.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use gelid_image::messages::{FdTypes, FifoEntry, FileEntry, PipeDataEntry, PipeEntry};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::proc::fd;
use gelid_sys::proc::fdinfo::FdInfo;
use gelid_sys::{Errno, PAGE_SIZE};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::descriptions::Inode;
use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Place, Task, kind};

/// Pipes of one kind, and the image of their contents.
#[derive(Debug)]
pub(super) struct Pipes {
    writer: ImageWriter,
    known: HashMap<Inode, Pipe>,
    taken: HashSet<u32>,
    /// The device that all pipes without a name are on, once one has been met.
    device: Option<u64>,
}

#[derive(Debug)]
struct Pipe {
    id: u32,
    place: Place,
    name: Name,
    /// Bytes in it, once they were looked at.
    bytes: Option<u64>,
    /// Somebody writes packets.
    packets: bool,
    /// What is in it is a stream.
    stream: bool,
}

impl Pipes {
    pub(super) fn new(staging: &Staging, kind: ImageKind) -> Result<Self, Error> {
        Ok(Self {
            writer: staging.writer(kind, ())?,
            known: HashMap::new(),
            taken: HashSet::new(),
            device: None,
        })
    }

    /// What the link of a descriptor says, which is asked for only where nothing else tells.
    pub(super) fn link_of(
        &mut self,
        task: Task<'_>,
        fd: RawFd,
        stat: &Stat,
        info: &FdInfo,
    ) -> Result<Vec<u8>, Error> {
        let is_path = info.flags & OFlags::PATH.bits() != 0;
        let (inode, device) = (stat.st_ino, Some(stat.st_dev));
        let told = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket if !is_path => format!("socket:[{inode}]"),
            FileType::Fifo if self.device == device => format!("pipe:[{inode}]"),
            _ if kind::is_eventfd(info) => "anon_inode:[eventfd]".to_owned(),
            kind => {
                let link = fd::link(task.dir, fd)?.into_bytes();
                if kind == FileType::Fifo && link.starts_with(b"pipe:[") {
                    self.device = device;
                }
                return Ok(link);
            }
        };
        Ok(told.into_bytes())
    }

    /// Refuses what turned out not to be representable, and closes the image. Gives the pipes, by inode.
    pub(super) fn finish(self) -> Result<HashMap<u64, u32>, Error> {
        let mut all = HashMap::with_capacity(self.known.len());
        for (inode, pipe) in self.known {
            all.insert(inode.1, pipe.id);
            // Images of others say nothing about packets, and have data as this pipe has.
            if let Some(bytes @ 1..) = pipe.bytes
                && pipe.packets
                && pipe.stream
            {
                let (place, name) = (pipe.place, pipe.name);
                return Err(Error::Packets { place, name, bytes });
            }
        }
        self.writer.finish()?;
        Ok(all)
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
                    stream: true,
                };
                self.known.entry(object.inode()).or_insert(pipe)
            }
        };
        let writes = flags & 3 != OFlags::RDONLY.bits();
        let reads = flags & 3 != OFlags::WRONLY.bits();
        pipe.packets |= writes && flags & OFlags::DIRECT.bits() != 0;
        if reads && pipe.bytes.is_none() {
            let contents = tee.look(object)?;
            pipe.stream = contents.packets.is_empty();
            pipe.bytes = Some(contents.bytes.len() as u64);
            self.writer.push(&PipeDataEntry {
                pipe_id: pipe.id,
                bytes: u32::try_from(contents.bytes.len()).map_err(|_| Error::TooMany)?,
                size: Some(u32::try_from(contents.capacity).map_err(|_| Error::TooMany)?),
                packet: contents.packets,
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
    /// Lengths of the packets that they are, which a reader gets one by one; none of a stream.
    packets: Vec<u32>,
}

impl Tee {
    /// Looks into a pipe through a description that can be read.
    fn look(&mut self, object: &Object<'_>) -> Result<Contents<'_>, Error> {
        let capacity = rustix::pipe::fcntl_getpipe_size(object.file);
        let capacity = capacity.map_err(object.failed("ask for the capacity of"))?;
        let len = waiting(object.file).map_err(object.failed("ask for the contents of"))?;
        let mut packets = Vec::new();
        self.buffer.clear();
        // A mark goes behind it.
        self.buffer.resize(len + 1, 0);
        if len > 0 {
            let own = fit(&mut self.own, capacity.max(2 * PAGE_SIZE))?;
            let copy = Copy { object, own, len };
            if !copy.stream(&mut self.buffer)? {
                packets = copy.packets(&mut self.buffer)?;
            }
        }
        Ok(Contents {
            capacity,
            bytes: &self.buffer[..len],
            packets,
        })
    }
}

/// A copy of what is in a pipe, to be made as often as it is read.
struct Copy<'a> {
    object: &'a Object<'a>,
    own: &'a Own,
    len: usize,
}

impl Copy<'_> {
    /// Reads it as a stream, into a buffer with room for a mark; false if it is none. A call ends with the packet that it
    /// comes to, so that it does not come to a mark behind one.
    fn stream(&self, buffer: &mut [u8]) -> Result<bool, Error> {
        self.make()?;
        let is_stream = match self.mark()? {
            true => self.read(buffer)? == self.len + 1,
            false => self.read(buffer)? == self.len && self.ends_as_stream(buffer)?,
        };
        if !is_stream {
            self.drain()?;
        }
        Ok(is_stream)
    }

    /// Whether what is last is no packet, where none is before it. For a mark there is room only once a part has been read,
    /// and to read a part of a packet takes the whole of it, so that nothing but the mark is left.
    fn ends_as_stream(&self, buffer: &mut [u8]) -> Result<bool, Error> {
        self.make()?;
        let read = self.read(&mut buffer[..self.len - 1])?;
        Ok(read == self.len - 1 && self.mark()? && self.read(&mut [0; 2])? == 2)
    }

    /// Writes a byte behind it; false if there is no room.
    fn mark(&self) -> Result<bool, Error> {
        match retry_on_intr(|| rustix::io::write(&self.own.writer, &[0])) {
            Err(Errno::AGAIN) => Ok(false),
            written => Ok(written.map_err(self.object.failed("mark a copy of"))? == 1),
        }
    }

    /// Reads it packet by packet, and tells their lengths.
    fn packets(&self, buffer: &mut [u8]) -> Result<Vec<u32>, Error> {
        self.make()?;
        let (mut read, mut lengths) = (0, Vec::new());
        while read < self.len {
            let more = self.read(&mut buffer[read..])?;
            if more == 0 {
                return Err(self.torn(read));
            }
            lengths.push(u32::try_from(more).map_err(|_| Error::TooMany)?);
            read += more;
        }
        // Bytes of a stream may have come with a packet.
        self.make()?;
        let mut left = self.len;
        for length in &lengths {
            self.read(&mut [0])?;
            left -= *length as usize;
            if self.left()? != left {
                self.drain()?;
                return Err(Error::Packets {
                    place: self.object.place,
                    name: Name(self.object.link.clone()),
                    bytes: self.len as u64,
                });
            }
        }
        Ok(lengths)
    }

    fn make(&self) -> Result<(), Error> {
        let made = tee(self.object.file, self.own, self.len);
        let made = made.map_err(self.object.failed("look into"))?;
        match made == self.len {
            true => Ok(()),
            false => {
                self.drain()?;
                Err(self.torn(made))
            }
        }
    }

    /// Reads once; 0 if there is nothing more.
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        match retry_on_intr(|| rustix::io::read(&self.own.reader, &mut *buffer)) {
            Err(Errno::AGAIN) => Ok(0),
            read => read.map_err(self.object.failed("read a copy of")),
        }
    }

    fn drain(&self) -> Result<(), Error> {
        while self.read(&mut [0; 4096])? > 0 {}
        Ok(())
    }

    fn left(&self) -> Result<usize, Error> {
        waiting(&self.own.reader).map_err(self.object.failed("read a copy of"))
    }

    fn torn(&self, found: usize) -> Error {
        Error::PipeTorn {
            place: self.object.place,
            name: Name(self.object.link.clone()),
            expected: self.len as u64,
            found: found as u64,
        }
    }
}

/// Bytes that wait to be read.
fn waiting(pipe: impl AsFd) -> Result<usize, Errno> {
    let waiting = rustix::io::ioctl_fionread(pipe)?;
    usize::try_from(waiting).map_err(|_| Errno::OVERFLOW)
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
    retry_on_intr(|| rustix::pipe::tee(from, &to.writer, len, SpliceFlags::NONBLOCK))
}
