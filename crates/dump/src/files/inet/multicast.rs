//! Multicast groups: the kernel tells whether a socket is in one, not in which. So each is asked about those that
//! anybody is in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gelid_image::messages::GelidMembershipEntry;
use gelid_sys::multicast::{self, Membership};

use super::super::{Error, Object};

/// Groups that anybody is in, with their interfaces.
#[derive(Debug)]
pub(super) struct Groups(Vec<(u32, IpAddr)>);

impl Groups {
    /// Reads what the kernel tells; where it tells nothing, there are none.
    pub(super) fn read() -> Self {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        let mut all = four(&read("/proc/thread-self/net/igmp"));
        all.extend(six(&read("/proc/thread-self/net/igmp6")));
        Self(all)
    }

    /// Those that a socket is in.
    pub(super) fn of(&self, object: &Object<'_>) -> Result<Vec<GelidMembershipEntry>, Error> {
        let all = self.0.iter().copied();
        let memberships =
            all.map(|(index, group)| multicast::membership(object.file, index, group));
        let memberships = memberships.filter_map(Result::transpose);
        let entries = memberships.map(|membership| membership.map(entry));
        let entries: Result<_, _> = entries.collect();
        entries.map_err(object.failed("ask for the multicast groups of"))
    }
}

fn entry(membership: Membership) -> GelidMembershipEntry {
    let mut sources = membership.sources;
    sources.sort();
    GelidMembershipEntry {
        ifindex: membership.index,
        group: octets(membership.group),
        include: membership.include,
        source: sources.into_iter().map(octets).collect(),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `/proc/net/igmp`: a line for each interface, and below it one for each group.
fn four(text: &str) -> Vec<(u32, IpAddr)> {
    let (mut index, mut groups) = (0, Vec::new());
    for line in text.lines().skip(1) {
        let first = line.split_whitespace().next().unwrap_or_default();
        if line.starts_with(char::is_whitespace) {
            let word = u32::from_str_radix(first, 16);
            groups.extend(word.map(|word| (index, Ipv4Addr::from(word.to_ne_bytes()).into())));
        } else {
            index = first.parse().unwrap_or_default();
        }
    }
    groups
}

/// `/proc/net/igmp6`: a line for each group, with the interface in front.
fn six(text: &str) -> Vec<(u32, IpAddr)> {
    let lines = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let (index, group) = (words.next()?, words.nth(1)?);
        let group = u128::from_str_radix(group, 16).ok()?;
        Some((index.parse().ok()?, Ipv6Addr::from(group).into()))
    });
    lines.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_kernel_are_understood() {
        let text = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                    1\tlo        :     1      V3\n\
                    \t\t\t\t010000E0     1 0:00000000\t\t0\n\
                    2\teth0      :     2      V3\n\
                    \t\t\t\t030201EF     1 0:00000000\t\t0\n";
        let group = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            four(text),
            [(1, group("224.0.0.1")), (2, group("239.1.2.3"))]
        );
        let text = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n";
        assert_eq!(six(text), [(1, group("ff02::1"))]);
        assert!(six("x y z\n").is_empty());
    }
}
