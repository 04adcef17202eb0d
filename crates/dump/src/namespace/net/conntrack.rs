//! Connections that the firewall knows, and those it expects, as messages of netlink. Section 21.5 of the format.

use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::messages;
use rustix::io::Errno;

use super::Error;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET_CONNECTION: u16 = (1 << 8) | 1;
/// `NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_GET`
const GET_EXPECTATION: u16 = (2 << 8) | 1;
/// Bytes of `struct nfgenmsg`.
const FIXED: usize = 4;

/// Both lists.
pub(super) fn tables() -> Result<(Vec<u8>, Vec<u8>), Error> {
    let channel = match Channel::netfilter() {
        Err(Errno::PROTONOSUPPORT) => return Ok((Vec::new(), Vec::new())),
        channel => channel.map_err(Error::kernel("ask for", "connections of the firewall"))?,
    };
    Ok((
        list(&channel, GET_CONNECTION)?,
        list(&channel, GET_EXPECTATION)?,
    ))
}

fn list(channel: &Channel, kind: u16) -> Result<Vec<u8>, Error> {
    let told = match channel.dump(kind, &[0; FIXED]) {
        // A kernel that tracks none, or tells nobody.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT) => return Ok(Vec::new()),
        told => told.map_err(Error::kernel("list", "connections of the firewall"))?,
    };
    let mut tight = Vec::with_capacity(told.len());
    for message in messages(&told).flatten() {
        tight.extend_from_slice(message.whole);
    }
    Ok(tight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::netlink::message::unpadded;

    #[test]
    fn messages_follow_without_a_gap() {
        let (connections, expected) = tables().unwrap();
        assert!(unpadded(&connections).all(|message| message.is_some()));
        assert!(unpadded(&expected).all(|message| message.is_some()));
    }
}
