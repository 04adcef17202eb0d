//! Plans of mounts.

use gelid_image::messages::{Fstype, MntEntry};
use gelid_image::{Staging, StagingOptions};
use gelid_sys::proc::ns::Kind;
use proptest::prelude::*;

use super::*;

fn entry(id: u32, parent: u32, fs: (Fstype, u32), root: &str, point: &str) -> MntEntry {
    MntEntry {
        fstype: i32::from(fs.0).cast_unsigned(),
        mnt_id: id,
        root_dev: fs.1,
        parent_mnt_id: parent,
        flags: 0x20_0000,
        root: root.as_bytes().to_vec(),
        mountpoint: point.as_bytes().to_vec(),
        source: b"none".to_vec(),
        sb_flags: Some(0),
        ..MntEntry::default()
    }
}

const DISK: (Fstype, u32) = (Fstype::Unsupported, 1);
const MEMORY: (Fstype, u32) = (Fstype::Tmpfs, 2);

fn plan(entries: Vec<MntEntry>) -> Result<Mounts, PlanError> {
    Mounts::plan(vec![(9, entries)], &MountOptions::default())
}

fn complaint(entries: Vec<MntEntry>) -> String {
    plan(entries).unwrap_err().to_string()
}

#[test]
fn what_covers_comes_last() {
    let plan = plan(vec![
        entry(5, 1, MEMORY, "/", "/a"),
        entry(4, 2, MEMORY, "/x", "/a/b/c"),
        entry(3, 1, DISK, "/r/s", "/a/b"),
        entry(2, 3, MEMORY, "/", "/a/b"),
        entry(1, 0, DISK, "/r", "/"),
    ])
    .unwrap();
    let order: Vec<_> = plan.mounts.iter().map(|mount| mount.id).collect();
    assert_eq!(order, [1, 3, 2, 4, 5]);
    let at: Vec<_> = plan.mounts.iter().map(|mount| &*mount.at).collect();
    assert_eq!(at, [&b""[..], b"a/b", b"", b"c", b"a"]);
    let roots: Vec<_> = plan.mounts.iter().map(|mount| &*mount.root).collect();
    assert_eq!(roots, [&b""[..], b"s", b"", b"x", b""]);
    // One origin for the disk, and one for all of the memory.
    assert_eq!(plan.filesystems.len(), 2);
    assert_eq!(plan.by_mount().get(&4), Some(&0));
}

#[test]
fn what_cannot_be_is_refused() {
    let root = || entry(1, 0, DISK, "/", "/");
    assert!(complaint(vec![]).contains("no mounts"));
    let other = entry(2, 1, (Fstype::Unsupported, 7), "/", "/x");
    assert!(complaint(vec![root(), other]).contains("--external"));
    let same = [
        root(),
        entry(2, 1, MEMORY, "/", "/x"),
        entry(3, 1, MEMORY, "/", "/x"),
    ];
    assert!(complaint(same.to_vec()).contains("same place"));
    assert!(complaint(vec![root(), root()]).contains("number"));
    let circle = [
        root(),
        entry(2, 3, MEMORY, "/", "/x"),
        entry(3, 2, MEMORY, "/", "/x"),
    ];
    assert!(complaint(circle.to_vec()).contains("on itself"));
    let lost = [root(), entry(2, 77, MEMORY, "/", "/x")];
    assert!(complaint(lost.to_vec()).contains("root"));
    let above = [
        root(),
        entry(2, 1, MEMORY, "/", "/x"),
        entry(3, 2, MEMORY, "/", "/y"),
    ];
    assert!(complaint(above.to_vec()).contains("not below"));
    let up = [root(), entry(2, 1, MEMORY, "/", "/x/../..")];
    assert!(complaint(up.to_vec()).contains("upwards"));
}

#[test]
fn what_is_external_is_given() {
    let mut mount = entry(2, 1, DISK, "/elsewhere", "/x");
    mount.ext_key = Some("key".into());
    let entries = vec![entry(1, 0, DISK, "/r", "/"), mount];
    assert!(complaint(entries.clone()).contains("mnt[key]"));
    let options = MountOptions {
        external: vec![("key".into(), "/here".into())],
        ..MountOptions::default()
    };
    let plan = Mounts::plan(vec![(9, entries)], &options).unwrap();
    let origins: Vec<_> = plan
        .filesystems
        .iter()
        .map(|fs| fs.origin.to_string())
        .collect();
    assert_eq!(origins, ["the root /", "/here"]);
}

#[test]
fn nobody_but_the_caller_says_what_devices_are_mounted() {
    let mut mount = entry(2, 1, (Fstype::Auto, 3), "/", "/x");
    mount.fsname = Some("ext4".into());
    mount.source = b"/dev/sda".to_vec();
    let entries = vec![entry(1, 0, DISK, "/", "/"), mount];
    assert!(complaint(entries).contains("has to be given"));
}

