//! Links of a network namespace. Section 21.2 of the format.
//!
//! What is special about a kind of link is kept as the kernel tells it, and said to it again on restore; for the kinds
//! that the format knows it is also taken apart.

use gelid_image::messages::{
    GelidNetDeviceEntry, MacvlanLinkEntry, NdType, NetDeviceEntry, SitEntry, TunLinkEntry,
};
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, Message, messages, word};
use gelid_sys::netlink::route::{GET_LINK, LINK, NEW_LINK, UP, link, link_header};
use gelid_sys::tun;
use rustix::io::Errno;

use super::{Error, Surroundings, group, sysctl};

/// `ARPHRD_LOOPBACK`
const LOOPBACK: u16 = 772;
/// Kinds of links that say with the attributes of their kind all that there is to say.
const PLAIN: [&str; 17] = [
    "vlan",
    "ipvlan",
    "ipvtap",
    "macvtap",
    "dummy",
    "vxlan",
    "geneve",
    "ipip",
    "gre",
    "gretap",
    "ip6tnl",
    "ip6gre",
    "ip6gretap",
    "vti",
    "vti6",
    "ifb",
    "vrf",
];
/// Kinds of links below which another one lies, without which they cannot be.
const UPPER: [&str; 5] = ["vlan", "ipvlan", "ipvtap", "macvlan", "macvtap"];

/// All links, by index.
pub(super) fn all(channel: &Channel, around: &Surroundings) -> Result<Vec<NetDeviceEntry>, Error> {
    let failed = Error::kernel("list", "the links");
    let told = channel
        .dump(GET_LINK, &link_header(0, 0, 0))
        .map_err(&failed)?;
    let mut links = Vec::new();
    for message in messages(&told) {
        let message = message.ok_or(Errno::BADMSG).map_err(&failed)?;
        if message.kind == NEW_LINK {
            links.push(entry(&message, around)?);
        }
    }
    links.sort_by_key(|link| link.ifindex);
    let mut groups = group::all()?;
    for link in &mut links {
        if let Some(gelid) = &mut link.gelid {
            gelid.groups = groups.remove(&link.ifindex).unwrap_or_default();
        }
    }
    Ok(links)
}

/// Whether `lo` is up in the namespace that the calling thread is in.
pub(super) fn loopback_is_up() -> Result<bool, Error> {
    /// Index of `lo`, which is the first link of each namespace.
    const FIRST: u32 = 1;
    let answer =
        Channel::route().and_then(|channel| channel.ask(GET_LINK, &link_header(FIRST, 0, 0)));
    let answer = answer.map_err(Error::kernel("ask for", "lo"))?;
    let flags = word(&answer, 8).ok_or(Errno::BADMSG);
    Ok(flags.map_err(Error::kernel("ask for", "lo"))? & UP != 0)
}

/// Understands a link.
fn entry(message: &Message<'_>, around: &Surroundings) -> Result<NetDeviceEntry, Error> {
    let all = Attributes(message.body.get(LINK..).unwrap_or_default());
    let name = String::from_utf8_lossy(all.text(link::NAME).unwrap_or_default()).into_owned();
    let info = all.nested(link::INFO).unwrap_or(Attributes(&[]));
    let kind = info.text(link::KIND).map(String::from_utf8_lossy);
    let kind = kind.as_deref().unwrap_or_default();
    let data = info.nested(link::DATA).unwrap_or(Attributes(&[]));
    let hardware = message
        .body
        .get(2..4)
        .and_then(|bytes| bytes.try_into().ok());
    let hardware = hardware.map_or(0, u16::from_ne_bytes);
    let refused = |why| Error::Link {
        name: name.clone(),
        kind: kind.to_owned(),
        why,
    };
    let number = classify(kind, hardware).map_err(refused)?;
    if all
        .nested(link::XDP)
        .and_then(|xdp| xdp.byte(2))
        .unwrap_or_default()
        != 0
    {
        return Err(refused(
            "a program of XDP is attached to it: detach it first",
        ));
    }
    let outside = all.get(link::LINK_NSID).is_some();
    let lower = all.word(link::LOWER).filter(|lower| *lower != 0);
    if outside && UPPER.contains(&kind) && kind != "macvlan" {
        return Err(refused(
            "the link below it is in another network namespace: give it back first",
        ));
    }
    let mut entry = NetDeviceEntry {
        r#type: number.into(),
        ifindex: message.word(4).unwrap_or_default(),
        mtu: all.word(link::MTU).unwrap_or_default(),
        flags: message.word(8).unwrap_or_default(),
        address: all.get(link::ADDRESS).map(<[u8]>::to_vec),
        conf4: sysctl::ipv4(&name)?,
        conf6: sysctl::ipv6(&name)?,
        master: all.word(link::MASTER),
        gelid: Some(beyond(
            &name,
            all,
            (number, kind),
            lower.filter(|_| !outside),
        )?),
        name,
        ..NetDeviceEntry::default()
    };
    match number {
        NdType::Veth => {
            entry.peer_ifindex = lower;
            entry.peer_nsid = match all.word(link::LINK_NSID) {
                None => Some(around.own),
                Some(nsid) => around.known(nsid.cast_signed()),
            };
        }
        NdType::Macvlan => {
            entry.macvlan = Some(MacvlanLinkEntry {
                mode: data.word(1).unwrap_or_default(),
                flags: data.half(2).map(u32::from),
            });
        }
        NdType::Sit => entry.sit = Some(sit(data)),
        NdType::Tun => entry.tun = Some(of_tun(data)),
        _ => {}
    }
    Ok(entry)
}

