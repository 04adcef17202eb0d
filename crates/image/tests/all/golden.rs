//! Image sets in the tree: every file decodes, and encodes again to the same bytes.
//!
//! `golden/gelid-*` were written by this crate and are compared with what it writes today; set
//! `GELID_BLESS=1` to write them anew. All others were written by CRIU.

use std::fs;
use std::path::{Path, PathBuf};

use gelid_image::messages::*;
use gelid_image::{Dir, ImageKind, ImageReader, Layout, Staging, Structure, Walk, show};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn sets() -> Vec<PathBuf> {
    let mut sets: Vec<PathBuf> = fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    sets.sort();
    assert!(!sets.is_empty(), "no golden image set");
    sets
}

/// Writes a file again from its decoded records and compares.
fn reencode(path: &Path, kind: ImageKind, layout: Layout) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let old = fs::read(path).unwrap();
    let mut new = gelid_image::header(kind);
    if layout == Layout::V1_0 && new.len() == 8 {
        new.drain(..4);
    }
    let reader = ImageReader::new(fs::File::open(path).unwrap(), kind, name, layout).unwrap();
    for entry in Walk::new(reader) {
        let entry = entry.unwrap();
        let message = entry.schema.canonical(&entry.bytes).unwrap();
        new.extend_from_slice(&u32::try_from(message.len()).unwrap().to_le_bytes());
        new.extend_from_slice(&message);
        assert_eq!(
            message,
            entry.bytes,
            "{}: record at {}",
            path.display(),
            entry.offset
        );
        // Nothing is unknown.
        let shown = entry.schema.to_json(&entry.bytes).unwrap().to_string();
        assert!(!shown.contains("unknown_"), "{}: {shown}", path.display());
        let payload = usize::try_from(entry.offset).unwrap() + entry.bytes.len();
        let end = entry.payload.iter().try_fold(payload, |end, part| {
            Some(end + usize::try_from(part.len? + part.padding).unwrap())
        });
        new.extend_from_slice(&old[payload..end.unwrap_or(old.len())]);
    }
    assert!(
        new == old,
        "{}: {} bytes in, {} out",
        path.display(),
        old.len(),
        new.len()
    );
}

#[test]
fn every_file_reencodes_to_the_same_bytes() {
    for set in sets() {
        let dir = Dir::open(&set).unwrap();
        let layout = dir.layout().unwrap();
        let mut images = 0;
        for name in dir.names().unwrap() {
            let Some((kind, _)) = ImageKind::from_file_name(&name) else {
                assert!(!name.ends_with(".img"), "{}: unknown {name}", set.display());
                continue;
            };
            if kind.spec().structure != Structure::Raw {
                reencode(&set.join(&name), kind, layout);
                images += 1;
            }
            show::file(&dir, &name).unwrap();
        }
        assert!(images >= 8, "{}: only {images} images", set.display());
    }
}

