//! Writing, committing and reading whole sets.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use gelid_image::manifest::Manifest;
use gelid_image::messages::*;
use gelid_image::{Dir, ImageKind, ReadError, Staging, StagingOptions, WriteError, manifest};

pub(crate) fn scratch() -> (tempfile::TempDir, Dir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::open(scratch.path()).unwrap();
    (scratch, dir)
}

pub(crate) fn inventory() -> InventoryEntry {
    InventoryEntry {
        img_version: 2,
        fdinfo_per_id: Some(true),
        ..Default::default()
    }
}

#[test]
fn nothing_is_visible_before_commit_and_nothing_left_without() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    staging
        .writer(ImageKind::Inventory, ())
        .unwrap()
        .push(&inventory())
        .unwrap();
    staging.raw("pages-1.img").unwrap().write_all(b"x").unwrap();
    assert_eq!(dir.names().unwrap(), [".gelid-lock", ".gelid-staging"]);
    drop(staging);
    assert!(dir.names().unwrap().is_empty());
}

#[test]
fn images_that_are_not_listed_are_none_of_a_verified_set() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    staging.put(ImageKind::Inventory, (), &inventory()).unwrap();
    staging.commit().unwrap();
    let (stray, beside) = (TaskKobjIdsEntry::default(), CpuinfoEntry::default());
    dir.store(ImageKind::Ids, 5, &stray).unwrap();
    dir.store(ImageKind::Cpuinfo, (), &beside).unwrap();
    let ids = || dir.read_opt::<TaskKobjIdsEntry>(ImageKind::Ids, 5).unwrap();
    assert_eq!(ids(), Some(stray));
    assert!(manifest::verify(&dir).unwrap().is_empty());
    assert_eq!(ids(), None);
    assert!(dir.reader(ImageKind::Ids, 5).unwrap_err().is_missing());
    let seen: Vec<CpuinfoEntry> = dir.read_all(ImageKind::Cpuinfo, ()).unwrap();
    assert_eq!(seen, [beside]);
    dir.read_one::<InventoryEntry>(ImageKind::Inventory, ())
        .unwrap();
}

#[test]
fn a_committed_set_reads_back() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    staging
        .writer(ImageKind::Inventory, ())
        .unwrap()
        .push(&inventory())
        .unwrap();
    let mut pipes = staging.writer(ImageKind::PipesData, ()).unwrap();
    for (id, data) in [(7, "abc"), (8, ""), (9, "z")] {
        let entry = PipeDataEntry {
            pipe_id: id,
            bytes: data.len() as u32,
            size: Some(65536),
            packet: Vec::new(),
        };
        pipes
            .push(&entry)
            .unwrap()
            .push_payload(data.as_bytes())
            .unwrap();
    }
    pipes.finish().unwrap();
    // A writer without records leaves no file.
    drop(staging.writer(ImageKind::Memfd, ()).unwrap());
    staging
        .raw("pages-1.img")
        .unwrap()
        .write_all(&[1; 4096])
        .unwrap();
    staging.raw("pages-2.img").unwrap();
    staging.raw("pages-3.img").unwrap().write_all(b"x").unwrap();
    staging.discard("pages-3.img").unwrap();
    staging.discard("pages-3.img").unwrap_err();
    staging.set_checksum("pages-2.img", "xxh3:0").unwrap();
    staging.commit().unwrap();

    assert_eq!(
        dir.names().unwrap(),
        [
            "gelid-manifest.json",
            "inventory.img",
            "pages-1.img",
            "pages-2.img",
            "pipes-data.img"
        ]
    );
    assert_eq!(dir.version().unwrap(), 2);
    assert!(manifest::verify(&dir).unwrap().is_empty());
    assert!(
        dir.read_all::<MemfdInodeEntry>(ImageKind::Memfd, ())
            .unwrap()
            .is_empty()
    );

    let mut pipes = dir.reader(ImageKind::PipesData, ()).unwrap();
    let first: PipeDataEntry = pipes.read_one().unwrap();
    let data = pipes.payload(first.bytes.into()).unwrap().bytes(10);
    assert_eq!(data.unwrap(), b"abc");
    let second: PipeDataEntry = pipes.read_one().unwrap();
    assert_eq!(second.bytes, 0);
    let third: PipeDataEntry = pipes.next().unwrap().unwrap();
    // An unread payload is skipped.
    pipes.payload(third.bytes.into()).unwrap();
    assert!(pipes.next::<PipeDataEntry>().unwrap().is_none());
}

