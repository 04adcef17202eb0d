//! User namespaces below that of the root: who is who there, which lies in which, and what belongs to them.

use std::collections::BTreeMap;

use gelid_image::Dir;
use gelid_sys::clone::flags::NEWUSER;
use gelid_sys::proc::ns::IdRange;

use super::user::{Users, outside};
use super::{Namespaces, Nested};
use crate::plan::PlanError;

/// Levels of user namespaces that a kernel allows.
const DEEPEST: usize = 32;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Below {
    /// Its maps, with those outside as the root's user namespace has them.
    pub(crate) maps: Users,
    /// The one above, if that is not the root's.
    pub(crate) parent: Option<u32>,
    /// Who has made it, as the root's has it.
    pub(crate) creator: u32,
}

/// Reads all of them.
pub(super) fn read(
    dir: &Dir,
    known: &BTreeMap<u32, Nested>,
) -> Result<BTreeMap<u32, Below>, PlanError> {
    let mut all = BTreeMap::new();
    for (id, nested) in known.iter().filter(|(_, nested)| nested.flag == NEWUSER) {
        let below = Below {
            maps: Users::read(dir, *id)?,
            parent: nested.parent,
            creator: nested.creator,
        };
        all.insert(*id, below);
    }
    check(&all, known)?;
    Ok(all)
}

/// Refuses those that do not lie in each other.
fn check(all: &BTreeMap<u32, Below>, known: &BTreeMap<u32, Nested>) -> Result<(), PlanError> {
    for (id, below) in all {
        let wrong = PlanError::Users { id: *id };
        let mut above = below.parent;
        let mut levels = 0;
        while let Some(parent) = above {
            let parent = all.get(&parent).filter(|_| levels < DEEPEST);
            let Some(parent) = parent else {
                return Err(wrong);
            };
            above = parent.parent;
            levels += 1;
        }
        let parent = below.parent.and_then(|parent| all.get(&parent));
        let uids = relative(&below.maps.uids, parent.map(|parent| &parent.maps.uids));
        let gids = relative(&below.maps.gids, parent.map(|parent| &parent.maps.gids));
        if uids.is_none() || gids.is_none() {
            return Err(wrong);
        }
    }
    for (id, nested) in known {
        if nested.owner.is_some_and(|owner| !all.contains_key(&owner)) {
            return Err(PlanError::Users { id: *id });
        }
    }
    Ok(())
}

/// A map as whoever is in the namespace above writes it; `None` if that does not have all of it.
fn relative(map: &[IdRange], above: Option<&Vec<IdRange>>) -> Option<Vec<IdRange>> {
    let Some(above) = above else {
        return Some(map.to_vec());
    };
    let range = |range: &IdRange| {
        let first = super::user::inside(above, range.outside)?;
        let last = range.outside.checked_add(range.count - 1)?;
        let is_whole = super::user::inside(above, last)? == first.checked_add(range.count - 1)?;
        is_whole.then_some(IdRange {
            outside: first,
            ..*range
        })
    };
    map.iter().map(range).collect()
}

impl Namespaces {
    /// The user namespace above another.
    pub(crate) fn users_above(&self, users: u32) -> Option<u32> {
        self.below.get(&users)?.parent
    }

    /// The user namespace that another one belongs to; `None` is that of the root.
    pub(crate) fn owner(&self, id: u32) -> Option<u32> {
        self.known.get(&id)?.owner
    }

    /// Whether somebody in `above` may do everything in `users`; `None` is that of the root.
    pub(crate) fn rules(&self, above: Option<u32>, users: Option<u32>) -> bool {
        let mut at = users;
        loop {
            match at {
                _ if at == above => return true,
                None => return false,
                Some(users) => at = self.users_above(users),
            }
        }
    }

    /// Who is root, as the restorer knows him, in the user namespace below that of the root that another one belongs to.
    pub(crate) fn root_of_owner(&self, id: u32) -> Option<(u32, u32)> {
        let maps = &self.below.get(&self.owner(id)?)?.maps;
        let (uid, gid) = (outside(&maps.uids, 0), outside(&maps.gids, 0));
        let users = self.user.as_ref();
        let uid = uid.map(|uid| users.map_or(uid, |users| users.uid(uid)));
        let gid = gid.map(|gid| users.map_or(gid, |users| users.gid(gid)));
        // Where nobody is, it is that of the machine.
        Some((uid.unwrap_or(0), gid.unwrap_or(0)))
    }

