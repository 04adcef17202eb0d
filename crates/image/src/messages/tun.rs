//! What is special about a tun link. Sections 16.3 and 21.2 of the format.

messages! {
    /// An open tun device. A regular file with the same id describes the opening. Section 16.3.
    message TunfileEntry = "tunfile_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Attached device; absent if not attached.
        optional string netdev = 2;
        /// Queue detached.
        optional bool detached = 3;
        /// Network namespace id (section 4.2).
        optional uint32 ns_id = 4;
        /// gelid's own; CRIU skips it.
        optional message GelidTunfileEntry gelid = 1000;
    }

    /// What gelid records of an open tun device beyond the published format. Field 1000 of `tunfile_entry`.
    message GelidTunfileEntry = "gelid_tunfile_entry" {
        /// Flags of `TUNSETIFF`.
        optional uint32 flags = 1 as hex;
        /// Size of the virtio header of a device of the tree's own, bytes.
        optional uint32 vnethdr = 2;
        /// Its send buffer, bytes.
        optional uint32 sndbuf = 3;
    }

    /// What is special about a tun link. Section 21.2.
    message TunLinkEntry = "tun_link_entry" {
        /// `TUNSETIFF` flags.
        required uint32 flags = 1 as hex;
        /// Owner; -1 none.
        required int32 owner = 2;
        /// Group; -1 none.
        required int32 group = 3;
        /// Size of the virtio header, bytes.
        required uint32 vnethdr = 4;
        /// Send buffer, bytes.
        required uint32 sndbuf = 5;
    }
}
