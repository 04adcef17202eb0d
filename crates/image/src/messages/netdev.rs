//! `netns-*.img`: a network namespace. Sections 21.1 and 21.2 of the format.

use super::{
    GelidNetDeviceEntry, GelidNetnsEntry, MacvlanLinkEntry, SitEntry, SysctlEntry, TunLinkEntry,
};

enumerations! {
    /// Kind of a network link (section 21.2).
    enumeration NdType = "nd_type" {
        /// Loopback.
        Loopback = 1 "LOOPBACK";
        /// veth.
        Veth = 2 "VETH";
        /// tun.
        Tun = 3 "TUN";
        /// Provided from outside.
        Extlink = 4 "EXTLINK";
        /// venet.
        Venet = 5 "VENET";
        /// Bridge.
        Bridge = 6 "BRIDGE";
        /// macvlan.
        Macvlan = 7 "MACVLAN";
        /// sit.
        Sit = 8 "SIT";
    }
}

messages! {
    /// `netdev-*.img`: a network link. Section 21.2.
    message NetDeviceEntry = "net_device_entry" {
        /// [`NdType`].
        required enumeration NdType r#type = 1;
        /// Index.
        required uint32 ifindex = 2;
        /// MTU, bytes.
        required uint32 mtu = 3;
        /// `IFF_*` bits.
        required uint32 flags = 4 as hex;
        /// Name of the link.
        required string name = 5;
        /// tun attributes.
        optional message TunLinkEntry tun = 6;
        /// Hardware address.
        optional bytes address = 7;
        /// Obsolete integers.
        repeated int32 conf = 8;
        /// IPv4 sysctls, list 21.3, by position.
        repeated message SysctlEntry conf4 = 9;
        /// IPv6 sysctls, list 21.4, by position.
        repeated message SysctlEntry conf6 = 10;
        /// macvlan attributes.
        optional message MacvlanLinkEntry macvlan = 11;
        /// veth: index of the peer.
        optional uint32 peer_ifindex = 12;
        /// veth: namespace id of the peer; absent if outside.
        optional uint32 peer_nsid = 13;
        /// Ifindex of the bridge the link belongs to.
        optional uint32 master = 14;
        /// SIT attributes.
        optional message SitEntry sit = 15;
        /// gelid's own; CRIU skips it.
        optional message GelidNetDeviceEntry gelid = 1000;
    }

    /// The number by which one network namespace knows another. Section 21.1.
    message NetnsId = "netns_id" {
        /// Namespace id (section 4.2).
        required uint32 target_ns_id = 1;
        /// Number used here.
        required int32 netnsid_value = 2;
    }

    /// `netns-*.img`: a network namespace. Section 21.1.
    message NetnsEntry = "netns_entry" {
        /// Obsolete integers.
        repeated int32 def_conf = 1;
        /// Obsolete integers.
        repeated int32 all_conf = 2;
        /// IPv4 device sysctls of `default`, list 21.3, by position.
        repeated message SysctlEntry def_conf4 = 3;
        /// IPv4 device sysctls of `all`.
        repeated message SysctlEntry all_conf4 = 4;
        /// IPv6 device sysctls of `default`, list 21.4, by position.
        repeated message SysctlEntry def_conf6 = 5;
        /// IPv6 device sysctls of `all`.
        repeated message SysctlEntry all_conf6 = 6;
        /// Ids by which other network namespaces are known here: CRIU namespace id `target_ns_id` ↔
        /// `netnsid_value`.
        repeated message NetnsId nsids = 7;
        /// Namespace provided from outside; all else is absent then.
        optional string ext_key = 8;
        /// `net.unix.max_dgram_qlen`.
        repeated message SysctlEntry unix_conf = 9;
        /// `net.ipv4.ping_group_range` (text; no `sarg` if it has the default value).
        repeated message SysctlEntry ipv4_sysctl = 10;
        /// gelid's own; CRIU skips it.
        optional message GelidNetnsEntry gelid = 1000;
    }
}
