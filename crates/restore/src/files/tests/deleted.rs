//! Files that had lost their name: ghosts and links.

use super::*;
use gelid_image::messages::{FifoEntry, GhostChunkEntry, GhostFileEntry, Timeval};
use rustix::fs::{AtFlags, CWD};
use std::os::unix::fs::MetadataExt;

fn ghost(mode: u32) -> GhostFileEntry {
    let time = |tv_sec| {
        Some(Timeval {
            tv_sec,
            tv_usec: 250_000,
        })
    };
    GhostFileEntry {
        uid: 12,
        gid: 34,
        mode,
        atim: time(1_000_000_000),
        mtim: time(1_100_000_000),
        ..Default::default()
    }
}

fn put(staging: &Staging, id: u32, ghost: &GhostFileEntry, contents: &[u8]) {
    let mut writer = staging.writer(ImageKind::GhostFile, id).unwrap();
    writer.push(ghost).unwrap().push_payload(contents).unwrap();
    writer.finish().unwrap();
}

fn stat(fd: BorrowedFd<'_>) -> fs::Metadata {
    fs::File::from(fd.try_clone_to_owned().unwrap())
        .metadata()
        .unwrap()
}

#[test]
fn a_deleted_file_is_made_again() {
    let mut images = Images::new();
    images.regular(3, "/gone", 2, 4).mode = Some(0o100_640);
    images.regular(4, "/gone", 0, 0);
    for id in [3, 4] {
        images.remap(id, RemapType::Ghost, 1);
    }
    let open = images
        .open_with(|staging| put(staging, 1, &ghost(0o100_640), b"contents"))
        .unwrap();
    assert!(images.names("").is_empty());
    let (three, four) = (open.fd(3).unwrap(), open.fd(4).unwrap());
    assert_eq!(link(&images, three), "/gone (deleted)");
    assert_eq!(info(three).pos, 4);
    let found = stat(three);
    assert_eq!((found.ino(), found.nlink()), (stat(four).ino(), 0));
    assert_eq!(
        (found.uid(), found.gid(), found.mode()),
        (12, 34, 0o100_640)
    );
    assert_eq!(found.atime(), 1_000_000_000);
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (1_100_000_000, 250_000_000)
    );
    // A mapping is of the same file.
    let mapped = open.mapping(4, 2).unwrap();
    assert_eq!(link(&images, mapped), "/gone (deleted)");
    rustix::io::pwrite(mapped, b"C", 0).unwrap();
    assert_eq!(contents(four), b"Contents");
}

#[test]
fn a_file_that_never_had_a_name_can_be_given_one() {
    let mut images = Images::new();
    images.regular(3, "/#77", 0o22_100_002, 4);
    images.regular(4, "/#77", 0, 0);
    for id in [3, 4] {
        images.remap(id, RemapType::Ghost, 1);
    }
    let open = images
        .open_with(|staging| put(staging, 1, &ghost(0o100_640), b"contents"))
        .unwrap();
    assert!(images.names("").is_empty());
    let (three, four) = (open.fd(3).unwrap(), open.fd(4).unwrap());
    assert_eq!(stat(three).ino(), stat(four).ino());
    assert_eq!((stat(three).uid(), stat(three).nlink()), (12, 0));
    assert_eq!(
        (info(three).pos, info(three).flags & 0o20_200_003),
        (4, 0o20_200_002)
    );
    assert_eq!(contents(four), b"contents");
    let own = format!("/proc/self/fd/{}", three.as_raw_fd());
    let path = images.root().join("named");
    rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(images.names(""), ["named"]);
}

