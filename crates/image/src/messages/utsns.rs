//! `utsns-*.img`: names of a UTS namespace. Section 19.1 of the format.

messages! {
    /// `utsns-*.img`: names of a UTS namespace. Section 19.1.
    message UtsnsEntry = "utsns_entry" {
        /// Host name.
        required string nodename = 1;
        /// NIS domain name.
        required string domainname = 2;
    }
}
