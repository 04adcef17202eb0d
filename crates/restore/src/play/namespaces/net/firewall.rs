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

/// Lifts what CRIU has set in the namespace to keep all packets away, and has recorded with the rest.
pub(super) fn lift_lock_of_criu(id: u32, description: &Description) -> Result<(), NetError> {
    const LIFT: &[u8] = b"*filter\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-F CRIU\n-X CRIU\nCOMMIT\n";
    let texts = [
        &description.nftables,
        &description.iptables,
        &description.ip6tables,
    ];
    let names = |text: &[u8]| {
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.any(|line| line == b"chain CRIU {" || line.starts_with(b":CRIU "))
    };
    if !texts.iter().any(|text| names(text)) {
        return Ok(());
    }
    for program in ["iptables-restore", "ip6tables-restore"] {
        match gelid_netlock::feed(program, &["-w", "--noflush"], LIFT) {
            // One of both families has none.
            Ok(()) | Err(gelid_netlock::Error::Failed { .. }) => {}
            Err(source) => return Err(NetError::Firewall { id, source }),
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
