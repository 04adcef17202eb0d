//! Makes links.

use std::collections::HashSet;
use std::os::fd::AsRawFd;

use gelid_image::messages::TunLinkEntry;
use gelid_sys::Errno;
use gelid_sys::link_group;
use gelid_sys::netlink::channel::{CREATE, Channel, EXCLUSIVE};
use gelid_sys::netlink::message::{Attributes, Builder};
use gelid_sys::netlink::route::{NEW_LINK, NEW_LINK_NAME, SET_LINK, UP, link, link_header};
use gelid_sys::tun;
use rustix::fs::{Mode, OFlags};

use super::{NetError, Site, outside, sysctl};
use crate::plan::namespaces::net::{Kind, Link, Peer};

/// Flags that are set, not told: `IFF_DEBUG`, `..._NOTRAILERS`, `..._NOARP`, `..._PROMISC`, `..._ALLMULTI`,
/// `..._MULTICAST`, `..._PORTSEL`, `..._AUTOMEDIA`, `..._DYNAMIC`.
const SETTABLE: u32 = 0x04 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x2000 | 0x4000 | 0x8000;
/// Bytes of an address of Ethernet; others belong to tunnels, which have them from their attributes.
const ETHERNET: usize = 6;
/// Attributes of a bridge that can only be read, some of which the kernel does not even take: `IFLA_BR_*`.
const READ_OF_BRIDGE: [u16; 15] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 40, 47, 48];
/// Attributes of a port that can be set: `IFLA_BRPORT_*`.
const SET_OF_PORT: [u16; 25] = [
    2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27, 28, 29, 30, 31, 32, 33, 37, 39, 40, 42, 43, 44,
];

/// Sysctls that count when addresses come: nobody has to find out once more that they are not taken.
const DAD: &str = "ipv6/conf/accept_dad";
/// One that is that of the link again once this is set up.
const MTU: &str = "ipv6/conf/mtu";

/// Makes all links, but sets none of them up. `made` has the other ends of pairs, by namespace and index.
pub(super) fn make_all(
    site: &mut Site<'_>,
    links: &[Link],
    made: &mut HashSet<(u32, u32)>,
) -> Result<(), NetError> {
    for planned in links {
        make(site, planned, made)?;
        dress(site, planned)?;
    }
    for planned in links {
        become_port(site, planned)?;
    }
    Ok(())
}

fn make(
    site: &mut Site<'_>,
    planned: &Link,
    made: &mut HashSet<(u32, u32)>,
) -> Result<(), NetError> {
    let id = site.id;
    let failed = |errno| site_error(id, "make the link", &planned.name)(errno);
    if let Some(outer) = site.options.moved(&planned.name) {
        let outer = outer.to_owned();
        let there = Channel::route().map_err(failed)?;
        let inner = (planned.name.as_str(), planned.index);
        let given = site.outside.give(&outer, inner, site.own, there);
        return given.map_err(|errno| missing(id, planned, &outer, errno));
    }
    match &planned.kind {
        Kind::Loopback => Ok(()),
        Kind::Tun(entry) => make_tun(site, planned, entry).map_err(failed),
        Kind::Veth(peer) => match made.contains(&(id, planned.index)) {
            true => Ok(()),
            false => make_pair(site, planned, peer, made),
        },
        Kind::Of { kind, data, lower } => {
            let data = of_kind(kind, data);
            let mut request = described(planned);
            let mut info = Builder::default();
            info.text(link::KIND, kind.as_bytes());
            info.put(link::DATA, data.bytes());
            if let Some(lower) = lower {
                request.word(link::LOWER, *lower);
            }
            if let Some(outer) = site.options.below(&planned.name)
                && lower.is_none()
            {
                let index = site.outside.index(outer);
                let index = index.map_err(|errno| missing(id, planned, outer, errno))?;
                request.word(link::LOWER, index);
                request.nest(link::INFO, &info);
                return site.outside.make_above(request, site.own).map_err(failed);
            }
            if kind == "macvlan" && lower.is_none() {
                return Err(NetError::NotGiven {
                    id,
                    object: format!("the link below {}", planned.name),
                    option: format!("--external 'macvlan[{}]:LINK'", planned.name),
                });
            }
            request.nest(link::INFO, &info);
            let told = site
                .channel
                .tell(NEW_LINK, CREATE | EXCLUSIVE, request.bytes());
            match told {
                // Some kinds have one from the start.
                Err(Errno::EXIST)
                    if outside::index(site.channel, &planned.name) == Ok(planned.index) =>
                {
                    Ok(())
                }
                told => told.map_err(failed),
            }
        }
    }
}