#[test]
fn a_new_set_replaces_the_old_one() {
    let (_scratch, dir) = scratch();
    for pid in [1, 2] {
        let staging = Staging::new(&dir).unwrap();
        for kind in [ImageKind::Fs, ImageKind::Inventory] {
            match kind {
                ImageKind::Fs => staging
                    .writer(kind, pid)
                    .unwrap()
                    .push(&FsEntry::default())
                    .map(drop),
                _ => staging
                    .writer(kind, ())
                    .unwrap()
                    .push(&inventory())
                    .map(drop),
            }
            .unwrap();
        }
        staging.commit().unwrap();
    }
    assert_eq!(
        dir.names().unwrap(),
        ["fs-2.img", "gelid-manifest.json", "inventory.img"]
    );
}

#[test]
fn the_directory_of_a_killed_dump_is_taken_over_and_a_living_one_is_not() {
    let (scratch, dir) = scratch();
    std::fs::create_dir(scratch.path().join(".gelid-staging")).unwrap();
    std::fs::write(scratch.path().join(".gelid-staging/core-1.img"), b"x").unwrap();
    std::fs::write(scratch.path().join(".gelid-lock"), b"").unwrap();
    let staging = Staging::new(&dir).unwrap();
    assert_eq!(dir.names().unwrap(), [".gelid-lock"]);
    assert!(matches!(Staging::new(&dir), Err(WriteError::Busy { .. })));
    staging.commit().unwrap();
    assert_eq!(dir.names().unwrap(), ["gelid-manifest.json"]);
}

#[test]
fn damage_is_reported_by_name() {
    let (scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    for pid in 1..=4 {
        staging
            .writer(ImageKind::Fs, pid)
            .unwrap()
            .push(&FsEntry::default())
            .unwrap();
    }
    staging.commit().unwrap();
    let file = |pid| scratch.path().join(format!("fs-{pid}.img"));
    std::fs::remove_file(file(1)).unwrap();
    std::fs::write(file(2), b"short").unwrap();
    let mut bytes = std::fs::read(file(3)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file(3), bytes).unwrap();
    let damage = manifest::verify(&dir).unwrap();
    let files: Vec<String> = damage.iter().map(ToString::to_string).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files[0].starts_with("fs-1.img: missing"));
    assert!(files[1].starts_with("fs-2.img: 5 bytes, 16 expected"));
    assert_eq!(files[2], "fs-3.img: contents changed");
}

#[test]
fn misuse_is_refused() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    assert!(matches!(
        staging.writer(ImageKind::Core, ()),
        Err(WriteError::BadKey { .. })
    ));
    assert!(matches!(
        staging.writer(ImageKind::Core, -1),
        Err(WriteError::BadKey { .. })
    ));
    for name in ["../x", ".hidden", "", "gelid-manifest.json"] {
        assert!(matches!(staging.raw(name), Err(WriteError::BadName { .. })));
    }
    let mut core = staging.writer(ImageKind::Core, 5).unwrap();
    assert!(matches!(
        core.push(&FsEntry::default()),
        Err(WriteError::WrongMessage { .. })
    ));
    core.push(&CoreEntry::default()).unwrap();
    assert!(matches!(
        staging.writer(ImageKind::Core, 5),
        Err(WriteError::Duplicate { .. })
    ));
    // Still open.
    assert!(matches!(
        staging.commit(),
        Err(WriteError::Unfinished { .. })
    ));
    drop(core);
    assert!(dir.names().unwrap().is_empty());
}

