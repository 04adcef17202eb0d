//! The network namespaces of a tree. A socket belongs to the one in which it is made, so this thread joins that first.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use gelid_sys::Errno;
use gelid_sys::namespace::join;
use gelid_sys::proc::ns::Kind as Namespace;

use super::open::Opener;
use super::{Error, FilesPlan, Kind};

/// Network namespaces by their numbers in the images; none if the tree has but that of the restorer.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    namespaces: BTreeMap<u32, OwnedFd>,
    /// Names of TUN devices, each in one of them, that go when nobody has them open.
    fleeting: BTreeSet<(u32, String)>,
    /// The one that this thread is in.
    here: AtomicU32,
}

impl Networks {
    /// All that there are; this thread is in `here`.
    pub(crate) fn new(
        namespaces: BTreeMap<u32, OwnedFd>,
        fleeting: BTreeSet<(u32, String)>,
        here: u32,
    ) -> Self {
        Self {
            namespaces,
            fleeting,
            here: AtomicU32::new(here),
        }
    }

    /// Whether a TUN device goes when nobody has it open.
    pub(super) fn is_fleeting(&self, network: u32, device: &str) -> bool {
        self.fleeting.contains(&(network, device.to_owned()))
    }

    /// One of them.
    pub(crate) fn get(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.namespaces.get(&id).map(AsFd::as_fd)
    }

    /// Has this thread be in one of them. Others, and those without a number, are the one it is in.
    pub(crate) fn enter(&self, id: Option<u32>) -> Result<(), Errno> {
        let Some((id, namespace)) = id.and_then(|id| Some((id, self.namespaces.get(&id)?))) else {
            return Ok(());
        };
        if self.here.load(Ordering::Relaxed) != id {
            join(namespace, Namespace::Net)?;
            self.here.store(id, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Opener<'_> {
    /// Has this thread be in the network namespace of a file.
    pub(super) fn enter_network(&self, id: u32, object: impl ToString) -> Result<(), Error> {
        if self.networks.namespaces.is_empty() {
            return Ok(());
        }
        let description = self.plan.descriptions.get(&id);
        let network = description.and_then(|description| description.network);
        let failed = Error::system("join the network namespace of", object);
        self.networks.enter(network).map_err(failed)
    }
}

impl FilesPlan {
    /// Numbers of the network namespaces that sockets and open files of `/proc/PID/ns` name.
    pub(crate) fn networks(&self) -> BTreeSet<u32> {
        let all = self.descriptions.values();
        all.filter_map(|description| match &description.kind {
            Kind::Namespace(namespace) => namespace.network,
            _ => description.network,
        })
        .collect()
    }
}
