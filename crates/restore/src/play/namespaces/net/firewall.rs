//! Rules of the firewall, and connections that it knows.

use gelid_sys::Errno;
use gelid_sys::netlink::channel::{CREATE, Channel};

use super::{NetError, Site};
use crate::plan::namespaces::net::Description;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`
const NEW_CONNECTION: u16 = 1 << 8;
/// `NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_NEW`
const NEW_EXPECTATION: u16 = 2 << 8;

/// Gives rules to the programs that read them. Where both tell of a table, that of iptables is whole.
pub(super) fn rules(id: u32, description: &Description) -> Result<(), NetError> {
    for (program, arguments, text) in [
        ("nft", &["-f", "-"][..], &description.nftables),
        ("iptables-restore", &["-w"], &description.iptables),
        ("ip6tables-restore", &["-w"], &description.ip6tables),
    ] {
        if !text.is_empty() {
            let fed = gelid_netlock::feed(program, arguments, text);
            fed.map_err(|source| NetError::Firewall { id, source })?;
        }
    }
    Ok(())
}

/// Makes connections known.
pub(super) fn connections(site: &Site<'_>, description: &Description) -> Result<(), NetError> {
    let all = [
        (NEW_CONNECTION, &description.connections),
        (NEW_EXPECTATION, &description.expected),
    ];
    if all.iter().all(|(_, planned)| planned.is_empty()) {
        return Ok(());
    }
    let failed = site.failed("add", "a connection of the firewall");
    let channel = Channel::netfilter().map_err(&failed)?;
    for (kind, planned) in all {
        for body in planned {
            match channel.tell(kind, CREATE, body) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
    Ok(())
}
