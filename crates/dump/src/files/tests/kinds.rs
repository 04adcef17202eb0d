//! Each kind of file, and what its record says.

use gelid_image::ImageKind;
use gelid_image::messages::{
    FdTypes, FileEntry, GhostChunkEntry, GhostFileEntry, MemfdInodeEntry, PipeDataEntry, RemapType,
};

use super::super::Contents;
use super::{Guest, Images};

fn remap_type(remap: Option<gelid_image::messages::RemapFilePathEntry>) -> Option<(i32, u32)> {
    remap.map(|remap| (remap.remap_type.unwrap(), remap.remap_id))
}

#[test]
fn regular_files_tell_how_they_were_opened() {
    let guest = Guest::new(
        "a = os.open('data', os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)\n\
         os.write(a, b'0123456789'); os.lseek(a, 4, 0)\n\
         b = os.open('data', os.O_WRONLY | os.O_APPEND)\n\
         os.symlink('data', 'sym')\n\
         c = os.open('sym', os.O_PATH | os.O_NOFOLLOW)\n\
         d = os.open('.', os.O_RDONLY | os.O_DIRECTORY)\n\
         e = os.open('/dev/null', os.O_RDWR)\n\
         f = os.dup(a); os.set_inheritable(f, True)\n\
         ready(a, b, c, d, e, f)",
    );
    let images = Images::guest(&guest);
    let a = images.regular(guest.number(0));
    assert_eq!(a.name, guest.path("data"));
    assert_eq!((a.flags, a.pos, a.size), (0o102_002, 4, Some(10)));
    assert_eq!(a.mode, Some(0o100_640));
    assert!(!a.fown.pid > 0 && a.build_id.is_empty() && a.mnt_id.is_none());
    assert_eq!(images.slot(guest.number(0)).flags, 1);
    let b = images.regular(guest.number(1));
    assert_eq!((b.flags, b.size), (0o102_001, None));
    let c = images.regular(guest.number(2));
    assert_eq!((c.name, c.flags), (guest.path("sym"), 0o10_400_000));
    assert_eq!(c.mode.unwrap() & 0o170_000, 0o120_000);
    let d = images.regular(guest.number(3));
    assert_eq!((d.flags & 0o200_000, d.size), (0o200_000, None));
    assert_eq!(images.regular(guest.number(4)).name, b"/dev/null");
    let f = images.slot(guest.number(5));
    assert_eq!((f.id, f.flags), (a.id, 0));
    let cwd = images.file(images.cwd).reg.unwrap();
    assert_eq!(
        (cwd.name, cwd.flags),
        (guest.path("").strip_suffix(b"/").unwrap().to_vec(), 0)
    );
    assert_eq!(images.remap(a.id), None);
}

#[test]
fn programs_and_libraries_have_build_ids() {
    let guest = Guest::new("ready('x')");
    let images = Images::guest(&guest);
    let exe = images.file(images.exe).reg.unwrap();
    assert_eq!(exe.build_id.len(), 5);
    let (_, mapped) = images
        .mapped
        .iter()
        .find(|(area, _)| area.map.path == exe.name)
        .unwrap();
    assert_eq!((mapped.id, mapped.fdflags), (images.exe, Some(0)));
    let libc = images
        .mapped
        .iter()
        .find(|(area, _)| area.map.path.ends_with(b"/libc.so.6"));
    let libc = images.file(libc.unwrap().1.id).reg.unwrap();
    assert_eq!(libc.build_id.len(), 5);
    let without = Images::of(&[guest.pid], &|options| {
        options.validation = crate::Validation::Size;
    });
    let without = without.unwrap();
    assert!(without.file(without.exe).reg.unwrap().build_id.is_empty());
}

