//! An open file of `/proc/*/ns/*`. Section 16.2 of the format.

messages! {
    /// An open file of `/proc/*/ns/*`. Section 16.2.
    message NsFileEntry = "ns_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Namespace id (section 4.2).
        required uint32 ns_id = 2;
        /// Its clone flag, `clone(2)`.
        required uint32 ns_cflag = 3;
        /// Open flags.
        required uint32 flags = 4;
    }
}
