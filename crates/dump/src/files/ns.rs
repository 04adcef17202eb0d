//! Files of `/proc/PID/ns`. Section 16.2 of the format.

use gelid_image::messages::{FdTypes, FileEntry, NsFileEntry};
use gelid_sys::proc::ns::Kind;

use super::regfile::Opening;
use super::{Collector, Error, Object, Unsupported};
use crate::namespace::{Census, Own};
use gelid_sys::clone::flags as flag;

/// The kind of a namespace, by what its link begins with.
pub(super) fn kind(name: &[u8]) -> Option<Kind> {
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|kind| kind.name().as_bytes() == name)
}

impl Collector<'_> {
    /// Records an open namespace: the dumper's own, or a network namespace of the tree.
    pub(super) fn namespace(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        kind: Kind,
    ) -> Result<(FdTypes, u32), Error> {
        let own = rustix::fs::stat(format!("/proc/self/ns/{}", kind.name()));
        let own = own.map_err(object.failed("compare"))?;
        let ids = Own::look()?.ids();
        let (clone_flag, ns_id) = match kind {
            Kind::Mnt => (flag::NEWNS, ids.mnt_ns_id),
            Kind::Cgroup => (flag::NEWCGROUP, ids.cgroup_ns_id),
            Kind::Uts => (flag::NEWUTS, ids.uts_ns_id),
            Kind::Ipc => (flag::NEWIPC, ids.ipc_ns_id),
            Kind::User => (flag::NEWUSER, ids.user_ns_id),
            Kind::Pid | Kind::PidForChildren => (flag::NEWPID, ids.pid_ns_id),
            Kind::Net => (flag::NEWNET, ids.net_ns_id),
            Kind::Time | Kind::TimeForChildren => (flag::NEWTIME, ids.time_ns_id),
        };
        let is_own = (own.st_dev, own.st_ino) == object.inode();
        let inode = object.stat.st_ino;
        let of_tree = |census: &Census| {
            let mut networks = census.of(Kind::Net);
            networks.find(|net| net.inode == inode).map(|net| net.id)
        };
        let ns_id = match is_own {
            true => ns_id,
            false if kind == Kind::Net => of_tree(&self.census),
            false => None,
        };
        let Some(ns_id) = ns_id else {
            return Err(object.unsupported(Unsupported::Namespace));
        };
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Ns.into(),
            id,
            nsf: Some(NsFileEntry {
                id,
                ns_id,
                ns_cflag: clone_flag as u32,
                flags: opening.flags,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Ns, id))
    }
}