#[test]
fn deleted_files_become_ghosts() {
    let guest = Guest::new(
        "def gone(name, data, at=0):\n\
         \x20   fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o640)\n\
         \x20   os.pwrite(fd, data, at); os.unlink(name); return fd\n\
         a = gone('small', b'hello'); again = os.open(f'/proc/self/fd/{a}', os.O_RDONLY)\n\
         b = gone('large', b'z' * 5000, 1 << 20)\n\
         t = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600); os.write(t, b'nameless')\n\
         r = gone('taken', b'old'); open('taken', 'w').write('new')\n\
         os.mkdir('dir'); d = os.open('dir', os.O_RDONLY); os.rmdir('dir')\n\
         os.mkfifo('fifo'); f = os.open('fifo', os.O_RDWR); os.write(f, b'abc'); os.unlink('fifo')\n\
         m = mmap.mmap(a, 5)\n\
         x = os.open('odd (deleted)', os.O_RDWR | os.O_CREAT)\n\
         y = os.open('back', os.O_RDWR | os.O_CREAT); os.link('back', 'other')\n\
         os.unlink('back'); os.link('other', 'back')\n\
         ready(a, again, b, t, r, d, f, x, y)",
    );
    let images = Images::guest(&guest);
    let ghost = i32::from(RemapType::Ghost);
    let remap = |word: usize| {
        let file = images.open(guest.number(word));
        let id = file.fifo.map_or(file.id, |fifo| fifo.regf_id.unwrap());
        remap_type(images.remap(id))
    };
    let small = images.regular(guest.number(0));
    assert_eq!((small.name, small.size), (guest.path("small"), Some(5)));
    // One ghost for all who have the inode open or mapped.
    assert_eq!((remap(0), remap(1)), (Some((ghost, 1)), Some((ghost, 1))));
    assert_ne!(
        images.slot(guest.number(0)).id,
        images.slot(guest.number(1)).id
    );
    let mapped = images.mapped.iter();
    let mut mapped = mapped.filter(|(area, _)| area.map.path.ends_with(b"small (deleted)"));
    let (_, mapped) = mapped.next().unwrap();
    assert_eq!(remap_type(images.remap(mapped.id)), Some((ghost, 1)));
    assert_eq!(mapped.fdflags, Some(2));

    let entry = |id: u32| -> GhostFileEntry {
        let mut reader = images.dir.reader(ImageKind::GhostFile, id).unwrap();
        reader.read_one().unwrap()
    };
    assert_eq!((entry(1).mode, entry(1).chunks), (0o100_640, None));
    assert!(images.bytes("ghost-file-1.img").ends_with(b"hello"));
    let large = entry(remap(2).unwrap().1);
    assert_eq!(
        (large.chunks, large.size),
        (Some(true), Some((1 << 20) + 5000))
    );
    let file = images.bytes("ghost-file-2.img");
    assert!(file.ends_with(&[b'z'; 5000]) && file.len() < 12_000);
    let mut chunk = Vec::new();
    let data = GhostChunkEntry {
        len: 5000,
        off: 1 << 20,
    };
    gelid_image::append(&mut chunk, &data);
    assert_eq!(
        &file[file.len() - 5000 - chunk.len()..][..chunk.len()],
        chunk
    );

    let nameless = images.regular(guest.number(3));
    assert_eq!(nameless.flags & 0o20_000_000, 0o20_000_000);
    assert!(remap(3).is_some());
    assert_eq!(images.regular(guest.number(4)).name, guest.path("taken"));
    assert!(
        images
            .bytes(&format!("ghost-file-{:x}.img", remap(4).unwrap().1))
            .ends_with(b"old")
    );
    assert_eq!(entry(remap(5).unwrap().1).mode & 0o170_000, 0o040_000);
    assert_eq!(entry(remap(6).unwrap().1).mode & 0o170_000, 0o010_000);
    assert_eq!(
        (remap(7), images.regular(guest.number(7)).name),
        (None, guest.path("odd (deleted)"))
    );
    assert_eq!(
        (remap(8), images.regular(guest.number(8)).name),
        (None, guest.path("back"))
    );
}