#[test]
fn layout_1_0_is_read() {
    let (scratch, dir) = scratch();
    let mut inventory = gelid_image::header(ImageKind::Inventory);
    let entry = InventoryEntry {
        img_version: 1,
        ..Default::default()
    };
    gelid_image::append(&mut inventory, &entry);
    std::fs::write(scratch.path().join("inventory.img"), inventory).unwrap();
    let mut fs = gelid_image::header(ImageKind::Fs).split_off(4);
    gelid_image::append(&mut fs, &FsEntry::default());
    std::fs::write(scratch.path().join("fs-3.img"), fs).unwrap();
    assert_eq!(dir.version().unwrap(), 1);
    let read: FsEntry = dir.read_one(ImageKind::Fs, 3).unwrap();
    assert_eq!(read, FsEntry::default());
}

#[test]
fn payload_reads_are_bounded() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    let mut msgs = staging.writer(ImageKind::IpcnsMsg, 11).unwrap();
    let queue = IpcMsgEntry {
        qnum: 1,
        ..Default::default()
    };
    let msg = IpcMsg { mtype: 1, msize: 5 };
    msgs.push(&queue)
        .unwrap()
        .push(&msg)
        .unwrap()
        .push_padded(b"hello", 8)
        .unwrap()
        .push(&queue)
        .unwrap();
    drop(msgs);
    staging.commit().unwrap();
    let mut reader = dir.reader(ImageKind::IpcnsMsg, 11).unwrap();
    reader.read_one::<IpcMsgEntry>().unwrap();
    let msg: IpcMsg = reader.read_one().unwrap();
    let mut text = String::new();
    reader
        .payload_padded(msg.msize.into(), 8)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello");
    reader.read_one::<IpcMsgEntry>().unwrap();
    assert!(matches!(
        reader.payload(1),
        Err(ReadError::Truncated { .. })
    ));
}

#[test]
fn incremental_sets_link_to_their_parent() {
    let (scratch, _) = scratch();
    for name in ["first", "second"] {
        std::fs::create_dir(scratch.path().join(name)).unwrap();
    }
    let first = Dir::open(scratch.path().join("first")).unwrap();
    let second = Dir::open(scratch.path().join("second")).unwrap();
    let staging = Staging::new(&first).unwrap();
    staging.put(ImageKind::Fs, 1, &FsEntry::default()).unwrap();
    staging.commit().unwrap();
    let options = StagingOptions {
        sync: true,
        manifest: false,
        ..Default::default()
    };
    let staging = Staging::with_options(&second, options).unwrap();
    staging.link_parent("../first".as_ref()).unwrap();
    staging.put(ImageKind::Inventory, (), &inventory()).unwrap();
    staging.commit().unwrap();
    assert_eq!(second.names().unwrap(), ["inventory.img", "parent"]);
    assert!(manifest::read(&second).unwrap().is_none());
    let parent = second.parent().unwrap().unwrap();
    parent.read_one::<FsEntry>(ImageKind::Fs, 1).unwrap();
}

#[test]
fn statistics_stand_beside_a_set() {
    let (_scratch, dir) = scratch();
    for pages in [1, 2] {
        let stats = StatsEntry {
            dump: Some(DumpStatsEntry {
                pages_written: pages,
                ..Default::default()
            }),
            ..Default::default()
        };
        dir.store(ImageKind::StatsDump, (), &stats).unwrap();
        assert_eq!(dir.names().unwrap(), ["stats-dump"]);
        let read: StatsEntry = dir.read_one(ImageKind::StatsDump, ()).unwrap();
        assert_eq!(read, stats);
    }
}