#[test]
fn every_set_hangs_together() {
    for set in sets() {
        let dir = Dir::open(&set).unwrap();
        let inventory: InventoryEntry = dir.read_one(ImageKind::Inventory, ()).unwrap();
        assert_eq!(u64::from(inventory.img_version), dir.version().unwrap());
        let tree: Vec<PstreeEntry> = dir.read_all(ImageKind::Pstree, ()).unwrap();
        let files: Vec<FileEntry> = dir.read_all(ImageKind::Files, ()).unwrap();
        for task in &tree {
            for &tid in &task.threads {
                let Some(core) = dir.read_opt::<CoreEntry>(ImageKind::Core, tid).unwrap() else {
                    continue;
                };
                assert_eq!(core.tc.is_some(), tid == task.pid);
            }
            let core: CoreEntry = dir.read_one(ImageKind::Core, task.pid).unwrap();
            if core.thread_core.is_none() {
                continue; // a zombie
            }
            let ids: TaskKobjIdsEntry = dir.read_one(ImageKind::Ids, task.pid).unwrap();
            for fd in dir
                .read_all::<FdinfoEntry>(ImageKind::Fdinfo, ids.files_id)
                .unwrap()
            {
                assert!(
                    files
                        .iter()
                        .any(|file| (file.id, file.r#type) == (fd.id, fd.r#type))
                );
            }
            let mm: MmEntry = dir.read_one(ImageKind::Mm, task.pid).unwrap();
            assert!(files.iter().any(|file| file.id == mm.exe_file_id));
            present_pages_fill_the_pages_file(&set, &dir, task.pid);
        }
    }
}

fn present_pages_fill_the_pages_file(set: &Path, dir: &Dir, pid: u32) {
    let mut pagemap = dir.reader(ImageKind::Pagemap, pid).unwrap();
    let head: PagemapHead = pagemap.read_one().unwrap();
    let entries: Result<Vec<PagemapEntry>, _> = pagemap.records().collect();
    let present: u64 = entries
        .unwrap()
        .iter()
        .filter(|entry| entry.flags() & 4 != 0)
        .map(PagemapEntry::nr_pages)
        .sum();
    // CRIU's sets are kept without their pages.
    let pages = set.join(ImageKind::Pages.file_name(head.pages_id).unwrap());
    if let Ok(pages) = fs::metadata(pages) {
        assert_eq!(pages.len(), present * 4096);
    }
}

/// The smallest set: one task with two descriptors, one page, and a pipe with data.
fn write_own(dir: &Dir) {
    let staging = Staging::new(dir).unwrap();
    let ids = |n| TaskKobjIdsEntry {
        vm_id: n,
        files_id: n,
        fs_id: n,
        sighand_id: n,
        pid_ns_id: Some(1),
        ..Default::default()
    };
    let inventory = InventoryEntry {
        img_version: 2,
        fdinfo_per_id: Some(true),
        ns_per_id: Some(true),
        root_ids: Some(ids(1)),
        plugins_entry: Some(PluginsEntry::default()),
        ..Default::default()
    };
    let task = PstreeEntry {
        pid: 42,
        pgid: 42,
        sid: 42,
        threads: vec![42],
        ..Default::default()
    };
    let core = CoreEntry {
        mtype: March::X86_64.into(),
        thread_info: Some(ThreadInfoX86::default()),
        tc: Some(TaskCoreEntry {
            task_state: 1,
            comm: b"sleep".to_vec(),
            rlimits: Some(TaskRlimitsEntry {
                rlimits: vec![
                    RlimitEntry {
                        cur: u64::MAX,
                        max: u64::MAX
                    };
                    16
                ],
            }),
            ..Default::default()
        }),
        thread_core: Some(ThreadCoreEntry {
            sched_nice: Some(-5),
            creds: Some(CredsEntry {
                cap_prm: vec![u32::MAX, 0x1ff],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mm = MmEntry {
        exe_file_id: 1,
        mm_saved_auxv: vec![6, 4096, 0, 0],
        vmas: vec![VmaEntry {
            start: 0x10_0000,
            end: 0x10_1000,
            prot: 3,
            flags: 0x22,
            status: 0x201,
            fd: -1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let exe = FileEntry {
        r#type: FdTypes::Reg.into(),
        id: 1,
        reg: Some(Box::new(RegFileEntry {
            id: 1,
            // Not UTF-8, as a path may be.
            name: b"/bin/sl\xe9\xe9p".to_vec(),
            mnt_id: Some(-1),
            ..Default::default()
        })),
        ..Default::default()
    };
    let pipe = FileEntry {
        r#type: FdTypes::Pipe.into(),
        id: 2,
        pipe: Some(PipeEntry {
            id: 2,
            pipe_id: 99,
            ..Default::default()
        }),
        ..Default::default()
    };
    let fd = |fd| FdinfoEntry {
        id: 2,
        r#type: FdTypes::Pipe.into(),
        fd,
        ..Default::default()
    };
    let data = PipeDataEntry {
        pipe_id: 99,
        bytes: 5,
        size: Some(65536),
        packet: Vec::new(),
    };
    let run = PagemapEntry {
        vaddr: 0x10_0000,
        flags: Some(4),
        nr_pages: Some(1),
        ..Default::default()
    };

    let writer = |kind, key: i32| staging.writer(kind, key).unwrap();
    let whole = |kind| staging.writer(kind, ()).unwrap();
    whole(ImageKind::Inventory).push(&inventory).unwrap();
    whole(ImageKind::Pstree).push(&task).unwrap();
    whole(ImageKind::Files)
        .push(&exe)
        .unwrap()
        .push(&pipe)
        .unwrap();
    whole(ImageKind::Seccomp)
        .push(&SeccompEntry::default())
        .unwrap();
    whole(ImageKind::PipesData)
        .push(&data)
        .unwrap()
        .push_payload(b"hello")
        .unwrap();
    writer(ImageKind::Ids, 42).push(&ids(2)).unwrap();
    writer(ImageKind::Core, 42).push(&core).unwrap();
    writer(ImageKind::Mm, 42).push(&mm).unwrap();
    writer(ImageKind::Fs, 42)
        .push(&FsEntry {
            cwd_id: 1,
            root_id: 1,
            umask: Some(18),
        })
        .unwrap();
    writer(ImageKind::Fdinfo, 2)
        .push(&fd(0))
        .unwrap()
        .push(&fd(1))
        .unwrap();
    writer(ImageKind::Pagemap, 42)
        .push(&PagemapHead { pages_id: 1 })
        .unwrap()
        .push(&run)
        .unwrap();
    let mut pages = staging.raw("pages-1.img").unwrap();
    std::io::Write::write_all(&mut pages, &[0xa5; 4096]).unwrap();
    staging.commit().unwrap();
}

#[test]
fn our_own_set_is_written_as_ever() {
    let stored = golden().join("gelid-1");
    if std::env::var_os("GELID_BLESS").is_some() {
        fs::create_dir_all(&stored).unwrap();
        write_own(&Dir::open(&stored).unwrap());
    }
    let scratch = tempfile::tempdir().unwrap();
    let written = Dir::open(scratch.path()).unwrap();
    write_own(&written);
    let names = written.names().unwrap();
    assert_eq!(names, Dir::open(&stored).unwrap().names().unwrap());
    // The manifest names the version of the program, which changes.
    for name in names.iter().filter(|name| !name.ends_with(".json")) {
        let (new, old) = (
            fs::read(scratch.path().join(name)),
            fs::read(stored.join(name)),
        );
        assert!(new.unwrap() == old.unwrap(), "{name} has changed");
    }
    assert!(
        gelid_image::manifest::verify(&Dir::open(&stored).unwrap())
            .unwrap()
            .is_empty()
    );
}