#[test]
fn files_with_other_names_are_linked_back() {
    let guest = Guest::new(
        "os.mkdir('sub'); a = os.open('sub/first', os.O_RDWR | os.O_CREAT); os.write(a, b'abc')\n\
         os.link('sub/first', 'second'); os.unlink('sub/first'); b = os.open('second', os.O_RDONLY)\n\
         os.rename('second', 'third'); os.rmdir('sub')\n\
         ready(a, b)",
    );
    let refused = super::refusal(&guest);
    assert!(
        refused.contains("first") && refused.contains("--link-remap"),
        "{refused}"
    );
    let linked = || Images::of(&[guest.pid], &|options| options.link_remap = true).unwrap();
    let images = linked();
    let remap = images.remap(images.slot(guest.number(0)).id).unwrap();
    assert_eq!(remap.remap_type, Some(RemapType::Linked.into()));
    let link = images.file(remap.remap_id).reg.unwrap();
    assert_eq!((link.size, link.flags), (Some(3), 0));
    // The directory it was in is gone, so it is in the one above.
    let path = String::from_utf8(link.name).unwrap();
    assert_eq!(
        path.as_bytes(),
        guest.path(&format!("link_remap.{}", link.id))
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    assert_eq!(images.regular(guest.number(1)).name, guest.path("third"));
    // A link that was left behind is in nobody's way, and only kept ones stay.
    images.collected.links.keep();
    let again = linked();
    drop(again);
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    let left = std::fs::read_dir(guest.home.path()).unwrap();
    assert_eq!(left.count(), 2);
}

#[test]
fn pipes_are_looked_into_and_left_alone() {
    let guest = Guest::new(
        "r, w = os.pipe(); os.write(w, b'x' * 5000); os.write(w, b'end')\n\
         fcntl.fcntl(w, 1031, 1 << 18)\n\
         os.mkfifo('fifo'); f = os.open('fifo', os.O_RDWR); os.write(f, b'fifo')\n\
         h, gone = os.pipe(); os.write(gone, b'last words'); os.close(gone)\n\
         e, o = os.pipe2(os.O_DIRECT)\n\
         fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(r, 10, 40)\n\
         ready(r, w, f, h, e, o)",
    );
    for _ in 0..2 {
        let images = Images::guest(&guest);
        let [r, w] = [0, 1].map(|word| images.open(guest.number(word)).pipe.unwrap());
        assert_eq!((r.pipe_id, r.flags, w.flags), (w.pipe_id, 0, 1));
        assert_eq!((r.fown.pid, r.fown.pid_type), (guest.child.id(), 1));
        assert_eq!((r.fown.signum, w.fown.pid), (40, 0));
        let contents = |kind, id: u32| {
            let mut reader = images.dir.reader(kind, ()).unwrap();
            loop {
                let entry: PipeDataEntry = reader.next().unwrap().unwrap();
                let payload = reader.payload(entry.bytes.into()).unwrap();
                let bytes = payload.bytes(1 << 20).unwrap();
                if entry.pipe_id == id {
                    break (bytes, entry.size.unwrap());
                }
            }
        };
        let (bytes, size) = contents(ImageKind::PipesData, r.pipe_id);
        assert_eq!((bytes.len(), size), (5003, 1 << 18));
        assert!(bytes.starts_with(b"xxx") && bytes.ends_with(b"xend"));
        let fifo = images.open(guest.number(2)).fifo.unwrap();
        assert_eq!(contents(ImageKind::FifoData, fifo.pipe_id).0, b"fifo");
        let path = images.file(fifo.regf_id.unwrap()).reg.unwrap();
        assert_eq!((path.name, path.flags & 3), (guest.path("fifo"), 2));
        let half = images.open(guest.number(3)).pipe.unwrap();
        assert_eq!(
            contents(ImageKind::PipesData, half.pipe_id).0,
            b"last words"
        );
        let packets = images.open(guest.number(5)).pipe.unwrap();
        assert_eq!(packets.flags, 0o40_001);
    }
}

#[test]
fn memory_with_an_inode_has_one_record() {
    let guest = Guest::new(
        "m = os.memfd_create('x y', os.MFD_ALLOW_SEALING); os.write(m, b'x' * 5000)\n\
         fcntl.fcntl(m, 1033, 2); os.fchmod(m, 0o600)\n\
         ro = os.open(f'/proc/self/fd/{m}', os.O_RDONLY); alone = os.memfd_create('alone')\n\
         shared = mmap.mmap(-1, 8192); shared[:3] = b'abc'\n\
         private = mmap.mmap(m, 4096, mmap.MAP_PRIVATE)\n\
         ready(m, ro, alone)",
    );
    let images = Images::guest(&guest);
    let memfd = |word: usize| images.open(guest.number(word)).memfd.unwrap();
    let (m, ro, alone) = (memfd(0), memfd(1), memfd(2));
    assert_eq!((m.pos, m.flags & 3, ro.flags & 3), (5000, 2, 0));
    assert_eq!(m.inode_id, ro.inode_id);
    assert!(m.id != ro.id && m.inode_id != alone.inode_id);
    let inodes: Vec<MemfdInodeEntry> = images.all(ImageKind::Memfd);
    let by_name = |name: &[u8]| {
        let found: Vec<_> = inodes.iter().filter(|inode| inode.name == name).collect();
        assert_eq!(found.len(), 1);
        found[0]
    };
    let sealed = by_name(b"x y");
    assert_eq!(
        (sealed.size, sealed.seals, sealed.mode),
        (5000, 2, Some(0o100_600))
    );
    assert_eq!((by_name(b"alone").seals, by_name(b"alone").size), (1, 0));
    let zero = by_name(b"/dev/zero");
    assert_eq!((zero.size, zero.hugetlb_flag), (8192, None));
    let find = |name: &[u8]| {
        let mut mapped = images.mapped.iter();
        mapped
            .find(|(area, _)| area.map.path.starts_with(name))
            .unwrap()
            .1
    };
    let shared = find(b"/dev/zero");
    assert_eq!((shared.memfd, shared.fdflags), (true, Some(2)));
    assert_eq!(
        u64::from(images.file(shared.id).memfd.unwrap().inode_id),
        zero.inode_id
    );
    let private = find(b"/memfd:x y");
    assert!(private.memfd);
    assert_eq!(images.file(private.id).memfd.unwrap().inode_id, m.inode_id);

    let mut memory = images.collected.memory.iter();
    let zero = memory.find(|memory| memory.shmid == zero.shmid).unwrap();
    let mut bytes = [0; 4];
    let Contents::File(file) = &zero.contents else {
        panic!("it can be opened");
    };
    rustix::io::pread(file, &mut bytes, 0).unwrap();
    assert_eq!((bytes, zero.size, zero.page_size), (*b"abc\0", 8192, 4096));
    assert_eq!(images.collected.memory.len(), 3);
}

#[test]
fn descriptions_are_shared_between_tasks() {
    let guest = Guest::new(
        "f = os.open('data', os.O_RDWR | os.O_CREAT); g = os.open('data', os.O_RDONLY)\n\
         many = [os.open('data', os.O_RDONLY) for _ in range(50)]\n\
         r, w = os.pipe()\n\
         child = os.fork()\n\
         if not child:\n    os.dup2(f, 200); own = os.open('data', os.O_RDONLY); os.write(w, b'x'); os.close(r); time.sleep(60); os._exit(0)\n\
         os.read(r, 1)\n\
         ready(f, g, child)",
    );
    let child = super::Pid::from_raw(guest.number(2).cast_signed()).unwrap();
    let images = Images::of(&[guest.pid, child], &|_| {}).unwrap();
    let [parent, other] = &images.tables[..] else {
        panic!("two tables");
    };
    let id =
        |table: &[super::FdinfoEntry], fd: u32| table.iter().find(|slot| slot.fd == fd).unwrap().id;
    let (f, g) = (guest.number(0), guest.number(1));
    assert_eq!(id(parent, f), id(other, f));
    assert_eq!(id(parent, f), id(other, 200));
    assert_ne!(id(parent, f), id(parent, g));
    let ids = |table: &[super::FdinfoEntry]| {
        let ids = table.iter().map(|slot| slot.id);
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    // The child has one of its own.
    assert_eq!(ids(other).difference(&ids(parent)).count(), 1);
    assert_eq!(ids(parent).len(), parent.len());
    assert!(parent.windows(2).all(|pair| pair[0].fd < pair[1].fd));
    // Both are in the same directory.
    let cwd = images.file(images.cwd).reg.unwrap().name;
    let all = images.all::<FileEntry>(ImageKind::Files).into_iter();
    let there = all.filter(|file| file.reg.as_ref().is_some_and(|reg| reg.name == cwd));
    assert_eq!(there.count(), 1);
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_shell_job_has_a_terminal() {
    let guest = Guest::new(
        "import pty\n\
         pid, master = pty.fork()\n\
         if not pid:\n    t = os.open('/dev/tty', os.O_RDWR); os.dup2(t, 77); os.write(1, b'!'); time.sleep(60); os._exit(0)\n\
         os.read(master, 1)\n\
         ready(pid, master)",
    );
    let job = super::Pid::from_raw(guest.number(0).cast_signed()).unwrap();
    let refused = Images::of(&[job], &|_| {}).err().unwrap().to_string();
    assert!(
        refused.contains("--shell-job") && refused.contains("/dev/pts/"),
        "{refused}"
    );
    let images = Images::of(&[job], &|options| options.shell_job = true).unwrap();
    let tty = images.open(0).tty.unwrap();
    assert_eq!(images.slot(0).id, images.slot(2).id);
    let path = images.file(tty.regf_id.unwrap()).reg.unwrap();
    let index: u32 = std::str::from_utf8(&path.name)
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let infos: Vec<gelid_image::messages::TtyInfoEntry> = images.all(ImageKind::TtyInfo);
    assert_eq!(infos.len(), 2);
    let info = &infos[0];
    assert_eq!((info.id, tty.tty_info_id), (2 * index, 2 * index));
    assert_eq!(
        (info.rdev, info.pty.as_ref().unwrap().index),
        (0x8800 + index, index)
    );
    assert_eq!((info.sid, info.pgrp), (guest.number(0), guest.number(0)));
    assert_eq!(info.termios.as_ref().unwrap().c_cc.len(), 19);
    let controlling = images.open(77).tty.unwrap();
    assert_eq!((controlling.tty_info_id, infos[1].rdev), (2012, 0x500));
    assert_eq!(infos[1].sid, guest.number(0));
    assert_eq!(images.slot(77).r#type, i32::from(FdTypes::Tty));
    let refused = super::refusal(&guest);
    assert!(
        refused.contains("whose leader is outside of the tree"),
        "{refused}"
    );
    // With both ends it is nobody's job.
    let images = Images::of(&[job, guest.pid], &|_| {}).unwrap();
    let infos: Vec<gelid_image::messages::TtyInfoEntry> = images.all(ImageKind::TtyInfo);
    let ids: Vec<u32> = infos.iter().map(|info| info.id).collect();
    assert_eq!(ids, [2 * index, 2 * index + 1, 2012]);
    assert!(infos.iter().all(|info| info.sid == guest.number(0)));
    let named = images.open(77).tty.unwrap().gelid.unwrap();
    assert_eq!(named.terminal, Some(2 * index));
    // And somebody else's if that is said.
    let key = format!("tty[{:x}:{:x}]", infos[0].rdev, infos[0].dev.unwrap());
    let images = Images::of(&[job], &|options| options.external = vec![key.clone()]);
    let refused = images.err().unwrap().to_string();
    assert!(refused.contains("is the terminal /dev/tty"), "{refused}");
    let images = Images::of(&[job], &|options| {
        options.external = vec![key.clone(), "tty[500:6]".into()];
    });
    let images = images.unwrap();
    let tty = images.open(0).tty.unwrap();
    assert!(tty.regf_id.is_none() && tty.tty_info_id >= 2 * 1012);
    rustix::process::kill_process(job, rustix::process::Signal::KILL).unwrap();
}
