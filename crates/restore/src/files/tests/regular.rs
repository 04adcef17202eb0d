//! Files with a path: flags, positions, what has changed, what is refused.

use super::*;
use crate::files::{Inherit, Validation};
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn flags_and_positions_come_back() {
    let mut images = Images::new();
    fs::write(images.root().join("file"), b"0123456789").unwrap();
    fs::set_permissions(images.root().join("file"), PermissionsExt::from_mode(0o640)).unwrap();
    let file = images.regular(3, "/file", 2 | O_APPEND, 7);
    (file.size, file.mode) = (Some(10), Some(0o100_640));
    images.regular(4, "/file", 1 | O_NONBLOCK, u64::MAX);
    images.regular(5, "/", 0o200_000, 0);
    images.regular(6, "/file", O_PATH, 3);
    images.slots.push(FdinfoEntry {
        fd: 77,
        flags: 1,
        ..images.slots[0].clone()
    });
    let plan = images.plan().unwrap();
    let table = plan.table(2);
    assert_eq!(table.len(), 5);
    assert_eq!((table[4].fd, table[4].id, table[4].cloexec), (77, 3, true));
    assert_eq!(plan.first_free(), 78);
    let lines: Vec<_> = plan.describe().collect();
    assert_eq!(lines[0], "file 3: /file, flags 0o102002, at 7");
    assert_eq!(lines[8], "table 2: descriptor 77 -> file 3, closed on exec");

    let open = images.open_plan(&plan).unwrap();
    let three = open.fd(3).unwrap();
    assert!(three.as_raw_fd() >= BASE && info(three).cloexec());
    assert_eq!(
        (flags(three), info(three).pos),
        (2 | O_APPEND | O_LARGEFILE, 7)
    );
    let four = open.fd(4).unwrap();
    assert_eq!(
        (flags(four), info(four).pos),
        (1 | O_NONBLOCK | O_LARGEFILE, 0)
    );
    assert_eq!(flags(open.fd(5).unwrap()), 0o200_000 | O_LARGEFILE);
    assert_eq!(link(&images, open.fd(5).unwrap()), "");
    assert_eq!(flags(open.fd(6).unwrap()), O_PATH);
    assert!(open.fd(77).is_none());
    // For a mapping another access mode is opened, the same one is not.
    assert_eq!(open.mapping(3, 2).unwrap().as_raw_fd(), three.as_raw_fd());
    let read = open.mapping(3, 0).unwrap();
    assert_eq!(flags(read) & 3, 0);
    assert_eq!(open.mapping(3, 0).unwrap().as_raw_fd(), read.as_raw_fd());
    assert!(read.as_raw_fd() >= BASE && info(read).cloexec());
    assert!(open.mapping(3, 3).is_err() && open.mapping(9, 0).is_err());
    open.keep(open_dir(&images.root()).as_fd().into()).unwrap();
    assert_eq!(fs::read(images.root().join("file")).unwrap(), b"0123456789");
}

#[test]
fn what_has_changed_is_told() {
    let mut images = Images::new();
    let path = images.root().join("file");
    images.regular(3, "/file", 0, 0).size = Some(3);
    assert_eq!(
        images.refusal(),
        "cannot open file 3 (/file): No such file or directory (os error 2); \
         bring the file back, as it was at the dump"
    );
    fs::write(&path, b"12345").unwrap();
    assert_eq!(
        images.refusal(),
        "file 3 (/file) has changed: size 3 is now 5; bring the file back as it was"
    );
    images.entries[0].reg.as_mut().unwrap().size = Some(5);
    images.entries[0].reg.as_mut().unwrap().mode = Some(0o100_600);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(
        images.refusal(),
        "file 3 (/file) has changed: mode 0o600 is now 0o644; \
         set it back, or use --skip-file-rwx-check"
    );
    images.options.skip_rwx_check = true;
    images.open().unwrap();
    images.entries[0].reg.as_mut().unwrap().mode = Some(0o040_644);
    assert!(
        images
            .refusal()
            .contains("type Directory is now RegularFile")
    );
}

#[test]
fn another_build_is_told() {
    let mut images = Images::new();
    fs::copy("/bin/true", images.root().join("true")).unwrap();
    let file = fs::File::open("/bin/true").unwrap();
    let id = crate::files::build_id::read(file.as_fd()).unwrap();
    let id = id.expect("distributions build with one");
    let words = |id: &[u8]| {
        let mut id = id.to_vec();
        id.resize(id.len().next_multiple_of(4), 0);
        let words = id
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        words.collect::<Vec<_>>()
    };
    images.regular(3, "/true", 0, 0).build_id = words(&id);
    images.open().unwrap();
    let mut other = id.clone();
    other[0] ^= 1;
    images.entries[0].reg.as_mut().unwrap().build_id = words(&other);
    assert!(
        images
            .refusal()
            .contains("or use --file-validation=filesize")
    );
    images.options.validation = Validation::Size;
    images.open().unwrap();
}

#[test]
fn links_do_not_lead_out_of_the_root() {
    let mut images = Images::new();
    fs::create_dir(images.root().join("etc")).unwrap();
    fs::write(images.root().join("etc/mine"), b"inside").unwrap();
    symlink("/etc", images.root().join("link")).unwrap();
    images.regular(3, "/link/mine", 0, 0);
    let open = images.open().unwrap();
    assert_eq!(contents(open.fd(3).unwrap()), b"inside");
    images.regular(4, "/link/passwd", 0, 0);
    assert!(images.refusal().contains("file 4 (/link/passwd)"));
}

