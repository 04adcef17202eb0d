//! Event files: what is made of their records, and what is refused.

use super::*;
use crate::files::{Eventpoll, Kind};
use gelid_image::messages::{
    EventfdFileEntry, EventpollFileEntry, EventpollTfdEntry, FhEntry, GhostFileEntry,
    InotifyFileEntry, InotifyWdEntry, SignalfdEntry, TimerfdEntry,
};
use gelid_sys::proc::fdinfo::{Eventfd, Timerfd};

const ONESHOT: u32 = 1 << 30;

fn eventfd(id: u32, counter: u64, semaphore: bool) -> FileEntry {
    let file = EventfdFileEntry {
        id,
        flags: 2 | O_NONBLOCK,
        counter,
        semaphore: Some(semaphore),
        ..Default::default()
    };
    FileEntry {
        efd: Some(file),
        ..entry(FdTypes::Eventfd, id)
    }
}

fn timerfd(id: u32, change: impl FnOnce(&mut TimerfdEntry)) -> FileEntry {
    let mut file = TimerfdEntry {
        id,
        flags: 2,
        clockid: 1,
        ..Default::default()
    };
    change(&mut file);
    FileEntry {
        tfd: Some(Box::new(file)),
        ..entry(FdTypes::Timerfd, id)
    }
}

/// A set that watches descriptors by these numbers.
fn set(id: u32, numbers: &[u32]) -> FileEntry {
    let watch = |tfd: &u32| EventpollTfdEntry {
        tfd: *tfd,
        events: 1,
        data: 7,
        ..Default::default()
    };
    let file = EventpollFileEntry {
        id,
        flags: 2,
        tfd: numbers.iter().map(watch).collect(),
        ..Default::default()
    };
    FileEntry {
        epfd: Some(file),
        ..entry(FdTypes::Eventpoll, id)
    }
}

/// An inotify descriptor with watches of paths.
fn inotify(id: u32, watches: &[(u32, &str)]) -> FileEntry {
    let watch = |(wd, path): &(u32, &str)| InotifyWdEntry {
        wd: *wd,
        mask: 0x8400_0fff,
        f_handle: FhEntry {
            path: Some((*path).into()),
            ..Default::default()
        },
        ..Default::default()
    };
    let file = InotifyFileEntry {
        id,
        flags: O_NONBLOCK,
        wd: watches.iter().map(watch).collect(),
        ..Default::default()
    };
    FileEntry {
        ify: Some(file),
        ..entry(FdTypes::Inotify, id)
    }
}

/// Another descriptor of an open file.
fn twin(open: &OpenFiles, id: u32) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(open.fd(id).unwrap(), BASE).unwrap()
}

fn watch(images: &mut Images, set: usize, watch: usize) -> &mut EventpollTfdEntry {
    &mut images.entries[set].epfd.as_mut().unwrap().tfd[watch]
}

#[test]
fn counters_and_signals_come_back() {
    let mut images = Images::new();
    images.push(eventfd(3, u64::MAX - 1, false));
    images.push(eventfd(4, 3, true));
    let signals = SignalfdEntry {
        id: 5,
        flags: 2,
        sigmask: u64::MAX,
        ..Default::default()
    };
    images.push(FileEntry {
        sgfd: Some(signals),
        ..entry(FdTypes::Signalfd, 5)
    });
    let open = images.open().unwrap();
    let told = |id| info(open.fd(id).unwrap());
    let counter = |count, semaphore| Ok(Eventfd { count, semaphore });
    assert_eq!(told(3).eventfd(), counter(u64::MAX - 1, false));
    assert_eq!(told(4).eventfd(), counter(3, true));
    assert_eq!(flags(open.fd(3).unwrap()), 2 | O_NONBLOCK);
    // Two signals cannot be taken.
    assert_eq!(told(5).signalfd(), Ok(!(1 << 8 | 1 << 18)));
    assert_eq!(flags(open.fd(5).unwrap()), 2);
    images.entries[0].efd.as_mut().unwrap().counter = u64::MAX;
    let error = images.plan().unwrap_err().to_string();
    assert!(error.contains("a counter ends before"), "{error}");
}

