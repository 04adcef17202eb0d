//! Makes what is in a network namespace, in a thread that has joined it.
//!
//! The order is that in which nothing gets out or in too early: sysctls, links that are down, the firewall; then links
//! are set up and get their addresses, routes and rules.

mod error;
mod firewall;
mod link;
mod making;
mod outside;
mod queue;
mod sysctl;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::Builder;
use gelid_sys::netlink::route::NEW_NSID;

pub use self::error::NetError;
pub(crate) use self::making::{Making, scatter};
use self::outside::Outside;
use crate::plan::namespaces::net::{Description, Link, NetOptions};

/// All network namespaces of the tree: their descriptors, and links that can be ends of pairs.
pub(super) struct Others<'a> {
    namespaces: &'a BTreeMap<u32, OwnedFd>,
    links: HashMap<(u32, u32), &'a Link>,
}

impl<'a> Others<'a> {
    /// Those with these numbers in the images.
    pub(super) fn new(
        namespaces: &'a BTreeMap<u32, OwnedFd>,
        described: impl Iterator<Item = (u32, &'a Description)>,
    ) -> Self {
        let links = described.flat_map(|(id, description)| {
            let links = description.links.iter();
            links.map(move |link| ((id, link.index), link))
        });
        Self {
            namespaces,
            links: links.collect(),
        }
    }

    /// A link of a namespace.
    fn end(&self, net: u32, index: u32) -> Option<(&'a Link, &'a OwnedFd)> {
        Some((self.links.get(&(net, index))?, self.namespaces.get(&net)?))
    }
}

/// A namespace that is being furnished, and what is around it.
pub(super) struct Site<'a> {
    id: u32,
    own: BorrowedFd<'a>,
    channel: &'a Channel,
    others: &'a Others<'a>,
    outside: &'a mut Outside,
    options: &'a NetOptions,
}

impl Site<'_> {
    fn failed(
        &self,
        operation: &'static str,
        object: &'static str,
    ) -> impl Fn(Errno) -> NetError + use<> {
        let id = self.id;
        move |errno| NetError::Kernel {
            id,
            operation,
            object: object.to_owned(),
            errno,
        }
    }
}

/// Makes what is in the namespace `id`, which the calling thread has joined. `made` has the ends of pairs that have
/// come to be with the other one. Where packets are kept away from connections that are still to be made, the rules of
/// the tree come later: they may stand in the way of making these.
pub(super) fn furnish(
    id: u32,
    description: &Description,
    others: &Others<'_>,
    outside: &mut Outside,
    options: &NetOptions,
    made: &mut HashSet<(u32, u32)>,
    is_locked: bool,
) -> Result<(), NetError> {
    let missing = NetError::Kernel {
        id,
        operation: "find",
        object: "itself".to_owned(),
        errno: Errno::NOENT,
    };
    let own = others.namespaces.get(&id).ok_or(missing)?;
    let channel = Channel::route().map_err(|errno| NetError::Kernel {
        id,
        operation: "ask for",
        object: "links".to_owned(),
        errno,
    })?;
    let mut site = Site {
        id,
        own: own.as_fd(),
        channel: &channel,
        others,
        outside,
        options,
    };
    sysctl::set(id, &description.sysctls, options.weak_sysctls)?;
    nsids(&site, description)?;
    link::make_all(&mut site, &description.links, made)?;
    queue::make(&site, &description.disciplines)?;
    if !is_locked {
        firewall::rules(id, description)?;
        firewall::lift_lock_of_criu(id, description)?;
    }
    link::set_up(&site, &description.links)?;
    table::addresses(&site, &description.addresses)?;
    table::neighbours(&site, &description.neighbours)?;
    table::nexthops(&site, &description.nexthops)?;
    table::routes(&site, &description.routes)?;
    table::rules(&site, &description.rules)?;
    firewall::connections(&site, description)
}

/// What can only be done once all namespaces have their links: ends of pairs are set up in both.
pub(super) fn finish(
    id: u32,
    description: &Description,
    others: &Others<'_>,
    outside: &mut Outside,
    options: &NetOptions,
) -> Result<(), NetError> {
    let Some(own) = others.namespaces.get(&id) else {
        return Ok(());
    };
    let channel = Channel::route().map_err(|errno| NetError::Kernel {
        id,
        operation: "ask for",
        object: "links".to_owned(),
        errno,
    })?;
    let site = Site {
        id,
        own: own.as_fd(),
        channel: &channel,
        others,
        outside,
        options,
    };
    table::remove_self_given(&site, &description.addresses)?;
    table::settle(&site, &description.addresses)?;
    link::finish(&site, &description.links)
}

/// Gives other namespaces the numbers by which this one knew them.
fn nsids(site: &Site<'_>, description: &Description) -> Result<(), NetError> {
    /// `NETNSA_NSID`
    const NUMBER: u16 = 1;
    /// `NETNSA_FD`
    const FD: u16 = 3;
    for known in &description.nsids {
        let Some(other) = site.others.namespaces.get(&known.target_ns_id) else {
            continue;
        };
        let mut request = Builder::new(&[0; 4]);
        request.word(NUMBER, known.netnsid_value.cast_unsigned());
        request.word(FD, other.as_raw_fd().cast_unsigned());
        match site.channel.tell(NEW_NSID, 0, request.bytes()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(site.failed("number", "another namespace")(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
