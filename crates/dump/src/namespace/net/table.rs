//! Addresses, routes, rules, neighbours and nexthops, as messages of rtnetlink: what `ip ... save` prints. Section
//! 21.5 of the format.

use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, Message, messages};
use gelid_sys::netlink::route::{
    ADDRESS, BRIDGE, GET_ADDRESS, GET_NEIGHBOUR, GET_NEXTHOP, GET_ROUTE, GET_RULE, IPV4, IPV6,
    NEIGHBOUR, NEXTHOP, ROUTE, RULE,
};
use rustix::io::Errno;

use super::Error;

/// What dumps of addresses, routes and rules begin with.
const MAGIC_ADDRESS: u32 = 0x4736_1222;
const MAGIC_ROUTE: u32 = 0x4531_1224;
const MAGIC_RULE: u32 = 0x7170_6986;

/// `RT_TABLE_LOCAL`
const LOCAL: u32 = 255;
/// `RTPROT_KERNEL`
const BY_KERNEL: u8 = 2;
/// `RTPROT_RA`
const BY_ADVERTISEMENT: u8 = 9;
/// `RTN_MULTICAST` and `RTN_ANYCAST`
const KERNELS_OWN: [u8; 2] = [4, 5];
/// `RTM_F_CLONED`
const CLONED: u32 = 0x200;
/// `RTA_TABLE`
const TABLE: u16 = 15;

/// Addresses of all links.
pub(super) fn addresses(channel: &Channel) -> Result<Vec<u8>, Error> {
    let told = dump(channel, GET_ADDRESS, &[0; ADDRESS], "addresses")?;
    Ok(image(MAGIC_ADDRESS, &told))
}

/// Routes of all tables but those that the kernel makes of addresses.
pub(super) fn routes(channel: &Channel, family: u8) -> Result<Vec<u8>, Error> {
    let mut request = [0; ROUTE];
    request[0] = family;
    let told = dump(channel, GET_ROUTE, &request, "routes")?;
    let mut kept = Vec::new();
    for message in messages(&told).flatten() {
        if is_route(&message, family) {
            kept.extend_from_slice(message.whole);
            kept.resize(kept.len().next_multiple_of(4), 0);
        }
    }
    Ok(image(MAGIC_ROUTE, &kept))
}

/// Whether a route is one that somebody has set, or that comes and goes with an address outside of the local table.
fn is_route(message: &Message<'_>, family: u8) -> bool {
    let &[_, _, _, _, table, protocol, _, kind, ..] = message.body else {
        return false;
    };
    let flags = message.word(8).unwrap_or_default();
    let attributes = Attributes(message.body.get(ROUTE..).unwrap_or_default());
    let table = attributes.word(TABLE).unwrap_or(table.into());
    if flags & CLONED != 0 || message.body.first() != Some(&family) {
        return false;
    }
    if family == IPV6 && (protocol == BY_ADVERTISEMENT || KERNELS_OWN.contains(&kind)) {
        return false;
    }
    table != LOCAL || protocol != BY_KERNEL
}

/// Rules of all families.
pub(super) fn rules(channel: &Channel) -> Result<Vec<u8>, Error> {
    let mut told = Vec::new();
    for family in [IPV4, IPV6] {
        let mut request = [0; RULE];
        request[0] = family;
        match dump(channel, GET_RULE, &request, "rules") {
            // A kernel without IPv6.
            Err(Error::Kernel { errno, .. }) if errno == Errno::AFNOSUPPORT => {}
            rules => told.extend(rules?),
        }
    }
    Ok(image(MAGIC_RULE, &told))
}

/// Neighbours that are known, those of bridges and tunnels among them.
pub(super) fn neighbours(channel: &Channel) -> Result<Option<Vec<u8>>, Error> {
    let mut kept = Vec::new();
    for family in [IPV4, IPV6, BRIDGE] {
        let mut request = [0; NEIGHBOUR];
        request[0] = family;
        let told = dump(channel, GET_NEIGHBOUR, &request, "neighbours")?;
        for message in messages(&told).flatten() {
            if message.body.first() == Some(&family) && is_learnt(&message, family) {
                kept.extend_from_slice(message.whole);
                kept.resize(kept.len().next_multiple_of(4), 0);
            }
        }
    }
    Ok((!kept.is_empty()).then_some(kept))
}

