//! Files of `/proc/PID/ns`: those of this process stand in for those of the dumper.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use gelid_image::messages::{InventoryEntry, NsFileEntry, TaskKobjIdsEntry};
use gelid_image::{Dir, ImageKind};
use gelid_sys::clone::flags as flag;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::open::{Opener, set_status};
use super::{Error, Kind};

/// A namespace that a task has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    /// Its kind, as in `/proc/PID/ns`.
    pub kind: &'static str,
    /// Number in the images of a network namespace.
    pub network: Option<u32>,
    /// The dumper was in it. Another one stands for it if the caller gives one.
    pub is_dumpers: bool,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network.filter(|_| !self.is_dumpers) {
            None => write!(f, "{} namespace of the restore", self.kind),
            Some(id) => write!(f, "network namespace {id} of the tree"),
        }
    }
}

/// Checks a record: the namespace must be that of the dumper, or one of a network.
pub(super) fn plan(dir: &Dir, object: &str, entry: &NsFileEntry) -> Result<Namespace, Error> {
    let inventory: Option<InventoryEntry> = dir.read_opt(ImageKind::Inventory, ())?;
    let host = inventory.and_then(|inventory| inventory.root_ids);
    let id = |of: fn(&TaskKobjIdsEntry) -> Option<u32>| host.as_ref().and_then(of);
    let (kind, host) = match u64::from(entry.ns_cflag) {
        flag::NEWNS => ("mnt", id(|ids| ids.mnt_ns_id)),
        flag::NEWCGROUP => ("cgroup", id(|ids| ids.cgroup_ns_id)),
        flag::NEWUTS => ("uts", id(|ids| ids.uts_ns_id)),
        flag::NEWIPC => ("ipc", id(|ids| ids.ipc_ns_id)),
        flag::NEWUSER => ("user", id(|ids| ids.user_ns_id)),
        flag::NEWPID => ("pid", id(|ids| ids.pid_ns_id)),
        flag::NEWNET => ("net", id(|ids| ids.net_ns_id)),
        flag::NEWTIME => ("time", id(|ids| ids.time_ns_id)),
        _ => {
            let rule = "it is the flag of one kind of namespace";
            return Err(Error::invalid(object, "ns_cflag", entry.ns_cflag, rule));
        }
    };
    let network = Some(entry.ns_id).filter(|_| kind == "net");
    let is_dumpers = host.is_none_or(|host| host == entry.ns_id);
    match is_dumpers || network.is_some() {
        true => Ok(Namespace {
            kind,
            network,
            is_dumpers,
        }),
        false => Err(Error::Unsupported {
            object: object.to_owned(),
            what: "a namespace of the tree's own",
            remedy: "dump the program without it",
        }),
    }
}

/// Opens all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Namespace(namespace) = &description.kind else {
            continue;
        };
        let label = description.label();
        let own = format!("/proc/self/ns/{}", namespace.kind);
        let path = match namespace.network.and_then(|id| opener.networks.get(id)) {
            Some(network) => format!("/proc/thread-self/fd/{}", network.as_raw_fd()),
            None if !namespace.is_dumpers => {
                return Err(opener.failed("find", &label, Errno::NOENT));
            }
            None => own,
        };
        let opened = rustix::fs::open(path, description.flags.to_open(), Mode::empty());
        let opened = opened.map_err(|errno| opener.failed("open", &label, errno))?;
        set_status(opened.as_fd(), description.flags.status(), &label)?;
        opener.add_raised(description.id, opened, &label)?;
    }
    Ok(())
}