#[test]
fn large_payloads_flow_through_write() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    let mut ghost = staging.writer(ImageKind::GhostFile, 10).unwrap();
    ghost.push(&GhostFileEntry::default()).unwrap();
    let contents: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    std::io::copy(&mut contents.as_slice(), &mut ghost).unwrap();
    ghost.finish().unwrap();
    staging.commit().unwrap();
    assert!(manifest::verify(&dir).unwrap().is_empty());
    let mut reader = dir.reader(ImageKind::GhostFile, 10).unwrap();
    reader.read_one::<GhostFileEntry>().unwrap();
    let mut read = Vec::new();
    reader.rest().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == contents);
}

#[test]
fn writers_work_in_threads() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    std::thread::scope(|scope| {
        for pid in 1..=8 {
            let staging = &staging;
            scope.spawn(move || {
                staging
                    .put(ImageKind::Fs, pid, &FsEntry::default())
                    .unwrap()
            });
        }
    });
    staging.commit().unwrap();
    assert_eq!(manifest::read(&dir).unwrap().unwrap().names().count(), 8);
}

#[test]
fn malformed_manifests_are_refused() {
    let good = r#"{"format":1,"files":{"a":{"length":1,"checksum":"x"}}}"#;
    Manifest::parse(good.as_bytes()).unwrap();
    for (from, to) in [
        ("1,\"files", "2,\"files"),
        ("\"a\"", "\"../a\""),
        ("length", "size"),
        ("checksum", "blake3"),
        ("checksum", "sum"),
        ("}}}", "}}"),
        ("{\"a", "3,{\"a"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn files_made_in_advance_are_like_others() {
    let (scratch, dir) = scratch();
    std::fs::write(scratch.path().join("pages-1.img"), "old").unwrap();
    let staging = Staging::new(&dir).unwrap();
    staging.prepare(4);
    staging.raw("pages-1.img").unwrap().write_all(b"x").unwrap();
    staging
        .raw("pages-2.img")
        .unwrap()
        .write_all(b"yy")
        .unwrap();
    staging.raw("pages-2.img").unwrap_err();
    staging.discard("pages-2.img").unwrap();
    staging
        .raw("pages-2.img")
        .unwrap()
        .write_all(b"zzz")
        .unwrap();
    staging.put(ImageKind::Inventory, (), &inventory()).unwrap();
    staging.commit().unwrap();

    let names = dir.names().unwrap();
    assert_eq!(
        names,
        [
            "gelid-manifest.json",
            "inventory.img",
            "pages-1.img",
            "pages-2.img"
        ]
    );
    let read = |name: &str| std::fs::read(scratch.path().join(name)).unwrap();
    assert_eq!(
        (read("pages-1.img"), read("pages-2.img")),
        (b"x".to_vec(), b"zzz".to_vec())
    );
    let manifest = gelid_image::manifest::read(&dir).unwrap().unwrap();
    assert!(manifest.names().any(|name| name == "pages-1.img"));
}

#[test]
fn files_made_in_advance_leave_nothing() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    staging.prepare(3);
    staging.raw("pages-1.img").unwrap();
    drop(staging);
    assert!(dir.names().unwrap().is_empty());
}

#[test]
fn blocks_made_in_advance_are_given_back() {
    let (_scratch, dir) = scratch();
    let staging = Staging::new(&dir).unwrap();
    staging.prepare_room(7, 8 << 20);
    for (name, whose) in [("pages-1.img", 7), ("pages-2.img", 8)] {
        let mut file = staging.roomy(name, whose).unwrap();
        file.write_all(&[1; 5000]).unwrap();
        file.write_all(b"end").unwrap();
        file.flush().unwrap();
    }
    // There was one for it, and it is taken.
    staging.roomy("pages-1.img", 7).unwrap_err();
    staging.roomy("../pages-3.img", 7).unwrap_err();
    staging
        .writer(ImageKind::Inventory, ())
        .unwrap()
        .push(&inventory())
        .unwrap();
    staging.commit().unwrap();
    for name in ["pages-1.img", "pages-2.img"] {
        let file = dir.raw(name).unwrap().metadata().unwrap();
        assert_eq!(file.len(), 5003, "{name}");
        assert!(file.blocks() * 512 <= 1 << 20, "{name}: {file:?}");
    }
}
