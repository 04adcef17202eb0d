//! Event files, and what their records say.

use gelid_image::messages::{EventpollTfdEntry, FdTypes};

use super::{Guest, Images};

/// What a script needs to make files that Python does not know.
const CALLS: &str = "import ctypes, select, signal\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def timer(clock, flags, value, interval):\n\
    \x20   fd = libc.timerfd_create(clock, 0o4000)\n\
    \x20   spec = (ctypes.c_long * 4)(*interval, *value)\n\
    \x20   assert libc.timerfd_settime(fd, flags, spec, None) == 0; return fd\n";

fn guest(script: &str) -> Guest {
    Guest::new(&format!("{CALLS}{script}"))
}

#[test]
fn counters_tell_their_count() {
    let guest = guest(
        "a = os.eventfd(7, os.EFD_NONBLOCK); b = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)\n\
         os.eventfd_write(b, 1 << 40); fcntl.fcntl(a, fcntl.F_SETOWN, os.getpid())\n\
         fcntl.fcntl(a, 10, 12); ready(a, b)",
    );
    let images = Images::guest(&guest);
    let file = images.open(guest.number(0));
    assert_eq!(file.r#type, i32::from(FdTypes::Eventfd));
    let counter = file.efd.unwrap();
    assert_eq!((counter.id, counter.flags), (file.id, 0o4002));
    assert_eq!((counter.counter, counter.semaphore), (7, None));
    let owner = (counter.fown.signum, counter.fown.pid.cast_signed());
    assert_eq!(owner, (12, guest.pid.as_raw_pid()));
    let semaphore = images.open(guest.number(1)).efd.unwrap();
    assert_eq!(
        (semaphore.counter, semaphore.semaphore),
        (1 << 40, Some(true))
    );
    assert_eq!(images.slot(guest.number(1)).flags, 1);
}

#[test]
fn masks_of_signals_are_told() {
    let guest = guest(
        "mask = (ctypes.c_uint64 * 16)(1 << 9 | 1 << 63)\n\
         ready(libc.signalfd(-1, mask, 0o4000))",
    );
    let signals = Images::guest(&guest).open(guest.number(0)).sgfd.unwrap();
    assert_eq!((signals.sigmask, signals.flags), (1 << 9 | 1 << 63, 0o4002));
}

#[test]
fn timers_tell_what_is_left() {
    let guest = guest(
        "a = timer(1, 0, (1000, 5), (7, 0)); b = timer(0, 3, (4000000000, 0), (0, 0))\n\
         c = timer(1, 0, (0, 1000), (0, 20000000)); d = timer(1, 0, (0, 1000), (0, 0))\n\
         e = libc.timerfd_create(7, 0); time.sleep(0.1); ready(a, b, c, d, e)",
    );
    let images = Images::guest(&guest);
    let timer = |word| images.open(guest.number(word)).tfd.unwrap();
    let running = timer(0);
    assert_eq!((running.clockid, running.flags), (1, 0o4002));
    assert!((900..1000).contains(&running.vsec), "{}", running.vsec);
    assert_eq!((running.isec, running.insec), (7, 0));
    assert_eq!((running.ticks, running.settime_flags), (0, 0));
    let deadline = timer(1);
    assert_eq!((deadline.clockid, deadline.settime_flags), (0, 3));
    assert!(deadline.vsec < 4_000_000_000 - 1_700_000_000, "relative");
    let late = deadline.deadline.unwrap() - 4_000_000_000_000_000_000;
    assert!(late < 1_000_000_000, "{late}");
    assert_eq!(running.deadline, None);
    // It stood still since the first time, and has counted what it missed.
    let periodic = timer(2);
    assert!(periodic.ticks >= 5, "{}", periodic.ticks);
    assert!((1..=20_000_000).contains(&periodic.vnsec));
    let over = timer(3);
    assert_eq!((over.ticks, over.vsec, over.vnsec), (1, 0, 0));
    let unused = timer(4);
    assert_eq!((unused.clockid, unused.ticks, unused.vsec), (7, 0, 0));
}

#[test]
fn sets_tell_what_they_watch() {
    let guest = guest(
        "def files(n): return [os.pipe() for _ in range(n)]\n\
         e = select.epoll(); f = e.fileno()\n\
         (a, aw), (b, bw), (c, cw), (d, dw) = files(4)\n\
         e.register(a, select.EPOLLIN | select.EPOLLET)\n\
         # Reused by another file, but open under another number.\n\
         e.register(b, select.EPOLLIN); b2 = os.dup(b); os.dup2(cw, b)\n\
         # Watched twice, under two numbers, one of which is closed.\n\
         c2 = os.dup(c); e.register(c, select.EPOLLIN); e.register(c2, select.EPOLLPRI)\n\
         # A set within the set.\n\
         inner = select.epoll(); inner.register(dw, select.EPOLLOUT | select.EPOLLONESHOT); e.register(inner.fileno())\n\
         inner.poll(0); os.close(c2)\n\
         ready(f, a, b, b2, c, c2, inner.fileno(), dw)",
    );
    let images = Images::guest(&guest);
    let number = |word| guest.number(word);
    let set = images.open(number(0)).epfd.unwrap();
    let by_number =
        |set: &gelid_image::messages::EventpollFileEntry, fd: u32| -> EventpollTfdEntry {
            let mut watches = set.tfd.iter();
            let found = watches.find(|watch| watch.added_as.unwrap_or(watch.tfd) == fd);
            found.unwrap().clone()
        };
    assert_eq!(set.tfd.len(), 5);
    let plain = by_number(&set, number(1));
    assert_eq!((plain.tfd, plain.file), (number(1), None));
    assert_eq!((plain.events, plain.data), (0x8000_0019, number(1).into()));
    let reused = by_number(&set, number(2));
    let file = images.slot(number(3)).id;
    assert_eq!((reused.tfd, reused.file), (number(3), Some(file)));
    assert_eq!(by_number(&set, number(4)).file, None);
    let closed = by_number(&set, number(5));
    let file = images.slot(number(4)).id;
    assert_eq!((closed.tfd, closed.file), (number(4), Some(file)));
    assert_eq!(by_number(&set, number(6)).file, None);
    // It has fired and waits to be armed again.
    let inner = images.open(number(6)).epfd.unwrap();
    assert_eq!(by_number(&inner, number(7)).events, 0x4000_0000);
}

#[test]
fn what_is_only_open_in_another_task_is_found() {
    let guest = guest(
        "e = select.epoll(); r, w = os.pipe(); back, done = os.pipe()\n\
         e.register(r, select.EPOLLIN)\n\
         child = os.fork()\n\
         if child == 0:\n\
         \x20   os.close(w); e.close(); os.write(done, b'x'); time.sleep(1000)\n\
         os.read(back, 1); os.close(r)\n\
         ready(e.fileno(), r, child)",
    );
    let child = gelid_sys::Pid::from_raw(guest.number(2).cast_signed()).unwrap();
    let both = Images::of(&[guest.pid, child], &|_| {}).unwrap();
    let set = both.open(guest.number(0)).epfd.unwrap();
    let slot = both.tables[1]
        .iter()
        .find(|slot| slot.fd == guest.number(1));
    assert_eq!(set.tfd[0].file, Some(slot.unwrap().id));
    assert_eq!(set.tfd[0].added_as, Some(guest.number(1)));
    assert_eq!(set.tfd[0].tfd, i32::MAX.cast_unsigned());
    let text = super::refusal(&guest);
    assert!(text.contains("only tasks outside of the tree"), "{text}");
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn paths_to_event_files_are_refused() {
    let guest = guest("e = os.eventfd(0); ready(os.open(f'/proc/self/fd/{e}', os.O_PATH))");
    let text = super::refusal(&guest);
    assert!(text.contains("an event file opened with O_PATH"), "{text}");
}

/// What a script needs to watch the file system.
const WATCH: &str = "def watch(fd, path, mask):\n\
    \x20   wd = libc.inotify_add_watch(fd, path.encode(), mask); assert wd > 0; return wd\n\
    i = libc.inotify_init1(0o4000); os.mkdir('d'); open('d/file', 'w').close()\n";

#[test]
fn watched_files_have_paths() {
    let script = "a = watch(i, 'd', 0xfff); b = watch(i, 'd/file', 0x80000002)\n\
        k = open('gone', 'w'); c = watch(i, 'gone', 8); os.unlink('gone')\n\
        ready(i, a, b, c, k.fileno())";
    let guest = guest(&format!("{WATCH}{script}"));
    let images = Images::guest(&guest);
    let queue = images.open(guest.number(0)).ify.unwrap();
    assert_eq!(queue.flags, 0o4000);
    let watch = |word: usize| {
        let mut watches = queue.wd.iter();
        watches
            .find(|watch| watch.wd == guest.number(word))
            .unwrap()
    };
    let path = |word| watch(word).f_handle.path.clone();
    assert_eq!((path(1), watch(1).mask), (Some(guest.path("d")), 0xfff));
    assert_eq!(
        (path(2), watch(2).mask),
        (Some(guest.path("d/file")), 0x8000_0002)
    );
    assert_eq!(path(3), None);
    assert_eq!(watch(3).file, Some(images.slot(guest.number(4)).id));
    assert!(watch(3).f_handle.bytes > 0 && watch(3).f_handle.handle.len() == 16);
}

#[test]
fn events_that_nobody_has_read_are_refused() {
    let script = "watch(i, 'd', 0x100); open('d/new', 'w').close(); ready(i)";
    let text = super::refusal(&guest(&format!("{WATCH}{script}")));
    assert!(text.contains("bytes of events"), "{text}");
}

#[test]
fn files_that_cannot_be_found_are_refused() {
    let script = "watch(i, '/proc/self', 0x100); ready(i)";
    let text = super::refusal(&guest(&format!("{WATCH}{script}")));
    assert!(text.contains("without a name that can be found"), "{text}");
}
