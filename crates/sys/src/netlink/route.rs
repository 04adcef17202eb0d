//! Numbers of rtnetlink, and the fixed parts of its messages. `rtnetlink(7)`.

/// `RTM_NEWLINK`
pub const NEW_LINK: u16 = 16;
/// `RTM_DELLINK`
pub const DELETE_LINK: u16 = 17;
/// `RTM_GETLINK`
pub const GET_LINK: u16 = 18;
/// `RTM_SETLINK`
pub const SET_LINK: u16 = 19;
/// `RTM_NEWADDR`
pub const NEW_ADDRESS: u16 = 20;
/// `RTM_DELADDR`
pub const DELETE_ADDRESS: u16 = 21;
/// `RTM_GETADDR`
pub const GET_ADDRESS: u16 = 22;
/// `RTM_NEWROUTE`
pub const NEW_ROUTE: u16 = 24;
/// `RTM_DELROUTE`
pub const DELETE_ROUTE: u16 = 25;
/// `RTM_GETROUTE`
pub const GET_ROUTE: u16 = 26;
/// `RTM_NEWNEIGH`
pub const NEW_NEIGHBOUR: u16 = 28;
/// `RTM_GETNEIGH`
pub const GET_NEIGHBOUR: u16 = 30;
/// `RTM_NEWRULE`
pub const NEW_RULE: u16 = 32;
/// `RTM_DELRULE`
pub const DELETE_RULE: u16 = 33;
/// `RTM_GETRULE`
pub const GET_RULE: u16 = 34;
/// `RTM_NEWQDISC`
pub const NEW_DISCIPLINE: u16 = 36;
/// `RTM_GETQDISC`
pub const GET_DISCIPLINE: u16 = 38;
/// `RTM_GETTFILTER`
pub const GET_FILTER: u16 = 46;
/// `RTM_GETMDB`
pub const GET_GROUP: u16 = 86;
/// `RTM_NEWNSID`
pub const NEW_NSID: u16 = 88;
/// `RTM_GETNSID`
pub const GET_NSID: u16 = 90;
/// `RTM_NEWNEXTHOP`
pub const NEW_NEXTHOP: u16 = 104;
/// `RTM_GETNEXTHOP`
pub const GET_NEXTHOP: u16 = 106;
/// `RTM_NEWLINKPROP`
pub const NEW_LINK_NAME: u16 = 108;

/// Bytes of the fixed part of messages about links, `struct ifinfomsg`.
pub const LINK: usize = 16;
/// Of those about addresses, `struct ifaddrmsg`.
pub const ADDRESS: usize = 8;
/// Of those about routes, `struct rtmsg`.
pub const ROUTE: usize = 12;
/// Of those about rules, `struct fib_rule_hdr`.
pub const RULE: usize = 12;
/// Of those about neighbours, `struct ndmsg`.
pub const NEIGHBOUR: usize = 12;
/// Of those about nexthops, `struct nhmsg`.
pub const NEXTHOP: usize = 8;

/// Of those about queueing disciplines, `struct tcmsg`.
pub const DISCIPLINE: usize = 20;

/// `AF_INET`
pub const IPV4: u8 = 2;
/// `AF_BRIDGE`
pub const BRIDGE: u8 = 7;
/// `AF_INET6`
pub const IPV6: u8 = 10;

/// `struct ifinfomsg`: of the link with an index, or of all if that is 0; of `flags` those in `change` are set.
#[must_use]
pub fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut fixed = [0; LINK];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// Attributes of links: `IFLA_*`.
pub mod link {
    /// `IFLA_ADDRESS`
    pub const ADDRESS: u16 = 1;
    /// `IFLA_IFNAME`
    pub const NAME: u16 = 3;
    /// `IFLA_MTU`
    pub const MTU: u16 = 4;
    /// `IFLA_LINK`
    pub const LOWER: u16 = 5;
    /// `IFLA_MASTER`
    pub const MASTER: u16 = 10;
    /// `IFLA_TXQLEN`
    pub const QUEUE_LENGTH: u16 = 13;
    /// `IFLA_LINKINFO`
    pub const INFO: u16 = 18;
    /// `IFLA_NET_NS_PID`
    pub const NET_NS_PID: u16 = 19;
    /// `IFLA_IFALIAS`
    pub const ALIAS: u16 = 20;
    /// `IFLA_GROUP`
    pub const GROUP: u16 = 27;
    /// `IFLA_NET_NS_FD`
    pub const NET_NS_FD: u16 = 28;
    /// `IFLA_NUM_TX_QUEUES`
    pub const SENDERS: u16 = 31;
    /// `IFLA_NUM_RX_QUEUES`
    pub const RECEIVERS: u16 = 32;
    /// `IFLA_LINK_NETNSID`
    pub const LINK_NSID: u16 = 37;
    /// `IFLA_XDP`
    pub const XDP: u16 = 43;
    /// `IFLA_PROP_LIST`
    pub const PROPERTIES: u16 = 52;
    /// `IFLA_ALT_IFNAME`, among properties.
    pub const OTHER_NAME: u16 = 53;
    /// `IFLA_INFO_KIND`, in [`INFO`].
    pub const KIND: u16 = 1;
    /// `IFLA_INFO_DATA`, in [`INFO`].
    pub const DATA: u16 = 2;
    /// `IFLA_INFO_SLAVE_KIND`, in [`INFO`].
    pub const PORT_KIND: u16 = 4;
    /// `IFLA_INFO_SLAVE_DATA`, in [`INFO`].
    pub const PORT_DATA: u16 = 5;
    /// `VETH_INFO_PEER`, in [`DATA`].
    pub const PEER: u16 = 1;
}

/// Where what is in messages about queueing disciplines.
pub mod discipline {
    /// Place of the index of the link.
    pub const LINK: usize = 4;
    /// Place of its own number.
    pub const HANDLE: usize = 8;
    /// Place of the number of what it belongs to.
    pub const PARENT: usize = 12;
    /// `TCA_KIND`
    pub const KIND: u16 = 1;
    /// `TCA_OPTIONS`
    pub const OPTIONS: u16 = 2;
}

/// `IFF_UP`
pub const UP: u32 = 1;
/// `IFF_RUNNING`
pub const RUNNING: u32 = 0x40;
