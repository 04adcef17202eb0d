//! Addresses, neighbours, nexthops, routes and rules.

use std::collections::HashSet;
use std::time::Duration;

use gelid_sys::Errno;
use gelid_sys::netlink::channel::{APPEND, CREATE, REPLACE};
use gelid_sys::netlink::message::{Attributes, messages};
use gelid_sys::netlink::route::{
    ADDRESS, BRIDGE, DELETE_ADDRESS, DELETE_ROUTE, DELETE_RULE, GET_ADDRESS, GET_LINK, GET_ROUTE,
    GET_RULE, IPV4, IPV6, NEIGHBOUR, NEW_ADDRESS, NEW_NEIGHBOUR, NEW_NEXTHOP, NEW_ROUTE, NEW_RULE,
    NEXTHOP, ROUTE, RULE, RUNNING, link_header,
};

use super::{NetError, Site};

/// `NHA_GROUP`
const GROUP: u16 = 2;
/// `RTNH_F_ONLINK`, the one flag of a route and its nexthops that is set, not told.
const ON_LINK: u8 = 4;
/// `RT_TABLE_MAIN`
const MAIN: u8 = 254;
/// `RTPROT_KERNEL`
const BY_KERNEL: u8 = 2;
/// `IFA_F_TENTATIVE`
const TENTATIVE: u32 = 0x40;
/// `IFA_FLAGS`
const FLAGS: u16 = 8;
/// How long addresses may take until they can be used.
const PATIENCE: Duration = Duration::from_millis(300);

/// Gives links their addresses.
pub(super) fn addresses(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    for body in planned {
        let told = site.channel.tell(NEW_ADDRESS, CREATE | REPLACE, body);
        told.map_err(site.failed("add", "an address"))?;
    }
    Ok(())
}

/// Waits until addresses of IPv6 can be used that could be used.
pub(super) fn settle(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    let usable: HashSet<Vec<u8>> = planned
        .iter()
        .filter(|body| body.first() == Some(&IPV6) && flags(body) & TENTATIVE == 0)
        .filter_map(|body| of_address(body))
        .collect();
    let mut patience = PATIENCE;
    while !usable.is_empty() && !patience.is_zero() {
        let failed = site.failed("look at", "addresses");
        let links = site.channel.dump(GET_LINK, &link_header(0, 0, 0));
        let links = links.map_err(&failed)?;
        let running = messages(&links).flatten();
        let running: HashSet<u32> = running
            .filter(|link| link.word(8).is_some_and(|flags| flags & RUNNING != 0))
            .filter_map(|link| link.word(4))
            .collect();
        let now = site.channel.dump(GET_ADDRESS, &[0; ADDRESS]);
        let now = now.map_err(&failed)?;
        let mut all = messages(&now).flatten();
        let waits = all.any(|address| {
            let on = address
                .word(4)
                .is_some_and(|index| running.contains(&index));
            let wanted = of_address(address.body).is_some_and(|key| usable.contains(&key));
            on && wanted && flags(address.body) & TENTATIVE != 0
        });
        if !waits {
            break;
        }
        let pause = Duration::from_millis(1);
        std::thread::sleep(pause);
        patience -= pause;
    }
    Ok(())
}

/// Takes addresses away that links have given themselves, by chance or by rule, and that were not there.
pub(super) fn remove_self_given(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    /// `RT_SCOPE_LINK`
    const LINK_LOCAL: u8 = 253;
    let wanted: HashSet<Vec<u8>> = planned.iter().filter_map(|body| of_address(body)).collect();
    let now = site.channel.dump(GET_ADDRESS, &[0; ADDRESS]);
    let now = now.map_err(site.failed("look at", "addresses"))?;
    for address in messages(&now).flatten() {
        let is_local = address.body.first() == Some(&IPV6) && address.body[3] == LINK_LOCAL;
        if is_local && of_address(address.body).is_some_and(|key| !wanted.contains(&key)) {
            let told = site.channel.tell(DELETE_ADDRESS, 0, address.body);
            told.map_err(site.failed("remove", "an address"))?;
        }
    }
    Ok(())
}

fn flags(address: &[u8]) -> u32 {
    let attributes = Attributes(address.get(ADDRESS..).unwrap_or_default());
    attributes.word(FLAGS).unwrap_or_default()
}

/// What tells an address from others: its link and itself.
fn of_address(body: &[u8]) -> Option<Vec<u8>> {
    let attributes = Attributes(body.get(ADDRESS..)?);
    Some([body.get(4..8)?, attributes.get(1)?].concat())
}

