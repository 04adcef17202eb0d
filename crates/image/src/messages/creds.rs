//! Credentials of a thread. Section 7.7 of the format.

messages! {
    /// Credentials of a thread. Section 7.7.
    message CredsEntry = "creds_entry" {
        /// Real user id.
        required uint32 uid = 1;
        /// Real group id.
        required uint32 gid = 2;
        /// Effective user id.
        required uint32 euid = 3;
        /// Effective group id.
        required uint32 egid = 4;
        /// Saved user id.
        required uint32 suid = 5;
        /// Saved group id.
        required uint32 sgid = 6;
        /// Filesystem user id.
        required uint32 fsuid = 7;
        /// Filesystem group id.
        required uint32 fsgid = 8;
        /// Inheritable capabilities, two words, low first.
        repeated uint32 cap_inh = 9;
        /// Permitted capabilities.
        repeated uint32 cap_prm = 10;
        /// Effective capabilities.
        repeated uint32 cap_eff = 11;
        /// Bounding set.
        repeated uint32 cap_bnd = 12;
        /// `PR_SET_SECUREBITS`.
        required uint32 secbits = 13;
        /// Supplementary groups.
        repeated uint32 groups = 14;
        /// Label of the task; absent if unconfined.
        optional string lsm_profile = 15;
        /// SELinux label for new sockets.
        optional string lsm_sockcreate = 16;
        /// Not used.
        optional bytes apparmor_data = 17;
        /// `PR_SET_NO_NEW_PRIVS`, only if set.
        optional uint32 no_new_privs = 18;
        /// Ambient set.
        repeated uint32 cap_amb = 19;
    }
}
