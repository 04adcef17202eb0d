//! Round trips: images written by hand, planned, opened, and looked at through `/proc/self`.

mod deleted;
mod events;
mod golden;
mod hostile;
mod inet;
mod memory;
mod pipes;
mod regular;
mod terminal_records;
mod unix;
mod unix_hostile;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gelid_image::messages::{
    FdTypes, FdinfoEntry, FileEntry, FownEntry, PipeDataEntry, PipeEntry, RegFileEntry,
    RemapFilePathEntry, RemapType, SkPacketEntry,
};
use gelid_image::{Dir, ImageKind, Staging};
use gelid_sys::proc::fdinfo::{self, FdInfo};
use tempfile::TempDir;

use super::{Context, Error, FileOptions, FilesPlan, Held, OpenFiles};

const BASE: i32 = 500;
const O_APPEND: u32 = 0o2000;
const O_NONBLOCK: u32 = 0o4000;
const O_LARGEFILE: u32 = 0o100_000;
const O_PATH: u32 = 0o10_000_000;

/// A set of images in the making, and the root of the machine that it is restored on.
struct Images {
    scratch: TempDir,
    entries: Vec<FileEntry>,
    slots: Vec<FdinfoEntry>,
    remaps: Vec<RemapFilePathEntry>,
    pipes: Vec<(PipeDataEntry, Vec<u8>)>,
    packets: Vec<(SkPacketEntry, Vec<u8>)>,
    options: FileOptions,
}

impl Images {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("root")).unwrap();
        fs::create_dir(scratch.path().join("images")).unwrap();
        Self {
            scratch,
            entries: Vec::new(),
            slots: Vec::new(),
            remaps: Vec::new(),
            pipes: Vec::new(),
            packets: Vec::new(),
            options: FileOptions::default(),
        }
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    fn dir(&self) -> Dir {
        Dir::open(self.scratch.path().join("images")).unwrap()
    }

    /// Adds a record and a descriptor for it, numbered as its id.
    fn push(&mut self, entry: FileEntry) {
        self.slots.push(FdinfoEntry {
            id: entry.id,
            r#type: entry.r#type,
            fd: entry.id,
            ..Default::default()
        });
        self.entries.push(entry);
    }

    /// A file with a path, and a descriptor.
    fn regular(&mut self, id: u32, name: &str, flags: u32, pos: u64) -> &mut RegFileEntry {
        let reg = RegFileEntry {
            id,
            flags: flags | O_LARGEFILE,
            pos,
            name: name.into(),
            ..Default::default()
        };
        self.push(FileEntry {
            reg: Some(Box::new(reg)),
            ..entry(FdTypes::Reg, id)
        });
        self.entries.last_mut().unwrap().reg.as_mut().unwrap()
    }

    fn pipe(&mut self, id: u32, pipe_id: u32, flags: u32) {
        let pipe = PipeEntry {
            id,
            pipe_id,
            flags,
            fown: FownEntry::default(),
        };
        self.push(FileEntry {
            pipe: Some(pipe),
            ..entry(FdTypes::Pipe, id)
        });
    }

    fn pipe_data(&mut self, pipe_id: u32, size: u32, data: &[u8]) {
        let entry = PipeDataEntry {
            pipe_id,
            bytes: data.len() as u32,
            size: Some(size),
            packet: Vec::new(),
        };
        self.pipes.push((entry, data.to_vec()));
    }

    fn remap(&mut self, orig_id: u32, kind: RemapType, remap_id: u32) {
        self.remaps.push(RemapFilePathEntry {
            orig_id,
            remap_id,
            remap_type: Some(kind.into()),
        });
    }

    /// Writes the images, those of `more` too.
    fn write(&self, more: impl FnOnce(&Staging)) -> Dir {
        let dir = self.dir();
        let staging = Staging::new(&dir).unwrap();
        let put = |kind| staging.writer(kind, ()).unwrap();
        let mut files = put(ImageKind::Files);
        for entry in &self.entries {
            files.push(entry).unwrap();
        }
        drop(files);
        let mut remaps = put(ImageKind::RemapFpath);
        for remap in &self.remaps {
            remaps.push(remap).unwrap();
        }
        drop(remaps);
        for kind in [ImageKind::PipesData, ImageKind::FifoData] {
            let mut pipes = put(kind);
            for (entry, data) in &self.pipes {
                pipes.push(entry).unwrap().push_payload(data).unwrap();
            }
        }
        let mut packets = put(ImageKind::SkQueues);
        for (entry, data) in &self.packets {
            packets.push(entry).unwrap().push_payload(data).unwrap();
        }
        drop(packets);
        let mut slots = staging.writer(ImageKind::Fdinfo, 2).unwrap();
        for slot in &self.slots {
            slots.push(slot).unwrap();
        }
        drop(slots);
        more(&staging);
        staging.commit().unwrap();
        dir
    }

    fn plan(&self) -> Result<FilesPlan, Error> {
        FilesPlan::read(&self.write(|_| ()), &[2], &self.options)
    }

    fn open(&self) -> Result<OpenFiles, Error> {
        self.open_with(|_| ())
    }

    fn open_with(&self, more: impl FnOnce(&Staging)) -> Result<OpenFiles, Error> {
        let plan = FilesPlan::read(&self.write(more), &[2], &self.options)?;
        self.open_plan(&plan)
    }

    fn open_plan(&self, plan: &FilesPlan) -> Result<OpenFiles, Error> {
        let root = open_dir(&self.root());
        plan.open(&Context {
            roots: root.as_fd().into(),
            base: BASE,
            held: &Held::default(),
            spare: None,
            hooks: None,
            terminal: None,
            birthplace: None,
            hand: None,
            keeper: None,
            networks: &Arc::default(),
            further: None,
        })
    }

    /// Message of the error that opening gives.
    fn refusal(&self) -> String {
        self.open().err().unwrap().to_string()
    }

    /// Names of what is in a directory of the root.
    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root().join(dir)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn entry(kind: FdTypes, id: u32) -> FileEntry {
    FileEntry {
        r#type: kind.into(),
        id,
        ..Default::default()
    }
}

fn open_dir(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

/// What the kernel says about a descriptor of this process.
fn info(fd: BorrowedFd<'_>) -> FdInfo {
    let me = gelid_sys::proc::task_dir(rustix::process::getpid()).unwrap();
    fdinfo::read(&me, fd.as_raw_fd()).unwrap()
}

/// Flags of the description alone.
fn flags(fd: BorrowedFd<'_>) -> u32 {
    info(fd).flags & !0o2_000_000
}

/// Where a descriptor leads, without the root.
fn link(images: &Images, fd: BorrowedFd<'_>) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    let root = images.root();
    let rest = link.as_os_str().as_bytes();
    let rest = rest
        .strip_prefix(root.as_os_str().as_bytes())
        .unwrap_or(rest);
    String::from_utf8(rest.to_vec()).unwrap()
}

fn contents(fd: BorrowedFd<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let len = rustix::io::pread(fd, &mut bytes, 0).unwrap();
    bytes.truncate(len);
    bytes
}

fn read_now(fd: BorrowedFd<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let len = rustix::io::read(fd, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}
