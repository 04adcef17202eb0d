//! Internet sockets: made as recorded, and of images that nobody wrote in good faith.

use super::*;
use gelid_image::messages::{
    GelidInetSkEntry, GelidMembershipEntry, GelidSocketOptionEntry, InetSkEntry, IpOptsEntry,
    IpOptsRawEntry, SkOptsEntry, TcpOptsEntry, TcpStreamEntry,
};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::net::sockopt;
use std::net::{SocketAddr, UdpSocket};

const LOCAL: u32 = 0x0100_007f;

fn buffers() -> SkOptsEntry {
    SkOptsEntry {
        so_sndbuf: 212_992,
        so_rcvbuf: 212_992,
        ..Default::default()
    }
}

/// A UDP socket of the loopback network.
fn udp(id: u32, port: u16) -> InetSkEntry {
    InetSkEntry {
        id,
        ino: id + 100,
        family: 2,
        r#type: 2,
        proto: 17,
        state: 7,
        src_port: port.into(),
        src_addr: vec![LOCAL],
        dst_addr: vec![0],
        flags: 2,
        opts: buffers(),
        ..Default::default()
    }
}

impl Images {
    fn inet(&mut self, socket: InetSkEntry) {
        self.push(FileEntry {
            isk: Some(Box::new(socket.clone())),
            ..entry(FdTypes::Inetsk, socket.id)
        });
    }
}

/// A port that is free at the moment.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn datagram_sockets_come_back() {
    let (one, two) = (free_port(), free_port());
    let mut images = Images::new();
    images.inet(udp(1, one));
    images.inet(InetSkEntry {
        state: 1,
        flags: 2 | O_NONBLOCK,
        dst_port: one.into(),
        dst_addr: vec![LOCAL],
        shutdown: Some(1),
        ip_opts: Some(IpOptsEntry {
            tos: Some(16),
            ..Default::default()
        }),
        opts: SkOptsEntry {
            so_priority: Some(3),
            ..buffers()
        },
        ..udp(2, two)
    });
    let described: Vec<String> = images.plan().unwrap().describe().collect();
    assert!(
        described[1].contains(&format!("connected with 127.0.0.1:{one}")),
        "{described:?}"
    );
    let open = images.open().unwrap();
    let [first, second] = [1, 2].map(|id| open.fd(id).unwrap());
    assert_eq!(flags(second), 2 | O_NONBLOCK);
    let address = rustix::net::getsockname(second).unwrap();
    let own: SocketAddr = address.try_into().unwrap();
    assert_eq!(own.port(), two);
    assert_eq!(sockopt::ip_tos(second).unwrap(), 16);
    let priority = gelid_sys::sockopt::int(second, gelid_sys::sockopt::IntOption::PRIORITY);
    assert_eq!(priority, Ok(3));
    rustix::io::write(second, b"hello").unwrap();
    assert_eq!(read_now(first), b"hello");
}

#[test]
fn a_taken_address_is_named() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut images = Images::new();
    images.inet(udp(1, socket.local_addr().unwrap().port()));
    let refusal = images.refusal();
    assert!(
        refusal.contains("another program has that name or address"),
        "{refusal}"
    );
    assert!(refusal.contains("127.0.0.1"), "{refusal}");
}

#[test]
fn ports_are_shared_as_they_were() {
    let port = free_port();
    let mut images = Images::new();
    images.inet(udp(1, port));
    images.inet(udp(2, port));
    let open = images.open().unwrap();
    for id in [1, 2] {
        assert!(!sockopt::socket_reuseaddr(open.fd(id).unwrap()).unwrap());
    }
}

#[test]
fn connections_are_made_when_they_are_asked_for() {
    let mut images = Images::new();
    images.inet(InetSkEntry {
        r#type: 1,
        proto: 6,
        state: 1,
        src_port: free_port().into(),
        dst_port: 9,
        dst_addr: vec![LOCAL],
        ..udp(1, 0)
    });
    let refused = images.plan().unwrap_err().to_string();
    assert!(refused.contains("use --tcp-established"), "{refused}");
    images.options.tcp_close = true;
    let open = images.open().unwrap();
    let info = gelid_sys::tcp::info(open.fd(1).unwrap()).unwrap();
    assert_eq!(info.state, 7);
}

#[test]
fn what_was_over_and_not_looked_at_is_at_its_end() {
    let mut images = Images::new();
    images.inet(InetSkEntry {
        r#type: 1,
        proto: 6,
        state: 7,
        src_port: free_port().into(),
        dst_port: 9,
        dst_addr: vec![LOCAL],
        ..udp(1, 0)
    });
    assert!(images.plan().is_err(), "its stream is missing");
    images.options.tcp_close = true;
    let open = images.open().unwrap();
    assert_eq!(rustix::io::read(open.fd(1).unwrap(), &mut [0; 1]), Ok(0));
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..20u32,
        Just(LOCAL),
        Just(65_535),
        Just(u32::MAX),
        any::<u32>()
    ]
}

