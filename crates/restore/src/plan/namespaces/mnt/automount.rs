//! Automounters: `autofs-*.img`. Section 20.4 of the format.

use std::collections::BTreeSet;

use gelid_image::messages::AutofsEntry;
use gelid_image::{Dir, ImageKind};

use super::Mounts;
use super::filesystem::{Filesystem, New, Origin};
use crate::files::Name;
use crate::plan::PlanError;

/// What the kernel calls them.
pub(super) const NAME: &str = "autofs";

/// What an automounter is told with the mount; who is asked comes later.
const OPTIONS: [&str; 9] = [
    "direct",
    "indirect",
    "offset",
    "minproto",
    "maxproto",
    "uid",
    "gid",
    "strictexpire",
    "ignore",
];

/// More directories and links than an automounter has.
const PARTS: usize = 100_000;

/// Who is asked for what is in an automounter, and what is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Automount {
    /// Somebody is.
    pub(crate) is_asked: bool,
    /// The process group that is let alone.
    pub(crate) group: i32,
    /// The number of the pipe's descriptor.
    pub(crate) number: Option<i32>,
    /// The number by which the leader of the group reads it, if it has closed that one.
    pub(crate) read_fd: Option<i32>,
    /// The pipe, if it is named.
    pub(crate) pipe: Option<u32>,
    /// Seconds.
    pub(crate) timeout: u32,
    pub(crate) parts: Vec<Part>,
}

/// A directory or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Below the root; directories on the way to it are among those before it.
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    /// Where a link leads.
    pub(crate) target: Option<Vec<u8>>,
}

/// Reads what belongs to a file system if that is an automounter.
pub(super) fn read(dir: &Dir, filesystem: &mut Filesystem) -> Result<(), PlanError> {
    let dev = filesystem.dev;
    let Origin::New(new) = &mut filesystem.origin else {
        return Ok(());
    };
    if new.name != NAME {
        return Ok(());
    }
    let entry: AutofsEntry = dir.read_one(ImageKind::Autofs, dev)?;
    let automount = check(entry).map_err(|what| PlanError::Mount {
        id: 0,
        point: format!("an autofs ({dev:#x})"),
        what: what.into(),
    })?;
    new.options.retain(|(key, _)| OPTIONS.contains(&&**key));
    new.automount = Some(Box::new(automount));
    Ok(())
}

/// Adds directories that something is mounted on: images of others do not tell what is in an automounter.
pub(super) fn make_room(plan: &mut Mounts) {
    for mount in &plan.mounts {
        let Some(parent) = mount.parent.map(|parent| &plan.mounts[parent]) else {
            continue;
        };
        let Origin::New(New {
            automount: Some(automount),
            ..
        }) = &mut plan.filesystems[parent.filesystem].origin
        else {
            continue;
        };
        let mut path = Vec::new();
        let names = [&parent.root, &mount.at].into_iter();
        for name in names.flat_map(|path| path.split(|byte| *byte == b'/')) {
            if name.is_empty() {
                continue;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if !automount.parts.iter().any(|part| part.path == path) {
                automount.parts.push(Part {
                    path: path.clone(),
                    mode: 0o755,
                    target: None,
                });
            }
        }
    }
}

fn check(entry: AutofsEntry) -> Result<Automount, &'static str> {
    let is_asked = entry.fd >= 0;
    if is_asked && entry.pgrp <= 0 {
        return Err("its daemon has no process group");
    }
    let timeout = u32::try_from(entry.timeout).map_err(|_| "its timeout is below zero")?;
    if entry.parts.len() > PARTS {
        return Err("there is too much in it");
    }
    let mut parts = Vec::with_capacity(entry.parts.len());
    let mut directories = BTreeSet::new();
    for part in entry.parts {
        let name = Name::new(&[b"/", &*part.path].concat())?;
        let path = name.relative_to_root();
        let parent = path.iter().rposition(|byte| *byte == b'/');
        let parent = parent.map(|at| &path[..at]);
        let ends = |text: &[u8]| text.is_empty() || text.contains(&0);
        let target = part.target;
        let is_lost = parent.is_some_and(|parent| !directories.contains(parent));
        let is_odd = ends(path) || target.as_deref().is_some_and(ends) || part.mode & !0o7777 != 0;
        if is_lost || is_odd {
            return Err("there is something in it that cannot be there");
        }
        if target.is_none() {
            directories.insert(path.to_vec());
        }
        parts.push(Part {
            path: path.to_vec(),
            mode: part.mode,
            target,
        });
    }
    Ok(Automount {
        is_asked,
        group: entry.pgrp,
        number: is_asked.then_some(entry.fd),
        read_fd: entry.read_fd,
        pipe: entry.pipe_id,
        timeout,
        parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::GelidAutofsPart;

    fn entry(path: &[u8], target: Option<&[u8]>) -> AutofsEntry {
        AutofsEntry {
            fd: 4,
            pgrp: 7,
            timeout: 60,
            parts: vec![GelidAutofsPart {
                path: path.to_vec(),
                mode: 0o755,
                target: target.map(<[u8]>::to_vec),
            }],
            ..AutofsEntry::default()
        }
    }

    #[test]
    fn parts_are_in_directories() {
        let mut both = entry(b"a", None);
        both.parts.extend(entry(b"a/b", None).parts);
        let plan = check(both).unwrap();
        assert_eq!(plan.parts[1].path, b"a/b");
        assert!(plan.is_asked && plan.number == Some(4));
        assert!(
            !check(AutofsEntry {
                fd: -1,
                ..entry(b"a", None)
            })
            .unwrap()
            .is_asked
        );
    }

    #[test]
    fn nothing_leads_out() {
        for (path, target) in [
            (&b"../x"[..], None),
            (b"", None),
            (b"a\0", None),
            (b"a", Some(&b""[..])),
            (b"a", Some(b"b\0")),
        ] {
            assert!(check(entry(path, target)).is_err(), "{path:?}");
        }
        // One that leads elsewhere is no directory.
        let mut linked = entry(b"a", Some(b"/etc"));
        linked.parts.extend(entry(b"a/b", None).parts);
        assert!(check(linked).is_err());
        let sane = || entry(b"a", None);
        assert!(check(AutofsEntry { pgrp: 0, ..sane() }).is_err());
        assert!(
            check(AutofsEntry {
                timeout: -1,
                ..sane()
            })
            .is_err()
        );
    }
}