#[test]
fn pieces_leave_holes() {
    let mut images = Images::new();
    images.regular(3, "/gone", 0, 0);
    images.remap(3, RemapType::Ghost, 0x1f);
    let entry = GhostFileEntry {
        chunks: Some(true),
        size: Some(1 << 20),
        ..ghost(0o100_600)
    };
    let pieces = |off| GhostChunkEntry { len: 5, off };
    let write = |staging: &Staging, end| {
        let mut writer = staging.writer(ImageKind::GhostFile, 0x1fu32).unwrap();
        writer.push(&entry).unwrap();
        writer
            .push(&pieces(4096))
            .unwrap()
            .push_payload(b"first")
            .unwrap();
        writer
            .push(&pieces(end))
            .unwrap()
            .push_payload(b"later")
            .unwrap();
    };
    let open = images
        .open_with(|staging| write(staging, (1 << 20) - 5))
        .unwrap();
    let fd = open.fd(3).unwrap();
    let mut expected = vec![0; 1 << 20];
    expected[4096..4101].copy_from_slice(b"first");
    expected[(1 << 20) - 5..].copy_from_slice(b"later");
    assert!(contents(fd) == expected);
    assert!(stat(fd).blocks() < 64);
    drop(open);
    let error = images
        .open_with(|staging| write(staging, (1 << 20) - 4))
        .unwrap_err();
    assert!(
        error.to_string().starts_with("ghost-file-1f.img: off is"),
        "{error}"
    );
    assert!(images.names("").is_empty());
}

#[test]
fn paths_may_be_taken_or_shared_or_missing() {
    let mut images = Images::new();
    fs::write(images.root().join("taken"), b"new").unwrap();
    images.regular(3, "/taken", 0, 0);
    images.regular(4, "/taken", 0, 0);
    images.regular(5, "/shared", 0, 0);
    images.regular(6, "/shared", 0, 0);
    images.regular(7, "/no/such/directory/file", 0, 0);
    images.regular(8, "/no/such/other", 0, 0);
    for (id, to) in [(3, 1), (5, 2), (6, 3), (7, 4), (8, 4)] {
        images.remap(id, RemapType::Ghost, to);
    }
    let open = images
        .open_with(|staging| {
            for id in 1..=4u32 {
                put(
                    staging,
                    id,
                    &ghost(0o100_600),
                    format!("ghost {id}").as_bytes(),
                );
            }
        })
        .unwrap();
    assert_eq!(images.names(""), ["taken"]);
    let read = |id| contents(open.fd(id).unwrap());
    assert_eq!(read(3), b"ghost 1");
    assert_eq!(read(4), b"new");
    assert_eq!(
        (read(5), read(6)),
        (b"ghost 2".to_vec(), b"ghost 3".to_vec())
    );
    assert_eq!(
        (read(7), read(8)),
        (b"ghost 4".to_vec(), b"ghost 4".to_vec())
    );
    let links = [3, 5, 6, 7, 8].map(|id| link(&images, open.fd(id).unwrap()));
    assert_eq!(
        links,
        [
            "/taken.cr_link (deleted)",
            "/shared (deleted)",
            "/shared (deleted)",
            "/no/such/directory/file (deleted)",
            "/no/such/other (deleted)",
        ]
    );
}

