//! Files that somebody has tampered with: always an error that names file and offset, never a
//! panic, never memory for what is not there.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use gelid_image::messages::*;
use gelid_image::{Dir, ImageKind, ImageReader, Key, Layout, ReadError, Walk, show};
use proptest::prelude::*;

/// A directory with one image of the given bytes.
fn with(kind: ImageKind, key: impl Into<Key>, bytes: &[u8]) -> (tempfile::TempDir, Dir) {
    let scratch = tempfile::tempdir().unwrap();
    let name = kind.file_name(key).unwrap();
    fs::write(scratch.path().join(name), bytes).unwrap();
    let dir = Dir::open(scratch.path()).unwrap();
    (scratch, dir)
}

/// Header of a kind and then some bytes.
fn image(kind: ImageKind, bytes: &[u8]) -> Vec<u8> {
    let mut image = gelid_image::header(kind);
    image.extend_from_slice(bytes);
    image
}

#[test]
fn missing_file() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::open(scratch.path()).unwrap();
    assert!(dir.version().unwrap_err().is_missing());
    assert!(dir.reader(ImageKind::Core, 1).unwrap_err().is_missing());
    assert!(
        dir.read_opt::<CoreEntry>(ImageKind::Core, 1)
            .unwrap()
            .is_none()
    );
    assert!(
        dir.read_all::<FdinfoEntry>(ImageKind::Fdinfo, 1)
            .unwrap()
            .is_empty()
    );
    assert!(dir.parent().unwrap().is_none());
}

#[test]
fn wrong_magic() {
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Core, &[]));
    let error = dir.read_one::<FsEntry>(ImageKind::Fs, 1).unwrap_err();
    let expected = "fs-1.img: magic is 0x55053847, expected 0x51403912";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn empty_and_truncated_files() {
    let (_scratch, dir) = with(ImageKind::Fs, 1, &[]);
    assert!(matches!(
        dir.read_one::<FsEntry>(ImageKind::Fs, 1),
        Err(ReadError::Truncated {
            offset: 0,
            what: "magic",
            needed: 4,
            available: 0,
            ..
        })
    ));
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Fs, &[]));
    assert!(matches!(
        dir.read_one::<FsEntry>(ImageKind::Fs, 1),
        Err(ReadError::NoRecord {
            offset: 8,
            message: "fs_entry",
            ..
        })
    ));
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Fs, &[1, 0]));
    assert!(matches!(
        dir.read_one::<FsEntry>(ImageKind::Fs, 1),
        Err(ReadError::Truncated {
            offset: 8,
            what: "record size",
            available: 2,
            ..
        })
    ));
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Fs, &[9, 0, 0, 0, 8, 0]));
    assert!(matches!(
        dir.read_one::<FsEntry>(ImageKind::Fs, 1),
        Err(ReadError::Truncated {
            offset: 12,
            what: "record",
            needed: 9,
            available: 2,
            ..
        })
    ));
}

#[test]
fn huge_sizes_allocate_nothing() {
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Fs, &[0xff; 4]));
    assert!(matches!(
        dir.read_one::<FsEntry>(ImageKind::Fs, 1),
        Err(ReadError::TooLarge {
            offset: 8,
            size: u32::MAX,
            limit: 65536,
            ..
        })
    ));
    // Within the limit of the kind, but not in the file.
    let (_scratch, dir) = with(ImageKind::Mm, 1, &image(ImageKind::Mm, &[0, 0, 0, 3]));
    assert!(matches!(
        dir.read_one::<MmEntry>(ImageKind::Mm, 1),
        Err(ReadError::Truncated {
            needed: 0x300_0000,
            available: 0,
            ..
        })
    ));
    // A stream does not tell its length; memory follows what comes.
    let bytes = image(ImageKind::Mm, &[0, 0, 0, 3, 1, 2, 3]);
    let mut reader =
        ImageReader::from_stream(bytes.as_slice(), ImageKind::Mm, "stream", Layout::V1_1).unwrap();
    assert!(matches!(
        reader.read_one::<MmEntry>(),
        Err(ReadError::Truncated {
            needed: 0x300_0000,
            available: 3,
            ..
        })
    ));
}

