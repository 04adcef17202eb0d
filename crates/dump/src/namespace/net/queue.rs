//! Queueing disciplines of links that somebody has set: `tc-qdisc(8)`.

use gelid_image::messages::NetDeviceEntry;
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, Message, messages};
use gelid_sys::netlink::route::{
    DISCIPLINE, GET_DISCIPLINE, GET_FILTER, NEW_DISCIPLINE, discipline,
};

use super::{Error, table};

/// Disciplines that say with their options all that there is to say.
const PLAIN: [&[u8]; 9] = [
    b"pfifo",
    b"bfifo",
    b"pfifo_head_drop",
    b"pfifo_fast",
    b"noqueue",
    b"tbf",
    b"codel",
    b"fq_codel",
    b"netem",
];

/// Those that links do not have by themselves, as messages of rtnetlink.
pub(super) fn all(channel: &Channel, links: &[NetDeviceEntry]) -> Result<Option<Vec<u8>>, Error> {
    let told = table::dump(channel, GET_DISCIPLINE, &[0; DISCIPLINE], "disciplines")?;
    let mut kept = Vec::new();
    for message in messages(&told).flatten() {
        // What the kernel has chosen has no number.
        let is_own = message.word(discipline::HANDLE) == Some(0);
        if message.kind != NEW_DISCIPLINE || is_own {
            continue;
        }
        let attributes = Attributes(message.body.get(DISCIPLINE..).unwrap_or_default());
        let refused = |why| {
            let index = message.word(discipline::LINK).unwrap_or_default();
            let link = links.iter().find(|link| link.ifindex == index);
            let kind = attributes.text(discipline::KIND).unwrap_or_default();
            Error::Discipline {
                link: link.map_or_else(|| index.to_string(), |link| link.name.clone()),
                kind: String::from_utf8_lossy(kind).into_owned(),
                why,
            }
        };
        if let Some(why) = why(attributes) {
            return Err(refused(why));
        }
        if has_filters(channel, &message)? {
            return Err(refused("its filters are not dumped yet: remove them first"));
        }
        kept.extend_from_slice(message.whole);
        kept.resize(kept.len().next_multiple_of(4), 0);
    }
    Ok((!kept.is_empty()).then_some(kept))
}

/// Why a discipline is not dumped.
fn why(attributes: Attributes<'_>) -> Option<&'static str> {
    /// `TCA_STAB`
    const SIZES: u16 = 8;
    let kind = attributes.text(discipline::KIND).unwrap_or_default();
    if !PLAIN.contains(&kind) {
        return Some("disciplines of this kind are not dumped yet: remove it first");
    }
    if attributes.get(SIZES).is_some() {
        return Some("its table of sizes is not dumped yet: remove it first");
    }
    let options = attributes.get(discipline::OPTIONS).unwrap_or_default();
    (kind == b"netem" && varies(options)).then_some(
        "the kernel does not tell by which distribution its delay varies: set one without jitter, or remove it first",
    )
}

/// Whether the delay of a `netem` is not always the same.
fn varies(options: &[u8]) -> bool {
    /// Bytes of `struct tc_netem_qopt`, the last of which are the jitter.
    const FIXED: usize = 24;
    /// `TCA_NETEM_SLOT`, `TCA_NETEM_JITTER64`
    const VARYING: [u16; 2] = [12, 11];
    let jitter = gelid_sys::netlink::message::word(options, FIXED - 4);
    let more = Attributes(options.get(FIXED..).unwrap_or_default());
    let long = VARYING.iter().any(|kind| {
        let value = more.get(*kind).unwrap_or_default();
        value.iter().any(|byte| *byte != 0)
    });
    jitter != Some(0) || long
}

/// Whether packets are looked at before they come to a discipline.
fn has_filters(channel: &Channel, message: &Message<'_>) -> Result<bool, Error> {
    let mut request = [0; DISCIPLINE];
    let of = message.body.get(..DISCIPLINE).unwrap_or_default();
    request[..of.len()].copy_from_slice(of);
    // Those below this one.
    let handle = message.word(discipline::HANDLE).unwrap_or_default();
    request[discipline::HANDLE..][..4].fill(0);
    request[discipline::PARENT..][..4].copy_from_slice(&handle.to_ne_bytes());
    request[discipline::PARENT + 4..].fill(0);
    let told = channel.dump(GET_FILTER, &request);
    let told = told.map_err(Error::kernel("list", "filters"))?;
    Ok(!told.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::netlink::message::Builder;

    #[test]
    fn what_cannot_be_told_is_refused() {
        let of = |kind: &[u8], options: &[u8]| {
            let mut told = Builder::default();
            told.text(discipline::KIND, kind);
            told.put(discipline::OPTIONS, options);
            why(Attributes(told.bytes())).unwrap_or_default()
        };
        assert_eq!(of(b"tbf", &[1]), "");
        assert_eq!(of(b"netem", &[0; 24]), "");
        let mut jitter = [0; 24];
        jitter[20] = 1;
        assert!(of(b"netem", &jitter).contains("jitter"));
        assert!(of(b"netem", &[]).contains("jitter"));
        for kind in [&b"htb"[..], b"clsact", b"ingress"] {
            assert!(of(kind, &[]).contains("not dumped"));
        }
    }
}
