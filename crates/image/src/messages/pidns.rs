//! `pidns-*.img`: a pid namespace provided from outside. Section 19.4 of the format.

messages! {
    /// `pidns-*.img`: a pid namespace provided from outside. Section 19.4.
    message PidnsEntry = "pidns_entry" {
        /// Key under which the namespace is provided.
        optional string ext_key = 1;
    }
}
