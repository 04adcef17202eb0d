//! What is special about a SIT tunnel. Section 21.2 of the format.

messages! {
    /// What is special about a SIT tunnel. Section 21.2.
    message SitEntry = "sit_entry" {
        /// Underlying link.
        optional uint32 link = 1;
        /// Local address.
        repeated uint32 local = 2 as ip;
        /// Remote address.
        repeated uint32 remote = 3 as ip;
        /// Time to live.
        optional uint32 ttl = 4;
        /// Type of service.
        optional uint32 tos = 5;
        /// Path MTU discovery.
        optional bool pmtudisc = 6;
        /// Protocol.
        optional uint32 proto = 7;
        /// Flags.
        optional uint32 flags = 8;
        /// Encapsulation type.
        optional uint32 encap_type = 9;
        /// Encapsulation flags.
        optional uint32 encap_flags = 10;
        /// Encapsulation source port.
        optional uint32 encap_sport = 11;
        /// Encapsulation destination port.
        optional uint32 encap_dport = 12;
        /// 6rd prefix length.
        optional uint32 rd_prefixlen = 13;
        /// 6rd prefix.
        repeated uint32 rd_prefix = 14 as ip;
        /// 6rd relay prefix length.
        optional uint32 relay_prefixlen = 15;
        /// 6rd relay prefix.
        repeated uint32 relay_prefix = 16 as ip;
    }
}
