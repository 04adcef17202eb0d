//! Mounts on the kernel, in namespaces of threads.

use crate::play::namespaces::mnt::Leader;
use crate::play::script::Script;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use gelid_image::Dir;
use gelid_image::messages::{Fstype, MntEntry};
use gelid_sys::mount::attributes::own_namespace;
use gelid_sys::proc::mountinfo::{self, MountInfo};
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::proc::task_dir;
use rustix::mount::{FsOpenFlags, fsopen};
use rustix::thread::gettid;

use super::{Place, Whose, put_together};
use crate::Error;
use crate::plan::namespaces::mnt::{MountOptions, Mounts};

/// Namespaces that nobody is in.
struct Alone(Vec<OwnedFd>);

impl Alone {
    /// `None` without the privilege for it.
    fn new(count: usize) -> Option<Self> {
        let one = || {
            own_namespace().ok()?;
            Some(ns::open(&task_dir(gettid()).unwrap(), Kind::Mnt).unwrap())
        };
        let all = (0..count).map(|_| std::thread::spawn(one).join().unwrap());
        all.collect::<Option<_>>().map(Self)
    }
}

impl Place for Alone {
    fn make_files_in(&self, _: Option<u32>) -> Result<(), Error> {
        Ok(())
    }

    fn fsopen(&mut self, kind: &CStr, _: Whose) -> Result<OwnedFd, Error> {
        Ok(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).unwrap())
    }

    fn lead(&mut self) -> Result<Leader, Error> {
        unreachable!("there are no automounters")
    }

    fn by(&mut self, _: Leader, _: Script) -> Result<(), Error> {
        unreachable!("there are no automounters")
    }

    fn dismiss(&mut self, _: Leader) -> Result<(), Error> {
        unreachable!("there are no automounters")
    }

    fn inside<T: Send>(
        &self,
        namespace: usize,
        job: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let namespace = self.0[namespace].as_fd();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                gelid_sys::namespace::join(namespace, Kind::Mnt).unwrap();
                job()
            });
            thread.join().unwrap()
        })
    }

    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        (uid, gid)
    }
}

fn seen(place: &Alone, namespace: usize) -> Vec<MountInfo> {
    let own = std::sync::Mutex::new(None);
    let read = || {
        let mut mounts = mountinfo::read(own.lock().unwrap().as_ref().unwrap()).unwrap();
        mounts.sort_by(|one, other| one.mount_point.cmp(&other.mount_point));
        Ok(mounts)
    };
    let namespace = place.0[namespace].as_fd();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            *own.lock().unwrap() = Some(task_dir(gettid()).unwrap());
            gelid_sys::namespace::join(namespace, Kind::Mnt).unwrap();
            read()
        });
        thread.join().unwrap()
    })
    .map_err(|_: Error| ())
    .unwrap()
}

fn entry(id: u32, parent: u32, (fstype, dev): (Fstype, u32), root: &str, point: &str) -> MntEntry {
    MntEntry {
        fstype: i32::from(fstype).cast_unsigned(),
        mnt_id: id,
        root_dev: dev,
        parent_mnt_id: parent,
        flags: 0x20_0000,
        root: root.as_bytes().to_vec(),
        mountpoint: point.as_bytes().to_vec(),
        source: b"a source".to_vec(),
        sb_flags: Some(0),
        ..MntEntry::default()
    }
}

const DISK: (Fstype, u32) = (Fstype::Unsupported, 1);
const MEMORY: (Fstype, u32) = (Fstype::Tmpfs, 2);

fn group(entry: MntEntry, shared: u32, master: u32) -> MntEntry {
    MntEntry {
        shared_id: Some(shared),
        master_id: Some(master),
        ..entry
    }
}

/// Path, shared, slave.
fn groups(mounts: &[MountInfo]) -> Vec<(String, i32, i32)> {
    let of = |mount: &MountInfo| {
        let point = String::from_utf8_lossy(&mount.mount_point).into_owned();
        (point, mount.shared, mount.master)
    };
    mounts.iter().map(of).collect()
}

fn run(place: &mut Alone, root: &std::path::Path, mut records: Vec<(u32, Vec<MntEntry>)>) {
    // In images the root comes last.
    records
        .iter_mut()
        .for_each(|(_, entries)| entries.reverse());
    let options = MountOptions {
        root: Some(root.to_path_buf()),
        ..MountOptions::default()
    };
    let plan = Mounts::plan(records, &options).unwrap();
    let images = tempfile::tempdir().unwrap();
    let mut made = put_together(&plan, place, &Dir::open(images.path()).unwrap()).unwrap();
    made.namespaces = place.0.iter().map(|fd| fd.try_clone().unwrap()).collect();
    assert_eq!(made.roots.len(), place.0.len());
    super::close(&made).unwrap();
}

