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
        /// gelid: number of the pipe.
        optional uint32 pipe_id = 1000;
        /// gelid: what is in it, directories before what is in these.
        repeated message GelidAutofsPart parts = 1001;
    }

    /// A directory or a link in an autofs. Field 1001 of `autofs_entry`.
    message GelidAutofsPart = "gelid_autofs_part" {
        /// Its path below the root.
        required bytes path = 1;
        /// Permissions.
        required uint32 mode = 2;
        /// Where a link leads.
        optional bytes target = 3;
    }
}