#[test]
fn absent_required_field() {
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Fs, &[2, 0, 0, 0, 8, 1]));
    let error = dir.read_one::<FsEntry>(ImageKind::Fs, 1).unwrap_err();
    let expected = "fs-1.img: offset 12: fs_entry.root_id: required field missing";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn wrong_message() {
    let (_scratch, dir) = with(ImageKind::Fs, 1, &image(ImageKind::Fs, &[]));
    assert!(matches!(
        dir.read_one::<CoreEntry>(ImageKind::Fs, 1),
        Err(ReadError::WrongMessage {
            message: "core_entry",
            ..
        })
    ));
}

#[test]
fn versions() {
    let version = |n: u8| {
        let record = image(ImageKind::Inventory, &[2, 0, 0, 0, 8, n]);
        with(ImageKind::Inventory, (), &record)
    };
    for (n, layout) in [(0, Layout::V1_1), (1, Layout::V1_0), (2, Layout::V1_1)] {
        assert_eq!(version(n).1.layout().unwrap(), layout);
    }
    let (_scratch, dir) = version(3);
    assert_eq!(dir.version().unwrap(), 3);
    assert!(matches!(dir.layout(), Err(ReadError::Version { found: 3 })));
    assert!(matches!(
        dir.read_one::<FsEntry>(ImageKind::Fs, 1),
        Err(ReadError::Version { found: 3 })
    ));
}

#[test]
fn only_regular_files_of_the_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::open(scratch.path()).unwrap();
    for name in ["../x", "/etc/passwd", "..", ".", "", "a\0b"] {
        assert!(
            matches!(dir.raw(name), Err(ReadError::BadName { .. })),
            "{name:?}"
        );
    }
    fs::create_dir(scratch.path().join("fs-1.img")).unwrap();
    assert!(matches!(
        dir.reader(ImageKind::Fs, 1),
        Err(ReadError::NotRegular { .. })
    ));
    // A FIFO neither blocks nor is read.
    let fifo = scratch.path().join("fs-2.img");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fifo.as_os_str().as_bytes(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(
        dir.reader(ImageKind::Fs, 2),
        Err(ReadError::NotRegular { .. })
    ));
}

#[test]
fn names_and_keys() {
    let name = |kind: ImageKind, key: Key| kind.file_name(key);
    assert_eq!(
        name(ImageKind::GhostFile, Key::Number(0x1f)).unwrap(),
        "ghost-file-1f.img"
    );
    assert_eq!(
        name(ImageKind::TcpStream, Key::Number(255)).unwrap(),
        "tcp-stream-ff.img"
    );
    assert_eq!(
        name(ImageKind::Core, Key::Number(31)).unwrap(),
        "core-31.img"
    );
    assert_eq!(
        name(ImageKind::TmpfsDev, Key::Number(64)).unwrap(),
        "tmpfs-dev-64.tar.gz.img"
    );
    assert_eq!(name(ImageKind::Core, Key::None), None);
    assert_eq!(name(ImageKind::Inventory, Key::Number(1)), None);
    assert_eq!(name(ImageKind::Core, Key::from(-1)), None);
    for &kind in ImageKind::ALL {
        let key = [Key::None, Key::Number(171)];
        let found = key
            .into_iter()
            .find_map(|key| Some((key, kind.file_name(key)?)));
        let (key, name) = found.unwrap();
        assert_eq!(
            ImageKind::from_file_name(&name),
            Some((kind, key)),
            "{name}"
        );
    }
    for name in [
        "core-01.img",
        "core-+1.img",
        "core-.img",
        "core-1",
        "ghost-file-1F.img",
        "x",
    ] {
        assert_eq!(ImageKind::from_file_name(name), None, "{name}");
    }
}

