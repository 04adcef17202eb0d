//! `userns-*.img`: maps of a user namespace. Section 19.3 of the format.

messages! {
    /// A line of `uid_map` or `gid_map`, `user_namespaces(7)`. Section 19.3.
    message UidGidExtent = "uid_gid_extent" {
        /// First id inside.
        required uint32 first = 1;
        /// First id outside; of nested user namespaces as the root's user namespace has it.
        required uint32 lower_first = 2;
        /// Length.
        required uint32 count = 3;
    }

    /// `userns-*.img`: maps of a user namespace. Section 19.3.
    message UsernsEntry = "userns_entry" {
        /// User ids.
        repeated message UidGidExtent uid_map = 1;
        /// Group ids.
        repeated message UidGidExtent gid_map = 2;
        /// gelid: `setgroups(2)` is denied, as in a namespace that an ordinary user has made.
        optional bool setgroups_denied = 1000;
    }
}
