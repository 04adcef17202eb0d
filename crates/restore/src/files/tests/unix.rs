//! Unix sockets: names, connections, queues, contradictions.

use super::*;
use crate::files::Inherit;
use gelid_image::messages::{FilePermsEntry, ScmEntry, SkOptsEntry, UnixSkEntry};
use gelid_sys::unix::peek;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, getpeername,
    getsockname, recv, send, socket,
};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;

pub(super) const STREAM: u32 = 1;
pub(super) const DGRAM: u32 = 2;
pub(super) const PACKETS: u32 = 5;
pub(super) const CONNECTED: u32 = 1;
pub(super) const ALONE: u32 = 7;
pub(super) const LISTENING: u32 = 10;

/// A socket whose inode is a hundred times its id, and so is that of its peer.
pub(super) fn socket_of(id: u32, kind: u32, state: u32, peer: u32) -> UnixSkEntry {
    UnixSkEntry {
        id,
        ino: id * 100,
        r#type: kind,
        state,
        flags: 2,
        peer: peer * 100,
        opts: SkOptsEntry {
            so_sndbuf: 212_992,
            so_rcvbuf: 212_992,
            ..Default::default()
        },
        ..Default::default()
    }
}

impl Images {
    pub(super) fn socket(&mut self, socket: UnixSkEntry) -> &mut UnixSkEntry {
        let id = socket.id;
        self.push(FileEntry {
            usk: Some(Box::new(socket)),
            ..entry(FdTypes::Unixsk, id)
        });
        self.entries.last_mut().unwrap().usk.as_mut().unwrap()
    }

    pub(super) fn packet(
        &mut self,
        id_for: u32,
        data: &[u8],
        rights: &[u32],
    ) -> &mut SkPacketEntry {
        let scm = ScmEntry {
            r#type: 1,
            rights: rights.to_vec(),
        };
        let entry = SkPacketEntry {
            id_for,
            length: data.len() as u32,
            scm: if rights.is_empty() { vec![] } else { vec![scm] },
            gelid: None,
        };
        self.packets.push((entry, data.to_vec()));
        &mut self.packets.last_mut().unwrap().0
    }
}

