//! Guests with internet, netlink and packet sockets.

use super::{changing, guest, refused, unlike};
use gelid_tests::{Case, Mode};

/// A guest with connections.
const fn connected(case: Case) -> Case {
    Case {
        options: &["--tcp-established"],
        ..case
    }
}

/// A guest in a network namespace of its own, which is another one then.
const fn namespace(case: Case) -> Case {
    Case {
        ignore: &["ns/net"],
        ..case
    }
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    guest("udp"),
    unlike("udp-options", "most options"),
    unlike("udp-elsewhere", "IPv4 addresses that nobody has"),
    guest("udp-shutdown"),
    guest("udp-shared"),
    unlike("udp-owner", "owners of sockets"),
    unlike("udp-lite", "the coverage of checksums"),
    unlike("udp-multicast", "multicast groups"),
    refused("udp-corked", "waits for its end"),
    unlike("raw", "peers of raw sockets"),
    guest("ping"),
    unlike("tcp-listening", "most options"),
    unlike("tcp-bound", "the size of segments"),
    guest("tcp-shared"),
    unlike("tcp-mptcp", "MPTCP"),
    connected(guest("tcp-connected")),
    connected(unlike("tcp-options", "most options")),
    connected(guest("tcp-full")),
    Case {
        // The last segments of the original are in the way.
        without: &[Mode::Running],
        ..connected(unlike("tcp-ending", "what comes after the own end"))
    },
    connected(unlike("tcp-reset", "errors that wait")),
    connected(guest("tcp-over")),
    connected(unlike("tcp-fallback", "MPTCP")),
    Case {
        // Once it is answered it is a connection that waits.
        without: &[Mode::Rounds],
        ..connected(guest("tcp-asking"))
    },
    Case {
        without: &[Mode::Running],
        ..connected(guest("tcp-outside"))
    },
    Case {
        options: &["--tcp-close"],
        without: &[Mode::None, Mode::Running],
        ..guest("tcp-closed")
    },
    refused("tcp-unexpected", "use --tcp-established"),
    Case {
        dump_options: &["--tcp-established"],
        ..refused("tcp-urgent", "MSG_OOB")
    },
    Case {
        dump_options: &["--tcp-established"],
        ..refused("tcp-in-flight", "wait to be accepted")
    },
    Case {
        dump_options: &["--skip-in-flight"],
        // The original has the address.
        without: &[Mode::Running],
        ..connected(guest("tcp-in-flight-skipped"))
    },
    unlike("netlink", "groups above 32 and options"),
    unlike("packet", "PACKET_QDISC_BYPASS"),
    // The number of the socket is in its name.
    changing("packet-mapped", &["maps"]),
    namespace(unlike(
        "net-links",
        "neighbours, and sysctls beyond its list",
    )),
    // CRIU has rules of iptables brought back by the older program, where there is one.
    namespace(unlike("net-firewall", "rules of iptables by nftables")),
    connected(namespace(guest("net-sockets"))),
    Case {
        ignore: &["ns/net", "fd 0004"],
        ..guest("net-nested")
    },
    namespace(unlike("net-traffic", "disciplines and groups of links")),
    refused("net-classes", "disciplines of this kind are not dumped"),
    refused("net-secured", "policies or associations of IPsec"),
    namespace(unlike("net-tun", "TUN devices that nobody has kept")),
    unlike("vsock", "sockets between virtual machines"),
    refused("refused-vsock", "whose other end is outside"),
    refused("netlink-unread", "that nobody has read"),
];
