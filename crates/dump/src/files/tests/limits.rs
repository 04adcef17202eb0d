//! What is refused, and how much there may be of the rest.

use std::time::{Duration, Instant};

use gelid_image::ImageKind;

use super::super::Told;
use super::{Guest, Images, early_refusal, refusal};
use crate::core::Closing;

#[test]
fn what_has_state_of_its_own_is_refused_early() {
    let guest = Guest::new("ready(os.open('/dev/kmsg', os.O_RDONLY))");
    let text = refusal(&guest);
    let place = format!("descriptor {} of task {}", guest.number(0), guest.pid);
    assert!(
        text.contains("the device 1:11") && text.contains(&place),
        "{text}"
    );
    assert!(
        text.contains(": close it") || text.contains(": choose"),
        "{text}"
    );
    assert_eq!(early_refusal(&guest), Some(text));
}

/// A script that opens what makes a table large. Nothing of it is a file that others write to.
const LARGE: &str = "import socket; os.close(2)\n\
    keep = [os.pipe() for _ in range(100)] + [socket.socketpair() for _ in range(60)]\n\
    files = [os.open('/proc/self/status', os.O_RDONLY) for _ in range(40)]\n\
    files += [os.dup(fd) for fd in files[:20]] + [os.eventfd(7), os.open('/dev/null', os.O_RDWR)]\n\
    [keep[100 + i][0].send(b'x' * i) for i in range(1, 9)]; e = os.eventfd(3, os.EFD_NONBLOCK)\n\
    import select; sets = [select.epoll() for _ in range(2)]; sets[0].register(e)\n\
    [sets[1].register(fd) for pair in keep[:100] for fd in pair]\n\
    twins = [os.dup(e), os.dup(sets[0].fileno()), os.dup(sets[1].fileno()), os.eventfd(3)]\n";

#[test]
fn a_large_table_is_that_of_a_small_look() {
    let guest = Guest::new(&format!("{LARGE}ready('x')"));
    assert_eq!(early_refusal(&guest), None);
    let with = |slots| Images::looked(&[guest.pid], &|_| {}, slots, None).unwrap();
    let (large, small) = (with(None), with(Some(0)));
    assert!(large.tables[0].len() > 350);
    assert_eq!(large.tables, small.tables);
    let files = |images: &Images| images.all::<gelid_image::messages::FileEntry>(ImageKind::Files);
    assert_eq!(files(&large), files(&small));
}

#[test]
fn owners_of_large_tables_tell_the_rest() {
    let script = format!(
        "{LARGE}f = open('locked', 'w+'); fcntl.lockf(f, fcntl.LOCK_EX); g = open('locked')\n\
         free = [os.open('free', os.O_RDWR | os.O_CREAT) for _ in range(8)]\n\
         [os.write(fd, b'x' * fd) for fd in free]; h = os.dup(free[3])\n\
         [os.set_inheritable(fd, True) for pair in keep[:9] if isinstance(pair, tuple) for fd in pair]\n\
         os.set_inheritable(h, True); ready('x')"
    );
    let guest = Guest::new(&script);
    let locks = |options: &mut crate::Options| options.file_locks = true;
    let look = |slots, told: Option<Told<'_>>| {
        let images = Images::looked(&[guest.pid], &locks, slots, told).unwrap();
        let files = images.all::<gelid_image::messages::FileEntry>(ImageKind::Files);
        let locks = images.all::<gelid_image::messages::FileLockEntry>(ImageKind::FileLocks);
        (images, files, locks)
    };
    let small = look(Some(0), None);
    assert_eq!(small.2.len(), 1);
    // It may have told nothing, and not of all.
    for told in [None, Some(vec![]), Some(vec![0xf7; 1000])] {
        let mut told = || told.clone().map(Closing::new);
        let large = look(None, Some(&mut told));
        assert_eq!(large.0.tables, small.0.tables);
        assert_eq!((large.1, large.2), (small.1.clone(), small.2.clone()));
    }
    let mut told = || Some(Closing::new(vec![1; 1000]));
    let large = look(None, Some(&mut told)).0;
    let flags = |images: &Images, fd: u32| {
        let mut all = images.tables[0].iter();
        all.find(|entry| entry.fd == fd).map(|entry| entry.flags)
    };
    let opened = small.0.tables[0].iter().map(|entry| entry.fd);
    let believed = opened.filter(|fd| flags(&large, *fd) != flags(&small.0, *fd));
    // Of other namespaces of processes nobody knows all locks.
    let all = rustix::fs::stat("/proc/self/ns/pid").unwrap().st_ino == 0xefff_fffc;
    assert_eq!(believed.count() >= 18, all);
}

#[test]
fn what_a_large_table_has_is_refused_early() {
    let script = format!("{LARGE}ready(os.open('/dev/kmsg', os.O_RDONLY))");
    let guest = Guest::new(&script);
    assert_eq!(early_refusal(&guest), Some(refusal(&guest)));
    let script =
        format!("{LARGE}f = open('locked', 'w'); fcntl.flock(f, fcntl.LOCK_EX); ready(f.fileno())");
    let guest = Guest::new(&script);
    assert_eq!(early_refusal(&guest), Some(refusal(&guest)));
}

