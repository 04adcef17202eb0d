//! Images that nobody wrote in good faith: no panic, nothing outside of the root.

use super::terminal_records::{terminals, waiting};
use super::*;
use crate::files::{Inherit, Watching};
use gelid_image::messages::{
    BpfmapDataEntry, BpfmapFileEntry, EventfdFileEntry, EventpollFileEntry, EventpollTfdEntry,
    FanotifyFileEntry, FanotifyMarkEntry, FanotifyMountMarkEntry, FhEntry, FifoEntry,
    FileLockEntry, GelidTtyFileEntry, GelidTunfileEntry, GhostChunkEntry, GhostFileEntry,
    InotifyFileEntry, InotifyWdEntry, MemfdFileEntry, MemfdInodeEntry, NsFileEntry, PidfdEntry,
    SignalfdEntry, TimerfdEntry, TtyFileEntry, TunfileEntry,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Few ids, so that records meet each other.
pub(super) fn id() -> impl Strategy<Value = u32> {
    prop_oneof![0..6u32, any::<u32>()]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..9000u64,
        Just(u64::MAX),
        Just(i64::MAX as u64),
        any::<u64>()
    ]
}

fn flags() -> impl Strategy<Value = u32> {
    prop_oneof![0..4u32, any::<u32>()]
}

fn mode() -> impl Strategy<Value = u32> {
    let kinds = [0o010, 0o020, 0o040, 0o060, 0o100, 0o120, 0o140];
    let kind = prop::sample::select(kinds.to_vec());
    prop_oneof![kind.prop_map(|kind| kind << 9 | 0o600), any::<u32>()]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let names: [&[u8]; 9] = [
        b"/",
        b"/a",
        b"/d",
        b"/d/a",
        b"/d/e/a",
        b"a",
        b"",
        b"/../a",
        b"/dev/zero",
    ];
    prop_oneof![
        prop::sample::select(names.map(<[u8]>::to_vec).to_vec()),
        vec(any::<u8>(), 0..9)
    ]
}

fn fown() -> impl Strategy<Value = FownEntry> {
    (id(), id(), id()).prop_map(|(pid, pid_type, signum)| FownEntry {
        pid,
        pid_type,
        signum,
        ..Default::default()
    })
}

