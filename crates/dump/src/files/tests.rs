//! Real processes with real files, looked at from outside.

mod events;
mod inet;
mod kinds;
mod limits;
mod unix;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gelid_image::messages::{
    FdTypes, FdinfoEntry, FileEntry, InventoryEntry, RegFileEntry, RemapFilePathEntry,
};
use gelid_image::{Dir, ImageKind, Record, Staging};
use gelid_sys::proc::{TaskDir, smaps};
use gelid_sys::{Pid, pidfd};
use tempfile::TempDir;

use super::{Collected, Collector, Error, Mapped, Task, Told, check};
use crate::Options;

/// A Python process that has done something and waits.
struct Guest {
    child: Child,
    pid: Pid,
    /// Its working directory.
    home: TempDir,
    /// What it said.
    words: Vec<String>,
}

impl Guest {
    /// Runs a script that ends by `ready(...)`.
    fn new(script: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let prelude = "import fcntl, mmap, os, sys, time\n\
            def ready(*words):\n    print(*words, flush=True)\n    sys.stdin.readline()\n";
        let mut child = Command::new("python3")
            .args(["-c", &format!("{prelude}{script}")])
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        assert!(!words.is_empty(), "the guest has failed");
        Self {
            child,
            pid,
            home,
            words,
        }
    }

    /// The word as a number.
    fn number(&self, word: usize) -> u32 {
        self.words[word].parse().unwrap()
    }

    fn path(&self, name: &str) -> Vec<u8> {
        let path = self.home.path().canonicalize().unwrap().join(name);
        path.into_os_string().into_encoded_bytes()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The end of its input ends it, and its children by their own.
        let _ = self.child.stdin.take().map(|mut stdin| stdin.flush());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was recorded of some tasks.
struct Images {
    dir: Dir,
    scratch: TempDir,
    tables: Vec<Vec<FdinfoEntry>>,
    mapped: Vec<(smaps::Area, Mapped)>,
    exe: u32,
    cwd: u32,
    collected: Collected,
}

impl Images {
    /// Collects the files of tasks, descriptors and mappings.
    fn of(pids: &[Pid], options: &dyn Fn(&mut Options)) -> Result<Self, Error> {
        Self::looked(pids, options, None, None)
    }

    /// The same, of tables that are said to have so many slots. `told` tells what the owner of the only one does.
    fn looked(
        pids: &[Pid],
        options: &dyn Fn(&mut Options),
        slots: Option<u32>,
        mut told: Option<Told<'_>>,
    ) -> Result<Self, Error> {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let staging = Staging::new(&dir).unwrap();
        let mut choices = Options::new(pids[0], dir.clone());
        options(&mut choices);
        let mut files = Collector::new(&choices, &staging)?;
        if told.is_some() {
            files.lock_list.read();
            let end = Instant::now() + Duration::from_secs(1);
            while !files.lock_list.is_known() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let (mut tables, mut mapped, mut exe, mut cwd) = (Vec::new(), Vec::new(), 0, 0);
        for pid in pids {
            let (task, pidfd) = (TaskDir::open(*pid)?, pidfd::open(*pid).unwrap());
            let task = Task {
                pid: *pid,
                dir: &task,
                pidfd: pidfd.as_fd(),
            };
            files.process(&gelid_sys::proc::stat::read(task.dir)?);
            let size = gelid_sys::proc::status::read(task.dir)?.fd_size;
            tables.push(files.table(task, slots.unwrap_or(size), told.take())?);
            for area in smaps::read(task.dir)? {
                if area.map.has_file() {
                    let file = files.mapped(task, &area.map)?;
                    mapped.push((area, file));
                }
            }
            exe = files.executable(task)?;
            let status = gelid_sys::proc::status::read(task.dir)?;
            cwd = crate::fs::entry(&mut files, task, &status)?.cwd_id;
        }
        let collected = files.finish()?;
        let inventory = InventoryEntry {
            img_version: 2,
            ..InventoryEntry::default()
        };
        staging.put(ImageKind::Inventory, (), &inventory).unwrap();
        staging.commit().unwrap();
        Ok(Self {
            dir,
            scratch,
            tables,
            mapped,
            exe,
            cwd,
            collected,
        })
    }

    fn guest(guest: &Guest) -> Self {
        Self::of(&[guest.pid], &|_| {}).unwrap()
    }

    fn all<M: Record + Default>(&self, kind: ImageKind) -> Vec<M> {
        self.dir.read_all(kind, ()).unwrap()
    }

    fn slot(&self, fd: u32) -> &FdinfoEntry {
        let mut slots = self.tables[0].iter();
        slots.find(|slot| slot.fd == fd).unwrap()
    }

    /// The description with an id.
    fn file(&self, id: u32) -> FileEntry {
        let mut files = self.all::<FileEntry>(ImageKind::Files).into_iter();
        let file = files.find(|file| file.id == id).unwrap();
        assert!(!files.any(|file| file.id == id), "{id} occurs twice");
        file
    }

    /// The description behind a descriptor.
    fn open(&self, fd: u32) -> FileEntry {
        let file = self.file(self.slot(fd).id);
        assert_eq!(file.r#type, self.slot(fd).r#type);
        file
    }

    /// The file behind a descriptor, which is recorded by its path.
    fn regular(&self, fd: u32) -> RegFileEntry {
        let file = self.open(fd);
        assert_eq!(file.r#type, i32::from(FdTypes::Reg));
        let reg = *file.reg.unwrap();
        assert_eq!(reg.id, file.id);
        reg
    }

    fn remap(&self, id: u32) -> Option<RemapFilePathEntry> {
        let mut remaps = self
            .all::<RemapFilePathEntry>(ImageKind::RemapFpath)
            .into_iter();
        remaps.find(|remap| remap.orig_id == id)
    }

    /// The bytes of an image.
    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.path().join(name)).unwrap()
    }
}

/// Why the files of a guest are refused.
fn refusal(guest: &Guest) -> String {
    match Images::of(&[guest.pid], &|_| {}) {
        Ok(_) => panic!("nothing was refused"),
        Err(error) => error.to_string(),
    }
}

/// Why a look beforehand refuses the files of a guest.
fn early_refusal(guest: &Guest) -> Option<String> {
    let dir = Dir::open(Path::new("/")).unwrap();
    let task = TaskDir::open(guest.pid).unwrap();
    let checked = check(&Options::new(guest.pid, dir), &task);
    checked.err().map(|error| error.to_string())
}