#[test]
fn paths_are_not_refused() {
    let guest = Guest::new(
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.close()\n\
         p = os.open('sock', os.O_PATH); os.mkfifo('fifo'); f = os.open('fifo', os.O_PATH)\n\
         k = os.open('/dev/kmsg', os.O_PATH)\n\
         ready(p, f, k)",
    );
    assert_eq!(early_refusal(&guest), None);
    let images = Images::guest(&guest);
    for (word, name) in [
        (0, guest.path("sock")),
        (1, guest.path("fifo")),
        (2, b"/dev/kmsg".to_vec()),
    ] {
        assert_eq!(images.regular(guest.number(word)).name, name);
    }
}

#[test]
fn locks_are_refused() {
    for lock in [
        "fcntl.lockf(f, fcntl.LOCK_EX, 1)",
        "fcntl.flock(f, fcntl.LOCK_SH)",
    ] {
        let guest = Guest::new(&format!(
            "f = os.open('data', os.O_RDWR | os.O_CREAT); {lock}; ready(f)"
        ));
        let text = refusal(&guest);
        assert!(
            text.contains("holds a lock") && text.contains("release it"),
            "{text}"
        );
    }
}

#[test]
fn large_ghosts_are_refused() {
    let guest = Guest::new(
        "f = os.open('data', os.O_RDWR | os.O_CREAT); os.write(f, b'x' * 200000); os.fsync(f); os.unlink('data'); ready(f)",
    );
    let small = Images::of(&[guest.pid], &|options| options.ghost_limit = 100_000);
    let text = small.err().unwrap().to_string();
    assert!(
        text.contains("--ghost-limit") && text.contains("data"),
        "{text}"
    );
    Images::guest(&guest);
}

#[test]
fn streams_among_packets_are_refused() {
    let direct = "fcntl.fcntl(w, fcntl.F_SETFL, os.O_DIRECT | os.O_WRONLY)";
    // To less than a page the kernel would add.
    let before = "os.write(w, b'a' * 4096)";
    for after in [
        "ready(r, w)",
        "os.write(w, b'cd'); ready(r, w)",
        "os.write(w, b'cd'); os.close(w); ready(r)",
        "os.write(w, b'c'); os.close(w); ready(r)",
        "fcntl.fcntl(w, 1031, 8192); os.write(w, b'c'); os.close(w); ready(r)",
    ] {
        let text = format!("import fcntl; r, w = os.pipe2(0); {before}; {direct}; {after}");
        let refused = refusal(&Guest::new(&text));
        assert!(refused.contains("not written as packets"), "{refused}");
    }
}

/// A file system mounted over a directory.
struct Cover(std::path::PathBuf);

impl Cover {
    fn new(path: &std::path::Path) -> Self {
        let mount = ["-t", "tmpfs", "none"];
        let mount = std::process::Command::new("mount")
            .args(mount)
            .arg(path)
            .status();
        assert!(mount.unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn covered_files_are_refused() {
    let guest = Guest::new(
        "os.mkdir('dir'); f = os.open('dir/data', os.O_RDWR | os.O_CREAT); ready(f, os.fstat(f).st_ino)",
    );
    let cover = Cover::new(&guest.home.path().join("dir"));
    let text = refusal(&guest);
    assert!(
        text.contains("dir/data, but that path does not lead to it"),
        "{text}"
    );
    assert!(text.contains(&format!(":{:x}]", guest.number(1))), "{text}");
    drop(cover);
    Images::guest(&guest);
}

#[test]
fn what_is_covered_is_told_how_to_be_given() {
    let guest = Guest::new("f = os.memfd_create('x'); ready(f)");
    let images = Images::of(&[guest.pid], &|options| {
        options.external = vec!["file[x]".into()];
    });
    assert!(
        images
            .err()
            .unwrap()
            .to_string()
            .contains("file[MOUNT:INODE]")
    );
    let guest = Guest::new(
        "f = os.open('data', os.O_RDWR | os.O_CREAT)\n\
         mnt = [l.split()[1] for l in open(f'/proc/self/fdinfo/{f}') if l.startswith('mnt_id')][0]\n\
         ready(f, mnt, os.fstat(f).st_ino)",
    );
    let key = format!("file[{:x}:{:x}]", guest.number(1), guest.number(2));
    let images = Images::of(&[guest.pid], &|options| {
        options.external = vec![key.clone()]
    });
    let images = images.unwrap();
    let file = images.regular(guest.number(0));
    assert_eq!(
        (file.ext, &file.name[..], file.size),
        (Some(true), key.as_bytes(), Some(0))
    );
}

#[test]
fn thousands_of_descriptors_take_no_time() {
    let guest = Guest::new(
        "import resource\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)\n\
         count = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)\n\
         fds = [os.open(f'f{i}' if i % 2 else 'same', os.O_RDWR | os.O_CREAT) for i in range(count)]\n\
         ready(count)",
    );
    let start = Instant::now();
    let images = Images::guest(&guest);
    let took = start.elapsed();
    assert!(images.tables[0].len() >= guest.number(0) as usize);
    eprintln!("{} descriptors in {took:?}", images.tables[0].len());
    assert!(took < Duration::from_secs(2), "{took:?}");
}