#[test]
fn directories_and_fifos_may_be_deleted() {
    let mut images = Images::new();
    images.regular(3, "/dir/inner", 0o200_000, 0).mode = Some(0o040_750);
    images.regular(4, "/dir", 0o200_000, 0).mode = Some(0o040_750);
    images.regular(5, "/dir/inner/file", 0, 0);
    let fifo = images.regular(16, "/dir/fifo", 0, 0);
    fifo.mode = Some(0o010_600);
    images.slots.pop();
    images.push(FileEntry {
        fifo: Some(FifoEntry {
            id: 6,
            pipe_id: 9,
            regf_id: Some(16),
        }),
        ..entry(FdTypes::Fifo, 6)
    });
    images.pipe_data(9, 4096, b"in a ghost");
    for (id, to) in [(3, 1), (4, 2), (5, 3), (16, 4)] {
        images.remap(id, RemapType::Ghost, to);
    }
    let open = images
        .open_with(|staging| {
            put(staging, 1, &ghost(0o040_750), b"");
            put(staging, 2, &ghost(0o040_750), b"");
            put(staging, 3, &ghost(0o100_600), b"inside");
            put(staging, 4, &ghost(0o010_600), b"");
        })
        .unwrap();
    assert!(images.names("").is_empty());
    let fd = |id| open.fd(id).unwrap();
    let links = [3, 4, 5, 6].map(|id| link(&images, fd(id)));
    let expected = ["/dir/inner", "/dir", "/dir/inner/file", "/dir/fifo"];
    assert_eq!(links, expected.map(|name| format!("{name} (deleted)")));
    for id in [3, 4] {
        let found = stat(fd(id));
        assert_eq!((found.mode(), found.uid()), (0o040_750, 12));
        assert_eq!(found.mtime(), 1_100_000_000);
    }
    assert_eq!(read_now(fd(6)), b"in a ghost");
    assert_eq!(stat(fd(6)).mode(), 0o010_600);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let mut images = Images::new();
    images.regular(3, "/dir", 0o200_000, 0);
    images.regular(4, "/dir/file", 0, 0);
    images.remap(3, RemapType::Ghost, 1);
    images.remap(4, RemapType::Ghost, 2);
    images.pipe(9, 1, 0);
    images.pipe_data(1, 1 << 31, b"");
    let error = images
        .open_with(|staging| {
            put(staging, 1, &ghost(0o040_700), b"");
            put(staging, 2, &ghost(0o140_600), b"");
        })
        .unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
    images.pipes[0].0.size = Some(i32::MAX.cast_unsigned());
    let error = images
        .open_with(|staging| {
            put(staging, 1, &ghost(0o040_700), b"");
            put(staging, 2, &ghost(0o100_600), b"");
        })
        .unwrap_err();
    assert!(error.to_string().contains("pipe 1"), "{error}");
    assert!(images.names("").is_empty());
}

#[test]
fn links_of_the_dump_are_used_and_removed() {
    let mut images = Images::new();
    let remap = images.root().join("link_remap.7");
    fs::write(&remap, b"linked").unwrap();
    fs::hard_link(&remap, images.root().join("elsewhere")).unwrap();
    images.regular(3, "/sub/gone", 2, 1).size = Some(6);
    images.regular(4, "/link_remap.7", 0, 0);
    images.slots.pop();
    images.remap(3, RemapType::Linked, 4);

    // A restore that is given up leaves the link for the next.
    let open = images.open().unwrap();
    assert_eq!(contents(open.fd(3).unwrap()), b"linked");
    assert!(open.fd(4).is_none());
    drop(open);
    assert_eq!(images.names(""), ["elsewhere", "link_remap.7"]);

    let open = images.open().unwrap();
    assert_eq!(link(&images, open.fd(3).unwrap()), "/sub/gone (deleted)");
    assert_eq!(stat(open.fd(3).unwrap()).nlink(), 2);
    open.keep(open_dir(&images.root()).as_fd().into()).unwrap();
    assert_eq!(images.names(""), ["elsewhere"]);
    assert!(images.refusal().contains("cannot find /link_remap.7"));
}

#[test]
fn remaps_to_nothing_are_refused() {
    let mut images = Images::new();
    images.regular(3, "/gone", 0, 0);
    images.remap(3, RemapType::Ghost, 1);
    let error = images.plan().unwrap_err().to_string();
    assert_eq!(
        error,
        "file 3 (/gone) refers to ghost 1, which the image set does not have"
    );
    images.remaps[0].remap_type = Some(RemapType::Linked.into());
    let error = images.plan().unwrap_err().to_string();
    assert_eq!(
        error,
        "file 3 (/gone) refers to link 1, which files.img does not have"
    );
    // The old form: a bit tells ghosts.
    images.remaps[0].remap_type = None;
    images.remaps[0].remap_id = 1 << 31 | 0x1f;
    assert!(images.plan().unwrap_err().to_string().contains("ghost 31"));
    images.remaps[0].remap_type = Some(RemapType::Procfs.into());
    assert!(matches!(images.plan(), Err(Error::Invalid { .. })));
    images.remaps[0].remap_type = Some(7);
    assert!(matches!(images.plan(), Err(Error::Invalid { .. })));
    images.remaps.push(images.remaps[0].clone());
    images.remaps[0].remap_type = None;
    images.remaps[1].remap_type = None;
    assert!(matches!(images.plan(), Err(Error::Duplicate { .. })));
}
