//! `tcp-stream-*.img`: a connection; `inq_len`, then `outq_len` bytes follow. Sections 14.2 and
//! 14.3 of the format.

messages! {
    /// TCP options, `tcp(7)`, each only if non-zero. Section 14.2.
    message TcpOptsEntry = "tcp_opts_entry" {
        /// `TCP_CORK`.
        optional bool cork = 1;
        /// `TCP_NODELAY`.
        optional bool nodelay = 2;
        /// `TCP_KEEPCNT`.
        optional uint32 keepcnt = 3;
        /// `TCP_KEEPIDLE`, seconds.
        optional uint32 keepidle = 4;
        /// `TCP_KEEPINTVL`, seconds.
        optional uint32 keepintvl = 5;
    }

    /// `tcp-stream-*.img`: a connection; `inq_len`, then `outq_len` bytes follow. Section 14.3.
    message TcpStreamEntry = "tcp_stream_entry" {
        /// Bytes received but unread.
        required uint32 inq_len = 1;
        /// Next sequence number expected from the peer; the first byte of the in queue is at
        /// `inq_seq - inq_len`.
        required uint32 inq_seq = 2;
        /// Bytes of the send queue.
        required uint32 outq_len = 3;
        /// Sequence number after the last byte written; the first byte of the out queue is at
        /// `outq_seq - outq_len`.
        required uint32 outq_seq = 4;
        /// Negotiated options: 1 timestamps, 2 SACK, 4 window scale, 8 ECN, ….
        required uint32 opt_mask = 5 as hex;
        /// Only meaningful with bit 4 (`snd_wscale` is required, else 0).
        required uint32 snd_wscale = 6;
        /// Maximum segment size.
        required uint32 mss_clamp = 7;
        /// Only meaningful with bit 4 (`snd_wscale` is required, else 0).
        optional uint32 rcv_wscale = 8;
        /// Timestamp clock value, with bit 1.
        optional uint32 timestamp = 9;
        /// Obsolete.
        optional bool cork = 10;
        /// Obsolete.
        optional bool nodelay = 11;
        /// Tail of the out queue not sent yet; always written, required on restore.
        optional uint32 unsq_len = 12;
        /// Window state, all or none.
        optional uint32 snd_wl1 = 13;
        /// Window state, all or none.
        optional uint32 snd_wnd = 14;
        /// Window state, all or none.
        optional uint32 max_window = 15;
        /// Window state, all or none.
        optional uint32 rcv_wnd = 16;
        /// Window state, all or none.
        optional uint32 rcv_wup = 17;
    }
}