fn any_socket() -> impl Strategy<Value = InetSkEntry> {
    let make = (
        prop::sample::select(vec![2, 2, 10, 1]),
        prop::sample::select(vec![1, 2, 3, 2, 5]),
        prop::sample::select(vec![0, 6, 17, 136, 1, 58, 255, 262, u32::MAX]),
        prop::sample::select(vec![1, 7, 7, 10, 4, 0]),
    );
    let addresses = (number(), number(), vec(number(), 0..6), vec(number(), 0..6));
    let option = (number(), number(), vec(any::<u8>(), 0..50));
    let rest = (
        number(),
        prop::option::of(-1..5i32),
        vec(option, 0..4),
        any::<bool>(),
        prop::option::of(prop::sample::select(vec![
            "lo",
            "",
            "none",
            "much-too-long-a-name",
        ])),
    );
    (make, addresses, rest).prop_map(|(make, addresses, rest)| {
        let (family, kind, proto, state) = make;
        let (src_port, dst_port, src_addr, dst_addr) = addresses;
        let (size, shutdown, options, more, name) = rest;
        let option = options.into_iter();
        let option =
            option.map(|(level, name, value)| GelidSocketOptionEntry { level, name, value });
        InetSkEntry {
            family,
            r#type: kind,
            proto,
            state,
            src_port,
            dst_port,
            src_addr,
            dst_addr,
            shutdown,
            backlog: size,
            v6only: Some(more),
            ifname: name.map(str::to_owned),
            ip_opts: Some(IpOptsEntry {
                freebind: Some(more),
                tos: Some(size),
                ttl: Some(size),
                raw: Some(IpOptsRawEntry {
                    icmpv_filter: vec![size; (size % 10) as usize],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            tcp_opts: more.then_some(TcpOptsEntry {
                keepcnt: Some(size),
                ..Default::default()
            }),
            opts: SkOptsEntry {
                so_bound_dev: name.filter(|_| more).map(str::to_owned),
                ..buffers()
            },
            gelid: Some(GelidInetSkEntry {
                option: option.collect(),
                mptcp: Some(more),
                uid: more.then_some(size),
                error: Some(more),
                absent: Some(more),
                membership: vec![
                    GelidMembershipEntry {
                        ifindex: size,
                        group: vec![239; if more { 4 } else { 5 }],
                        include: more,
                        source: vec![vec![1; 4]; (size % 5) as usize],
                    };
                    (size % 3) as usize
                ],
            }),
            ..Default::default()
        }
    })
}

fn any_stream() -> impl Strategy<Value = TcpStreamEntry> {
    let len = || prop_oneof![0..2000u32, Just(u32::MAX), any::<u32>()];
    let window = prop::option::of((any::<u32>(), len(), len()));
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
    let options = (
        any::<u32>(),
        0..20u32,
        prop_oneof![Just(1460), any::<u32>()],
    );
    (
        len(),
        len(),
        prop::option::of(len()),
        window,
        numbers,
        options,
    )
        .prop_map(
            |(
                inq_len,
                outq_len,
                unsq_len,
                window,
                (inq_seq, outq_seq, time),
                (mask, scale, mss),
            )| {
                TcpStreamEntry {
                    inq_len,
                    inq_seq,
                    outq_len,
                    outq_seq,
                    unsq_len,
                    opt_mask: mask,
                    snd_wscale: scale,
                    rcv_wscale: Some(scale),
                    mss_clamp: mss,
                    timestamp: Some(time),
                    snd_wl1: window.map(|it| it.0),
                    snd_wnd: window.map(|it| it.1),
                    max_window: window.map(|it| it.2),
                    rcv_wnd: window.map(|it| it.1),
                    rcv_wup: window.map(|it| it.0),
                    ..TcpStreamEntry::default()
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_connections_do_harm(
        state in prop::sample::select(vec![1, 2, 4, 5, 7, 8, 9, 11, 3, 6]),
        ports in (1..9000u32, 1..9000u32),
        stream in any_stream(),
        payload in 0..3000usize,
        close in any::<bool>(),
    ) {
        let mut images = Images::new();
        images.options.tcp_established = true;
        images.options.tcp_close = close;
        images.inet(InetSkEntry {
            r#type: 1,
            proto: 6,
            state,
            src_port: ports.0,
            dst_port: ports.1,
            dst_addr: vec![0x0102_007f],
            ..udp(1, 0)
        });
        let dir = images.write(|staging| {
            let mut writer = staging.writer(ImageKind::TcpStream, 101).unwrap();
            writer.push(&stream).unwrap().push_payload(&vec![7; payload]).unwrap();
        });
        if let Ok(plan) = FilesPlan::read(&dir, &[2], &images.options) {
            plan.describe().for_each(drop);
            // What is made is in repair, and goes without a word.
            let _ = images.open_plan(&plan);
        }
    }

    #[test]
    fn no_internet_sockets_do_harm(sockets in vec(any_socket(), 1..4)) {
        let mut images = Images::new();
        for (at, mut socket) in sockets.into_iter().enumerate() {
            socket.id = at as u32 + 1;
            images.inet(socket);
        }
        if let Ok(plan) = images.plan() {
            plan.describe().for_each(drop);
            let _ = images.open_plan(&plan);
        }
    }
}