#[test]
fn timers_start_at_the_end() {
    let mut images = Images::new();
    images.push(timerfd(3, |timer| {
        (timer.vsec, timer.vnsec, timer.isec) = (1000, 5, 7);
        timer.ticks = 9;
    }));
    images.push(timerfd(4, |timer| {
        (timer.clockid, timer.settime_flags, timer.vsec) = (0, 3, 1000);
    }));
    images.push(timerfd(5, |timer| timer.insec = 10));
    // Of a day that is long over.
    images.push(timerfd(6, |timer| {
        (timer.clockid, timer.settime_flags, timer.vsec) = (0, 1, 1000);
        timer.deadline = Some(5_000_000_000);
    }));
    let open = images.open().unwrap();
    let told = |id| info(open.fd(id).unwrap()).timerfd().unwrap();
    assert_eq!(told(3).value, (0, 0));
    open.start_timers().unwrap();
    let running = told(3);
    assert!((990..=1000).contains(&running.value.0), "{running:?}");
    assert_eq!((running.ticks, running.interval), (9, (7, 0)));
    let deadline = told(4);
    assert!((990..=1000).contains(&deadline.value.0), "{deadline:?}");
    let expected = Timerfd {
        value: deadline.value,
        clock: 0,
        ticks: 0,
        flags: 3,
        interval: (0, 0),
    };
    assert_eq!(deadline, expected);
    let over = told(6);
    assert_eq!((over.value, over.ticks), ((0, 0), 1));
    let off = told(5);
    assert_eq!((off.value, off.interval, off.ticks), ((0, 0), (0, 10), 0));
}

