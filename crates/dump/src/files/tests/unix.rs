//! Unix sockets: peers, names, queues; what is outside.

use std::os::unix::net::UnixDatagram;

use gelid_image::messages::{SkPacketEntry, SkShutdown, UnixSkEntry};

use super::*;

const PRELUDE: &str = "\
    from socket import *\n\
    def ino(s): return os.fstat(s.fileno()).st_ino\n";

fn guest(script: &str) -> Guest {
    Guest::new(&format!("{PRELUDE}{script}"))
}

impl Images {
    fn socket(&self, fd: u32) -> UnixSkEntry {
        let file = self.open(fd);
        assert_eq!(file.r#type, i32::from(FdTypes::Unixsk));
        let socket = *file.usk.unwrap();
        assert_eq!(socket.id, file.id);
        socket
    }

    /// Messages for a descriptor: bytes and ids of files in flight.
    fn messages(&self, fd: u32) -> Vec<(Vec<u8>, Vec<u32>)> {
        let mut reader = self.dir.reader(ImageKind::SkQueues, ()).unwrap();
        let mut messages = Vec::new();
        while let Some(entry) = reader.next::<SkPacketEntry>().unwrap() {
            let bytes = reader.payload(entry.length.into()).unwrap();
            let bytes = bytes.bytes(1 << 20).unwrap();
            if entry.id_for == self.slot(fd).id {
                let rights = entry.scm.into_iter().flat_map(|part| part.rights);
                messages.push((bytes, rights.collect()));
            }
        }
        messages
    }
}

fn texts(messages: Vec<(Vec<u8>, Vec<u32>)>) -> Vec<String> {
    let texts = messages.into_iter().map(|(bytes, _)| bytes);
    texts
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .collect()
}

#[test]
fn pairs_name_each_other() {
    let guest = guest(
        "a, b = socketpair()\n\
         c, d = socketpair(AF_UNIX, SOCK_SEQPACKET); d.shutdown(SHUT_WR)\n\
         e, f = socketpair(); f.close()\n\
         g = socket(AF_UNIX, SOCK_DGRAM); g.setsockopt(SOL_SOCKET, SO_PRIORITY, 5)\n\
         ready(*(s.fileno() for s in (a, b, c, d, e, g)))",
    );
    let images = Images::guest(&guest);
    let [a, b, c, d, e, g] = [0, 1, 2, 3, 4, 5].map(|word| images.socket(guest.number(word)));
    assert_eq!((a.peer, b.peer, a.r#type, a.state), (b.ino, a.ino, 1, 1));
    assert_eq!((a.shutdown, a.ns_id, a.flags), (None, Some(2), 2));
    let (read, write) = (SkShutdown::Read.into(), SkShutdown::Write.into());
    assert_eq!((c.shutdown, d.shutdown), (Some(read), Some(write)));
    assert_eq!((c.peer, c.r#type), (d.ino, 5));
    assert_eq!((e.peer, e.state, e.shutdown), (0, 1, Some(3)));
    assert_eq!((g.peer, g.state, g.opts.so_priority), (0, 7, Some(5)));
    // The peer of the one met first comes first: CRIU makes the pair when it has both.
    let files = images.all::<FileEntry>(ImageKind::Files);
    let at = |id| files.iter().position(|file| file.id == id).unwrap();
    assert!(at(b.id) < at(a.id));
}

#[test]
fn names_are_recorded_with_their_files() {
    let guest = guest(
        "def bound(name, kind=SOCK_DGRAM):\n    s = socket(AF_UNIX, kind); s.bind(name); return s\n\
         full = bound(os.getcwd() + '/full'); os.chmod('full', 0o640)\n\
         os.mkdir('deep'); relative = bound('./deep/relative')\n\
         gone = bound('gone'); os.unlink('gone')\n\
         hidden = bound('\\0hidden-%d' % os.getpid())\n\
         ready(*(s.fileno() for s in (full, relative, gone, hidden)))",
    );
    let images = Images::guest(&guest);
    let [full, relative, gone, hidden] = [0, 1, 2, 3].map(|word| images.socket(guest.number(word)));
    assert_eq!(full.name, [&guest.path("full")[..], b"\0"].concat());
    assert_eq!(full.file_perms.unwrap().mode, 0o140_640);
    assert_eq!((full.name_dir, full.deleted), (None, None));
    assert_eq!(relative.name, b"./deep/relative\0");
    let home = guest.path("");
    let home = home.strip_suffix(b"/").unwrap();
    assert_eq!(relative.name_dir.as_deref(), Some(home));
    assert_eq!(
        (gone.name_dir.as_deref(), gone.deleted),
        (Some(home), Some(true))
    );
    let name = format!("\0hidden-{}", guest.pid).into_bytes();
    assert_eq!((hidden.name, hidden.file_perms), (name, None));
}

#[test]
fn looking_leaves_queues_as_they_are() {
    let guest = guest(
        "a, b = socketpair(AF_UNIX, SOCK_DGRAM); c, d = socketpair()\n\
         f = os.open('data', os.O_RDWR | os.O_CREAT); os.write(f, b'x')\n\
         a.send(b'one'); a.send(b''); send_fds(a, [b'two'], [f]); a.send(b'L' * 70000)\n\
         c.send(b'be'); c.send(b'fore'); d.setsockopt(SOL_SOCKET, 42, 3)\n\
         l = socket(AF_UNIX); l.bind('l'); l.listen(7); x = socket(AF_UNIX); x.connect('l')\n\
         ready(b.fileno(), d.fileno(), f, l.fileno(), x.fileno())\n\
         ok = [b.recv(99), b.recv(99), b.recv(99), len(b.recv(99999)), d.recv(9, MSG_PEEK), d.recv(99)]\n\
         print(ok == [b'one', b'', b'two', 70000, b'ore', b'before'], flush=True); sys.stdin.readline()",
    );
    let mut guest = guest;
    let images = Images::guest(&guest);
    let messages = images.messages(guest.number(0));
    let file = images.slot(guest.number(2)).id;
    let rights: Vec<_> = messages.iter().map(|(_, rights)| rights.clone()).collect();
    assert_eq!(rights, [vec![], vec![], vec![file], vec![]]);
    assert_eq!(texts(messages), ["one", "", "two", &"L".repeat(70_000)]);
    let stream = images.socket(guest.number(1));
    assert_eq!(stream.gelid.unwrap().peek_off, Some(3));
    assert_eq!(texts(images.messages(guest.number(1))), ["before"]);
    let (listener, client) = (
        images.socket(guest.number(3)),
        images.socket(guest.number(4)),
    );
    assert_eq!((listener.state, listener.backlog), (10, 7));
    assert_eq!(client.peer, listener.ino);
    // The guest finds everything where it was.
    writeln!(guest.child.stdin.as_mut().unwrap()).unwrap();
    let mut line = String::new();
    let stdout = guest.child.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "True\n");
}

#[test]
fn who_is_outside_must_be_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let _log = UnixDatagram::bind(&path).unwrap();
    let path = path.to_str().unwrap();
    let guest = guest(&format!(
        "s = socket(AF_UNIX, SOCK_DGRAM); s.connect('{path}'); ready(s.fileno(), ino(s))"
    ));
    let text = refusal(&guest);
    assert!(
        text.contains(path) && text.contains("use --ext-unix-sk"),
        "{text}"
    );
    let images = Images::of(&[guest.pid], &|options| options.ext_unix_sk = true).unwrap();
    let socket = images.socket(guest.number(0));
    let files = images.all::<FileEntry>(ImageKind::Files);
    let sockets = files.iter().filter_map(|file| file.usk.as_ref());
    let outside: Vec<_> = sockets.filter(|socket| socket.uflags == 1).collect();
    assert_eq!(outside.len(), 1);
    assert_eq!((outside[0].ino, outside[0].r#type), (socket.peer, 2));
    assert_eq!(outside[0].name, [path.as_bytes(), b"\0"].concat());
    let key = format!("unix[{}]", guest.number(1));
    let named = |options: &mut Options| options.external.push(key.clone());
    Images::of(&[guest.pid], &named).unwrap();
}

#[test]
fn what_cannot_be_told_is_refused() {
    for (script, what) in [
        (
            "a, b = socketpair(); a.send(b'x', MSG_OOB); ready(b.fileno())",
            "MSG_OOB",
        ),
        (
            "a, b = socketpair(AF_UNIX, SOCK_SEQPACKET); a.send(b'x'); b.send(b'x'); a.close(); ready(b.fileno())",
            "an error to tell",
        ),
        (
            "s = socket(AF_UNIX); s.bind('old'); os.rename('old', 'new'); ready(s.fileno())",
            "give that its old name again",
        ),
    ] {
        let guest = guest(script);
        let text = refusal(&guest);
        let place = format!("descriptor {} of task {}", guest.number(0), guest.pid);
        assert!(text.contains(what) && text.starts_with(&place), "{text}");
    }
}