fn file() -> impl Strategy<Value = FileEntry> {
    let kinds = prop::sample::select(vec![
        1, 1, 1, 1, 2, 3, 11, 14, 15, 18, 5, 99, 6, 7, 7, 8, 9, 12, 17, 19, 19, 20,
    ]);
    let common = (kinds, id(), id(), flags(), fown());
    let regular = (
        name(),
        number(),
        prop::option::of(mode()),
        prop::option::of(number()),
    );
    (common, regular).prop_map(
        |((kind, id, other, flags, fown), (name, pos, mode, size))| {
            let mut entry = FileEntry {
                r#type: kind,
                id,
                ..Default::default()
            };
            match kind {
                1 => {
                    entry.reg = Some(Box::new(RegFileEntry {
                        id,
                        flags,
                        pos,
                        fown,
                        name,
                        size,
                        mode,
                        ext: (other == 5).then_some(true),
                        build_id: vec![other; (other % 3) as usize],
                        ..Default::default()
                    }));
                }
                2 => {
                    entry.pipe = Some(PipeEntry {
                        id,
                        pipe_id: other,
                        flags,
                        fown,
                    });
                }
                3 => {
                    entry.fifo = Some(FifoEntry {
                        id,
                        pipe_id: other,
                        regf_id: Some(flags),
                    });
                }
                11 => {
                    entry.tty = Some(TtyFileEntry {
                        id,
                        tty_info_id: other,
                        flags,
                        fown,
                        regf_id: mode,
                        gelid: Some(GelidTtyFileEntry {
                            terminal: Some(other),
                        }),
                    });
                }
                14 => {
                    entry.nsf = Some(NsFileEntry {
                        id,
                        ns_id: other,
                        ns_cflag: 1 << (other % 32),
                        flags,
                    });
                }
                15 => {
                    entry.tunf = Some(TunfileEntry {
                        id,
                        netdev: mode.map(|mode| format!("{:x}", pos >> (mode % 64))),
                        gelid: Some(GelidTunfileEntry {
                            flags: Some(flags),
                            ..Default::default()
                        }),
                        ..Default::default()
                    });
                }
                6 => {
                    entry.efd = Some(EventfdFileEntry {
                        id,
                        flags,
                        fown,
                        counter: pos,
                        semaphore: mode.map(|mode| mode % 2 == 0),
                    });
                }
                7 => {
                    let watch = EventpollTfdEntry {
                        tfd: other,
                        events: flags,
                        file: mode,
                        added_as: size.and_then(|size| size.try_into().ok()),
                        ..Default::default()
                    };
                    entry.epfd = Some(EventpollFileEntry {
                        id,
                        flags,
                        fown,
                        tfd: vec![watch; (pos % 3) as usize],
                    });
                }
                8 => {
                    let watch = InotifyWdEntry {
                        i_ino: pos,
                        mask: flags,
                        s_dev: other,
                        wd: id,
                        f_handle: FhEntry {
                            bytes: other,
                            handle: vec![pos; (pos % 20) as usize],
                            path: mode.map(|_| name),
                            ..Default::default()
                        },
                        file: size.and_then(|size| size.try_into().ok()),
                        ..Default::default()
                    };
                    entry.ify = Some(InotifyFileEntry {
                        id,
                        flags,
                        fown,
                        wd: vec![watch; (pos % 3) as usize],
                    });
                }
                9 => {
                    entry.sgfd = Some(SignalfdEntry {
                        id,
                        flags,
                        fown,
                        sigmask: pos,
                    });
                }
                17 => {
                    entry.tfd = Some(Box::new(TimerfdEntry {
                        id,
                        flags,
                        fown,
                        clockid: other,
                        ticks: pos % 3,
                        settime_flags: id % 5,
                        vsec: pos,
                        vnsec: other.into(),
                        isec: size.unwrap_or_default(),
                        insec: mode.unwrap_or_default().into(),
                        deadline: size,
                    }));
                }
                12 => {
                    let mark = FanotifyMarkEntry {
                        r#type: (id % 4) as i32,
                        mflags: flags,
                        mask: other,
                        ignored_mask: pos as u32,
                        me: Some(FanotifyMountMarkEntry {
                            mnt_id: other,
                            path: mode.map(|_| name),
                        }),
                        ..Default::default()
                    };
                    entry.ffy = Some(FanotifyFileEntry {
                        id,
                        flags,
                        fown,
                        faflags: flags,
                        evflags: other,
                        mark: vec![mark; (pos % 3) as usize],
                    });
                }
                20 => {
                    entry.pidfd = Some(PidfdEntry {
                        id,
                        ino: other,
                        flags,
                        nspid: (pos % 4) as i32 - 1,
                        fown,
                        status: size.map(|size| size as i32),
                    });
                }
                19 => {
                    entry.bpf = Some(Box::new(BpfmapFileEntry {
                        id,
                        flags,
                        pos,
                        fown,
                        map_type: other % 3,
                        key_size: 4 + u32::from(pos % 5 == 4),
                        value_size: 8,
                        map_id: other,
                        max_entries: (pos % 9) as u32,
                        map_flags: mode.unwrap_or_default(),
                        frozen: id % 2 == 0,
                        map_name: String::from_utf8_lossy(&name).into_owned(),
                        ..Default::default()
                    }));
                }
                18 => {
                    entry.memfd = Some(MemfdFileEntry {
                        id,
                        flags,
                        pos,
                        fown,
                        inode_id: other,
                    });
                }
                _ => {}
            }
            entry
        },
    )
}

type Ghosts = Vec<(u32, GhostFileEntry, Vec<(u64, u64)>)>;

fn ghosts() -> impl Strategy<Value = Ghosts> {
    let head = (
        mode(),
        any::<bool>(),
        0..100_000u64,
        id(),
        prop::option::of(name()),
    );
    let ghost = (id(), head, vec((0..99u64, number()), 0..3));
    let ghost = ghost.prop_map(|(id, (mode, chunks, size, rdev, symlnk_target), pieces)| {
        let entry = GhostFileEntry {
            uid: rdev,
            gid: rdev,
            mode,
            chunks: chunks.then_some(true),
            size: Some(size),
            rdev: Some(rdev),
            symlnk_target,
            ..Default::default()
        };
        (id, entry, pieces)
    });
    vec(ghost, 0..4)
}

fn locks() -> impl Strategy<Value = Vec<FileLockEntry>> {
    let lock = (
        0..10_u32,
        0..8_u32,
        -1..3_i32,
        0..6_i32,
        any::<i64>(),
        any::<bool>(),
    );
    let lock = lock.prop_map(|(flag, r#type, pid, fd, start, whole)| FileLockEntry {
        flag,
        r#type,
        pid,
        fd,
        start: if whole { 0 } else { start },
        len: 0,
        held: None,
    });
    vec(lock, 0..2)
}

fn memories() -> impl Strategy<Value = Vec<MemfdInodeEntry>> {
    let names = prop::sample::select(vec!["/dev/zero", "x", "/anon_hugepage", ""]);
    let size = prop_oneof![0..9000u64, Just(u64::MAX)];
    let memory = (id(), names, size, id(), flags(), prop::option::of(mode()));
    let memory = memory.prop_map(|(id, name, size, shmid, seals, mode)| MemfdInodeEntry {
        name: name.into(),
        size,
        shmid,
        seals,
        inode_id: id.into(),
        mode,
        ..Default::default()
    });
    vec(memory, 0..4)
}

fn slot() -> impl Strategy<Value = FdinfoEntry> {
    (id(), id(), 0..20i32).prop_map(|(id, fd, kind)| FdinfoEntry {
        id,
        fd,
        r#type: kind,
        ..Default::default()
    })
}