/// The number of a kind in images, or why it is not dumped.
fn classify(kind: &str, hardware: u16) -> Result<NdType, &'static str> {
    Ok(match kind {
        "" if hardware == LOOPBACK => NdType::Loopback,
        "veth" => NdType::Veth,
        "tun" => NdType::Tun,
        "bridge" => NdType::Bridge,
        "macvlan" => NdType::Macvlan,
        "sit" => NdType::Sit,
        kind if PLAIN.contains(&kind) => NdType::Extlink,
        "" => return Err("it is a device of the machine: move it back to where it came from"),
        "wireguard" => return Err("its keys and peers are not dumped yet: take it down first"),
        _ => return Err("links of this kind are not dumped yet: delete it first"),
    })
}

/// What the format has no place for.
fn beyond(
    name: &str,
    all: Attributes<'_>,
    (number, kind): (NdType, &str),
    lower: Option<u32>,
) -> Result<GelidNetDeviceEntry, Error> {
    let info = all.nested(link::INFO).unwrap_or(Attributes(&[]));
    let other = all.nested(link::PROPERTIES).unwrap_or(Attributes(&[]));
    let others = other.iter().flatten();
    let others = others.filter(|(kind, _)| *kind == link::OTHER_NAME);
    let is_port = info.text(link::PORT_KIND) == Some(b"bridge");
    // Of the others the data are their peer, which has a place.
    let has_data = !matches!(number, NdType::Veth | NdType::Loopback | NdType::Tun);
    let bytes = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
    Ok(GelidNetDeviceEntry {
        kind: (!kind.is_empty()).then(|| kind.to_owned()),
        data: bytes(info.get(link::DATA)).filter(|_| has_data),
        port: bytes(info.get(link::PORT_DATA)).filter(|_| is_port),
        lower: lower.filter(|_| number != NdType::Veth),
        queue_length: all.word(link::QUEUE_LENGTH),
        group: all.word(link::GROUP).filter(|group| *group != 0),
        alias: bytes(all.text(link::ALIAS)).filter(|alias| !alias.is_empty()),
        senders: all.word(link::SENDERS).filter(|count| *count != 1),
        receivers: all.word(link::RECEIVERS).filter(|count| *count != 1),
        names: others
            .filter_map(|(_, name)| name.split(|byte| *byte == 0).next())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
        sysctls: sysctl::of_device(name)?,
        groups: Vec::new(),
    })
}

/// Attributes of a tunnel: `IFLA_IPTUN_*`.
fn sit(data: Attributes<'_>) -> SitEntry {
    let half = |kind| data.half(kind).map(u32::from);
    let byte = |kind| data.byte(kind).map(u32::from);
    let words = |kind| {
        let bytes = data.get(kind).unwrap_or_default();
        (0..bytes.len() / 4)
            .filter_map(|at| word(bytes, 4 * at))
            .collect()
    };
    SitEntry {
        link: data.word(1).filter(|link| *link != 0),
        local: words(2),
        remote: words(3),
        ttl: byte(4),
        tos: byte(5),
        pmtudisc: data.byte(10).map(|on| on != 0),
        proto: byte(9),
        flags: half(8),
        encap_type: half(15).filter(|kind| *kind != 0),
        encap_flags: half(16).filter(|flags| *flags != 0),
        encap_sport: half(17).filter(|port| *port != 0),
        encap_dport: half(18).filter(|port| *port != 0),
        rd_prefixlen: half(13).filter(|len| *len != 0),
        rd_prefix: words(11),
        relay_prefixlen: half(14).filter(|len| *len != 0),
        relay_prefix: words(12),
    }
}

/// Attributes of a TUN or TAP device: `IFLA_TUN_*`.
fn of_tun(data: Attributes<'_>) -> TunLinkEntry {
    let id = |kind| data.word(kind).map_or(-1, u32::cast_signed);
    TunLinkEntry {
        flags: tun::told_flags(data).into(),
        owner: id(1),
        group: id(2),
        // The kernel's own, until somebody has a queue to ask.
        vnethdr: 10,
        sndbuf: i32::MAX.cast_unsigned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::netlink::message::Builder;

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(classify("", LOOPBACK), Ok(NdType::Loopback));
        assert_eq!(classify("bridge", 1), Ok(NdType::Bridge));
        assert_eq!(classify("vxlan", 1), Ok(NdType::Extlink));
        for (kind, word) in [("", "machine"), ("wireguard", "keys"), ("bond", "yet")] {
            assert!(classify(kind, 1).unwrap_err().contains(word), "{kind}");
        }
    }

    #[test]
    fn flags_of_a_tap_are_those_it_is_made_with() {
        let mut data = Builder::default();
        data.put(3, &[2])
            .put(4, &[0])
            .put(5, &[1])
            .put(6, &[1])
            .put(7, &[0]);
        let seen = of_tun(Attributes(data.bytes()));
        assert_eq!(
            (seen.flags, seen.owner),
            (0x2 | 0x1000 | 0x4000 | 0x800, -1)
        );
    }

    #[test]
    fn attributes_of_a_tunnel_have_their_places() {
        let mut data = Builder::default();
        data.put(2, &[10, 0, 0, 1])
            .put(3, &[10, 0, 0, 2])
            .put(4, &[64]);
        data.put(10, &[1]).put(9, &[41]).put(8, &[0, 0]);
        let seen = sit(Attributes(data.bytes()));
        assert_eq!(seen.local, [u32::from_ne_bytes([10, 0, 0, 1])]);
        assert_eq!(
            (seen.ttl, seen.proto, seen.pmtudisc),
            (Some(64), Some(41), Some(true))
        );
    }
}
