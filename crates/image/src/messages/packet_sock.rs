//! A packet socket, `packet(7)`. Section 14.6 of the format.

use super::{FownEntry, GelidSocketOptionEntry, SkOptsEntry};

messages! {
    /// A multicast membership of a packet socket. Section 14.6.
    message PacketMclist = "packet_mclist" {
        /// Interface index.
        required uint32 index = 1;
        /// Kind of membership.
        required uint32 r#type = 2;
        /// Address.
        required bytes addr = 3;
    }

    /// Geometry of a packet ring, `packet(7)`. Section 14.6.
    message PacketRing = "packet_ring" {
        /// Block size, bytes.
        required uint32 block_size = 1;
        /// Number of blocks.
        required uint32 block_nr = 2;
        /// Frame size, bytes.
        required uint32 frame_size = 3;
        /// Number of frames.
        required uint32 frame_nr = 4;
        /// Block timeout, milliseconds.
        required uint32 retire_tmo = 5;
        /// Private area per block, bytes.
        required uint32 sizeof_priv = 6;
        /// Feature bits.
        required uint32 features = 7;
    }

    /// A packet socket, `packet(7)`. Section 14.6.
    message PacketSockEntry = "packet_sock_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Socket type.
        required uint32 r#type = 2;
        /// Protocol in network byte order; 768 = all.
        required uint32 protocol = 3;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 4 as hex;
        /// Bound interface; 0 none.
        required uint32 ifindex = 5;
        /// Owner for I/O signals.
        required message FownEntry fown = 6;
        /// Options of the socket layer.
        required message SkOptsEntry opts = 7;
        /// `PACKET_VERSION`.
        required uint32 version = 8;
        /// `PACKET_RESERVE`, bytes.
        required uint32 reserve = 9;
        /// `PACKET_AUXDATA`.
        required bool aux_data = 10;
        /// `PACKET_ORIGDEV`.
        required bool orig_dev = 11;
        /// `PACKET_VNET_HDR`.
        required bool vnet_hdr = 12;
        /// `PACKET_LOSS`.
        required bool loss = 13;
        /// `PACKET_TIMESTAMP`.
        required uint32 timestamp = 14;
        /// `PACKET_COPY_THRESH`, bytes.
        required uint32 copy_thresh = 15;
        /// Memberships.
        repeated message PacketMclist mclist = 16;
        /// `PACKET_FANOUT`; 4294967295 = none.
        optional uint32 fanout = 17 default "4294967295";
        /// Receive ring.
        optional message PacketRing rx_ring = 18;
        /// Send ring.
        optional message PacketRing tx_ring = 19;
        /// Network namespace id (section 4.2).
        optional uint32 ns_id = 20;
        /// gelid's own: options that are not what they are in a new socket.
        repeated message GelidSocketOptionEntry option = 1000;
    }
}