#[test]
fn broken_payloads() {
    // 100 bytes announced, 3 there.
    let mut pipes = gelid_image::header(ImageKind::PipesData);
    let entry = PipeDataEntry {
        pipe_id: 1,
        bytes: 100,
        size: None,
        packet: Vec::new(),
    };
    gelid_image::append(&mut pipes, &entry);
    pipes.extend_from_slice(b"abc");
    let (_scratch, dir) = with(ImageKind::PipesData, (), &pipes);
    let shown = show::file(&dir, "pipes-data.img");
    assert!(matches!(
        shown,
        Err(ReadError::Truncated {
            what: "payload",
            needed: 100,
            available: 3,
            ..
        })
    ));
    // Two messages announced, none there.
    let mut queue = gelid_image::header(ImageKind::IpcnsMsg);
    gelid_image::append(
        &mut queue,
        &IpcMsgEntry {
            qnum: 2,
            ..Default::default()
        },
    );
    let (_scratch, dir) = with(ImageKind::IpcnsMsg, 3, &queue);
    assert!(matches!(
        show::file(&dir, "ipcns-msg-3.img"),
        Err(ReadError::NoRecord {
            message: "ipc_msg",
            ..
        })
    ));
    // A segment of nearly 2^64 bytes.
    let mut shm = gelid_image::header(ImageKind::IpcnsShm);
    gelid_image::append(
        &mut shm,
        &IpcShmEntry {
            size: u64::MAX,
            ..Default::default()
        },
    );
    let (_scratch, dir) = with(ImageKind::IpcnsShm, 3, &shm);
    assert!(show::file(&dir, "ipcns-shm-3.img").is_err());
}

#[test]
fn walks_of_every_structure() {
    let mut ghost = gelid_image::header(ImageKind::GhostFile);
    let head = GhostFileEntry {
        chunks: Some(true),
        size: Some(1 << 30),
        ..Default::default()
    };
    gelid_image::append(&mut ghost, &head);
    for off in [0, 4096] {
        gelid_image::append(&mut ghost, &GhostChunkEntry { len: 3, off });
        ghost.extend_from_slice(b"abc");
    }
    let (_scratch, dir) = with(ImageKind::GhostFile, 10, &ghost);
    let shown = show::file(&dir, "ghost-file-a.img").unwrap();
    assert_eq!(shown["magic"], "GHOST_FILE");
    assert_eq!(shown["entries"].as_array().unwrap().len(), 3);
    assert_eq!(shown["entries"][2]["payload"]["contents"], 3);

    let mut small = gelid_image::header(ImageKind::GhostFile);
    gelid_image::append(&mut small, &GhostFileEntry::default());
    small.extend_from_slice(b"\xff\xff\xff\xff contents");
    let (_scratch, dir) = with(ImageKind::GhostFile, 1, &small);
    let shown = show::file(&dir, "ghost-file-1.img").unwrap();
    assert_eq!(shown["entries"].as_array().unwrap().len(), 1);
    let mut reader = dir.reader(ImageKind::GhostFile, 1).unwrap();
    reader.read_one::<GhostFileEntry>().unwrap();
    let contents = std::io::read_to_string(reader.rest().unwrap().take(4)).unwrap_err();
    assert_eq!(contents.kind(), std::io::ErrorKind::InvalidData);

    let mut sems = gelid_image::header(ImageKind::IpcnsSem);
    gelid_image::append(
        &mut sems,
        &IpcSemEntry {
            nsems: 3,
            ..Default::default()
        },
    );
    sems.extend_from_slice(&[0; 8]);
    let (_scratch, dir) = with(ImageKind::IpcnsSem, 1, &sems);
    let shown = show::file(&dir, "ipcns-sem-1.img").unwrap();
    assert_eq!(shown["entries"][0]["payload"]["values"], 6);

    let (_scratch, dir) = with(ImageKind::Pages, 1, &[0; 4096]);
    assert_eq!(show::file(&dir, "pages-1.img").unwrap()["raw_bytes"], 4096);
    assert!(matches!(
        show::file(&dir, "notes.txt"),
        Err(ReadError::UnknownKind { .. })
    ));
}

fn any_kind() -> impl Strategy<Value = ImageKind> {
    prop::sample::select(ImageKind::ALL)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn noise_behind_a_good_header(
        kind in any_kind(),
        bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..20, any::<u8>()], 0..200),
    ) {
        let image = image(kind, &bytes);
        let reader = ImageReader::from_stream(image.as_slice(), kind, "x", Layout::V1_1).unwrap();
        for entry in Walk::new(reader).flatten() {
            show::value(&entry);
        }
    }
}