/// Makes neighbours known.
pub(super) fn neighbours(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    /// `NUD_PERMANENT`
    const PERMANENT: u8 = 0x80;
    for body in planned {
        // Where all and some are sent, a tunnel has a list.
        let order = match is_of_many(body) {
            true => APPEND,
            false => REPLACE,
        };
        let told = site.channel.tell(NEW_NEIGHBOUR, CREATE | order, body);
        let lasting = body.get(8).is_some_and(|state| state & PERMANENT != 0);
        match told {
            Ok(()) | Err(Errno::EXIST) => {}
            // It will be found out again.
            Err(errno) if !lasting => tracing::debug!(%errno, "a neighbour is not known any more"),
            Err(errno) => return Err(site.failed("add", "a neighbour")(errno)),
        }
    }
    Ok(())
}

/// Whether an entry of a bridge or tunnel is that of a group, or of all that have none.
fn is_of_many(body: &[u8]) -> bool {
    /// `NDA_LLADDR`
    const HARDWARE: u16 = 2;
    let address = Attributes(body.get(NEIGHBOUR..).unwrap_or_default()).get(HARDWARE);
    let many = |address: &[u8]| address.first().is_some_and(|byte| byte & 1 != 0);
    let of_bridge = body.first() == Some(&BRIDGE);
    of_bridge && address.is_some_and(|it| many(it) || it.iter().all(|byte| *byte == 0))
}

/// Makes nexthops, then groups of them.
pub(super) fn nexthops(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    let is_group = |body: &&Vec<u8>| Attributes(&body[NEXTHOP..]).get(GROUP).is_some();
    let (groups, single): (Vec<_>, Vec<_>) = planned.iter().partition(is_group);
    for body in single.into_iter().chain(groups) {
        let mut body = body.clone();
        let kept = u32::from(ON_LINK & body[4]);
        body[4..8].copy_from_slice(&kept.to_ne_bytes());
        // The scope is only told.
        (body[1], body[3]) = (0, 0);
        let told = site.channel.tell(NEW_NEXTHOP, CREATE | REPLACE, &body);
        told.map_err(site.failed("add", "a nexthop"))?;
    }
    Ok(())
}

/// Makes routes, and takes away those that addresses have brought and that were not there.
pub(super) fn routes(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    let mut waiting: Vec<(u16, Vec<u8>)> = planned.iter().map(|body| settable(body)).collect();
    // A gateway has to be reached by another route first.
    waiting.sort_by_key(|(rank, _)| *rank);
    while !waiting.is_empty() {
        let (mut later, mut last) = (Vec::new(), None);
        let before = waiting.len();
        for (rank, body) in waiting {
            let order = match body.first() {
                Some(&IPV4) => APPEND,
                _ => 0,
            };
            match site.channel.tell(NEW_ROUTE, CREATE | order, &body) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    last = Some(errno);
                    later.push((rank, body));
                }
            }
        }
        if later.len() == before
            && let Some(errno) = last
        {
            return Err(site.failed("add", "a route")(errno));
        }
        waiting = later;
    }
    remove_unplanned(site, planned)
}

/// Takes routes of the main table away that the kernel has made and the images do not have.
fn remove_unplanned(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    let wanted: HashSet<_> = planned.iter().filter_map(|body| key(body)).collect();
    for family in [IPV4, IPV6] {
        let mut request = [0; ROUTE];
        request[0] = family;
        let now = site.channel.dump(GET_ROUTE, &request);
        let now = now.map_err(site.failed("list", "routes"))?;
        for route in messages(&now).flatten() {
            let by_kernel = route.body.get(4..6) == Some(&[MAIN, BY_KERNEL]);
            if by_kernel && key(route.body).is_some_and(|key| !wanted.contains(&key)) {
                let told = site.channel.tell(DELETE_ROUTE, 0, route.body);
                match told {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(site.failed("remove", "a route")(errno)),
                }
            }
        }
    }
    Ok(())
}

/// What tells a route from others: family, length, table, origin, kind; destination, link, metric, own address.
fn key(body: &[u8]) -> Option<Vec<u8>> {
    let attributes = Attributes(body.get(ROUTE..)?);
    let mut key = vec![body[0], body[1], body[4], body[5], body[7]];
    for kind in [1, 4, 6, 7] {
        let value = attributes.get(kind).unwrap_or_default();
        key.push(value.len() as u8);
        key.extend_from_slice(value);
    }
    Some(key)
}

