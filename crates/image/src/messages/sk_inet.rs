//! An IPv4 or IPv6 socket. Section 14.2 of the format.

use super::{FownEntry, SkOptsEntry, SkShutdown, TcpOptsEntry};

messages! {
    /// Options of a raw socket, `raw(7)`. Section 14.2.
    message IpOptsRawEntry = "ip_opts_raw_entry" {
        /// `IP_HDRINCL`.
        optional bool hdrincl = 1;
        /// `IP_NODEFRAG`.
        optional bool nodefrag = 2;
        /// `IPV6_CHECKSUM`.
        optional bool checksum = 3;
        /// `ICMP_FILTER` words.
        repeated uint32 icmpv_filter = 4;
    }

    /// Options of the IP layer, `ip(7)`. Only those set are present. Section 14.2.
    message IpOptsEntry = "ip_opts_entry" {
        /// `IP_FREEBIND`.
        optional bool freebind = 1;
        /// Options of raw sockets.
        optional message IpOptsRawEntry raw = 4;
        /// `IP_PKTINFO`.
        optional bool pktinfo = 5;
        /// `IP_TOS`.
        optional uint32 tos = 6;
        /// `IP_TTL`.
        optional uint32 ttl = 7;
    }

    /// An IPv4 or IPv6 socket. Section 14.2.
    message InetSkEntry = "inet_sk_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Socket inode; hexadecimal key of `tcp-stream-*.img`.
        required uint32 ino = 2;
        /// 2 IPv4, 10 IPv6; gelid's own: 40 vsock, with the number of a machine as the only word of its address.
        required uint32 family = 3 as dict FAMILY;
        /// 1 stream, 2 datagram, 3 raw.
        required uint32 r#type = 4 as dict SOCK_TYPE;
        /// IP protocol.
        required uint32 proto = 5 as dict PROTO;
        /// TCP state number: 1 ESTABLISHED, 2 SYN_SENT, 3 SYN_RECV, 4 FIN_WAIT1, 5 FIN_WAIT2, 6
        /// TIME_WAIT, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 10 LISTEN, 11 CLOSING; UDP: 7 or 1
        /// (connected).
        required uint32 state = 6 as dict SOCK_STATE;
        /// Host byte order; for raw sockets `src_port` holds the protocol.
        required uint32 src_port = 7;
        /// Host byte order; for raw sockets `src_port` holds the protocol.
        required uint32 dst_port = 8;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 9 as hex;
        /// Listen backlog; for other states the number of bytes in the send queue.
        required uint32 backlog = 10;
        /// One word for IPv4, four for IPv6; each word is the network-order address bytes read as
        /// host u32 (127.0.0.1 = 16777343 on little-endian).
        repeated uint32 src_addr = 11 as ip;
        /// One word for IPv4, four for IPv6; each word is the network-order address bytes read as
        /// host u32 (127.0.0.1 = 16777343 on little-endian).
        repeated uint32 dst_addr = 12 as ip;
        /// Owner for I/O signals.
        required message FownEntry fown = 13;
        /// Options of the socket layer.
        required message SkOptsEntry opts = 14;
        /// IPv6 only flag (present for IPv6).
        optional bool v6only = 15;
        /// Options of the IP layer.
        optional message IpOptsEntry ip_opts = 16;
        /// Interface of a link-local IPv6 address.
        optional string ifname = 17;
        /// Network namespace id.
        optional uint32 ns_id = 18;
        /// [`SkShutdown`]; absent = none.
        optional enumeration SkShutdown shutdown = 19;
        /// Options of TCP.
        optional message TcpOptsEntry tcp_opts = 20;
        /// gelid's own; CRIU skips it.
        optional message GelidInetSkEntry gelid = 1000;
    }

    /// What gelid records of an internet socket beyond the published format. Field 1000 of `inet_sk_entry`.
    message GelidInetSkEntry = "gelid_inet_sk_entry" {
        /// Options that are not what they are in a new socket.
        repeated message GelidSocketOptionEntry option = 1;
        /// It speaks MPTCP.
        optional bool mptcp = 2;
        /// User who owns the socket, unless that is root.
        optional uint32 uid = 3;
        /// Of a connection that is over: an error waits to be told.
        optional bool error = 4;
        /// Multicast groups that it is in.
        repeated message GelidMembershipEntry membership = 5;
        /// Bound to an address that the machine does not have, though `IP_FREEBIND` is off by now.
        optional bool absent = 6;
    }

    /// A multicast group that a socket is in.
    message GelidMembershipEntry = "gelid_membership_entry" {
        /// Index of the network interface.
        required uint32 ifindex = 1;
        /// The group: 4 or 16 bytes.
        required bytes group = 2;
        /// Only the sources are heard; otherwise all but them.
        required bool include = 3;
        /// Sources, as the group.
        repeated bytes source = 4;
    }

    /// An option of a socket, `getsockopt(2)`.
    message GelidSocketOptionEntry = "gelid_socket_option_entry" {
        /// Level.
        required uint32 level = 1;
        /// Number of the option there.
        required uint32 name = 2;
        /// Its value as the kernel has it.
        required bytes value = 3;
    }
}