#[test]
fn nothing_waits_and_devices_are_known() {
    let mut images = Images::new();
    // A FIFO where a file was would wait for its other end.
    rustix::fs::mknodat(
        open_dir(&images.root()),
        "file",
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    images.regular(3, "/file", 0, 0).mode = Some(0o100_600);
    assert!(images.refusal().contains("type RegularFile is now Fifo"));

    let mut images = Images::new();
    let root = open_dir(&images.root());
    let node = |name: &str, minor| {
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&root, name, kind, mode, rustix::fs::makedev(1, minor))
    };
    if node("zero", 5).is_err() {
        return;
    }
    node("kmsg", 11).unwrap();
    images.regular(3, "/zero", 2, u64::MAX).mode = Some(0o020_600);
    let open = images.open().unwrap();
    assert_eq!(flags(open.fd(3).unwrap()), 2 | O_LARGEFILE);
    images.regular(4, "/kmsg", 0, u64::MAX);
    assert!(
        images
            .refusal()
            .contains("a device with a state of its own")
    );
}

#[test]
fn files_of_processes_outside_of_the_tree_are_refused() {
    let mut images = Images::new();
    images.regular(3, "/proc/17/maps", 0, 0);
    images.regular(4, "/proc/meminfo", 0, 0);
    let plan = images.plan().unwrap();
    plan.check_processes(|pid| pid == 17).unwrap();
    let error = plan.check_processes(|pid| pid == 18).unwrap_err();
    assert!(
        error.to_string().contains("a process outside of the tree"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let plan = |fill: &dyn Fn(&mut Images)| {
        let mut images = Images::new();
        fill(&mut images);
        images.plan().unwrap_err().to_string()
    };
    let message = plan(&|images| images.push(entry(FdTypes::Ext, 4)));
    assert_eq!(
        message,
        "descriptor 4 of table 2 (file 4) is a file of a plugin, which cannot be restored yet; \
         dump the program without it"
    );
    let message = plan(&|images| {
        images.regular(3, "/a/../b", 0, 0);
    });
    assert!(message.contains("name is /a/../b"), "{message}");
    let message = plan(&|images| {
        images.regular(3, "/a", 0, 0);
        images.slots[0].id = 9;
    });
    assert_eq!(
        message,
        "descriptor 3 of table 2 refers to file 9, which files.img does not have"
    );
    let message = plan(&|images| {
        images.regular(3, "/a", 0, 0);
        images.slots[0].r#type = FdTypes::Pipe.into();
    });
    assert!(message.contains("of another kind"), "{message}");
    let message = plan(&|images| {
        images.regular(3, "/a", 0, 0);
        images.regular(3, "/a", 0, 0);
    });
    assert!(message.contains("occurs twice"), "{message}");
    let message = plan(&|images| images.regular(3, "/a", 0, 0).ext = Some(true));
    assert!(message.contains("--inherit-fd 'fd[N]:/a'"), "{message}");
    let message = plan(&|images| images.push(entry(FdTypes::Pipe, 3)));
    assert!(message.contains("lacks the part"), "{message}");
}

#[test]
fn the_caller_gives_files() {
    let mut images = Images::new();
    fs::write(images.root().join("given"), b"given").unwrap();
    let given = fs::File::open(images.root().join("given")).unwrap();
    let external = images.regular(3, "file[1f:2e]", 0, 5);
    external.ext = Some(true);
    images.regular(4, "/no/such/file", 0, 5);
    for key in ["file[1f:2e]", "no/such/file"] {
        images.options.inherit.push(Inherit {
            fd: given.as_raw_fd(),
            key: key.into(),
        });
    }
    let open = images.open().unwrap();
    for id in [3, 4] {
        let fd = open.fd(id).unwrap();
        assert_eq!((contents(fd), info(fd).pos), (b"given".to_vec(), 0));
    }
    images.options.inherit[1].fd = 9999;
    assert!(images.refusal().contains("take the given descriptor"));
}

#[test]
fn owners_are_set_when_they_exist() {
    let mut images = Images::new();
    fs::write(images.root().join("file"), b"").unwrap();
    let me = rustix::process::getpid().as_raw_pid();
    images.regular(3, "/file", 0o20_000, 0).fown = FownEntry {
        uid: 4711,
        euid: 4712,
        signum: 10,
        pid_type: 1,
        pid: me.cast_unsigned(),
    };
    images.regular(4, "/file", 0, 0).fown = FownEntry {
        pid: i32::MAX.cast_unsigned(),
        pid_type: 2,
        ..Default::default()
    };
    let open = images.open().unwrap();
    let error = open
        .owners(&|number| gelid_sys::Pid::from_raw(number))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot set the owner of file 4 (/file)"),
        "{error}"
    );
    let fd = open.fd(3).unwrap();
    assert_eq!(gelid_sys::fown::owner(fd).unwrap().pid, me);
    assert_eq!(gelid_sys::fown::signal(fd), Ok(10));
    if rustix::process::geteuid().is_root() {
        assert_eq!(gelid_sys::fown::owner_users(fd), Ok((4711, 4712)));
        assert!(rustix::process::geteuid().is_root());
    }
    for (pid_type, signum) in [(3, 0), (1, 65)] {
        images.entries[0].reg.as_mut().unwrap().fown.pid_type = pid_type;
        images.entries[0].reg.as_mut().unwrap().fown.signum = signum;
        assert!(matches!(images.plan(), Err(Error::Invalid { .. })));
    }
}

#[test]
fn thousands_are_opened_at_once() {
    let mut images = Images::new();
    fs::write(images.root().join("file"), b"0123456789").unwrap();
    for id in 0..3000 {
        images.regular(id, "/file", 2, u64::from(id % 10));
    }
    let plan = images.plan().unwrap();
    let start = std::time::Instant::now();
    let open = images.open_plan(&plan).unwrap();
    assert!(start.elapsed().as_secs() < 5);
    assert_eq!(info(open.fd(2999).unwrap()).pos, 9);
}
