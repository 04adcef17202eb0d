//! Addresses that the machine does not have, which sockets can be bound to all the same: `IP_FREEBIND` of `ip(7)`.

use std::net::SocketAddr;

use gelid_image::messages::InetSkEntry;
use gelid_sys::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Whether a socket is bound to such an address while its options do not tell so. A restore sees in this that the
/// address need not be there.
pub(super) fn is_absent(entry: &InetSkEntry, own: Option<SocketAddr>) -> bool {
    let told = entry.ip_opts.as_ref().and_then(|ip| ip.freebind);
    let Some(own) = own.filter(|_| told != Some(true)) else {
        return false;
    };
    let ip = own.ip();
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return false;
    }
    matches!(try_out(own), Err(Errno::ADDRNOTAVAIL))
}

/// Binds another socket to the address, at any port.
fn try_out(own: SocketAddr) -> Result<(), Errno> {
    let family = match own {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let other = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut any_port = own;
    any_port.set_port(0);
    bind(other, &any_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::IpOptsEntry;

    #[test]
    fn addresses_of_others_are_absent() {
        let entry = InetSkEntry::default();
        let absent = |text: &str| is_absent(&entry, text.parse().ok());
        assert!(absent("192.0.2.1:80"));
        assert!(!absent("127.0.0.1:80"));
        assert!(!absent("0.0.0.0:80"));
        assert!(!is_absent(&entry, None));
        let told = InetSkEntry {
            ip_opts: Some(IpOptsEntry {
                freebind: Some(true),
                ..IpOptsEntry::default()
            }),
            ..entry.clone()
        };
        assert!(!is_absent(&told, "192.0.2.1:80".parse().ok()));
    }
}
