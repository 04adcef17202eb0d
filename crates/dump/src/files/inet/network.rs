//! The network namespaces that sockets are in. Each is looked at by a thread that has joined its own: the kernel tells
//! of those only.

use std::os::fd::OwnedFd;

use gelid_sys::proc::ns::Kind;
use gelid_sys::{Errno, namespace, sockopt};

use super::super::{Collector, Error, Object};
use super::Internet;

/// Number of the dumper's network namespace (section 4.2).
pub(crate) const NETWORK: u32 = 2;

impl Collector<'_> {
    /// Has the calling thread be in the network namespace of a socket; its number, if it is one of the tree.
    pub(in super::super) fn enter_network(
        &mut self,
        object: &Object<'_>,
    ) -> Result<Option<u32>, Error> {
        let theirs = match sockopt::network(object.file) {
            // It takes rights over the network namespace. What is in another one is not found in this one.
            Err(Errno::PERM) if self.census.of(Kind::Net).next().is_none() => {
                return Ok(Some(NETWORK));
            }
            theirs => theirs.map_err(object.failed("ask for the network namespace of"))?,
        };
        let inode = rustix::fs::fstat(&theirs);
        let inode = inode.map_err(object.failed("ask for the network namespace of"))?;
        let own = self.own_network(object)?;
        let mut all = self.census.of(Kind::Net);
        let id = match all.find(|instance| instance.inode == inode.st_ino) {
            Some(instance) => instance.id,
            None if inode.st_ino == own => NETWORK,
            None => return Ok(None),
        };
        let here = self.internet.here;
        if here.unwrap_or(own) != inode.st_ino {
            namespace::join(theirs, Kind::Net)
                .map_err(object.failed("join the network namespace of"))?;
            self.internet.leave(inode.st_ino);
            self.sockets.leave_network();
        }
        Ok(Some(id))
    }

    /// Has the calling thread be in the network namespace of a socket that was met before.
    pub(in super::super) fn enter_network_of(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        if self.census.of(Kind::Net).next().is_none() {
            return Ok(());
        }
        let theirs = sockopt::network(socket)?;
        let inode = rustix::fs::fstat(&theirs)?.st_ino;
        if self.internet.here != Some(inode) {
            namespace::join(theirs, Kind::Net)?;
            self.internet.leave(inode);
            self.sockets.leave_network();
        }
        Ok(())
    }

    /// The same for one that does not say, if there is but one network namespace.
    pub(in super::super) fn network_if_many(
        &mut self,
        object: &Object<'_>,
    ) -> Result<Option<u32>, Error> {
        let alone = self.census.of(Kind::Net).next().is_none();
        match alone {
            true => Ok(Some(NETWORK)),
            false => self.enter_network(object),
        }
    }

    /// Inode of the dumper's.
    fn own_network(&mut self, object: &Object<'_>) -> Result<u64, Error> {
        if let Some(own) = self.internet.own {
            return Ok(own);
        }
        // The process as a whole stays where it is.
        let own = rustix::fs::stat("/proc/self/ns/net");
        let own = own.map_err(object.failed("compare the network namespace of"))?;
        Ok(*self.internet.own.insert(own.st_ino))
    }
}

impl Internet {
    /// Forgets what is true in one namespace only.
    fn leave(&mut self, here: u64) {
        *self = Self {
            here: Some(here),
            own: self.own,
            connections: std::mem::take(&mut self.connections),
            ..Self::default()
        };
    }
}