/// A route as it is asked for: without what is only told. Those with a gateway come later.
fn settable(body: &[u8]) -> (u16, Vec<u8>) {
    /// `RTA_GATEWAY`, `RTA_MULTIPATH`, `RTA_VIA`
    const GATEWAY: u16 = 5;
    const MULTIPATH: u16 = 9;
    const VIA: u16 = 18;
    /// `RTA_NH_ID`, and what it stands for: `RTA_OIF`, the above, `RTA_ENCAP_TYPE`, `RTA_ENCAP`.
    const NEXTHOP_ID: u16 = 30;
    const BY_NEXTHOP: [u16; 6] = [4, GATEWAY, MULTIPATH, VIA, 21, 22];
    let attributes = Attributes(body.get(ROUTE..).unwrap_or_default());
    let by_object = attributes.get(NEXTHOP_ID).is_some();
    let mut fixed = body.get(..ROUTE).unwrap_or_default().to_vec();
    if let Some(flags) = fixed.get_mut(8..) {
        let kept = ON_LINK & flags[0];
        flags.fill(0);
        flags[0] = kept;
    }
    let mut request = gelid_sys::netlink::message::Builder::new(&fixed);
    for (kind, value) in attributes.iter().flatten() {
        match kind {
            _ if by_object && BY_NEXTHOP.contains(&kind) => {}
            MULTIPATH => {
                request.put(kind, &without_state(value));
            }
            _ => {
                request.put(kind, value);
            }
        }
    }
    let far = [GATEWAY, MULTIPATH, VIA, NEXTHOP_ID];
    let far = far.iter().any(|kind| attributes.get(*kind).is_some());
    (far.into(), request.bytes().to_vec())
}

/// Nexthops (`struct rtnexthop`) without the flags that tell how they are.
fn without_state(nexthops: &[u8]) -> Vec<u8> {
    let mut bytes = nexthops.to_vec();
    let mut at = 0;
    while let Some(head) = bytes.get_mut(at..at + 8) {
        head[2] &= ON_LINK;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        at += len.max(8).next_multiple_of(4);
    }
    bytes
}

/// Makes rules those of the images, and no others.
pub(super) fn rules(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    if planned.is_empty() {
        return Ok(());
    }
    let mut missing: Vec<&[u8]> = planned.iter().map(Vec::as_slice).collect();
    for family in [IPV4, IPV6] {
        let mut request = [0; RULE];
        request[0] = family;
        let now = match site.channel.dump(GET_RULE, &request) {
            Err(Errno::AFNOSUPPORT) => continue,
            now => now.map_err(site.failed("list", "rules"))?,
        };
        for rule in messages(&now).flatten() {
            match missing.iter().position(|wanted| *wanted == rule.body) {
                Some(at) => drop(missing.remove(at)),
                None => {
                    let told = site.channel.tell(DELETE_RULE, 0, rule.body);
                    told.map_err(site.failed("remove", "a rule"))?;
                }
            }
        }
    }
    for body in missing {
        let told = site.channel.tell(NEW_RULE, CREATE, body);
        told.map_err(site.failed("add", "a rule"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::netlink::message::Builder;

    #[test]
    fn what_is_only_told_is_left_out() {
        let mut route = Builder::new(&[IPV4, 0, 0, 0, MAIN, 3, 0, 1, 0x10 | ON_LINK, 0, 0, 0]);
        route.word(4, 2).put(5, &[10, 0, 0, 1]).word(30, 7);
        let (rank, body) = settable(route.bytes());
        let attributes = Attributes(&body[ROUTE..]);
        assert_eq!((rank, body[8], attributes.word(30)), (1, ON_LINK, Some(7)));
        assert_eq!((attributes.get(4), attributes.get(5)), (None, None));
        let (rank, _) = settable(Builder::new(&[IPV4; ROUTE]).bytes());
        assert_eq!(rank, 0);
    }

    #[test]
    fn nexthops_lose_their_state() {
        let one = [8, 0, 0x11, 0, 2, 0, 0, 0];
        let two = [12, 0, ON_LINK | 1, 0, 3, 0, 0, 0, 4, 0, 5, 0];
        let bytes = without_state(&[&one[..], &two].concat());
        assert_eq!((bytes[2], bytes[10]), (0, ON_LINK));
        assert_eq!(without_state(&[0; 9]), [0; 9]);
    }
}
