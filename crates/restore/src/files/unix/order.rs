//! In which order datagram sockets connect with those who are not their peers.
//!
//! Nobody can connect with a socket that is connected with somebody else. So each comes after all who connect
//! with it, but for the one that it connects with itself.

use std::collections::BTreeMap;

use super::super::Error;
use super::{Target, Unix};

/// Orders those of `sockets` that have a target, which are given in an order that counts where it can.
pub(super) fn connects(
    order: &[u32],
    sockets: &BTreeMap<u32, Box<Unix>>,
) -> Result<Vec<u32>, Error> {
    if sockets.values().all(|socket| socket.target.is_none()) {
        return Ok(Vec::new());
    }
    let target = |id: &u32| match sockets.get(id).map(|socket| &socket.target) {
        Some(Some(Target::Socket(target))) => Some(*target),
        _ => None,
    };
    // How many must come before.
    let mut before: BTreeMap<u32, usize> = BTreeMap::new();
    for id in order {
        if let Some(to) = target(id)
            && target(&to) != Some(*id)
        {
            *before.entry(to).or_default() += 1;
        }
    }
    let targeted = |id: &&u32| sockets.get(id).is_some_and(|it| it.target.is_some());
    let mut ready: Vec<u32> = order.iter().filter(targeted).copied().collect();
    let all = ready.len();
    ready.retain(|id| before.get(id).is_none_or(|count| *count == 0));
    let mut sorted = Vec::with_capacity(all);
    let mut at = 0;
    while let Some(id) = ready.get(at).copied() {
        at += 1;
        sorted.push(id);
        if let Some(to) = target(&id)
            && target(&to) != Some(id)
            && let Some(count) = before.get_mut(&to)
        {
            *count -= 1;
            if *count == 0 && target(&to).is_some() {
                ready.push(to);
            }
        }
    }
    if sorted.len() == all {
        return Ok(sorted);
    }
    let first = order
        .iter()
        .filter(targeted)
        .find(|id| !sorted.contains(id));
    let id = first.copied().unwrap_or_default();
    let rule = "no sockets can be connected with each other in a ring";
    let object = format!("file {id} (a Unix socket)");
    Err(Error::invalid(object, "peer", "a ring", rule))
}
