//! Pipes and FIFOs: contents, sizes, flags, ends that nobody has.

use super::*;
use crate::files::Inherit;
use gelid_image::messages::FifoEntry;

const O_DIRECT: u32 = 0o40_000;

#[test]
fn ends_contents_and_sizes_come_back() {
    let mut images = Images::new();
    images.pipe(3, 100, 0);
    images.pipe(4, 100, 1 | O_NONBLOCK);
    images.pipe(5, 100, O_NONBLOCK);
    images.pipe(6, 100, 2 | O_LARGEFILE);
    images.pipe_data(100, 8192, b"waiting to be read");
    // The end to write was closed before the dump: the data can be read, then it ends.
    images.pipe(7, 101, 0);
    images.pipe_data(101, 4096, &[7; 4096]);
    // Data of a pipe that nobody has.
    images.pipe_data(102, 4096, b"lost");
    images.pipe(8, 103, 1 | O_DIRECT);
    let open = images.open().unwrap();
    let fd = |id| open.fd(id).unwrap();
    let all = [3, 4, 5, 6, 7, 8].map(|id| flags(fd(id)));
    let expected = [
        0,
        1 | O_NONBLOCK,
        O_NONBLOCK | O_LARGEFILE,
        2 | O_LARGEFILE,
        0,
        1 | O_DIRECT,
    ];
    assert_eq!(all, expected);
    assert!(
        [3, 4, 5, 6, 7, 8]
            .iter()
            .all(|id| fd(*id).as_raw_fd() >= BASE)
    );
    assert_eq!(rustix::pipe::fcntl_getpipe_size(fd(3)), Ok(8192));
    assert_eq!(read_now(fd(5)), b"waiting to be read");
    rustix::io::write(fd(6), b"more").unwrap();
    assert_eq!(read_now(fd(3)), b"more");
    assert_eq!(rustix::pipe::fcntl_getpipe_size(fd(7)), Ok(4096));
    assert_eq!(read_now(fd(7)), [7; 4096]);
    assert_eq!(read_now(fd(7)), b"");
}

#[test]
fn contents_that_cannot_be_are_refused() {
    let mut images = Images::new();
    images.pipe(3, 100, 0);
    images.pipe_data(100, 4096, &[1; 5000]);
    let error = images.plan().unwrap_err().to_string();
    assert_eq!(
        error,
        "pipes-data.img: pipe 100: bytes is 5000: a pipe holds no more bytes than its size"
    );
    images.pipes.clear();
    images.pipe_data(100, 4096, b"x");
    images.pipe_data(100, 4096, b"x");
    assert!(matches!(images.plan(), Err(Error::Duplicate { .. })));
    images.pipes.pop();
    images.pipe(4, 100, 1 | O_DIRECT);
    let error = images.plan().unwrap_err().to_string();
    assert!(error.contains("unread packets"), "{error}");
}

#[test]
fn packets_are_read_one_by_one() {
    let mut images = Images::new();
    images.pipe(3, 100, O_NONBLOCK);
    images.pipe(4, 100, 1 | O_DIRECT);
    images.pipe(5, 100, 1 | O_DIRECT | O_NONBLOCK);
    images.pipe_data(100, 8192, b"onetwo");
    images.pipes[0].0.packet = vec![3, 3];
    {
        let open = images.open().unwrap();
        let fd = |id| open.fd(id).unwrap();
        assert_eq!(flags(fd(4)), 1 | O_DIRECT);
        assert_eq!(flags(fd(5)), 1 | O_DIRECT | O_NONBLOCK | O_LARGEFILE);
        let mut buffer = [0; 64];
        for packet in [b"one", b"two"] {
            let read = rustix::io::read(fd(3), &mut buffer).unwrap();
            assert_eq!(&buffer[..read], packet);
        }
    }
    for packets in [vec![3, 4], vec![0, 6], vec![u32::MAX, 7]] {
        images.pipes[0].0.packet = packets;
        let error = images.plan().unwrap_err().to_string();
        assert!(error.contains("together all of them"), "{error}");
    }
}

#[test]
fn the_caller_gives_a_pipe() {
    let mut images = Images::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    images.pipe(3, 100, 1);
    images.pipe(4, 100, 0);
    images.options.inherit.push(Inherit {
        fd: writer.as_raw_fd(),
        key: "pipe:[100]".into(),
    });
    let open = images.open().unwrap();
    rustix::io::write(open.fd(3).unwrap(), b"out").unwrap();
    assert_eq!(read_now(open.fd(4).unwrap()), b"out");
    rustix::io::write(open.fd(3).unwrap(), b"there").unwrap();
    assert_eq!(read_now(reader.as_fd()), b"there");
}

fn fifo(images: &mut Images, id: u32, pipe_id: u32, name: &str, flags: u32) {
    let reg = images.regular(id + 100, name, flags, 0);
    reg.mode = Some(0o010_640);
    images.slots.pop();
    let fifo = FifoEntry {
        id,
        pipe_id,
        regf_id: Some(id + 100),
    };
    images.push(FileEntry {
        fifo: Some(fifo),
        ..entry(FdTypes::Fifo, id)
    });
}

#[test]
fn fifos_wait_for_nobody() {
    let mut images = Images::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    let root = open_dir(&images.root());
    rustix::fs::mknodat(&root, "fifo", rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fifo(&mut images, 3, 100, "/fifo", 0);
    fifo(&mut images, 4, 100, "/fifo", 1 | O_NONBLOCK);
    images.pipe_data(100, 16384, b"queued");
    let open = images.open().unwrap();
    let (three, four) = (open.fd(3).unwrap(), open.fd(4).unwrap());
    assert_eq!(
        (flags(three), flags(four)),
        (O_LARGEFILE, 1 | O_NONBLOCK | O_LARGEFILE)
    );
    assert_eq!(link(&images, three), "/fifo");
    assert_eq!(rustix::pipe::fcntl_getpipe_size(four), Ok(16384));
    assert_eq!(read_now(three), b"queued");
    assert!(open.fd(103).is_none());
    drop(open);
    fifo(&mut images, 5, 101, "/fifo", 0);
    images.slots.remove(0);
    images.entries[1].fifo = None;
    assert!(images.plan().is_err());
}

#[test]
fn a_fifo_alone_is_at_its_end() {
    let mut images = Images::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    let root = open_dir(&images.root());
    rustix::fs::mknodat(&root, "fifo", rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fifo(&mut images, 3, 100, "/fifo", O_NONBLOCK);
    let open = images.open().unwrap();
    assert_eq!(read_now(open.fd(3).unwrap()), b"");
    drop(open);
    std::fs::remove_file(images.root().join("fifo")).unwrap();
    std::fs::write(images.root().join("fifo"), b"").unwrap();
    assert!(images.refusal().contains("type Fifo is now RegularFile"));
}
