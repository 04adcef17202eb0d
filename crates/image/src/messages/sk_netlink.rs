//! A netlink socket, `netlink(7)`. Section 14.6 of the format.

use super::{FownEntry, GelidSocketOptionEntry, SkOptsEntry};

messages! {
    /// A netlink socket, `netlink(7)`. Section 14.6.
    message NetlinkSkEntry = "netlink_sk_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Inode number of the socket.
        required uint32 ino = 2;
        /// Netlink protocol.
        required uint32 protocol = 3;
        /// State, a TCP state number.
        required uint32 state = 4;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 6 as hex;
        /// Own port; 0 = unbound.
        required uint32 portid = 7;
        /// Multicast groups, words of the mask.
        repeated uint32 groups = 8;
        /// Destination port.
        required uint32 dst_portid = 9;
        /// Destination group.
        required uint32 dst_group = 10;
        /// Owner for I/O signals.
        required message FownEntry fown = 11;
        /// Options of the socket layer.
        required message SkOptsEntry opts = 12;
        /// Network namespace id (section 4.2).
        optional uint32 ns_id = 13;
        /// gelid's own: `SOCK_DGRAM`, where others have `SOCK_RAW`. It makes no difference but to who asks.
        optional bool datagrams = 1000;
        /// gelid's own: options that are not what they are in a new socket.
        repeated message GelidSocketOptionEntry option = 1001;
    }
}
