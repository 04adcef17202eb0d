//! What gelid records of network namespaces and their links beyond the published format.
//!
//! All of it hangs on field 1000 of a published message, which other readers skip.

messages! {
    /// Of a link. Field 1000 of `net_device_entry`.
    message GelidNetDeviceEntry = "gelid_net_device_entry" {
        /// `IFLA_INFO_KIND`. Links whose kind has no number of its own are recorded as `EXTLINK`.
        optional string kind = 1;
        /// The attributes in `IFLA_INFO_DATA`, as the kernel told them.
        optional bytes data = 2;
        /// The attributes in `IFLA_INFO_SLAVE_DATA` of a port of a bridge.
        optional bytes port = 3;
        /// `IFLA_LINK`: index of the link below this one, in the same namespace.
        optional uint32 lower = 4;
        /// `IFLA_TXQLEN`
        optional uint32 queue_length = 5;
        /// `IFLA_GROUP`
        optional uint32 group = 6;
        /// `IFLA_IFALIAS`
        optional bytes alias = 7;
        /// `IFLA_NUM_TX_QUEUES`
        optional uint32 senders = 8;
        /// `IFLA_NUM_RX_QUEUES`
        optional uint32 receivers = 9;
        /// `IFLA_ALT_IFNAME`
        repeated string names = 10;
        /// Sysctls of the device that the lists of the format lack.
        repeated message GelidSysctlEntry sysctls = 11;
        /// Groups of the link layer that it was given (`SIOCADDMULTI`).
        repeated bytes groups = 12;
    }

    /// Of a namespace. Field 1000 of `netns_entry`.
    message GelidNetnsEntry = "gelid_netns_entry" {
        /// Sysctls that the lists of the format lack.
        repeated message GelidSysctlEntry sysctls = 1;
        /// Nexthop objects, as messages of rtnetlink.
        optional bytes nexthops = 2;
        /// Neighbours, those of bridges and tunnels among them, as messages of rtnetlink.
        optional bytes neighbours = 3;
        /// Queueing disciplines that somebody has set, as messages of rtnetlink.
        optional bytes disciplines = 4;
        /// Whether `lo` is up in a namespace that is recorded as empty.
        optional bool loopback_up = 5;
    }

    /// A sysctl.
    message GelidSysctlEntry = "gelid_sysctl_entry" {
        /// Path below `/proc/sys/net`; in a device's list without the name of the device.
        required string name = 1;
        /// Value, as it is read, without the end of the line.
        required bytes value = 2;
    }
}
