//! Links, checked and in the order in which they can be made.

use std::collections::HashSet;

use gelid_image::ImageKind;
use gelid_image::messages::{NdType, NetDeviceEntry, SitEntry, TunLinkEntry};
use gelid_sys::netlink::message::{Attributes, Builder};

use super::sysctl::{self, Sysctl};
use super::wrong;
use crate::plan::PlanError;

/// Bytes of the name of a link, with its end.
const NAME: usize = 16;
/// Bytes of its other names.
const OTHER_NAME: usize = 128;
/// Bytes of an address (`MAX_ADDR_LEN`).
const LONGEST: usize = 32;
/// The only index of a loopback.
const LOOPBACK: u32 = 1;

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) mtu: u32,
    /// `IFF_*`
    pub(crate) flags: u32,
    pub(crate) address: Option<Vec<u8>>,
    /// Index of the link that this one is a port of.
    pub(crate) master: Option<u32>,
    /// What is special about it as a port of a bridge.
    pub(crate) port: Option<Vec<u8>>,
    pub(crate) queue_length: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) alias: Option<Vec<u8>>,
    pub(crate) senders: Option<u32>,
    pub(crate) receivers: Option<u32>,
    pub(crate) names: Vec<String>,
    pub(crate) sysctls: Vec<Sysctl>,
    /// Groups of the link layer that it was given.
    pub(crate) groups: Vec<Vec<u8>>,
    /// It has an address of which it was not known yet whether somebody else has it.
    pub(crate) is_undecided: bool,
}

/// What it is, and what is special about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Each namespace has one.
    Loopback,
    /// One end of a pair.
    Veth(Peer),
    /// Made by way of `/dev/net/tun`.
    Tun(TunLinkEntry),
    /// Made by a message with its kind, the attributes of that, and the index of the link below it.
    Of {
        kind: String,
        data: Vec<u8>,
        lower: Option<u32>,
    },
}

/// The other end of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// With this index in the namespace with this number in the images.
    Inside {
        /// Its index.
        index: u32,
        /// The namespace.
        net: u32,
    },
    /// Outside of the tree.
    Outside,
}

/// Checks links, and puts each behind those that it needs.
pub(super) fn read(id: u32, entries: Vec<NetDeviceEntry>) -> Result<Vec<Link>, PlanError> {
    let mut links = Vec::with_capacity(entries.len());
    let (mut names, mut indices) = (HashSet::new(), HashSet::new());
    for entry in entries {
        let link = link(id, entry)?;
        if !names.insert(link.name.clone()) || !indices.insert(link.index) {
            let what = "two links have one name or index";
            return Err(wrong(ImageKind::Netdev, id, what, &link.name));
        }
        links.push(link);
    }
    for link in &links {
        if let Some(lower) = link
            .lower()
            .into_iter()
            .chain(link.master)
            .find(|index| !indices.contains(index))
        {
            let what = "a link lies on one that is not there";
            return Err(wrong(ImageKind::Netdev, id, what, lower));
        }
    }
    in_order(id, links)
}

/// Those that need nothing first.
fn in_order(id: u32, mut links: Vec<Link>) -> Result<Vec<Link>, PlanError> {
    let (mut made, mut ordered) = (HashSet::new(), Vec::with_capacity(links.len()));
    while !links.is_empty() {
        let can = |link: &Link| link.lower().is_none_or(|lower| made.contains(&lower));
        let (now, later): (Vec<_>, Vec<_>) = links.into_iter().partition(can);
        if now.is_empty() {
            let what = "links lie on each other";
            return Err(wrong(ImageKind::Netdev, id, what, later.len()));
        }
        made.extend(now.iter().map(|link| link.index));
        ordered.extend(now);
        links = later;
    }
    Ok(ordered)
}

impl Link {
    /// It is a TUN device that goes when nobody has it open.
    pub(crate) fn is_fleeting(&self) -> bool {
        /// `IFF_PERSIST`
        const PERSISTENT: u32 = 0x800;
        matches!(&self.kind, Kind::Tun(entry) if entry.flags & PERSISTENT == 0)
    }

    /// Index of the link below it.
    fn lower(&self) -> Option<u32> {
        match &self.kind {
            Kind::Of { lower, .. } => *lower,
            _ => None,
        }
    }
}

/// Whether a link may be called so.
pub(crate) fn is_name(name: &str, room: usize) -> bool {
    let odd = |byte: u8| matches!(byte, b'/' | b':' | b'%' | 0x7f) || byte <= b' ';
    !matches!(name, "" | "." | "..") && name.len() < room && !name.bytes().any(odd)
}

