//! Namespaces of the caller's that the root of the tree is to be in, instead of new ones: `--join-ns`, and pid namespaces
//! by `--inherit-fd`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use gelid_image::messages::PidnsEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::proc::ns::Kind;

use super::super::ipc::Ipc;
use super::super::space::{Backing, Space};
use super::super::{Life, Plan, PlanError};
use super::Namespaces;
use super::below::Below;
use super::net::Given;
use super::user::{Users, outside};

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
    /// Users and groups: those of the images are the ones inside.
    pub user: Option<PathBuf>,
    /// The user and the group there that make what the tree gets; those who may do everything, if none are given.
    pub ids: Option<(u32, u32)>,
}

/// Number of a user namespace that tasks enter when all is made, among those below that of the root. No image has it.
pub(crate) const USERS: u32 = u32::MAX;

/// A user namespace that the caller gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUsers {
    pub(crate) maps: Users,
    /// The root is born there, and its other namespaces belong to it, as they did when it was dumped.
    pub(crate) is_early: bool,
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

impl Namespaces {
    /// Has the tree be in a user namespace that the caller gives.
    ///
    /// Where it had one before, and pids of its own, it is born in there. Otherwise nobody there may give it its numbers:
    /// then tasks enter it last, and what they have belongs to those above, as it did before.
    pub(crate) fn join_users(
        &mut self,
        given: &Users,
        options: &JoinOptions,
        (root, lives): (i32, &mut [Life]),
    ) -> Result<(), PlanError> {
        if let Some(id) = self.below.keys().next() {
            let kind = Kind::User.name();
            tracing::debug!("user namespace {id} is below that of the root");
            return Err(PlanError::Namespace { pid: root, kind });
        }
        let has_pids = self.root(Kind::Pid).is_some() && self.given_pids.is_none();
        let is_early = self.user.is_some() && has_pids && options.pid.is_none();
        let maps = Users {
            makers: options.ids,
            ..given.clone()
        };
        for life in lives {
            if let Life::Alive(alive) = life {
                for thread in &mut alive.threads {
                    let tid = thread.tid;
                    let unknown = |id| PlanError::Unknown { pid: tid, id };
                    let uid = |id: u32| outside(&maps.uids, id).ok_or_else(|| unknown(id));
                    let gid = |id: u32| outside(&maps.gids, id).ok_or_else(|| unknown(id));
                    thread.state.leave_users(uid, gid, is_early)?;
                }
                alive.users = (!is_early).then_some(USERS);
            }
        }
        self.is_joined = true;
        self.root.retain(|(kind, _)| *kind != Kind::User);
        self.user = is_early.then(|| maps.clone());
        if !is_early {
            let below = Below {
                maps: maps.clone(),
                parent: None,
                creator: 0,
            };
            self.below.insert(USERS, below);
        }
        self.given_users = Some(GivenUsers { maps, is_early });
        Ok(())
    }

    /// Who those are outside whom images name.
    pub(crate) fn outside(&self) -> Option<&Users> {
        let given = self.given_users.as_ref();
        self.user.as_ref().or(given.map(|given| &given.maps))
    }
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
    use crate::plan::ipc::{Identity, Segment};
    use gelid_pages::Pagemap;

    fn users(first: u32) -> Users {
        let map = vec![gelid_sys::proc::ns::IdRange {
            inside: 0,
            outside: first,
            count: 9,
        }];
        Users {
            uids: map.clone(),
            gids: map,
            denies_groups: false,
            makers: None,
        }
    }

    #[test]
    fn a_tree_is_born_where_it_can_have_its_numbers() {
        let own = || Namespaces {
            root: vec![(Kind::Pid, 7), (Kind::User, 8)],
            user: Some(users(500)),
            ..Namespaces::default()
        };
        let mut plain = JoinOptions {
            ids: Some((3, 4)),
            ..JoinOptions::default()
        };
        let mut early = own();
        early.join_users(&users(900), &plain, (1, &mut [])).unwrap();
        assert_eq!(early.outside().map(|users| users.uid(1)), Some(901));
        assert_eq!(early.flags(), gelid_sys::clone::flags::NEWPID);
        let makers = early.user.as_ref();
        let makers = makers.map(|users| (users.first_uid(), users.first_gid()));
        assert_eq!(makers, Some((Some(3), Some(4))));
        assert!(early.below.is_empty());

        plain.pid = Some("/proc/1/ns/pid".into());
        for (mut late, options) in [
            (own(), &plain),
            (Namespaces::default(), &JoinOptions::default()),
        ] {
            late.join_users(&users(900), options, (1, &mut [])).unwrap();
            assert!(late.user.is_none() && late.any());
            assert_eq!(late.outside().map(|users| users.uid(1)), Some(901));
            assert_eq!(late.uid_in(Some(USERS), 902), Some(2));
            let again = late.join_users(&users(900), options, (1, &mut []));
            assert!(again.is_err(), "there is one below");
        }
    }

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
            pages: Pagemap::default(),
        };
        let mut ipc = Ipc {
            segments: vec![segment],
            ..Ipc::default()
        };
        ipc.join(&[]);
        assert!(ipc.segments.is_empty());
    }
}
