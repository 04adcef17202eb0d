//! Multicast groups that sockets are in.

use std::net::IpAddr;

use gelid_image::messages::GelidMembershipEntry;
use gelid_sys::multicast::Membership;

use super::super::Error;

/// Checks records.
pub(super) fn plan(
    object: &str,
    entries: &[GelidMembershipEntry],
) -> Result<Vec<Membership>, Error> {
    /// Each is a call, and each source an address in it.
    const MANY: usize = 1 << 12;
    let count = entries.iter().map(|it| it.source.len() + 1).sum::<usize>();
    if count > MANY {
        let rule = "no socket is in that many groups";
        return Err(Error::invalid(object, "gelid.membership", count, rule));
    }
    let address = |bytes: &[u8]| {
        let rule = "an address has 4 or 16 bytes, all of a membership the same";
        address(bytes).ok_or_else(|| {
            Error::invalid(
                object,
                "gelid.membership",
                format!("{} bytes", bytes.len()),
                rule,
            )
        })
    };
    let memberships = entries.iter().map(|entry| {
        let group = address(&entry.group)?;
        let sources = entry.source.iter();
        // One of another family is none.
        let sources = sources.filter(|source| source.len() == entry.group.len());
        Ok(Membership {
            index: entry.ifindex,
            group,
            include: entry.include,
            sources: sources
                .map(|source| address(source))
                .collect::<Result<_, _>>()?,
        })
    });
    memberships.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_addresses() {
        let entry = |group: &[u8], sources: usize| GelidMembershipEntry {
            ifindex: 1,
            group: group.to_vec(),
            include: true,
            source: vec![vec![10, 0, 0, 1]; sources],
        };
        let planned = plan("it", &[entry(&[239, 1, 2, 3], 1)]).unwrap();
        assert_eq!(planned[0].group, "239.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(planned[0].sources.len(), 1);
        assert!(plan("it", &[entry(&[1, 2, 3], 0)]).is_err());
        assert!(plan("it", &[entry(&[239, 1, 2, 3], 5000)]).is_err());
    }
}
