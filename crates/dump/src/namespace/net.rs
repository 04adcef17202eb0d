//! A network namespace: links, addresses, routes, rules, the firewall, sysctls. Section 21 of the format.
//!
//! All of it is asked for by a thread that has joined the namespace, over netlink, `/proc/sys/net`, and by the programs
//! that print rules.

mod conntrack;
mod firewall;
mod group;
mod link;
mod queue;
mod refused;
mod sysctl;
mod table;

use std::os::fd::{AsRawFd, OwnedFd};

use gelid_image::messages::{GelidNetnsEntry, NdType, NetDeviceEntry, NetnsEntry, NetnsId};
use gelid_image::{ImageKind, Staging};
use gelid_sys::Errno;
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, Builder};
use gelid_sys::netlink::route::{GET_NSID, IPV4, IPV6};
use gelid_sys::proc::ns::Kind;

use super::{Census, Instance, external};
use crate::records::Context;

/// Why a network namespace is not dumped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has not told.
    #[error("cannot {operation} {object} of a network namespace: {errno}")]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// What was to be told.
        object: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// A sysctl could not be read.
    #[error("cannot read the sysctl net/{name} of a network namespace: {source}")]
    Sysctl {
        /// Its path below `/proc/sys/net`.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A link is of a kind that is not dumped.
    #[error("the network link {name} (kind {kind:?}) is not dumped: {why}")]
    Link {
        /// Its name.
        name: String,
        /// Its kind, as `ip link` has it; none if it is a device of the machine.
        kind: String,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// A queueing discipline of a link is not dumped.
    #[error("the queueing discipline {kind} of the network link {link} is not dumped: {why}")]
    Discipline {
        /// The name of the link.
        link: String,
        /// Kind of the discipline, as `tc qdisc` has it.
        kind: String,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// There is something that is not dumped.
    #[error("the network namespace has {what}, which is not dumped yet: remove it first")]
    Unrecorded {
        /// What there is.
        what: &'static str,
    },
    /// A program that tells rules of the firewall is missing.
    #[error(
        "the firewall of the network namespace has rules, which {program} would tell: install it"
    )]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// A program could not be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Its name.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A program has failed.
    #[error("{program} has not told the rules of the firewall: {message}")]
    Failed {
        /// Its name.
        program: String,
        /// What it said.
        message: String,
    },
}

impl Error {
    fn kernel(operation: &'static str, object: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Kernel {
            operation,
            object,
            errno,
        }
    }
}

/// What a namespace knows of the others of the tree.
struct Surroundings {
    /// Its id in the images.
    own: u32,
    /// By which numbers it knows others.
    nsids: Vec<NetnsId>,
}

impl Surroundings {
    /// The id in the images of the namespace with a number; `None` if it is outside of the tree.
    fn known(&self, nsid: i32) -> Option<u32> {
        let mut all = self.nsids.iter();
        all.find(|id| id.netnsid_value == nsid)
            .map(|id| id.target_ns_id)
    }
}

/// Records a network namespace.
pub(super) fn dump(
    instance: &Instance,
    context: Context<'_>,
    census: &Census,
) -> Result<(), crate::Error> {
    let (id, staging) = (instance.id, context.staging);
    if let Some(key) = external::key(&context.options.external, Kind::Net, instance.inode) {
        let entry = NetnsEntry {
            ext_key: Some(key.to_owned()),
            ..NetnsEntry::default()
        };
        return Ok(staging.put(ImageKind::Netns, id, &entry)?);
    }
    if context.options.empty_net {
        // Whoever sets up the rest may not know of it: runc does not.
        let loopback_up = instance.inside(|| Ok(link::loopback_is_up()?))?;
        let gelid = loopback_up.then(|| GelidNetnsEntry {
            loopback_up: Some(true),
            ..GelidNetnsEntry::default()
        });
        let entry = NetnsEntry {
            gelid,
            ..NetnsEntry::default()
        };
        return Ok(staging.put(ImageKind::Netns, id, &entry)?);
    }
    let others = census.of(Kind::Net).filter(|other| other.id != id);
    let others = others.map(|other| Ok((other.id, other.open()?)));
    let others: Vec<(u32, OwnedFd)> = others.collect::<Result<_, crate::Error>>()?;
    let found = instance.inside(|| Ok(look(id, &others)?))?;
    write(staging, id, &found)
}

/// Records the rules of its firewall.
pub(super) fn dump_rules(instance: &Instance, context: Context<'_>) -> Result<(), crate::Error> {
    let options = context.options;
    if options.empty_net || external::key(&options.external, Kind::Net, instance.inode).is_some() {
        return Ok(());
    }
    let rules = instance.inside(|| Ok(firewall::rules()?))?;
    write_raw(context.staging, instance.id, &rules)
}

