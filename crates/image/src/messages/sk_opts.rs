//! Options of the socket layer, `socket(7)`. Section 14.1 of the format.

enumerations! {
    /// Directions of a socket that are shut down.
    enumeration SkShutdown = "sk_shutdown" {
        /// None.
        None = 0 "NONE";
        /// Reading.
        Read = 1 "READ";
        /// Writing.
        Write = 2 "WRITE";
        /// Both.
        Both = 3 "BOTH";
    }
}

messages! {
    /// Options of the socket layer, `socket(7)`. Section 14.1.
    message SkOptsEntry = "sk_opts_entry" {
        /// `SO_SNDBUF` as reported by the kernel, which doubles it; bytes.
        required uint32 so_sndbuf = 1;
        /// `SO_RCVBUF` as reported by the kernel, which doubles it; bytes.
        required uint32 so_rcvbuf = 2;
        /// `SO_SNDTIMEO`, seconds.
        required uint64 so_snd_tmo_sec = 3;
        /// `SO_SNDTIMEO`, microseconds.
        required uint64 so_snd_tmo_usec = 4;
        /// `SO_RCVTIMEO`, seconds.
        required uint64 so_rcv_tmo_sec = 5;
        /// `SO_RCVTIMEO`, microseconds.
        required uint64 so_rcv_tmo_usec = 6;
        /// `SO_REUSEADDR`.
        optional bool reuseaddr = 7;
        /// `SO_PRIORITY`.
        optional uint32 so_priority = 8;
        /// `SO_RCVLOWAT`.
        optional uint32 so_rcvlowat = 9;
        /// `SO_MARK`, only if non-zero.
        optional uint32 so_mark = 10;
        /// `SO_PASSCRED`.
        optional bool so_passcred = 11;
        /// `SO_PASSSEC`.
        optional bool so_passsec = 12;
        /// `SO_DONTROUTE`.
        optional bool so_dontroute = 13;
        /// `SO_NO_CHECK`.
        optional bool so_no_check = 14;
        /// Interface name.
        optional string so_bound_dev = 15;
        /// Classic BPF program, one 64-bit word per instruction: `code << 48 | jt << 40 | jf << 32
        /// | k`.
        repeated fixed64 so_filter = 16;
        /// `SO_REUSEPORT`.
        optional bool so_reuseport = 17;
        /// `SO_BROADCAST`.
        optional bool so_broadcast = 18;
        /// `SO_KEEPALIVE`.
        optional bool so_keepalive = 19;
        /// Obsolete, now in [`TcpOptsEntry`](super::TcpOptsEntry).
        optional uint32 tcp_keepcnt = 20;
        /// Obsolete.
        optional uint32 tcp_keepidle = 21;
        /// Obsolete.
        optional uint32 tcp_keepintvl = 22;
        /// `SO_OOBINLINE`.
        optional uint32 so_oobinline = 23;
        /// Linger time in seconds, present only if lingering is on.
        optional uint32 so_linger = 24;
        /// Which buffer sizes are locked by the user (bit set).
        optional uint32 so_buf_lock = 25;
    }
}
