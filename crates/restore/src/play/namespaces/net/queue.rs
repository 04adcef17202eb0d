//! Queueing disciplines of links.

use std::collections::HashMap;

use gelid_sys::Errno;
use gelid_sys::netlink::channel::{CREATE, REPLACE};
use gelid_sys::netlink::message::{Attributes, Builder, messages, word};
use gelid_sys::netlink::route::{DISCIPLINE, GET_DISCIPLINE, NEW_DISCIPLINE, discipline};

use super::{NetError, Site};

/// Links and numbers of disciplines, and their kinds and options.
type Known = HashMap<(Option<u32>, Option<u32>), (Vec<u8>, Vec<u8>)>;

/// Makes them, each behind the one that it belongs to, and sees that the kernel has understood them.
pub(super) fn make(site: &Site<'_>, planned: &[Vec<u8>]) -> Result<(), NetError> {
    if planned.is_empty() {
        return Ok(());
    }
    let mut waiting: Vec<&Vec<u8>> = planned.iter().collect();
    while !waiting.is_empty() {
        let handle = |body: &&Vec<u8>| word(body, discipline::HANDLE);
        let missing: Vec<_> = waiting.iter().map(|body| major(handle(body))).collect();
        let waits = |body: &&Vec<u8>| {
            let parent = major(word(body, discipline::PARENT));
            parent != major(handle(body)) && missing.contains(&parent)
        };
        let (later, now): (Vec<_>, Vec<_>) = waiting.into_iter().partition(waits);
        if now.is_empty() {
            return Err(site
                .failed("set", "queueing disciplines that belong to each other")(
                Errno::LOOP,
            ));
        }
        for body in now {
            let request = settable(body);
            let told = site
                .channel
                .tell(NEW_DISCIPLINE, CREATE | REPLACE, request.bytes());
            told.map_err(site.failed("set", "a queueing discipline"))?;
        }
        waiting = later;
    }
    let told = site.channel.dump(GET_DISCIPLINE, &[0; DISCIPLINE]);
    let told = told.map_err(site.failed("look at", "queueing disciplines"))?;
    let now = known(messages(&told).flatten().map(|message| message.body));
    let wanted = known(planned.iter().map(Vec::as_slice));
    match wanted
        .iter()
        .all(|(key, value)| now.get(key) == Some(value))
    {
        true => Ok(()),
        false => Err(site.failed("set as it was", "a queueing discipline")(
            Errno::OPNOTSUPP,
        )),
    }
}

fn major(handle: Option<u32>) -> u32 {
    handle.unwrap_or_default() >> 16
}

/// A discipline as it is asked for: without what is only told.
fn settable(body: &[u8]) -> Builder {
    let (fixed, rest) = body.split_at(DISCIPLINE.min(body.len()));
    let mut fixed = fixed.to_vec();
    // Who uses it.
    if let Some(users) = fixed.get_mut(discipline::PARENT + 4..) {
        users.fill(0);
    }
    let mut request = Builder::new(&fixed);
    for (kind, value) in Attributes(rest).iter().flatten() {
        if matches!(kind, discipline::KIND | discipline::OPTIONS) {
            request.put(kind, value);
        }
    }
    request
}

fn known<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Known {
    let one = |body: &[u8]| {
        let key = (word(body, discipline::LINK), word(body, discipline::HANDLE));
        let all = Attributes(body.get(DISCIPLINE..).unwrap_or_default());
        let value = |kind| all.get(kind).unwrap_or_default().to_vec();
        (key, (value(discipline::KIND), value(discipline::OPTIONS)))
    };
    bodies.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_told_is_left_out() {
        let mut fixed = [0; DISCIPLINE];
        fixed[discipline::HANDLE + 2] = 1;
        fixed[discipline::PARENT + 4] = 3;
        let mut told = Builder::new(&fixed);
        told.text(discipline::KIND, b"tbf")
            .put(discipline::OPTIONS, &[1, 2])
            .put(7, &[9; 8]);
        let request = settable(told.bytes());
        let all = Attributes(&request.bytes()[DISCIPLINE..]);
        assert_eq!(all.get(discipline::OPTIONS), Some(&[1, 2][..]));
        assert_eq!(
            (all.get(7), request.bytes()[discipline::PARENT + 4]),
            (None, 0)
        );
        let (told, request) = (told.bytes().to_vec(), request.bytes().to_vec());
        assert_eq!(known([&*told].into_iter()), known([&*request].into_iter()));
    }
}