#[test]
fn masters_come_before_slaves() {
    let group = |id, shared, master| MntEntry {
        shared_id: Some(shared),
        master_id: Some(master),
        ..entry(id, 1, MEMORY, "/", &format!("/{id}"))
    };
    let root = entry(1, 0, DISK, "/", "/");
    let entries = vec![
        root.clone(),
        group(2, 1, 8),
        group(3, 8, 0),
        group(4, 0, 1),
        group(5, 0, 8),
    ];
    let plan = plan(entries).unwrap();
    let kinship = |id| {
        let mount = plan.mounts.iter().find(|mount| mount.id == id).unwrap();
        let group = &plan.groups[mount.group.unwrap()];
        (group.kinship, group.shared)
    };
    let of = |id| {
        plan.mounts
            .iter()
            .find(|mount| mount.id == id)
            .unwrap()
            .group
            .unwrap()
    };
    assert_eq!(kinship(3), (Kinship::Alone, true));
    assert_eq!(kinship(2), (Kinship::Slaves(of(3)), true));
    assert_eq!(kinship(4), (Kinship::Slaves(of(2)), false));
    assert_eq!(kinship(5), (Kinship::Slaves(of(3)), false));
    assert!(of(3) < of(2) && of(2) < of(4));
    let circle = vec![root.clone(), group(2, 1, 8), group(3, 8, 1)];
    assert!(complaint(circle).contains("own master"));
    let torn = vec![root, group(2, 1, 8), group(3, 1, 9)];
    assert!(complaint(torn).contains("other masters"));
}

/// What is to be made, of a namespace with a mount of a kind that is read from images.
fn made(kind: Fstype, shown: Option<u32>, by_gelid: bool) -> filesystem::New {
    let home = tempfile::tempdir().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let options = StagingOptions {
        manifest: by_gelid,
        ..StagingOptions::default()
    };
    let staging = Staging::with_options(&dir, options).unwrap();
    let mut writer = staging.writer(ImageKind::Mountpoints, 9).unwrap();
    writer.push(&entry(1, 0, DISK, "/", "/")).unwrap();
    let mount = entry(2, 1, (kind, 3), "/", "/a");
    let shown_ns = shown;
    writer.push(&MntEntry { shown_ns, ..mount }).unwrap();
    writer.finish().unwrap();
    staging.commit().unwrap();
    let plan = Mounts::read(&dir, &[9], &MountOptions::default()).unwrap();
    let mut origins = plan.filesystems.into_iter().map(|one| one.origin);
    let made = origins.find_map(|origin| match origin {
        Origin::New(new) => Some(new),
        _ => None,
    });
    made.unwrap()
}

#[test]
fn cgroups_of_criu_end_where_those_of_the_tree_do() {
    assert!(made(Fstype::Cgroup2, None, false).within);
    assert!(!made(Fstype::Cgroup2, None, true).within);
    assert!(!made(Fstype::Mqueue, None, false).within);
}

#[test]
fn what_shows_other_namespaces_is_made_there() {
    let shown = |kind| made(kind, Some(7), true).shown;
    assert_eq!(shown(Fstype::Sysfs), Some((Kind::Net, 7)));
    assert_eq!(shown(Fstype::Mqueue), Some((Kind::Ipc, 7)));
    assert_eq!(shown(Fstype::Proc), None);
}

#[test]
fn flags_become_attributes() {
    assert_eq!(attributes(0), Attributes::STRICT_ATIME);
    assert_eq!(
        attributes(0x20_0000 | 0xf),
        Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_DEVICES | Attributes::NO_EXEC
    );
    assert_eq!(
        attributes(0xc00),
        Attributes::NO_ATIME | Attributes::NO_DIR_ATIME
    );
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab.]{0,2}", 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn any_entry() -> impl Strategy<Value = MntEntry> {
    let numbers = (0u32..6, 0u32..6, 0u32..3, any::<u32>(), 0u32..4, 0u32..4);
    let kind = prop_oneof![Just(5u32), Just(0), any::<u32>()];
    let external = prop::option::of(prop_oneof![Just("CRIU:AUTOGENERATED".to_owned()), "[ab]"]);
    (
        numbers,
        kind,
        any_path(),
        any_path(),
        external,
        any::<bool>(),
    )
        .prop_map(
            |((id, parent, dev, flags, shared, master), kind, root, point, key, deleted)| {
                MntEntry {
                    fstype: kind,
                    mnt_id: id,
                    root_dev: dev,
                    parent_mnt_id: parent,
                    flags,
                    root: root.into_bytes(),
                    mountpoint: point.into_bytes(),
                    shared_id: Some(shared),
                    master_id: Some(master),
                    ext_key: key,
                    deleted: Some(deleted),
                    ..MntEntry::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn a_plan_refers_to_what_is_in_it(
        one in prop::collection::vec(any_entry(), 0..6),
        other in prop::collection::vec(any_entry(), 0..6),
        found in any::<bool>(),
    ) {
        let options = MountOptions {
            external: vec![("a".into(), "/a".into())],
            found,
            ..MountOptions::default()
        };
        let Ok(plan) = Mounts::plan(vec![(9, one), (10, other)], &options) else {
            return Ok(());
        };
        for (at, mount) in plan.mounts.iter().enumerate() {
            prop_assert!(mount.parent.is_none_or(|parent| parent < at));
            prop_assert!(mount.filesystem < plan.filesystems.len());
            prop_assert!(mount.group.is_none_or(|group| group < plan.groups.len()));
        }
        for (at, group) in plan.groups.iter().enumerate() {
            prop_assert!(group.filesystem < plan.filesystems.len());
            if let Kinship::Slaves(master) = group.kinship {
                prop_assert!(master < at);
            }
        }
    }
}