fn link(id: u32, entry: NetDeviceEntry) -> Result<Link, PlanError> {
    let refused =
        |what, found: &dyn ToString| wrong(ImageKind::Netdev, id, what, found.to_string());
    let name = &entry.name;
    if !is_name(name, NAME) {
        return Err(refused("no link is called so", name));
    }
    if entry.ifindex == 0 || i32::try_from(entry.ifindex).is_err() {
        return Err(refused("no link has such an index", &entry.ifindex));
    }
    let kind = kind(id, &entry)?;
    if (kind == Kind::Loopback) != (entry.ifindex == LOOPBACK) {
        return Err(refused("only a loopback has such an index", &entry.ifindex));
    }
    let sysctls = sysctl::of_link(id, &entry)?;
    for sysctl in &sysctls {
        let mut parts = sysctl.path.split('/');
        let family = matches!(parts.next(), Some("ipv4" | "ipv6"));
        if !family || parts.count() != 2 {
            return Err(refused("no link has such a sysctl", &sysctl.path));
        }
    }
    let gelid = entry.gelid.unwrap_or_default();
    if let Some(name) = gelid.names.iter().find(|name| !is_name(name, OTHER_NAME)) {
        return Err(refused("no link is called so", name));
    }
    let sound = |bytes: &Vec<u8>| Attributes(bytes).are_sound();
    if !gelid.port.iter().all(sound) {
        return Err(refused("attributes of a link are damaged", &entry.name));
    }
    let is_long = |address: &Vec<u8>| address.len() > LONGEST;
    if gelid.groups.iter().any(is_long) || entry.address.as_ref().is_some_and(is_long) {
        return Err(refused("no address is as long", &entry.name));
    }
    Ok(Link {
        index: entry.ifindex,
        kind,
        mtu: entry.mtu,
        flags: entry.flags,
        // All zero for those that need none.
        address: entry
            .address
            .filter(|address| address.iter().any(|byte| *byte != 0)),
        master: entry.master,
        port: gelid.port,
        queue_length: gelid.queue_length,
        group: gelid.group,
        alias: gelid.alias.filter(|alias| alias.len() < 256),
        senders: gelid.senders,
        receivers: gelid.receivers,
        names: gelid.names,
        sysctls,
        groups: gelid.groups,
        is_undecided: false,
        name: entry.name,
    })
}

fn kind(id: u32, entry: &NetDeviceEntry) -> Result<Kind, PlanError> {
    let refused = |what, found: &str| wrong(ImageKind::Netdev, id, what, found);
    let gelid = entry.gelid.clone().unwrap_or_default();
    let told = gelid.data.clone();
    let of = |kind: &str, data: Vec<u8>| Kind::Of {
        kind: kind.to_owned(),
        data,
        lower: gelid.lower,
    };
    let found = match NdType::try_from(entry.r#type) {
        Ok(NdType::Loopback) => Kind::Loopback,
        Ok(NdType::Veth) => Kind::Veth(match (entry.peer_ifindex, entry.peer_nsid) {
            (Some(index), Some(net)) if index != 0 && i32::try_from(index).is_ok() => {
                Peer::Inside { index, net }
            }
            _ => Peer::Outside,
        }),
        Ok(NdType::Tun) => match &entry.tun {
            Some(tun) => Kind::Tun(tun.clone()),
            None => return Err(refused("a TUN device is not described", &entry.name)),
        },
        Ok(NdType::Bridge) => of("bridge", told.unwrap_or_default()),
        Ok(NdType::Macvlan) => of("macvlan", told.unwrap_or_else(|| macvlan(entry))),
        Ok(NdType::Sit) => of(
            "sit",
            match (told, &entry.sit) {
                (Some(told), _) => told,
                (None, Some(entry)) => sit(entry),
                (None, None) => return Err(refused("a tunnel is not described", &entry.name)),
            },
        ),
        Ok(NdType::Extlink) => match &gelid.kind {
            Some(kind) if is_name(kind, 32) && kind != "veth" => of(kind, told.unwrap_or_default()),
            _ => return Err(refused("a link of a plugin cannot be made", &entry.name)),
        },
        _ => return Err(refused("links of its kind cannot be made", &entry.name)),
    };
    if let Kind::Of { data, .. } = &found
        && !Attributes(data).are_sound()
    {
        return Err(refused("attributes of a link are damaged", &entry.name));
    }
    Ok(found)
}

/// The attributes of a macvlan as the format has them.
fn macvlan(entry: &NetDeviceEntry) -> Vec<u8> {
    let mut data = Builder::default();
    if let Some(macvlan) = &entry.macvlan {
        data.word(1, macvlan.mode);
        if let Some(flags) = macvlan.flags.and_then(|flags| u16::try_from(flags).ok()) {
            data.put(2, &flags.to_ne_bytes());
        }
    }
    data.bytes().to_vec()
}

/// The attributes of a tunnel as the format has them.
fn sit(entry: &SitEntry) -> Vec<u8> {
    let mut data = Builder::default();
    let bytes =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
    if let Some(link) = entry.link {
        data.word(1, link);
    }
    for (kind, words) in [
        (2, &entry.local),
        (3, &entry.remote),
        (11, &entry.rd_prefix),
        (12, &entry.relay_prefix),
    ] {
        if !words.is_empty() {
            data.put(kind, &bytes(words));
        }
    }
    let byte = |value: Option<u32>| value.and_then(|value| u8::try_from(value).ok());
    let discovers = entry.pmtudisc.map(u8::from);
    for (kind, value) in [
        (4, byte(entry.ttl)),
        (5, byte(entry.tos)),
        (9, byte(entry.proto)),
        (10, discovers),
    ] {
        if let Some(value) = value {
            data.put(kind, &[value]);
        }
    }
    for (kind, value) in [
        (8, entry.flags),
        (13, entry.rd_prefixlen),
        (14, entry.relay_prefixlen),
        (15, entry.encap_type),
        (16, entry.encap_flags),
        (17, entry.encap_sport),
        (18, entry.encap_dport),
    ] {
        if let Some(value) = value.and_then(|value| u16::try_from(value).ok()) {
            data.put(kind, &value.to_ne_bytes());
        }
    }
    data.bytes().to_vec()
}