/// Attributes of a kind without those that are only told.
fn of_kind(kind: &str, data: &[u8]) -> Builder {
    /// `IFLA_VXLAN_TTL_INHERIT`, which is told as a number and asked for by being there.
    const INHERITS: u16 = 28;
    /// `IFLA_VXLAN_REMCSUM_RX`, which even off does not go with the bits that the kernel tells to be reserved.
    const CHECKSUMS: u16 = 22;
    /// `IFLA_BR_VLAN_FILTERING`
    const FILTERING: u16 = 7;
    /// `IFLA_BR_MULTI_BOOLOPT`: values, and which of them count.
    const SWITCHES: u16 = 46;
    let mut kept = Builder::default();
    for (number, value) in Attributes(data).iter().flatten() {
        match (kind, number) {
            ("bridge", number) if READ_OF_BRIDGE.contains(&number) => {}
            // Off at first, which a kernel that does not have it does not take.
            ("bridge", FILTERING) if value == [0] => {}
            ("bridge", SWITCHES) => {
                if let Some(on) = value.first_chunk::<4>() {
                    kept.put(number, &[*on, *on].concat());
                }
            }
            ("vxlan", INHERITS | CHECKSUMS) if value == [0] => {}
            ("vxlan", INHERITS) => {
                kept.put(number, &[]);
            }
            _ => {
                kept.put(number, value);
            }
        }
    }
    kept
}

/// A request for a link: its index, name, address, size and queues.
fn described(planned: &Link) -> Builder {
    let mut request = Builder::new(&link_header(planned.index, 0, 0));
    request.text(link::NAME, planned.name.as_bytes());
    if let Some(address) = planned.address.as_ref().filter(|it| it.len() == ETHERNET) {
        request.put(link::ADDRESS, address);
    }
    for (kind, value) in [
        (link::MTU, Some(planned.mtu)),
        (link::QUEUE_LENGTH, planned.queue_length),
        (link::SENDERS, planned.senders),
        (link::RECEIVERS, planned.receivers),
    ] {
        if let Some(value) = value {
            request.word(kind, value);
        }
    }
    request
}

