//! Users and groups of files: those of the tree's own user namespace become those that the restorer sees.

use std::sync::Arc;

use gelid_sys::stand_in::Who;

use super::{FilesPlan, Kind};
use crate::plan::namespaces::user::Users;

impl FilesPlan {
    /// Makes of all users and groups in the plan those outside.
    pub(crate) fn leave_users(&mut self, users: &Users) {
        let both = |(uid, gid): (u32, u32)| (users.uid(uid), users.gid(gid));
        let who = |who: Who| Who {
            uid: users.uid(who.uid),
            gid: users.gid(who.gid),
            ..who
        };
        for ghost in self.ghosts.values_mut() {
            ghost.owner = both(ghost.owner);
        }
        for memory in self.memories.values_mut() {
            memory.owner = both(memory.owner);
        }
        let packets = self.sockets.packets.iter_mut();
        for sender in packets.filter_map(|packet| packet.sender.as_mut()) {
            *sender = who(*sender);
        }
        let lost = self.sockets.lost.iter_mut();
        for bound in lost.filter_map(|lost| lost.name.permissions.as_mut()) {
            (bound.1, bound.2) = both((bound.1, bound.2));
        }
        for owner in self.terminals.owners() {
            *owner = both(*owner);
        }
        for description in Arc::make_mut(&mut self.descriptions).values_mut() {
            if let Some(owner) = &mut description.owner {
                let (real, effective) = owner.users;
                owner.users = (users.uid(real), users.uid(effective));
            }
            match &mut description.kind {
                Kind::Unix(socket) => {
                    socket.peer = socket.peer.map(who);
                    let name = socket.name.as_mut();
                    if let Some(bound) = name.and_then(|name| name.permissions.as_mut()) {
                        (bound.1, bound.2) = both((bound.1, bound.2));
                    }
                }
                // Without a user it is the first one's.
                Kind::Internet(socket) => {
                    socket.uid = Some(users.uid(socket.uid.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }
}
