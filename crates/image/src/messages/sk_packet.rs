//! `sk-queues.img`: an unread packet; `length` bytes follow the record. Section 14.5 of the format.

use super::GelidUcredEntry;

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
        /// gelid's own; CRIU skips it.
        optional message GelidPacketEntry gelid = 1000;
    }

    /// What gelid records of a packet beyond the published format. Field 1000 of `sk_packet_entry`.
    message GelidPacketEntry = "gelid_packet_entry" {
        /// Address of the sender of a datagram, as the name of a socket.
        optional bytes source = 1 as socket_name;
        /// Who has sent it, as far as the receiver asks for that.
        optional message GelidUcredEntry sender = 2;
    }
}