/// Makes both ends of a pair.
fn make_pair(
    site: &mut Site<'_>,
    planned: &Link,
    peer: &Peer,
    made: &mut HashSet<(u32, u32)>,
) -> Result<(), NetError> {
    let id = site.id;
    let failed = |errno| site_error(id, "make the pair of links", &planned.name)(errno);
    let (mut other, outer) = match peer {
        Peer::Inside { index, net } => {
            let Some((end, namespace)) = site.others.end(*net, *index) else {
                return Err(failed(Errno::NXIO));
            };
            let mut other = described(end);
            if *net != id {
                other.word(link::NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
            }
            made.insert((*net, *index));
            (other, None)
        }
        Peer::Outside => {
            let given = site.options.outer_end(&planned.name);
            let mut other = Builder::new(&link_header(0, 0, 0));
            if let Some((outer, _)) = given {
                other.text(link::NAME, outer.as_bytes());
            }
            let fd = rustix::fd::AsFd::as_fd(&*site.outside).as_raw_fd();
            other.word(link::NET_NS_FD, fd.cast_unsigned());
            (other, given)
        }
    };
    let (mut data, mut info) = (Builder::default(), Builder::default());
    data.nest(link::PEER, &std::mem::take(&mut other));
    info.text(link::KIND, b"veth").nest(link::DATA, &data);
    let mut request = described(planned);
    request.nest(link::INFO, &info);
    let told = site
        .channel
        .tell(NEW_LINK, CREATE | EXCLUSIVE, request.bytes());
    told.map_err(failed)?;
    if let Some((outer, bridge)) = outer {
        let adopted = site.outside.adopt(outer, bridge);
        adopted.map_err(|errno| missing(id, planned, bridge.unwrap_or(outer), errno))?;
    }
    Ok(())
}

/// Makes a device that stays without anybody who has it open; whoever has it open is attached later.
fn make_tun(site: &Site<'_>, planned: &Link, entry: &TunLinkEntry) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let attaching = u16::try_from(entry.flags).map_err(|_| Errno::INVAL)? & tun::ATTACHING;
    tun::set_index(&file, planned.index)?;
    tun::attach(&file, planned.name.as_bytes(), attaching)?;
    tun::set_persistent(&file, true)?;
    tun::set_users(&file, entry.owner, entry.group)?;
    tun::set_buffers(&file, entry.vnethdr, entry.sndbuf)?;
    let mut request = Builder::new(&link_header(planned.index, 0, 0));
    request.word(link::MTU, planned.mtu);
    if let Some(address) = planned.address.as_ref().filter(|it| it.len() == ETHERNET) {
        request.put(link::ADDRESS, address);
    }
    site.channel.tell(SET_LINK, 0, request.bytes())
}

/// Gives a link what it has beside its kind.
fn dress(site: &Site<'_>, planned: &Link) -> Result<(), NetError> {
    let failed = |errno| site_error(site.id, "set up the link", &planned.name)(errno);
    let flags = planned.flags & SETTABLE;
    let mut request = Builder::new(&link_header(planned.index, flags, SETTABLE));
    if let Some(length) = planned.queue_length {
        request.word(link::QUEUE_LENGTH, length);
    }
    if let Some(group) = planned.group {
        request.word(link::GROUP, group);
    }
    if let Some(alias) = &planned.alias {
        request.put(link::ALIAS, alias);
    }
    request.word(link::MTU, planned.mtu);
    let is_moved = site.options.moved(&planned.name).is_some();
    if let Some(address) = planned.address.as_ref().filter(|_| is_moved) {
        request.put(link::ADDRESS, address);
    }
    let told = site.channel.tell(SET_LINK, 0, request.bytes());
    told.map_err(failed)?;
    for name in &planned.names {
        let mut list = Builder::default();
        list.text(link::OTHER_NAME, name.as_bytes());
        let mut request = Builder::new(&link_header(planned.index, 0, 0));
        request.nest(link::PROPERTIES, &list);
        let flags = CREATE | EXCLUSIVE | gelid_sys::netlink::channel::APPEND;
        let told = site.channel.tell(NEW_LINK_NAME, flags, request.bytes());
        told.map_err(failed)?;
    }
    for group in &planned.groups {
        link_group::join(site.channel, planned.name.as_bytes(), group).map_err(failed)?;
    }
    let weak = site.options.weak_sysctls;
    // An address that was not known to be free yet has to be found out again.
    let now = |path: &str| path != DAD || planned.is_undecided;
    sysctl::set_of_link(site.id, &planned.name, &planned.sysctls, weak, now)?;
    if !planned.is_undecided {
        sysctl::override_of_link(&planned.name, DAD, b"0");
    }
    Ok(())
}

/// Makes a link a port of another.
fn become_port(site: &Site<'_>, planned: &Link) -> Result<(), NetError> {
    let Some(master) = planned.master else {
        return Ok(());
    };
    let failed = |errno| site_error(site.id, "make a port of the link", &planned.name)(errno);
    let mut request = Builder::new(&link_header(planned.index, 0, 0));
    request.word(link::MASTER, master);
    let told = site.channel.tell(SET_LINK, 0, request.bytes());
    told.map_err(failed)?;
    let Some(port) = &planned.port else {
        return Ok(());
    };
    let mut data = Builder::default();
    for (number, value) in Attributes(port).iter().flatten() {
        if SET_OF_PORT.contains(&number) {
            data.put(number, value);
        }
    }
    let mut info = Builder::default();
    info.text(link::PORT_KIND, b"bridge")
        .nest(link::PORT_DATA, &data);
    let mut request = Builder::new(&link_header(planned.index, 0, 0));
    request.nest(link::INFO, &info);
    let told = site.channel.tell(NEW_LINK, 0, request.bytes());
    told.map_err(failed)
}

/// Sets links up that were.
pub(super) fn set_up(site: &Site<'_>, links: &[Link]) -> Result<(), NetError> {
    for planned in links.iter().filter(|planned| planned.flags & UP != 0) {
        let request = link_header(planned.index, UP, UP);
        let told = site.channel.tell(SET_LINK, 0, &request);
        told.map_err(site_error(site.id, "set up the link", &planned.name))?;
    }
    Ok(())
}

/// Sets up `lo` of a new namespace, which the calling thread has joined. Its addresses come by themselves.
pub(super) fn set_up_loopback(id: u32) -> Result<(), NetError> {
    /// In every namespace, as the first link.
    const LOOPBACK: u32 = 1;
    let told = Channel::route()
        .and_then(|channel| channel.tell(SET_LINK, 0, &link_header(LOOPBACK, UP, UP)));
    told.map_err(site_error(id, "set up the link", "lo"))
}

/// Sets what had to be otherwise while addresses came.
pub(super) fn finish(site: &Site<'_>, links: &[Link]) -> Result<(), NetError> {
    let weak = site.options.weak_sysctls;
    for planned in links {
        let late = |path: &str| [DAD, MTU].contains(&path);
        sysctl::set_of_link(site.id, &planned.name, &planned.sysctls, weak, late)?;
    }
    Ok(())
}

fn missing(id: u32, planned: &Link, outer: &str, errno: Errno) -> NetError {
    NetError::Outside {
        id,
        inner: planned.name.clone(),
        outer: outer.to_owned(),
        errno,
    }
}

fn site_error<'a>(
    id: u32,
    operation: &'static str,
    object: &'a str,
) -> impl Fn(Errno) -> NetError + use<'a> {
    move |errno| NetError::Kernel {
        id,
        operation,
        object: object.to_owned(),
        errno,
    }
}