fn hear(socket: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut buffer = [0; 1 << 16];
    let (len, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

fn say(socket: BorrowedFd<'_>, text: &str) -> Result<(), Errno> {
    send(
        socket,
        text.as_bytes(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )
    .map(drop)
}

fn name(address: rustix::net::SocketAddrAny) -> Vec<u8> {
    let address = SocketAddrUnix::try_from(address).unwrap();
    match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => path.to_vec(),
        (None, Some(name)) => [b"@", name].concat(),
        (None, None) => Vec::new(),
    }
}

#[test]
fn pairs_and_their_queues_come_back() {
    let mut images = Images::new();
    for (id, kind) in [(3, STREAM), (5, DGRAM), (7, PACKETS)] {
        images.socket(socket_of(id, kind, CONNECTED, id + 1));
        images.socket(socket_of(id + 1, kind, CONNECTED, id)).flags |= O_NONBLOCK;
        images.packet(id, b"one", &[]);
        images.packet(id + 1, b"other", &[]);
        images.packet(id, b" two", &[]);
    }
    let open = images.open().unwrap();
    let fd = |id| open.fd(id).unwrap();
    assert!((3..9).all(|id| fd(id).as_raw_fd() >= BASE));
    assert_eq!((flags(fd(3)), flags(fd(4))), (2, 2 | O_NONBLOCK));
    assert_eq!(hear(fd(3)), Ok("one two".into()));
    for id in [5, 7] {
        assert_eq!(hear(fd(id)), Ok("one".into()));
        assert_eq!(hear(fd(id)), Ok(" two".into()));
        assert_eq!(hear(fd(id)), Err(Errno::AGAIN));
    }
    for id in [3, 5, 7] {
        assert_eq!(hear(fd(id + 1)), Ok("other".into()));
        say(fd(id), "more").unwrap();
        assert_eq!(hear(fd(id + 1)), Ok("more".into()));
    }
}

#[test]
fn names_are_bound_inside_the_root() {
    let mut images = Images::new();
    let root = images.root();
    fs::create_dir_all(root.join("run/x")).unwrap();
    // What is left of the dumped one.
    drop(UnixDatagram::bind(root.join("run/old")).unwrap());
    let old = fs::symlink_metadata(root.join("run/old")).unwrap().ino();
    let socket = images.socket(socket_of(3, DGRAM, CONNECTED, 0));
    socket.name = b"/run/old\0".to_vec();
    socket.file_perms = Some(FilePermsEntry {
        mode: 0o140_640,
        uid: 12,
        gid: 34,
    });
    let socket = images.socket(socket_of(4, DGRAM, CONNECTED, 3));
    socket.name = b"../relative\0".to_vec();
    socket.name_dir = Some(b"/run/x".to_vec());
    let socket = images.socket(socket_of(5, STREAM, ALONE, 0));
    socket.name = b"/run/none/gone\0".to_vec();
    socket.deleted = Some(true);
    {
        let open = images.open().unwrap();
        let meta = fs::symlink_metadata(root.join("run/old")).unwrap();
        assert!(meta.file_type().is_socket() && meta.ino() != old);
        let owner = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        assert_eq!(owner, (0o640, 12, 34));
        let named = |id| name(getsockname(open.fd(id).unwrap()).unwrap());
        assert_eq!(named(3), b"/run/old");
        assert_eq!(named(4), b"../relative");
        assert_eq!(named(5), b"/run/none/gone");
        say(open.fd(4).unwrap(), "by name").unwrap();
        assert_eq!(hear(open.fd(3).unwrap()), Ok("by name".into()));
        assert!(images.names("run").contains(&"relative".to_owned()));
    }
    // It was not kept.
    assert_eq!(images.names("run"), ["old", "x"]);
    assert_eq!(
        fs::symlink_metadata(root.join("run/old")).unwrap().ino(),
        old
    );
    let open = images.open().unwrap();
    open.keep(open_dir(&images.root()).as_fd().into()).unwrap();
    assert_eq!(images.names("run"), ["old", "relative", "x"]);
    assert_ne!(
        fs::symlink_metadata(root.join("run/old")).unwrap().ino(),
        old
    );
}

#[test]
fn a_file_in_the_way_stays() {
    let mut images = Images::new();
    fs::write(images.root().join("taken"), "contents").unwrap();
    images.socket(socket_of(3, STREAM, ALONE, 0)).name = b"/taken\0".to_vec();
    let error = images.refusal();
    assert!(error.contains("remove what is there now"), "{error}");
    // One that was deleted needs the name for a moment only.
    let socket = images.entries[0].usk.as_mut().unwrap();
    socket.deleted = Some(true);
    let open = images.open().unwrap();
    assert_eq!(name(getsockname(open.fd(3).unwrap()).unwrap()), b"/taken");
    assert_eq!(images.names(""), ["taken"]);
    assert_eq!(fs::read(images.root().join("taken")).unwrap(), b"contents");
}

#[test]
fn a_name_that_somebody_has_is_not_taken_away() {
    let mut images = Images::new();
    let other = UnixDatagram::bind(images.root().join("taken")).unwrap();
    images.socket(socket_of(3, STREAM, ALONE, 0)).name = b"/taken\0".to_vec();
    let error = images.refusal();
    assert!(
        error.contains("another program has that name or address"),
        "{error}"
    );
    drop(other);
    images.open().unwrap();
}

#[test]
fn connections_go_through_who_listens() {
    let mut images = Images::new();
    let listener = b"/server\0".to_vec();
    // 3 listens, 4 has accepted 5, 6 and 7 wait, 8 has accepted one that is closed.
    let socket = images.socket(socket_of(3, STREAM, LISTENING, 0));
    (socket.name, socket.backlog) = (listener.clone(), 2);
    images.socket(socket_of(4, STREAM, CONNECTED, 5)).name = listener.clone();
    images.socket(socket_of(5, STREAM, CONNECTED, 4));
    images.socket(socket_of(7, STREAM, CONNECTED, 3));
    images.socket(socket_of(6, STREAM, CONNECTED, 3));
    let socket = images.socket(socket_of(8, STREAM, CONNECTED, 0));
    (socket.name, socket.shutdown) = (listener, Some(3));
    images.packet(4, b"to the server", &[]);
    images.packet(8, b"testament", &[]);
    let open = images.open().unwrap();
    let fd = |id| open.fd(id).unwrap();
    assert_eq!(name(getpeername(fd(5)).unwrap().unwrap()), b"/server");
    assert_eq!(name(getsockname(fd(4)).unwrap()), b"/server");
    assert_eq!(hear(fd(4)), Ok("to the server".into()));
    assert_eq!(hear(fd(8)), Ok("testament".into()));
    assert_eq!(hear(fd(8)), Ok(String::new()));
    for id in [7, 6] {
        say(fd(id), &id.to_string()).unwrap();
        let accepted = accept(fd(3)).unwrap();
        assert_eq!(hear(accepted.as_fd()), Ok(id.to_string()));
    }
}

#[test]
fn what_is_in_flight_is_the_same_file() {
    let mut images = Images::new();
    fs::write(images.root().join("a"), "contents").unwrap();
    images.regular(9, "/a", 0, 4);
    images.socket(socket_of(3, PACKETS, CONNECTED, 4));
    images.socket(socket_of(4, PACKETS, CONNECTED, 3));
    images.packet(3, b"", &[9, 3]);
    images.packet(3, b"x", &[]);
    let open = images.open().unwrap();
    let message = peek(open.fd(3).unwrap(), &mut [0; 9]).unwrap();
    assert_eq!((message.len, message.rights.len()), (0, 2));
    assert_eq!(info(message.rights[0].as_fd()).pos, 4);
    rustix::fs::seek(&message.rights[0], rustix::fs::SeekFrom::Start(7)).unwrap();
    assert_eq!(info(open.fd(9).unwrap()).pos, 7);
}

#[test]
fn a_socket_outside_is_connected_by_its_name() {
    let mut images = Images::new();
    let outside = UnixDatagram::bind(images.root().join("log")).unwrap();
    images.socket(socket_of(3, DGRAM, CONNECTED, 9));
    let mut peer = socket_of(9, DGRAM, LISTENING, 0);
    (peer.uflags, peer.name) = (1, b"/log\0".to_vec());
    images.socket(peer);
    images.slots.pop();
    {
        let open = images.open().unwrap();
        say(open.fd(3).unwrap(), "hello").unwrap();
        let mut buffer = [0; 9];
        assert_eq!(outside.recv(&mut buffer).unwrap(), 5);
    }
    drop(outside);
    let error = images.refusal();
    assert!(error.contains("connect file 3"), "{error}");
    fs::remove_file(images.root().join("log")).unwrap();
    let error = images.refusal();
    assert!(error.contains("find the peer of file 3"), "{error}");
}

#[test]
fn the_caller_gives_a_socket() {
    let mut images = Images::new();
    let (one, other) = UnixDatagram::pair().unwrap();
    images.socket(socket_of(3, STREAM, CONNECTED, 9));
    let mut peer = socket_of(9, DGRAM, LISTENING, 0);
    peer.uflags = 1;
    images.socket(peer);
    images.slots.pop();
    let error = images.refusal();
    assert!(
        error.contains("--inherit-fd 'fd[N]:socket:[300]'"),
        "{error}"
    );
    images.options.inherit.push(Inherit {
        fd: one.as_raw_fd(),
        key: "socket:[300]".into(),
    });
    let open = images.open().unwrap();
    say(open.fd(3).unwrap(), "given").unwrap();
    let mut buffer = [0; 9];
    assert_eq!(other.recv(&mut buffer).unwrap(), 5);
}

#[test]
fn contradictions_are_refused() {
    type Change = fn(&mut Images);
    let cases: &[(Change, &str)] = &[
        (
            |it| it.socket(socket_of(3, 4, ALONE, 0)).flags = 2,
            "of type 1, 2 or 5",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, CONNECTED, 9)).flags = 2,
            "refers to socket 900",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, LISTENING, 0)).flags = 2,
            "is bound",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).name = vec![b'x'; 200],
            "up to 108",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).name = vec![0; 200],
            "up to 108",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).name = b"a\0b\0".into(),
            "zero byte",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).uflags = 2,
            "a connected socket of packets",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).uflags = 4,
            "a socket of a plugin",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).shutdown = Some(9),
            "two directions",
        ),
        (
            |it| it.socket(socket_of(3, STREAM, ALONE, 0)).opts.so_filter = vec![0; 5000],
            "up to 4096",
        ),
        (
            |it| {
                it.socket(socket_of(3, STREAM, CONNECTED, 4));
                it.socket(socket_of(4, DGRAM, CONNECTED, 3));
            },
            "of another type",
        ),
        (
            |it| {
                it.socket(socket_of(3, STREAM, CONNECTED, 4));
                it.socket(socket_of(4, STREAM, CONNECTED, 5));
                it.socket(socket_of(5, STREAM, CONNECTED, 4));
            },
            "connected with another",
        ),
        (
            |it| {
                it.socket(socket_of(3, STREAM, ALONE, 0)).name = b"/a".into();
                it.socket(socket_of(4, STREAM, ALONE, 0)).name = b"/a\0".into();
            },
            "no two sockets",
        ),
        (
            |it| {
                for (id, peer) in [(3, 4), (4, 5), (5, 3)] {
                    let name = vec![0, b'r', id as u8];
                    it.socket(socket_of(id, DGRAM, CONNECTED, peer)).name = name;
                }
            },
            "in a ring",
        ),
        (
            |it| {
                it.socket(socket_of(3, STREAM, ALONE, 0));
                it.packet(3, b"x", &[]);
            },
            "nothing can have been sent",
        ),
        (
            |it| {
                it.socket(socket_of(3, STREAM, CONNECTED, 0));
                it.packet(3, b"x", &[77]);
            },
            "refers to file 77",
        ),
        (
            |it| {
                it.socket(socket_of(3, STREAM, CONNECTED, 0));
                it.packet(3, b"x", &[3; 254]);
            },
            "up to 253",
        ),
    ];
    for (change, what) in cases {
        let mut images = Images::new();
        change(&mut images);
        let error = images.plan().unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn a_new_socket_is_as_the_kernel_makes_it() {
    let mut images = Images::new();
    images.socket(socket_of(3, STREAM, ALONE, 0));
    let open = images.open().unwrap();
    let plain = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    use gelid_sys::sockopt::{IntOption, int};
    for option in [
        IntOption::SNDBUF,
        IntOption::RCVBUF,
        IntOption::BUF_LOCK,
        IntOption::PEEK_OFF,
        IntOption::RCVLOWAT,
        IntOption::PASSCRED,
    ] {
        assert_eq!(int(open.fd(3).unwrap(), option), int(&plain, option));
    }
}