/// Whether a neighbour is one that was found out or set, not one that a link has by itself.
fn is_learnt(message: &Message<'_>, family: u8) -> bool {
    /// `NUD_INCOMPLETE`, `NUD_FAILED`
    const UNKNOWN: u8 = 0x01 | 0x20;
    /// `NUD_NOARP`
    const NEEDLESS: u8 = 0x40;
    /// `NUD_PERMANENT`
    const PERMANENT: u8 = 0x80;
    /// `NTF_SELF`: known by the link itself, not by the bridge that it is a port of.
    const SELF: u8 = 2;
    /// `NDA_DST`
    const FAR: u16 = 1;
    let &[_, _, _, _, _, _, _, _, state, _, flags, ..] = message.body else {
        return false;
    };
    let attributes = Attributes(message.body.get(NEIGHBOUR..).unwrap_or_default());
    let of_tunnel = flags & SELF != 0 && attributes.get(FAR).is_some();
    state & UNKNOWN == 0
        && match family {
            BRIDGE if flags & SELF != 0 => of_tunnel,
            BRIDGE => state & PERMANENT == 0,
            _ => state & NEEDLESS == 0,
        }
}

/// Nexthop objects.
pub(super) fn nexthops(channel: &Channel) -> Result<Option<Vec<u8>>, Error> {
    match dump(channel, GET_NEXTHOP, &[0; NEXTHOP], "nexthops") {
        // A kernel without.
        Err(Error::Kernel { errno, .. }) if errno == Errno::OPNOTSUPP => Ok(None),
        told => Ok(Some(told?).filter(|told| !told.is_empty())),
    }
}

/// All that the kernel tells, without what belongs to the conversation.
pub(super) fn dump(
    channel: &Channel,
    kind: u16,
    request: &[u8],
    what: &'static str,
) -> Result<Vec<u8>, Error> {
    let told = channel.dump(kind, request);
    let mut told = told.map_err(Error::kernel("list", what))?;
    clear_headers(&mut told);
    Ok(told)
}

/// Takes the numbers of the conversation out of messages: same state, same bytes.
fn clear_headers(told: &mut [u8]) {
    let mut at = 0;
    while let Some(size) = gelid_sys::netlink::message::word(told, at) {
        if let Some(numbers) = told.get_mut(at + 8..at + 16) {
            numbers.fill(0);
        }
        at += (size as usize).max(16).next_multiple_of(4);
    }
}

fn image(magic: u32, told: &[u8]) -> Vec<u8> {
    [&magic.to_ne_bytes(), told].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_their_magic_and_whole_messages() {
        let channel = Channel::route().unwrap();
        let whole = |bytes: &[u8], magic: u32| {
            assert_eq!(bytes[..4], magic.to_ne_bytes());
            assert!(messages(&bytes[4..]).all(|message| message.is_some()));
        };
        whole(&addresses(&channel).unwrap(), MAGIC_ADDRESS);
        whole(&routes(&channel, IPV4).unwrap(), MAGIC_ROUTE);
        whole(&routes(&channel, IPV6).unwrap(), MAGIC_ROUTE);
        whole(&rules(&channel).unwrap(), MAGIC_RULE);
        neighbours(&channel).unwrap();
        nexthops(&channel).unwrap();
    }

    #[test]
    fn a_link_knows_itself() {
        let known = |family, state, flags| {
            let body = [family, 0, 0, 0, 3, 0, 0, 0, state, 0, flags, 0];
            let message = Message {
                kind: 28,
                flags: 0,
                sequence: 0,
                body: &body,
                whole: &[],
            };
            is_learnt(&message, family)
        };
        assert!(known(IPV4, 0x80, 0) && known(IPV6, 4, 0) && known(BRIDGE, 2, 0));
        assert!(!known(IPV4, 0x40, 0) && !known(IPV4, 1, 0));
        assert!(!known(BRIDGE, 0x80, 0) && !known(BRIDGE, 0x80, 2));
    }

    #[test]
    fn routes_of_the_kernel_stay_away() {
        let route = |table, protocol, kind| {
            let body = [IPV4, 32, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0];
            let message = Message {
                kind: 24,
                flags: 0,
                sequence: 0,
                body: &body,
                whole: &[],
            };
            is_route(&message, IPV4)
        };
        assert!(route(254, BY_KERNEL, 1) && route(255, 4, 2) && route(100, 3, 1));
        assert!(!route(255, BY_KERNEL, 2));
    }
}
