//! `autofs-*.img`: state of an autofs mount. Section 20.4 of the format.

messages! {
    /// `autofs-*.img`: state of an autofs mount. Section 20.4.
    message AutofsEntry = "autofs_entry" {
        /// Descriptor number of the pipe's write end at mount time; -1 if gone.
        required int32 fd = 1;
        /// Process group of the automounter.
        required int32 pgrp = 2;
        /// Expiry, seconds.
        required int32 timeout = 3;
        /// Lowest protocol version.
        required int32 minproto = 4;
        /// Highest protocol version.
        required int32 maxproto = 5;
        /// 0 direct, 1 indirect, 2 offset.
        required int32 mode = 6;
        /// User id.
        optional int32 uid = 7;
        /// Group id.
        optional int32 gid = 8;
        /// Read end of the pipe in the master process.
        optional int32 read_fd = 9;
    }
}
