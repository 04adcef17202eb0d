//! Mount namespaces: `mountpoints-*.img`, and what is in file systems that are nowhere but in memory. Section 20 of the
//! format.
//!
//! **Model.** A thread that has joined a namespace tells all mounts that can be reached there ([`look`]). Each is then one
//! of four: it is given on restore (the root, and what is [external]), shows a part of such a one, is made anew, or is
//! [refused](MountRefusal). Contents are read through a clone of a mount, beside whatever is mounted in it.

mod archive;
mod automount;
mod contents;
mod external;
mod formats;
mod kind;
mod look;
mod owners;
mod procfs;
mod refusal;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use gelid_image::messages::{Fstype, MntEntry, UsernsEntry};
use gelid_image::{ImageKind, Staging};
use gelid_sys::mount::idmap::IdMap;
use gelid_sys::proc::maps::Dev;
use gelid_sys::proc::mountinfo::MountInfo;
use gelid_sys::proc::ns::Kind;

use super::{Census, Instance, user};
use crate::{Error, Options, Refusal};

pub(crate) use automount::Automounter;
pub use refusal::MountRefusal;

/// What the caller says about mounts, beside `--external`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Mount points to leave out.
    pub skip: Vec<PathBuf>,
    /// File systems to mount again as they are; `all` for any.
    pub enable_fs: Vec<String>,
    /// Whether external mounts may be slaves of something outside.
    pub masters: bool,
    /// Whether external mounts may be peers of something outside.
    pub sharing: bool,
}

/// Where the files of a tree are: the mount namespace of each mount, and the root directory of each namespace.
#[derive(Debug, Default)]
pub(crate) struct MountTable {
    roots: Vec<Arc<OwnedFd>>,
    all: Vec<(usize, MountInfo)>,
    by_mount: HashMap<i32, usize>,
    /// The pid namespaces below the root's that procfs show, by device.
    procfs: HashMap<Dev, u32>,
}

impl MountTable {
    /// The pid namespace below the root's that the procfs of a mount shows.
    pub(crate) fn shown_by(&self, mount: i32) -> Option<u32> {
        let mut all = self.all.iter();
        let (_, info) = all.find(|(_, info)| info.id == mount)?;
        self.procfs.get(&info.dev).copied()
    }

    /// True if the tree has mount namespaces of its own.
    pub(crate) fn is_known(&self) -> bool {
        !self.roots.is_empty()
    }

    /// The root directory of the namespace that a mount is in, if that is one of the tree.
    pub(crate) fn root_of(&self, mount: i32) -> Option<BorrowedFd<'_>> {
        let root = self.roots.get(*self.by_mount.get(&mount)?)?;
        Some(root.as_fd())
    }

    /// All mounts, with the root directories that their mount points are relative to.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Arc<OwnedFd>, MountInfo)> {
        let all = self.all.iter();
        all.map(|(namespace, info)| (self.roots[*namespace].clone(), info.clone()))
    }

    /// The root directory of the root task's namespace.
    pub(crate) fn root(&self) -> Option<BorrowedFd<'_>> {
        self.roots.first().map(|root| root.as_fd())
    }
}

/// A mount of the tree.
#[derive(Debug)]
struct Mount {
    info: MountInfo,
    /// Index of the namespace.
    namespace: usize,
    kind: Fstype,
    fate: Fate,
    /// What is mounted has been removed.
    deleted: bool,
    /// It shows other owners of files.
    id_map: Option<IdMap>,
}

/// How a mount is to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// The root of the root task's namespace.
    Root,
    /// Given under a name.
    External(String),
    /// Bound from a path of the dumper; whether it is shared with others than there.
    Found { path: Vec<u8>, internal: bool },
    /// A device, given under a name.
    Device(String),
    /// A part of one that is given.
    Part,
    /// Made anew.
    New,
}

impl Mount {
    /// Whether it is the root of its namespace.
    fn is_root(&self) -> bool {
        self.info.mount_point == b"/"
    }
}

/// Refuses what a dump of this namespace would refuse.
pub(super) fn check(instance: &Instance, options: &Options) -> Result<(), Error> {
    let seen = look::look(instance)?;
    survey(&[seen], options).map(drop)
}

