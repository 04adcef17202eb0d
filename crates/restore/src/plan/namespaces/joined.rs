//! Namespaces of the caller's that the root of the tree is to be in, instead of new ones: `--join-ns`, and pid namespaces
//! by `--inherit-fd`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use gelid_image::messages::PidnsEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::proc::ns::Kind;

use super::super::ipc::Ipc;
use super::super::space::{Backing, Space};
use super::super::{Plan, PlanError};
use super::net::Given;

/// Namespaces that the caller gives, by kind. That of the network is said with [`NetOptions`](crate::NetOptions).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinOptions {
    /// The host, by its name in `/proc`.
    pub uts: Option<PathBuf>,
    /// System V IPC and message queues. What is there stays as it is; shared memory that tasks of the tree are attached to
    /// is made if it is not there.
    pub ipc: Option<PathBuf>,
    /// Clocks.
    pub time: Option<PathBuf>,
    /// Mounts, which are not looked at: paths of the tree are opened there.
    pub mnt: Option<PathBuf>,
    /// Pids, which the tree must find free.
    pub pid: Option<PathBuf>,
}

impl JoinOptions {
    /// All that are given.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Kind, &PathBuf)> {
        let all = [
            (Kind::Uts, &self.uts),
            (Kind::Ipc, &self.ipc),
            (Kind::Time, &self.time),
            (Kind::Mnt, &self.mnt),
            (Kind::Pid, &self.pid),
        ];
        let given = all.into_iter();
        given.filter_map(|(kind, path)| Some((kind, path.as_ref()?)))
    }
}

/// How the caller is to give the pid namespace of the root, if that is not a new one.
pub(super) fn pids(dir: &Dir, id: u32) -> Result<Option<Given>, PlanError> {
    let entry: Option<PidnsEntry> = dir.read_opt(ImageKind::Pidns, id)?;
    Ok(entry.and_then(|entry| entry.ext_key).map(Given::Key))
}

impl Plan {
    /// Has the root be in what the caller gives.
    pub(crate) fn join(&mut self, options: &JoinOptions) -> Result<(), PlanError> {
        for (kind, path) in options.all() {
            let namespaces = &mut self.namespaces;
            let own = namespaces.root(kind);
            namespaces.root.retain(|(own, _)| *own != kind);
            namespaces.is_joined = true;
            match kind {
                Kind::Uts => namespaces.uts = None,
                Kind::Time => namespaces.time = None,
                Kind::Mnt if namespaces.has_nested_mounts() => {
                    return Err(PlanError::Namespace {
                        pid: self.root(),
                        kind: kind.name(),
                    });
                }
                Kind::Pid => {
                    let own = own.unwrap_or_default();
                    namespaces.root.push((kind, own));
                    namespaces.given_pids = Some(Given::Path(path.clone()));
                }
                Kind::Ipc => self.ipc.join(&self.spaces),
                _ => {}
            }
        }
        self.check_first()
    }

    /// Refuses a root that could not have its number.
    fn check_first(&mut self) -> Result<(), PlanError> {
        let pid = self.root();
        let namespaces = &mut self.namespaces;
        if namespaces.given_pids.is_some() {
            namespaces.last_pid = None;
        } else if namespaces.root(Kind::Pid).is_some() && pid != 1 {
            return Err(PlanError::Tree {
                pid,
                what: "is the root in a pid namespace of its own, but not the first process there; give a namespace \
                       for it (--join-ns pid:PATH)",
            });
        }
        Ok(())
    }
}

impl Ipc {
    /// Leaves what is in a namespace of others to them, but for memory that tasks are attached to.
    fn join(&mut self, spaces: &[Space]) {
        let areas = spaces.iter().flat_map(|space| &space.areas);
        let attached: BTreeSet<i32> = areas
            .filter_map(|area| match area.backing {
                Backing::Segment { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        self.variables = None;
        self.sets.clear();
        self.queues.clear();
        self.segments
            .retain(|segment| attached.contains(&segment.identity.id));
        for segment in &mut self.segments {
            segment.is_common = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::SharedPages;
    use crate::plan::ipc::{Identity, Segment};

    #[test]
    fn what_others_have_stays_theirs() {
        let segment = Segment {
            identity: Identity {
                id: 3,
                perm: gelid_sys::ipc::Perm::default(),
            },
            key: 3,
            size: 1,
            huge: None,
            known: None,
            is_common: false,
            pages: SharedPages::default(),
        };
        let mut ipc = Ipc {
            segments: vec![segment],
            ..Ipc::default()
        };
        ipc.join(&[]);
        assert!(ipc.segments.is_empty());
    }
}
