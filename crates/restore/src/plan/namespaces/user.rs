//! Users and groups of a user namespace, and who they are outside. Section 19.3 of the format.

use gelid_image::messages::{UidGidExtent, UsernsEntry};
use gelid_image::{Dir, ImageKind};
use gelid_sys::proc::ns::IdRange;

use crate::plan::{Life, PlanError};

/// Most lines of a map (`UID_GID_MAP_MAX_EXTENTS`).
const LINES: usize = 340;

/// The maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Users {
    pub(crate) uids: Vec<IdRange>,
    pub(crate) gids: Vec<IdRange>,
    /// `setgroups(2)` is denied.
    pub(crate) denies_groups: bool,
    /// The user and the group that make what the tree gets, if not the first.
    pub(crate) makers: Option<(u32, u32)>,
}

impl Users {
    pub(super) fn read(dir: &Dir, id: u32) -> Result<Self, PlanError> {
        let entry: UsernsEntry = dir.read_one(ImageKind::Userns, id)?;
        Self::check(&entry).ok_or(PlanError::Users { id })
    }

    /// Checks maps; `None` if there can be no such ones.
    pub(super) fn check(entry: &UsernsEntry) -> Option<Self> {
        let map = |extents: &[UidGidExtent]| {
            let range = |extent: &UidGidExtent| IdRange {
                inside: extent.first,
                outside: extent.lower_first,
                count: extent.count,
            };
            let fits = |range: &IdRange| {
                let end = |first: u32| first.checked_add(range.count);
                range.count > 0 && end(range.inside).is_some() && end(range.outside).is_some()
            };
            let map: Vec<IdRange> = extents.iter().map(range).collect();
            (map.len() <= LINES && map.iter().all(fits)).then_some(map)
        };
        Some(Self {
            uids: map(&entry.uid_map)?,
            gids: map(&entry.gid_map)?,
            denies_groups: entry.setgroups_denied.unwrap_or_default(),
            makers: None,
        })
    }
}

impl Users {
    /// The user that may do everything, or else the first that there is.
    pub(crate) fn first_uid(&self) -> Option<u32> {
        let given = self.makers.map(|(uid, _)| uid);
        given.or_else(|| first(&self.uids))
    }

    /// The same of groups.
    pub(crate) fn first_gid(&self) -> Option<u32> {
        let given = self.makers.map(|(_, gid)| gid);
        given.or_else(|| first(&self.gids))
    }
}

impl Users {
    /// Who a user is outside. What is not mapped is what the kernel shows instead of it.
    pub(crate) fn uid(&self, uid: u32) -> u32 {
        outside(&self.uids, uid).unwrap_or(uid)
    }

    /// The same of a group.
    pub(crate) fn gid(&self, gid: u32) -> u32 {
        outside(&self.gids, gid).unwrap_or(gid)
    }
}

fn first(map: &[IdRange]) -> Option<u32> {
    outside(map, 0)
        .map(|_| 0)
        .or(map.first().map(|range| range.inside))
}

impl Users {
    /// Makes of users that images have as the dumper saw them those inside.
    pub(crate) fn enter(&self, lives: &mut [Life]) {
        for life in lives {
            if let Life::Alive(alive) = life {
                alive.process.enter_users(|uid| self.inside_uid(uid));
            }
        }
    }

    /// Who a user of outside is inside.
    pub(crate) fn inside_uid(&self, outside: u32) -> Option<u32> {
        inside(&self.uids, outside)
    }

    /// The same of a group.
    pub(crate) fn inside_gid(&self, outside: u32) -> Option<u32> {
        inside(&self.gids, outside)
    }
}

pub(super) fn inside(map: &[IdRange], outside: u32) -> Option<u32> {
    let is_in =
        |range: &&IdRange| outside >= range.outside && outside - range.outside < range.count;
    let range = map.iter().find(is_in)?;
    Some(range.inside + (outside - range.outside))
}

/// Who an id is outside; `None` if it is not mapped.
pub(crate) fn outside(map: &[IdRange], inside: u32) -> Option<u32> {
    let range = map
        .iter()
        .find(|range| inside >= range.inside && inside - range.inside < range.count)?;
    Some(range.outside + (inside - range.inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped() {
        let map = [IdRange {
            inside: 10,
            outside: 1000,
            count: 5,
        }];
        assert_eq!(outside(&map, 14), Some(1004));
        assert_eq!(outside(&map, 15), None);
        assert_eq!(outside(&map, 9), None);
    }
}
