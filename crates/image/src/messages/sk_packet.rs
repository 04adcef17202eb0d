//! `sk-queues.img`: an unread packet; `length` bytes follow the record. Section 14.5 of the format.

messages! {
    /// Ancillary data of a packet, `unix(7)`. Section 14.5.
    message ScmEntry = "scm_entry" {
        /// 1 = `SCM_RIGHTS`.
        required uint32 r#type = 1;
        /// File ids in flight.
        repeated uint32 rights = 2;
    }

    /// `sk-queues.img`: an unread packet; `length` bytes follow the record. Section 14.5.
    message SkPacketEntry = "sk_packet_entry" {
        /// File id of the socket that would receive the data.
        required uint32 id_for = 1;
        /// Length, bytes.
        required uint32 length = 2;
        /// Ancillary data.
        repeated message ScmEntry scm = 4;
    }
}
