//! What is special about a macvlan link. Section 21.2 of the format.

messages! {
    /// What is special about a macvlan link. Section 21.2.
    message MacvlanLinkEntry = "macvlan_link_entry" {
        /// Mode.
        required uint32 mode = 1;
        /// Flags.
        optional uint32 flags = 2;
    }
}
