//! Internet sockets: addresses, options, what is refused.

use gelid_image::messages::{InetSkEntry, SkShutdown, TcpStreamEntry};

use super::*;

const PRELUDE: &str = "\
    from socket import *\n\
    def bound(kind, at='127.0.0.1', family=AF_INET):\n    s = socket(family, kind); s.bind((at, 0)); return s\n";

fn guest(script: &str) -> Guest {
    Guest::new(&format!("{PRELUDE}{script}"))
}

impl Images {
    fn inet(&self, fd: u32) -> InetSkEntry {
        let file = self.open(fd);
        assert_eq!(file.r#type, i32::from(FdTypes::Inetsk));
        let socket = *file.isk.unwrap();
        assert_eq!(socket.id, file.id);
        socket
    }
}

const LOCAL: u32 = 0x0100_007f;

#[test]
fn addresses_and_states_are_recorded() {
    let guest = guest(
        "a = bound(SOCK_DGRAM); b = bound(SOCK_DGRAM); b.connect(a.getsockname()); b.shutdown(SHUT_WR)\n\
         c = bound(SOCK_STREAM, '::1', AF_INET6); c.listen(7); d = socket()\n\
         ready(a.fileno(), b.fileno(), c.fileno(), d.fileno(), a.getsockname()[1], b.getsockname()[1])",
    );
    let images = Images::guest(&guest);
    let [a, b, c, d] = [0, 1, 2, 3].map(|word| images.inet(guest.number(word)));
    let (first, second) = (guest.number(4), guest.number(5));
    assert_eq!((a.family, a.r#type, a.proto, a.state), (2, 2, 17, 7));
    assert_eq!(
        (a.src_port, &a.src_addr[..], a.dst_port),
        (first, &[LOCAL][..], 0)
    );
    assert_eq!(
        (b.state, b.src_port, b.dst_port, &b.dst_addr[..]),
        (1, second, first, &[LOCAL][..])
    );
    assert_eq!(
        (a.shutdown, b.shutdown),
        (None, Some(SkShutdown::Write.into()))
    );
    assert_eq!((c.family, c.proto, c.state, c.backlog), (10, 6, 10, 7));
    assert_eq!(
        (&c.src_addr[..], c.v6only),
        (&[0, 0, 0, 0x0100_0000][..], Some(true))
    );
    assert_eq!((d.state, d.src_port, &d.src_addr[..]), (7, 0, &[0][..]));
    assert_eq!((a.gelid, d.gelid), (None, None));
}

#[test]
fn options_are_recorded_once_they_are_set() {
    let guest = guest(
        "a = bound(SOCK_DGRAM); a.setsockopt(0, 1, 16); a.setsockopt(0, 33, 9)\n\
         b = bound(SOCK_STREAM); b.setsockopt(6, 1, 1); b.setsockopt(6, 13, b'reno'); b.setsockopt(1, 25, b'lo')\n\
         ready(a.fileno(), b.fileno())",
    );
    let images = Images::guest(&guest);
    let [a, b] = [0, 1].map(|word| images.inet(guest.number(word)));
    let set = |socket: &InetSkEntry| {
        let gelid = socket.gelid.clone().unwrap_or_default();
        let options = gelid.option.into_iter();
        options
            .map(|option| (option.level, option.name))
            .collect::<Vec<_>>()
    };
    assert_eq!(set(&a), [(0, 1), (0, 33)]);
    assert_eq!(a.ip_opts.unwrap().tos, Some(16));
    // Reno may be what is usual here.
    assert!(set(&b).starts_with(&[(6, 1)]));
    assert_eq!(b.tcp_opts.unwrap().nodelay, Some(true));
    assert_eq!(b.opts.so_bound_dev.as_deref(), Some("lo"));
}

#[test]
fn connections_are_recorded_when_they_are_expected() {
    let guest = guest(
        "l = bound(SOCK_STREAM); l.listen(); c = create_connection(l.getsockname()); a, _ = l.accept()\n\
         c.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1); a.send(b'unread'); time.sleep(0.01)\n\
         ready(c.fileno(), a.fileno(), *(s.getsockname()[1] for s in (c, a)))",
    );
    let refused = refusal(&guest);
    assert!(refused.contains("--tcp-established"), "{refused}");
    assert_eq!(early_refusal(&guest), Some(refused));
    let close = |options: &mut Options| options.tcp_close = true;
    let images = Images::of(&[guest.pid], &close).unwrap();
    assert_eq!(images.inet(guest.number(0)).state, 1);
    let expected = |options: &mut Options| {
        options.tcp_established = true;
        options.network_lock = crate::NetworkLock::Skip;
    };
    // Twice: it leaves no trace.
    for _ in 0..2 {
        let images = Images::of(&[guest.pid], &expected).unwrap();
        let [client, server] = [0, 1].map(|word| images.inet(guest.number(word)));
        let ports = (guest.number(2), guest.number(3));
        assert_eq!(
            (client.src_port, client.dst_port, client.state),
            (ports.0, ports.1, 1)
        );
        assert_eq!((client.opts.reuseaddr, client.shutdown), (Some(true), None));
        let stream = |ino| {
            let mut reader = images.dir.reader(ImageKind::TcpStream, ino).unwrap();
            let entry: TcpStreamEntry = reader.read_one().unwrap();
            let received = reader.payload(entry.inq_len.into()).unwrap();
            let received = received.bytes(100).unwrap();
            (entry, received)
        };
        let ((one, received), (other, _)) = (stream(client.ino), stream(server.ino));
        assert_eq!(received, b"unread");
        assert_eq!((one.inq_seq, one.outq_seq), (other.outq_seq, other.inq_seq));
        assert_eq!((one.outq_len, one.unsq_len), (0, Some(0)));
        assert!(one.mss_clamp > 500 && one.rcv_wnd.is_some());
    }
}

#[test]
fn what_would_be_lost_is_refused() {
    let guest = guest(
        "l = bound(SOCK_STREAM); l.listen(); c = create_connection(l.getsockname()); ready(1)",
    );
    let refused = refusal(&guest);
    assert!(refused.contains("--skip-in-flight"), "{refused}");
    let corked = self::guest(
        "a = bound(SOCK_DGRAM); a.connect(a.getsockname()); a.setsockopt(17, 1, 1); a.send(b'x'); ready(1)",
    );
    let refused = refusal(&corked);
    assert!(refused.contains("UDP_CORK"), "{refused}");
    let other = self::guest(
        "import ctypes; ctypes.CDLL(None).unshare(0x40000000); s = socket()\n\
         ctypes.CDLL(None).setns(os.open(f'/proc/{os.getppid()}/ns/net', os.O_RDONLY), 0); ready(1)",
    );
    let refused = refusal(&other);
    assert!(refused.contains("network namespace"), "{refused}");
}