/// Writes the images of all mount namespaces of a tree.
pub(super) fn dump(
    staging: &Staging,
    options: &Options,
    census: &Census,
) -> Result<(MountTable, Vec<Automounter>), Error> {
    let mut instances: Vec<&Instance> = census.of(Kind::Mnt).collect();
    instances.sort_by_key(|instance| (!instance.root, instance.id));
    if instances.is_empty() {
        return Ok(Default::default());
    }
    let seen = instances.iter().map(|instance| look::look(instance));
    let seen: Vec<look::Seen> = seen.collect::<Result<_, _>>()?;
    let mounts = survey(&seen, options)?;
    let shown = procfs::shown(&mounts, &seen, census)?;
    formats::refuse(&instances, &mounts)?;
    let owners = owners::find(&instances, &mounts, census)?;
    let elsewhere = shown::find(&mounts, census)?;
    contents::write(staging, &instances, &mounts, census)?;
    let automounters = automount::look(&instances, &mounts, census)?;
    for (namespace, instance) in instances.iter().enumerate() {
        let mut writer = staging.writer(ImageKind::Mountpoints, instance.id)?;
        let members = mounts.iter().filter(|mount| mount.namespace == namespace);
        for mount in members.rev() {
            let mut entry = record(mount, kind::is_own_devpts(mount, &mounts)?);
            if matches!(mount.fate, Fate::New) {
                entry.options = kind::with_owners(&entry.options, &census.users);
            }
            let procfs = shown.get(&mount.info.dev);
            entry.pid_ns = procfs.copied().filter(|_| mount.kind == Fstype::Proc);
            entry.user_ns = owners.get(&mount.info.dev).copied();
            let elsewhere = elsewhere.get(&mount.info.dev).copied();
            entry.shown_ns = elsewhere.filter(|_| mount.fate == Fate::New);
            writer.push(&entry)?;
        }
        writer.finish()?;
    }
    let by_mount = mounts.iter().map(|mount| (mount.info.id, mount.namespace));
    let table = MountTable {
        by_mount: by_mount.collect(),
        procfs: shown,
        all: mounts
            .into_iter()
            .map(|mount| (mount.namespace, mount.info))
            .collect(),
        roots: seen.into_iter().map(|seen| Arc::new(seen.root)).collect(),
    };
    Ok((table, automounters))
}

/// All mounts of some namespaces, that of the root task first, and how they are to come back.
fn survey(seen: &[look::Seen], options: &Options) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for (namespace, seen) in seen.iter().enumerate() {
        let infos = external::without_skipped(&seen.mounts, &options.mounts.skip);
        for info in infos {
            let mut mount = mount(info, namespace);
            if look::is_mapped(&mount.info) {
                let told = seen.id_maps.as_ref().ok();
                let mut told = told.into_iter().flatten();
                let found = told.find(|(id, _)| *id == mount.info.id);
                let refused = || Refusal::mount(&mount.info, MountRefusal::Mapped);
                mount.id_map = Some(found.ok_or_else(refused)?.1.clone());
            }
            mounts.push(mount);
        }
    }
    external::decide(&mut mounts, options)?;
    refusal::refuse(&mounts, &options.mounts)?;
    Ok(mounts)
}

/// What the kernel puts behind the path of what was removed.
const DELETED: &[u8] = b"//deleted";

fn mount(mut info: MountInfo, namespace: usize) -> Mount {
    let stripped = info.root.strip_suffix(DELETED).map(<[u8]>::to_vec);
    let deleted = stripped.is_some();
    info.root = stripped.unwrap_or(info.root);
    Mount {
        namespace,
        kind: kind::of(&info.fs_type),
        fate: Fate::New,
        deleted,
        id_map: None,
        info,
    }
}

fn record(mount: &Mount, new_instance: bool) -> MntEntry {
    let info = &mount.info;
    let (sb_flags, mut options) = kind::super_options(&info.super_options);
    if new_instance {
        options = match options.is_empty() {
            true => b"newinstance".to_vec(),
            false => [&*options, b"newinstance"].join(&b','),
        };
    }
    let (source, ext_key) = match &mount.fate {
        Fate::External(key) => (info.source.clone(), Some(key.clone())),
        Fate::Found { path, .. } => (path.clone(), Some(external::FOUND.to_owned())),
        Fate::Device(key) => (key.clone().into_bytes(), Some(external::DEVICE.to_owned())),
        Fate::Root | Fate::Part | Fate::New => (info.source.clone(), None),
    };
    // A device is given, but what is made of it has to be said.
    let named = mount.kind == Fstype::Auto || matches!(mount.fate, Fate::Device(_));
    let fsname = String::from_utf8_lossy(&info.fs_type).into_owned();
    MntEntry {
        fstype: i32::from(mount.kind).cast_unsigned(),
        mnt_id: info.id.cast_unsigned(),
        root_dev: info.dev.major << 20 | info.dev.minor,
        parent_mnt_id: info.parent.cast_unsigned(),
        flags: kind::flags(info),
        root: info.root.clone(),
        mountpoint: info.mount_point.clone(),
        source,
        options,
        shared_id: Some(info.shared.cast_unsigned()),
        master_id: Some(info.master.cast_unsigned()),
        with_plugin: None,
        ext_mount: None,
        fsname: named.then_some(fsname),
        internal_sharing: match &mount.fate {
            Fate::Found { internal, .. } => internal.then_some(true),
            _ => None,
        },
        deleted: mount.deleted.then_some(true),
        sb_flags: Some(sb_flags),
        ext_key,
        pid_ns: None,
        user_ns: None,
        shown_ns: None,
        id_map: mount.id_map.as_ref().map(|map| UsernsEntry {
            uid_map: map.uids.iter().map(user::extent).collect(),
            gid_map: map.gids.iter().map(user::extent).collect(),
            setgroups_denied: None,
        }),
    }
}