fn write_ghosts(staging: &Staging, ghosts: &Ghosts) {
    for (id, entry, pieces) in ghosts {
        // Two may have the same id.
        let Ok(mut writer) = staging.writer(ImageKind::GhostFile, *id) else {
            continue;
        };
        writer.push(entry).unwrap();
        for (len, off) in pieces {
            let piece = GhostChunkEntry {
                len: *len,
                off: *off,
            };
            writer.push(&piece).unwrap();
            writer.push_payload(&vec![1; *len as usize]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_images_do_harm(
        entries in vec(file(), 0..8),
        slots in vec(slot(), 0..3),
        remaps in vec((id(), id(), prop::option::of(0..4i32)), 0..5),
        pipes in vec((id(), 0..9000u32, prop::option::of(id()), vec(0..5000u32, 0..3)), 0..3),
        ghosts in ghosts(),
        memories in memories(),
        terminals in terminals(),
        locks in locks(),
        waiting in waiting(),
        maps in vec((id(), 0..9u32, 0..9u32), 0..4),
        shell_job in any::<bool>(),
    ) {
        let mut images = Images::new();
        fs::create_dir(images.root().join("d")).unwrap();
        fs::write(images.root().join("a"), b"contents").unwrap();
        images.entries = entries;
        // Half of the tables are as they should be.
        images.slots = match shell_job {
            true => slots,
            false => images.entries.iter().map(|entry| FdinfoEntry {
                id: entry.id,
                r#type: entry.r#type,
                fd: entry.id,
                ..Default::default()
            }).collect(),
        };
        images.remaps = remaps.into_iter().map(|(orig_id, remap_id, remap_type)| {
            RemapFilePathEntry { orig_id, remap_id, remap_type }
        }).collect();
        for (pipe_id, bytes, size, packet) in pipes {
            images.pipes.push((PipeDataEntry { pipe_id, bytes, size, packet }, vec![1; bytes as usize]));
        }
        images.options.shell_job = shell_job;
        images.options.inherit.push(Inherit { fd: i32::MAX, key: "pipe:[5]".into() });
        let dir = images.write(|staging| {
            write_ghosts(staging, &ghosts);
            let mut writer = staging.writer(ImageKind::Memfd, ()).unwrap();
            for memory in &memories {
                writer.push(memory).unwrap();
            }
            let mut writer = staging.writer(ImageKind::FileLocks, ()).unwrap();
            for lock in &locks {
                writer.push(lock).unwrap();
            }
            let mut writer = staging.writer(ImageKind::BpfmapData, ()).unwrap();
            for &(map_id, count, told) in &maps {
                let (keys_bytes, values_bytes) = (4 * count, 8 * count);
                writer.push(&BpfmapDataEntry { map_id, keys_bytes, values_bytes, count: told.max(count) }).unwrap();
                let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
                writer.push_payload(&keys).unwrap();
                writer.push_payload(&vec![3; values_bytes as usize]).unwrap();
            }
            let mut writer = staging.writer(ImageKind::TtyInfo, ()).unwrap();
            for terminal in &terminals {
                writer.push(terminal).unwrap();
            }
            let mut writer = staging.writer(ImageKind::TtyData, ()).unwrap();
            for entry in &waiting {
                writer.push(entry).unwrap();
            }
        });
        if let Ok(mut plan) = FilesPlan::read(&dir, &[2, 3], &images.options) {
            let _ = plan.find_processes(|pid| pid == 1, |tid| tid == 2);
            let _ = plan.find_locked(|pid| (pid > 0).then_some(2));
            plan.describe().for_each(drop);
            for Watching { watch, file, set } in plan.watches(2) {
                prop_assert!(watch.number < plan.first_free());
                prop_assert!(plan.description(*file).is_some() && plan.description(*set).is_some());
            }
            if let Ok(mut open) = images.open_plan(&plan) {
                open.shared_memory();
                for id in 0..6 {
                    let _ = open.mapping(id, id % 4);
                }
                let _ = open.fill_late_queues();
                let _ = open.seal();
                let _ = open.break_leases();
                let _ = open.start_timers();
                let _ = open.owners(&|number| gelid_sys::Pid::from_raw(number));
                let _ = open.keep(open_dir(&images.root()).as_fd().into());
            }
        }
        // Whatever happened, what was made for the moment is gone.
        prop_assert_eq!(images.names(""), ["a", "d"]);
        prop_assert!(images.names("d").is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic(
        image in prop::sample::select(vec![
            "files.img", "fdinfo-2.img", "remap-fpath.img", "ghost-file-1.img", "pipes-data.img",
        ]),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../image/tests/golden/criu-4.2-single");
        let scratch = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(&golden).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), scratch.path().join(entry.file_name())).unwrap();
        }
        let path = scratch.path().join(image);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        if let Ok(plan) = FilesPlan::read(&dir, &[2], &FileOptions::default()) {
            plan.describe().for_each(drop);
        }
    }
}