#[test]
fn timers_that_cannot_be_are_refused() {
    type Change = fn(&mut TimerfdEntry);
    let cases: [(Change, &str); 5] = [
        (|timer| timer.clockid = 2, "clockid is 2"),
        (|timer| timer.settime_flags = 4, "settime_flags is 4"),
        (|timer| timer.vnsec = 1_000_000_000, "vsec is 0 s and"),
        (|timer| timer.vsec = u64::MAX, "no timer has such a time"),
        (|timer| timer.isec = 1 << 60, "isec is"),
    ];
    for (change, what) in cases {
        let mut images = Images::new();
        images.push(timerfd(3, change));
        let error = images.plan().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn watches_find_their_files() {
    let mut images = Images::new();
    images.push(set(3, &[4, 5, 6, 4]));
    images.push(eventfd(4, 0, false));
    images.push(eventfd(5, 0, false));
    images.push(set(6, &[5]));
    // Watched by a number that another file has now.
    *watch(&mut images, 0, 3) = EventpollTfdEntry {
        tfd: 5,
        events: ONESHOT,
        file: Some(5),
        added_as: Some(900),
        ..Default::default()
    };
    let plan = images.plan().unwrap();
    let found = plan.watches(2).iter();
    let found: Vec<_> = found
        .map(|watching| (watching.set, watching.file, watching.watch.number))
        .collect();
    // Those that have fired come first.
    let expected = [(3, 5, 900), (3, 4, 4), (3, 5, 5), (3, 6, 6), (6, 5, 5)];
    assert_eq!(found, expected);
    assert!(plan.watches(1).is_empty());
    assert_eq!(plan.first_free(), 901);
    let description = plan.description(6).unwrap();
    assert!(
        matches!(&description.kind, Kind::Eventpoll(Eventpoll { watches }) if watches.len() == 1)
    );
    let open = images.open_plan(&plan).unwrap();
    assert_eq!(info(open.fd(3).unwrap()).epoll(), Ok(Vec::new()));
    assert_eq!(open.events(4) & 5, 4, "it can be written alone");
}

#[test]
fn watches_that_cannot_be_are_refused() {
    type Change = fn(&mut Images);
    let cases: [(Change, &str); 5] = [
        (|images| watch(images, 0, 0).tfd = 9, "watched descriptor 9"),
        (
            |images| watch(images, 0, 0).tfd = u32::MAX,
            "no descriptor has such a number",
        ),
        (
            |images| watch(images, 0, 0).added_as = Some(1 << 30),
            "no descriptor has such a number",
        ),
        (
            |images| watch(images, 0, 0).file = Some(99),
            "watched file 99",
        ),
        (
            |images| {
                let twin = watch(images, 0, 0).clone();
                images.entries[0].epfd.as_mut().unwrap().tfd.push(twin);
            },
            "the watch of descriptor 4 occurs twice",
        ),
    ];
    for (change, what) in cases {
        let mut images = Images::new();
        images.push(set(3, &[4]));
        images.push(eventfd(4, 0, false));
        change(&mut images);
        let error = images.plan().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn watches_of_the_file_system_come_last() {
    let mut images = Images::new();
    fs::create_dir(images.root().join("d")).unwrap();
    fs::write(images.root().join("d/file"), b"").unwrap();
    images.regular(3, "/d/file", 0, 0);
    images.push(inotify(4, &[(900, "/d/file"), (7, "/d")]));
    let open = images.open().unwrap();
    let queue = twin(&open, 4);
    assert_eq!(info(queue.as_fd()).inotify(), Ok(Vec::new()));
    open.keep(open_dir(&images.root()).as_fd().into()).unwrap();
    let watches = info(queue.as_fd()).inotify().unwrap();
    let watches: Vec<_> = watches.iter().map(|watch| (watch.wd, watch.mask)).collect();
    assert_eq!(watches, [(900, 0x8400_0fff), (7, 0x8400_0fff)]);
    // That the file was closed came before.
    assert_eq!(rustix::io::ioctl_fionread(&queue), Ok(0));
    assert_eq!(flags(queue.as_fd()), O_NONBLOCK);
}

#[test]
fn watched_files_without_a_name_are_those_that_are_open() {
    let mut images = Images::new();
    images.regular(3, "/gone", 2, 0);
    images.remap(3, RemapType::Ghost, 1);
    images.push(inotify(4, &[(1, "")]));
    let watch = &mut images.entries[1].ify.as_mut().unwrap().wd[0];
    (watch.s_dev, watch.i_ino) = (5, 6);
    watch.f_handle = FhEntry {
        bytes: 8,
        handle: vec![1; 16],
        ..Default::default()
    };
    let ghost = |dev| {
        move |staging: &Staging| {
            let entry = GhostFileEntry {
                mode: 0o100_600,
                dev: Some(dev),
                ino: Some(6),
                ..Default::default()
            };
            staging.put(ImageKind::GhostFile, 1, &entry).unwrap();
        }
    };
    let open = images.open_with(ghost(5)).unwrap();
    let (file, queue) = (twin(&open, 3), twin(&open, 4));
    open.keep(open_dir(&images.root()).as_fd().into()).unwrap();
    let watches = info(queue.as_fd()).inotify().unwrap();
    assert_eq!(watches[0].inode, rustix::fs::fstat(&file).unwrap().st_ino);
    // Another file: only the handle is left.
    let open = images.open_with(ghost(4)).unwrap();
    let error = open
        .keep(open_dir(&images.root()).as_fd().into())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot find the file of watch 1"),
        "{error}"
    );
    images.entries[1].ify.as_mut().unwrap().wd[0].file = Some(9);
    let error = images.open_with(ghost(4)).unwrap_err().to_string();
    assert!(error.contains("watched file 9"), "{error}");
}

#[test]
fn one_file_has_one_watch() {
    let mut images = Images::new();
    images.push(inotify(4, &[(2, "/"), (1, "/")]));
    let open = images.open().unwrap();
    let error = open
        .keep(open_dir(&images.root()).as_fd().into())
        .unwrap_err();
    assert!(error.to_string().contains("wd is 2"), "{error}");
}
