//! Unix sockets of images that nobody wrote in good faith.

use super::unix::{ALONE, CONNECTED, DGRAM, LISTENING, PACKETS, STREAM, socket_of};
use super::*;
use gelid_image::messages::{
    FilePermsEntry, GelidPacketEntry, GelidUcredEntry, GelidUnixSkEntry, SkOptsEntry, UnixSkEntry,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::os::unix::fs::FileTypeExt;

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<&[u8]> = vec![
        b"",
        b"",
        b"",
        b"/s\0",
        b"s\0",
        b"/d/s\0",
        b"d/s",
        b"../s\0",
        b"/a\0",
        b"/d\0",
        b".\0",
        b"/x/y/s\0",
        b"/\0",
        b"\0gelid-hostile",
        b"/d/../../s\0",
        b"a/b\0",
    ];
    prop::sample::select(names.iter().map(|it| it.to_vec()).collect::<Vec<_>>())
}

/// Few of everything, so that sockets meet each other.
fn any_socket() -> impl Strategy<Value = UnixSkEntry> {
    let kinds = prop::sample::select(vec![STREAM, STREAM, DGRAM, PACKETS, 9]);
    let states = prop::sample::select(vec![CONNECTED, CONNECTED, ALONE, LISTENING, 3]);
    let peers = (0..7u32, prop::sample::select(vec![0, 0, 0, 0, 1, 2]));
    let place = (
        any_name(),
        prop::option::of(prop::sample::select(vec!["/d", "/", "/none", "d", "/d/.."])),
        prop::option::of(any::<bool>()),
    );
    let rest = (
        any::<u32>(),
        prop::option::of(0..5i32),
        any::<u32>(),
        any::<bool>(),
    );
    (kinds, states, peers, place, rest).prop_map(
        |(kind, state, (peer, uflags), (name, dir, deleted), (flags, shutdown, size, more))| {
            UnixSkEntry {
                uflags,
                flags,
                name,
                name_dir: dir.map(|dir| dir.as_bytes().to_vec()),
                deleted,
                shutdown,
                backlog: size,
                file_perms: more.then_some(FilePermsEntry {
                    mode: flags,
                    uid: size,
                    gid: size,
                }),
                opts: SkOptsEntry {
                    so_sndbuf: if more { size } else { 212_992 },
                    so_priority: Some(flags),
                    so_filter: vec![size.into(); usize::from(more)],
                    ..Default::default()
                },
                gelid: more.then_some(GelidUnixSkEntry {
                    peer_gone: Some(flags % 2 == 0),
                    reset: Some(flags % 3 == 0),
                    peek_off: Some(size),
                    passpidfd: Some(flags % 5 == 0),
                    peer: Some(GelidUcredEntry {
                        pid: flags,
                        uid: size,
                        gid: flags,
                    }),
                }),
                ..socket_of(0, kind, state, peer)
            }
        },
    )
}

/// Makes it one that could be: a pair with its neighbour, or something with a name.
fn tame_socket(socket: &mut UnixSkEntry, how: u32) {
    let id = socket.id;
    socket.r#type = [STREAM, DGRAM, PACKETS][(id / 2 % 3) as usize];
    (socket.uflags, socket.flags) = (0, socket.flags & O_NONBLOCK);
    socket.opts.so_sndbuf %= 1 << 20;
    socket.opts.so_filter.clear();
    socket.name_dir = socket.name_dir.take().map(|_| b"/d".to_vec());
    socket.shutdown = socket.shutdown.map(|how| how % 4);
    socket.gelid.iter_mut().for_each(|it| it.peek_off = None);
    socket.peer = 0;
    socket.state = CONNECTED;
    match how {
        1 => socket.name.clear(),
        2 => socket.peer = (id ^ 1) * 100,
        _ => {
            socket.name = format!("s{id}\0").into();
            socket.state = if socket.r#type == DGRAM {
                ALONE
            } else {
                LISTENING
            };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_sockets_do_harm(
        // Most are as they could be.
        sockets in vec((any_socket(), prop::sample::select(vec![1, 2, 3, 2, 1, 0])), 1..5),
        packets in vec(
            (1..5u32, 0..9000usize, vec(1..4u32, 0..3), any::<u32>(), any_name()),
            0..2,
        ),
        keep in any::<bool>(),
    ) {
        let mut images = Images::new();
        fs::create_dir(images.root().join("d")).unwrap();
        fs::write(images.root().join("a"), b"contents").unwrap();
        for (at, (mut socket, tame)) in sockets.into_iter().enumerate() {
            socket.id = at as u32 + 1;
            socket.ino = socket.id * 100;
            if tame != 0 {
                tame_socket(&mut socket, tame);
            }
            images.socket(socket);
        }
        for (to, len, rights, who, source) in packets {
            images.packet(to, &vec![1; len], &rights).gelid = Some(GelidPacketEntry {
                source: Some(source),
                sender: Some(GelidUcredEntry {
                    pid: who,
                    uid: who,
                    gid: who,
                }),
            });
        }
        if let Ok(plan) = images.plan() {
            plan.describe().for_each(drop);
            if let Ok(open) = images.open_plan(&plan) {
                let _ = open.owners(&|number| gelid_sys::Pid::from_raw(number));
                if keep {
                    let _ = open.keep(open_dir(&images.root()).as_fd().into());
                }
            }
        }
        // Nothing is touched that was there, nothing is left but sockets.
        prop_assert_eq!(fs::read(images.root().join("a")).unwrap(), b"contents");
        for dir in ["", "d"] {
            for name in images.names(dir) {
                let kind = fs::symlink_metadata(images.root().join(dir).join(&name)).unwrap();
                let known = dir.is_empty() && ["a", "d"].contains(&name.as_str());
                prop_assert!(known || keep && kind.file_type().is_socket(), "{dir}/{name} is left");
            }
        }
    }
}
