//! What a network namespace may have that is not dumped, and would be missed: IPsec, multicast routing, VLANs and lasting
//! groups of bridges.

use std::fs;

use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, Message, messages};
use gelid_sys::netlink::route::{BRIDGE, GET_GROUP, GET_LINK, LINK, NEW_LINK, link_header};
use rustix::io::Errno;

use super::Error;

/// `XFRM_MSG_GETSA`
const GET_ASSOCIATION: u16 = 0x12;
/// `XFRM_MSG_GETPOLICY`
const GET_POLICY: u16 = 0x15;
/// `XFRM_MSG_GETDEFAULT`
const GET_DEFAULT: u16 = 0x28;

/// Refuses what is there.
pub(super) fn refuse(channel: &Channel, has_bridge: bool) -> Result<(), Error> {
    let found = [
        (is_secured()?, "policies or associations of IPsec (ip xfrm)"),
        (forwards_groups(), "multicast routing (ip mroute)"),
        (
            has_bridge && has_vlans(channel)?,
            "a bridge with VLANs of its ports (bridge vlan) beyond the default one",
        ),
        (
            has_bridge && has_groups(channel)?,
            "a bridge with lasting multicast groups (bridge mdb)",
        ),
    ];
    let found = found.iter().find(|(there, _)| *there);
    found.map_or(Ok(()), |(_, what)| Err(Error::Unrecorded { what }))
}

/// Whether there is anything of IPsec.
fn is_secured() -> Result<bool, Error> {
    let failed = || Error::kernel("ask for", "policies of IPsec");
    let channel = match Channel::security() {
        Err(Errno::PROTONOSUPPORT) => return Ok(false),
        channel => channel.map_err(failed())?,
    };
    for kind in [GET_ASSOCIATION, GET_POLICY] {
        if !channel.dump(kind, &[]).map_err(failed())?.is_empty() {
            return Ok(true);
        }
    }
    // What becomes of packets that no policy is for; kernels before 5.14 have nothing to ask for.
    const BLOCK: u8 = 1;
    let usual = channel.ask(GET_DEFAULT, &[0; 4]).unwrap_or_default();
    Ok(usual.iter().take(3).any(|what| *what == BLOCK))
}

/// Whether somebody routes what is sent to groups.
fn forwards_groups() -> bool {
    ["ipv4", "ipv6"].iter().any(|family| {
        let file = format!("/proc/sys/net/{family}/conf/all/mc_forwarding");
        fs::read(file).is_ok_and(|value| value.trim_ascii() != b"0")
    })
}

/// Whether a port of a bridge, or a bridge, is in other VLANs than it is from the start.
fn has_vlans(channel: &Channel) -> Result<bool, Error> {
    /// `IFLA_EXT_MASK`, `RTEXT_FILTER_BRVLAN_COMPRESSED`
    const WANTED: (u16, u32) = (29, 4);
    let mut fixed = link_header(0, 0, 0);
    fixed[0] = BRIDGE;
    let mut request = gelid_sys::netlink::message::Builder::new(&fixed);
    request.word(WANTED.0, WANTED.1);
    let told = channel.dump(GET_LINK, request.bytes());
    let told = told.map_err(Error::kernel("list", "VLANs"))?;
    let mut all = messages(&told).flatten();
    Ok(all.any(|message| message.kind == NEW_LINK && is_in_others(&message)))
}

fn is_in_others(message: &Message<'_>) -> bool {
    /// `IFLA_AF_SPEC`, and in it `IFLA_BRIDGE_VLAN_INFO`, `IFLA_BRIDGE_VLAN_TUNNEL_INFO`
    const OF_FAMILY: u16 = 26;
    const VLAN: u16 = 2;
    const TUNNEL: u16 = 3;
    /// `struct bridge_vlan_info` of the VLAN 1: `BRIDGE_VLAN_INFO_PVID`, `..._UNTAGGED`.
    const USUAL: (u16, u16) = (0x2 | 0x4, 1);
    let all = Attributes(message.body.get(LINK..).unwrap_or_default());
    let of_bridge = all.nested(OF_FAMILY).unwrap_or(Attributes(&[]));
    let mut vlans = of_bridge.iter().flatten();
    let usual = [USUAL.0.to_ne_bytes(), USUAL.1.to_ne_bytes()].concat();
    vlans.any(|(kind, value)| kind == TUNNEL || kind == VLAN && value != usual)
}

/// Whether groups were given to ports of bridges for good.
fn has_groups(channel: &Channel) -> Result<bool, Error> {
    /// Bytes of `struct br_port_msg`.
    const FIXED: usize = 8;
    let mut request = [0; FIXED];
    request[0] = BRIDGE;
    let told = match channel.dump(GET_GROUP, &request) {
        // A kernel without them.
        Err(Errno::OPNOTSUPP) => return Ok(false),
        told => told.map_err(Error::kernel("list", "groups of bridges"))?,
    };
    let mut all = messages(&told).flatten();
    Ok(all.any(|message| has_lasting(message.body.get(FIXED..).unwrap_or_default())))
}

fn has_lasting(told: &[u8]) -> bool {
    /// `MDBA_MDB`, `MDBA_MDB_ENTRY`, `MDBA_MDB_ENTRY_INFO`
    const NEST: u16 = 1;
    /// `MDB_PERMANENT`, behind the index in `struct br_mdb_entry`.
    const PERMANENT: (usize, u8) = (4, 1);
    let below = |value| Attributes(value).iter().flatten();
    let of_kind = |(kind, _): &(u16, &[u8])| *kind == NEST;
    let tables = below(told).filter(of_kind);
    let groups = tables.flat_map(|(_, table)| below(table).filter(of_kind));
    let mut entries = groups.flat_map(|(_, group)| below(group).filter(of_kind));
    entries.any(|(_, entry)| entry.get(PERMANENT.0) == Some(&PERMANENT.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::netlink::message::Builder;

    #[test]
    fn the_usual_vlan_is_no_other() {
        let of = |vlans: &[(u16, [u16; 2])]| {
            let mut inner = Builder::default();
            for (kind, [flags, id]) in vlans {
                inner.put(*kind, &[flags.to_ne_bytes(), id.to_ne_bytes()].concat());
            }
            let mut body = Builder::new(&link_header(2, 0, 0));
            body.text(3, b"v0").nest(26, &inner);
            let body = body.bytes().to_vec();
            let message = Message {
                kind: NEW_LINK,
                flags: 0,
                sequence: 0,
                body: &body,
                whole: &[],
            };
            is_in_others(&message)
        };
        assert!(!of(&[]) && !of(&[(2, [6, 1])]));
        assert!(of(&[(2, [6, 2])]) && of(&[(2, [6, 1]), (2, [0, 7])]) && of(&[(3, [0, 0])]));
    }

    #[test]
    fn lasting_groups_are_found() {
        let told = |state: u8| {
            let (mut all, mut table, mut group) = <(Builder, Builder, Builder)>::default();
            group.put(1, &[2, 0, 0, 0, state, 0, 0, 0]);
            table.nest(1, &group);
            all.nest(1, &table);
            has_lasting(all.bytes())
        };
        assert!(told(1) && !told(0));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let looked = std::thread::spawn(|| {
            gelid_sys::namespace::leave(gelid_sys::proc::ns::Kind::Net)?;
            let channel = Channel::route()?;
            Ok::<_, Errno>(refuse(&channel, true).map_err(|error| error.to_string()))
        });
        match looked.join().unwrap() {
            Err(Errno::PERM) => {}
            looked => assert_eq!(looked.unwrap(), Ok(())),
        }
    }
}