    /// The first user of one and his group, as the root's has them.
    pub(crate) fn first_user_of(&self, users: u32) -> Option<(u32, u32)> {
        let maps = &self.below.get(&users)?.maps;
        Some((
            outside(&maps.uids, maps.first_uid()?)?,
            outside(&maps.gids, maps.first_gid()?)?,
        ))
    }

    /// The maps of one as they are written in the one above: of users, and of groups.
    pub(crate) fn maps(&self, users: u32) -> Option<(Vec<IdRange>, Vec<IdRange>)> {
        let below = self.below.get(&users)?;
        let parent = below.parent.and_then(|parent| self.below.get(&parent));
        Some((
            relative(&below.maps.uids, parent.map(|parent| &parent.maps.uids))?,
            relative(&below.maps.gids, parent.map(|parent| &parent.maps.gids))?,
        ))
    }

    /// Who a user of the root's user namespace is in another.
    pub(crate) fn uid_in(&self, users: Option<u32>, uid: u32) -> Option<u32> {
        match users {
            None => Some(uid),
            Some(users) => self.below.get(&users)?.maps.inside_uid(uid),
        }
    }

    /// The same of a group.
    pub(crate) fn gid_in(&self, users: Option<u32>, gid: u32) -> Option<u32> {
        match users {
            None => Some(gid),
            Some(users) => self.below.get(&users)?.maps.inside_gid(gid),
        }
    }

    /// Numbers of all, those above before those below.
    pub(crate) fn users_in_order(&self) -> Vec<u32> {
        let level = |id: &u32| {
            let above = std::iter::successors(Some(*id), |id| self.users_above(*id));
            above.count()
        };
        let mut all: Vec<u32> = self.below.keys().copied().collect();
        all.sort_by_key(level);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange {
            inside,
            outside,
            count,
        }
    }

    fn below(parent: Option<u32>, map: &[IdRange]) -> Below {
        Below {
            maps: Users {
                uids: map.to_vec(),
                gids: map.to_vec(),
                denies_groups: false,
                makers: None,
            },
            parent,
            creator: 0,
        }
    }

    #[test]
    fn maps_are_told_to_the_one_above() {
        let above = vec![range(0, 1000, 10), range(10, 5000, 10)];
        let map = [range(0, 1002, 3), range(7, 5005, 5)];
        let told = relative(&map, Some(&above));
        assert_eq!(told, Some(vec![range(0, 2, 3), range(7, 15, 5)]));
        assert_eq!(relative(&[range(0, 1008, 3)], Some(&above)), None);
        assert_eq!(relative(&[range(0, 999, 1)], Some(&above)), None);
    }

    #[test]
    fn those_that_lie_in_each_other_are_refused() {
        let known = BTreeMap::new();
        let sound: BTreeMap<_, _> = [
            (7, below(None, &[range(0, 5, 5)])),
            (8, below(Some(7), &[range(3, 6, 1)])),
        ]
        .into();
        check(&sound, &known).unwrap();
        for (id, spoilt) in [
            (7, below(Some(8), &[])),
            (8, below(Some(8), &[])),
            (8, below(Some(9), &[])),
            (8, below(Some(7), &[range(3, 2, 1)])),
        ] {
            let mut all = sound.clone();
            all.insert(id, spoilt);
            check(&all, &known).unwrap_err();
        }
        let stray = Nested {
            flag: 0,
            parent: None,
            owner: Some(9),
            creator: 0,
        };
        check(&sound, &[(3, stray)].into()).unwrap_err();
    }

    #[test]
    fn who_is_above_rules() {
        let namespaces = Namespaces {
            below: [(7, below(Some(9), &[])), (9, below(None, &[]))].into(),
            ..Namespaces::default()
        };
        assert_eq!(namespaces.users_in_order(), [9, 7]);
        assert!(namespaces.rules(None, Some(7)) && namespaces.rules(Some(9), Some(7)));
        assert!(!namespaces.rules(Some(7), Some(9)) && !namespaces.rules(Some(7), None));
    }
}