/// Everything that is recorded of a namespace.
struct Found {
    entry: NetnsEntry,
    links: Vec<NetDeviceEntry>,
    raw: Vec<(ImageKind, Vec<u8>)>,
}

/// Looks at the namespace that the calling thread is in.
fn look(id: u32, others: &[(u32, OwnedFd)]) -> Result<Found, Error> {
    let channel = Channel::route().map_err(Error::kernel("ask for", "the links"))?;
    let around = Surroundings {
        own: id,
        nsids: nsids(&channel, others)?,
    };
    let links = link::all(&channel, &around)?;
    let is_bridge = |link: &NetDeviceEntry| NdType::try_from(link.r#type) == Ok(NdType::Bridge);
    refused::refuse(&channel, links.iter().any(is_bridge))?;
    let (connections, expected) = conntrack::tables()?;
    let raw = vec![
        (ImageKind::Ifaddr, table::addresses(&channel)?),
        (ImageKind::Route, table::routes(&channel, IPV4)?),
        (ImageKind::Route6, table::routes(&channel, IPV6)?),
        (ImageKind::Rule, table::rules(&channel)?),
        (ImageKind::NetnsCt, connections),
        (ImageKind::NetnsExp, expected),
    ];
    let entry = NetnsEntry {
        def_conf4: sysctl::ipv4("default")?,
        all_conf4: sysctl::ipv4("all")?,
        def_conf6: sysctl::ipv6("default")?,
        all_conf6: sysctl::ipv6("all")?,
        nsids: around.nsids,
        unix_conf: vec![sysctl::unix()?],
        ipv4_sysctl: vec![sysctl::ping()?],
        gelid: Some(GelidNetnsEntry {
            sysctls: sysctl::others()?,
            nexthops: table::nexthops(&channel)?,
            neighbours: table::neighbours(&channel)?,
            disciplines: queue::all(&channel, &links)?,
            loopback_up: None,
        }),
        ..NetnsEntry::default()
    };
    Ok(Found { entry, links, raw })
}

/// The numbers by which the namespace of a channel knows others.
fn nsids(channel: &Channel, others: &[(u32, OwnedFd)]) -> Result<Vec<NetnsId>, Error> {
    /// `NETNSA_NSID`
    const NUMBER: u16 = 1;
    /// `NETNSA_FD`
    const FD: u16 = 3;
    let mut found = Vec::new();
    for (id, namespace) in others {
        let mut request = Builder::new(&[0; 4]);
        request.word(FD, namespace.as_raw_fd().cast_unsigned());
        let answer = channel.ask(GET_NSID, request.bytes());
        let answer = answer.map_err(Error::kernel("ask for", "other namespaces"))?;
        let number = Attributes(answer.get(4..).unwrap_or_default()).word(NUMBER);
        if let Some(number) = number.map(u32::cast_signed).filter(|number| *number >= 0) {
            found.push(NetnsId {
                target_ns_id: *id,
                netnsid_value: number,
            });
        }
    }
    Ok(found)
}

fn write(staging: &Staging, id: u32, found: &Found) -> Result<(), crate::Error> {
    staging.put(ImageKind::Netns, id, &found.entry)?;
    let mut links = staging.writer(ImageKind::Netdev, id)?;
    links.touch()?;
    for link in &found.links {
        links.push(link)?;
    }
    links.finish()?;
    write_raw(staging, id, &found.raw)
}

fn write_raw(
    staging: &Staging,
    id: u32,
    images: &[(ImageKind, Vec<u8>)],
) -> Result<(), crate::Error> {
    for (kind, bytes) in images {
        let mut writer = staging.writer(*kind, id)?;
        writer.touch()?.push_payload(bytes)?;
        writer.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_there_is_is_found() {
        let found =
            std::thread::spawn(|| gelid_sys::namespace::leave(Kind::Net).map(|()| look(9, &[])));
        let found = match found.join().unwrap() {
            Err(Errno::PERM) => return,
            found => found.unwrap().unwrap(),
        };
        assert!(found.links.iter().any(|link| link.name == "lo"));
        let kinds: Vec<_> = found.raw.iter().map(|(kind, _)| *kind).collect();
        assert!(kinds.contains(&ImageKind::Ifaddr) && kinds.contains(&ImageKind::Rule));
        assert_eq!(found.entry.all_conf6.len(), 42);
    }
}