#[test]
fn trees_are_put_together() {
    let Some(mut place) = Alone::new(2) else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "c/d", "proc", "s", "f", "gone-at"] {
        std::fs::create_dir(root.path().join(name)).unwrap();
    }
    let at = root.path().to_str().unwrap();
    let sub = format!("{at}/s");
    let gone = format!("{at}/gone");
    let mut read_only = entry(13, 10, MEMORY, "/", "/c");
    (read_only.flags, read_only.options) = (0x20_0000 | 0xf, b"size=64k,mode=700".to_vec());
    let mut removed = entry(17, 10, DISK, &gone, "/gone-at");
    removed.deleted = Some(true);
    let one = vec![
        group(entry(10, 0, DISK, at, "/"), 5, 0),
        group(entry(11, 10, (Fstype::Tmpfs, 3), "/", "/a"), 7, 0),
        group(entry(12, 10, (Fstype::Tmpfs, 3), "/", "/b"), 8, 7),
        read_only,
        // Below what is mounted over it.
        group(entry(14, 10, DISK, &sub, "/c/d"), 0, 5),
        entry(15, 13, MEMORY, "/", "/c"),
        entry(16, 10, (Fstype::Proc, 4), "/", "/proc"),
        removed,
    ];
    let other = vec![
        group(entry(20, 0, DISK, at, "/"), 0, 5),
        group(entry(21, 20, (Fstype::Tmpfs, 3), "/", "/f"), 8, 7),
    ];
    run(&mut place, root.path(), vec![(1, one), (2, other)]);
    let mounts = seen(&place, 0);
    let points: Vec<_> = groups(&mounts).into_iter().map(|group| group.0).collect();
    assert_eq!(
        points,
        ["/", "/a", "/b", "/c", "/c", "/c/d", "/gone-at", "/proc"]
    );
    let find = |point: &[u8]| {
        mounts
            .iter()
            .find(|mount| mount.mount_point == point)
            .unwrap()
    };
    let (top, a, b) = (find(b"/"), find(b"/a"), find(b"/b"));
    assert!(top.shared != 0 && top.master == 0);
    assert!(a.shared != 0 && a.shared != b.shared);
    assert_eq!((b.master, find(b"/c/d").master), (a.shared, top.shared));
    assert_eq!((&*a.source, a.parent), (&b"a source"[..], top.id));
    let lower = find(b"/c");
    assert_eq!(lower.options, b"ro,nosuid,nodev,noexec,relatime");
    assert!(lower.super_options.starts_with(b"rw,size=64k,mode=700"));
    assert_eq!(
        mounts
            .iter()
            .filter(|mount| mount.parent == lower.id)
            .count(),
        1
    );
    assert_eq!(find(b"/c/d").parent, top.id);
    assert!(find(b"/gone-at").root.ends_with(b"/gone//deleted"));
    assert!(!root.path().join("gone").exists());
    let nested = seen(&place, 1);
    assert_eq!(
        groups(&nested),
        [
            ("/".to_owned(), 0, top.shared),
            ("/f".to_owned(), b.shared, a.shared)
        ]
    );
}

#[test]
fn nothing_is_left_of_what_fails() {
    let Some(mut place) = Alone::new(1) else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("a")).unwrap();
    let at = root.path().to_str().unwrap();
    let mut removed = entry(11, 10, DISK, &format!("{at}/gone"), "/a");
    removed.deleted = Some(true);
    let records = vec![
        entry(10, 0, DISK, at, "/"),
        removed,
        entry(12, 10, MEMORY, "/", "/missing"),
    ];
    let options = MountOptions {
        root: Some(root.path().to_path_buf()),
        ..MountOptions::default()
    };
    let plan = Mounts::plan(vec![(1, records)], &options).unwrap();
    let images = tempfile::tempdir().unwrap();
    let before = mountinfo::read(&task_dir(rustix::process::getpid()).unwrap()).unwrap();
    let error = put_together(&plan, &mut place, &Dir::open(images.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("/missing"), "{error}");
    assert!(!root.path().join("gone").exists());
    let after = mountinfo::read(&task_dir(rustix::process::getpid()).unwrap()).unwrap();
    assert_eq!(before.len(), after.len());
}
