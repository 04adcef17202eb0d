//! memfds and shared anonymous memory.

use super::*;
use crate::files::Inherit;
use gelid_image::messages::{MemfdFileEntry, MemfdInodeEntry};
use rustix::fs::SealFlags;
use std::os::unix::fs::{FileExt, MetadataExt};

fn file(images: &mut Images, id: u32, inode_id: u32, flags: u32, pos: u64) {
    let memfd = MemfdFileEntry {
        id,
        flags,
        pos,
        fown: FownEntry::default(),
        inode_id,
    };
    images.push(FileEntry {
        memfd: Some(memfd),
        ..entry(FdTypes::Memfd, id)
    });
}

fn inode(inode_id: u64, name: &str, seals: u32) -> MemfdInodeEntry {
    MemfdInodeEntry {
        name: name.into(),
        size: 12_288,
        shmid: 600 + inode_id as u32,
        seals,
        inode_id,
        mode: Some(0o100_777),
        ..Default::default()
    }
}

fn open(images: &Images, inodes: &[MemfdInodeEntry]) -> Result<OpenFiles, Error> {
    images.open_with(|staging| {
        let mut writer = staging.writer(ImageKind::Memfd, ()).unwrap();
        for inode in inodes {
            writer.push(inode).unwrap();
        }
    })
}

#[test]
fn memory_files_are_filled_and_then_sealed() {
    let mut images = Images::new();
    file(&mut images, 3, 1, 2 | O_LARGEFILE | O_APPEND, 100);
    file(&mut images, 4, 1, O_LARGEFILE, 0);
    let seals = SealFlags::WRITE | SealFlags::GROW;
    let mut sealed = inode(1, "name:of (it)", seals.bits());
    (sealed.uid, sealed.gid, sealed.mode, sealed.size) = (12, 34, Some(0o100_640), 5000);
    let mut open = open(&images, &[sealed]).unwrap();
    let files = open.shared_memory();
    assert_eq!((files.len(), files[0].0, files[0].1), (1, 601, 5000));
    assert!(files[0].2.as_raw_fd() >= BASE && open.shared_memory().is_empty());
    files[0].2.write_all_at(b"filled", 4000).unwrap();
    let found = files[0].2.metadata().unwrap();
    assert_eq!(
        (found.uid(), found.gid(), found.mode(), found.len()),
        (12, 34, 0o100_640, 5000)
    );
    drop(files);
    let three = open.fd(3).unwrap();
    assert_eq!(link(&images, three), "/memfd:name:of (it) (deleted)");
    assert_eq!(
        (flags(three), info(three).pos),
        (2 | O_LARGEFILE | O_APPEND, 100)
    );
    assert_eq!(flags(open.fd(4).unwrap()), O_LARGEFILE);
    assert_eq!(rustix::fs::fcntl_get_seals(three), Ok(SealFlags::empty()));
    open.seal().unwrap();
    assert_eq!(rustix::fs::fcntl_get_seals(three), Ok(seals));
    assert_eq!(&contents(open.fd(4).unwrap())[4000..4006], b"filled");
    assert!(rustix::io::pwrite(three, b"x", 0).is_err());
}

#[test]
fn a_memfd_that_cannot_be_sealed_is_sealed_against_that() {
    let mut images = Images::new();
    file(&mut images, 3, 1, 2, 0);
    file(&mut images, 4, 2, 2, 0);
    let open = open(&images, &[inode(1, "closed", 1), inode(2, "open", 0)]).unwrap();
    open.seal().unwrap();
    let seals = [3, 4].map(|id| rustix::fs::fcntl_get_seals(open.fd(id).unwrap()).unwrap());
    assert_eq!(seals, [SealFlags::SEAL, SealFlags::empty()]);
}

#[test]
fn shared_memory_is_what_it_was() {
    let mut images = Images::new();
    file(&mut images, 3, 1, 0, 0);
    file(&mut images, 4, 1, 2 | O_LARGEFILE, 0);
    // Only the second has a descriptor, as by way of /proc/PID/map_files.
    images.slots.remove(0);
    let mut open = open(&images, &[inode(1, "/dev/zero", 1)]).unwrap();
    assert!(open.fd(3).is_none());
    open.open_mappings([(3, 2), (3, 0)]).unwrap();
    for access in [0, 2] {
        let mapping = open.mapping(3, access).unwrap();
        assert_eq!(link(&images, mapping), "/dev/zero (deleted)");
        assert_eq!(flags(mapping) & 3, access);
        assert!(mapping.as_raw_fd() >= BASE);
    }
    let (shmid, size, file) = open.shared_memory().pop().unwrap();
    assert_eq!(
        (shmid, size, file.metadata().unwrap().len()),
        (601, 12_288, 12_288)
    );
    file.write_all_at(b"shared", 8192).unwrap();
    assert_eq!(&contents(open.fd(4).unwrap())[8192..8198], b"shared");
    open.seal().unwrap();
    let seals = rustix::fs::fcntl_get_seals(open.fd(4).unwrap());
    assert_eq!(seals, Ok(SealFlags::SEAL));
}

#[test]
fn objects_that_cannot_be_are_refused() {
    let mut images = Images::new();
    file(&mut images, 3, 1, 2, 0);
    let refusal = |inodes: &[MemfdInodeEntry]| open(&images, inodes).err().unwrap().to_string();
    assert!(refusal(&[]).contains("refers to memory object 1"));
    assert!(refusal(&[inode(1, "a", 0), inode(1, "b", 0)]).contains("occurs twice"));
    let mut other = inode(1, "a", 0);
    other.size = u64::MAX;
    assert!(refusal(std::slice::from_ref(&other)).contains("no file is that large"));
    (other.size, other.hugetlb_flag) = (0, Some(1));
    assert!(refusal(std::slice::from_ref(&other)).contains("hugetlb_flag is 0x1"));
    let empty = MemfdInodeEntry {
        size: 0,
        ..inode(1, "/dev/zero", 1)
    };
    assert!(refusal(&[empty]).contains("cannot make shared memory 601"));
}

#[test]
fn the_caller_gives_memory() {
    let mut images = Images::new();
    let memory = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&memory, b"given").unwrap();
    file(&mut images, 3, 1, O_LARGEFILE, 0);
    images.options.inherit.push(Inherit {
        fd: memory.as_raw_fd(),
        key: "/memfd:m".into(),
    });
    let mut open = open(&images, &[inode(1, "m", 0)]).unwrap();
    assert!(open.shared_memory().is_empty());
    let fd = open.fd(3).unwrap();
    assert_eq!((contents(fd), flags(fd) & 3), (b"given".to_vec(), 0));
    assert_eq!(contents(open.mapping(3, 2).unwrap()), b"given");
}
