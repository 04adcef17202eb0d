//! Watches of `inotify(7)`.
//!
//! `inotify`: directories and files, masks, numbers with gaps; nothing has happened meanwhile. `inotify-oneshot`: a
//! watch that ends with its first event. `inotify-all`: what is open was not opened or closed either.
//! `inotify-deleted`: a watched file that is open and has no name. `inotify-blocked`: a reader, to be woken by a change.
//! `inotify-unread`: events that nobody has read. `inotify-overflow`: more than a queue takes, read since.
//! `inotify-unread`: events that nobody has read. `inotify-boxed`: on the disk, and on what is mounted in a container.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, nap, same, wait_blocked};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("inotify", watches),
    Entry("inotify-oneshot", oneshot),
    Entry("inotify-all", all_events),
    Entry("inotify-deleted", deleted),
    Entry("inotify-blocked", blocked),
    Entry("inotify-unread", unread),
    Entry("inotify-overflow", overflow),
    Entry("inotify-boxed", boxed),
];

/// An event: watch, mask, name.
type Event = (i32, u32, String);

fn watch(fd: i32, path: &Path, mask: u32) -> Check<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    os!(libc::inotify_add_watch(fd, path.as_ptr(), mask))
}

/// All events that wait; one `read(2)` that may block if there is none.
fn events(fd: i32) -> Check<Vec<Event>> {
    let mut bytes = [0_u8; 4096];
    // SAFETY: `bytes` is a live local of that length.
    let got = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    if got == -1 && errno() == libc::EAGAIN {
        return Ok(Vec::new());
    }
    ensure!(got > 0, "read: {got}, errno {}", errno());
    let mut rest = &bytes[..got.unsigned_abs()];
    let mut events = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(16) {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&head[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let (name, tail) = tail.split_at(word(12) as usize);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = OsStr::from_bytes(name).to_string_lossy().into_owned();
        events.push((word(0).cast_signed(), word(4), name));
        rest = tail;
    }
    Ok(events)
}

fn watches(guest: &Guest) -> Check {
    let (directory, file) = (guest.path("watched"), guest.path("watched/file"));
    fs::create_dir(&directory)?;
    fs::write(&file, "x")?;
    let fd = os!(libc::inotify_init1(libc::IN_NONBLOCK))?;
    let other = os!(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC))?;
    for _ in 0..5 {
        // Numbers that are not used again.
        let wd = watch(fd, &guest.dir, libc::IN_CREATE)?;
        os!(libc::inotify_rm_watch(fd, wd))?;
    }
    let some = libc::IN_CLOSE_WRITE | libc::IN_CREATE | libc::IN_EXCL_UNLINK;
    let some = watch(fd, &directory, some)?;
    let changes = watch(fd, &file, libc::IN_ATTRIB)?;
    let system = watch(fd, Path::new("/dev/shm"), libc::IN_MOVE_SELF)?;
    same!("numbers", (some, changes, system), (6, 7, 8));
    let seldom = watch(other, &directory, libc::IN_DELETE)?;
    let _ = events(fd)?;
    guest.hold()?;
    same!(
        "events meanwhile",
        (events(fd)?, events(other)?),
        (vec![], vec![])
    );
    fs::write(&file, "y")?;
    same!(
        "events of the directory",
        events(fd)?,
        [(some, libc::IN_CLOSE_WRITE, "file".to_owned())]
    );
    fs::remove_file(&file)?;
    same!(
        "deleted",
        events(other)?,
        [(seldom, libc::IN_DELETE, "file".to_owned())]
    );
    let (wd, mask, _) = &events(fd)?[0];
    same!("the file", (*wd, *mask), (changes, libc::IN_ATTRIB));
    os!(libc::inotify_rm_watch(fd, system))?;
    let _ = events(fd)?;
    same!(
        "number of the next watch",
        watch(fd, &guest.dir, libc::IN_MOVE)?,
        9
    );
    Ok(())
}

fn oneshot(guest: &Guest) -> Check {
    let file = guest.path("watched");
    fs::write(&file, "x")?;
    let fd = os!(libc::inotify_init1(libc::IN_NONBLOCK))?;
    let once = watch(fd, &file, libc::IN_MODIFY | libc::IN_ONESHOT)?;
    guest.hold()?;
    same!("events meanwhile", events(fd)?, []);
    fs::write(&file, "y")?;
    let found: Vec<_> = events(fd)?.iter().map(|event| (event.0, event.1)).collect();
    same!(
        "events",
        found,
        [(once, libc::IN_MODIFY), (once, libc::IN_IGNORED)]
    );
    Ok(())
}

fn all_events(guest: &Guest) -> Check {
    let (directory, file) = (guest.path("watched"), guest.path("watched/file"));
    fs::create_dir(&directory)?;
    fs::write(&file, "x")?;
    let open = File::open(&file)?;
    let mapped = File::open(&file)?;
    let _map = crate::os::Map::new(
        crate::os::PAGE,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
        mapped.as_raw_fd(),
        0,
    )?;
    drop(mapped);
    std::env::set_current_dir(&directory)?;
    let fd = os!(libc::inotify_init1(libc::IN_NONBLOCK))?;
    // That a mapped file is read the dumper may cause.
    let all = watch(fd, &directory, libc::IN_ALL_EVENTS & !libc::IN_ACCESS)?;
    guest.hold()?;
    same!("events meanwhile", events(fd)?, []);
    drop(open);
    same!(
        "events of a close",
        events(fd)?,
        [(all, libc::IN_CLOSE_NOWRITE, "file".to_owned())]
    );
    Ok(())
}

fn deleted(guest: &Guest) -> Check {
    let (directory, file) = (guest.path("watched"), guest.path("watched/file"));
    fs::create_dir(&directory)?;
    let open = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&file)?;
    let fd = os!(libc::inotify_init1(libc::IN_NONBLOCK))?;
    let of_file = watch(fd, &file, libc::IN_CLOSE_WRITE)?;
    let of_directory = watch(fd, &directory, libc::IN_CREATE | libc::IN_DELETE)?;
    fs::remove_file(&file)?;
    let _ = events(fd)?;
    guest.hold()?;
    same!("events meanwhile", events(fd)?, []);
    os!(libc::close(open.as_raw_fd()))?;
    std::mem::forget(open);
    let found = events(fd)?;
    let masks: Vec<_> = found.iter().map(|event| (event.0, event.1)).collect();
    // The last who had it is gone, and with it the watch.
    same!(
        "of the file",
        masks,
        [(of_file, libc::IN_CLOSE_WRITE), (of_file, libc::IN_IGNORED)]
    );
    fs::write(&file, "x")?;
    same!(
        "of the directory",
        events(fd)?,
        [(of_directory, libc::IN_CREATE, "file".to_owned())]
    );
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    let directory = guest.path("watched");
    fs::create_dir(&directory)?;
    let kid = guest.fork("reader", |_| {
        let fd = os!(libc::inotify_init1(0))?;
        let wd = watch(fd, &directory, libc::IN_CREATE)?;
        same!(
            "events",
            events(fd)?,
            [(wd, libc::IN_CREATE, "new".to_owned())]
        );
        Ok(())
    })?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    guest.hold()?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    nap(Duration::from_millis(20)); // it stays so
    wait_blocked(kid.pid, libc::SYS_read)?;
    fs::write(directory.join("new"), "x")?;
    kid.join(guest)
}

fn unread(guest: &Guest) -> Check {
    let directory = guest.path("watched");
    fs::create_dir(&directory)?;
    let fd = os!(libc::inotify_init1(0))?;
    let wd = watch(fd, &directory, libc::IN_CREATE)?;
    fs::write(directory.join("new"), "x")?;
    guest.hold()?;
    same!(
        "events",
        events(fd)?,
        [(wd, libc::IN_CREATE, "new".to_owned())]
    );
    Ok(())
}

/// Lets so much happen to two files that a queue overflows, and reads all of it.
fn overflow(guest: &Guest) -> Check {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?;
    let limit: usize = limit.trim().parse()?;
    if limit > 1 << 15 {
        return Err(Failure::skip(format!("{limit} events in a queue")));
    }
    let fd = os!(libc::inotify_init1(libc::IN_NONBLOCK))?;
    let [one, other] = ["one", "other"].map(|name| File::create(guest.path(name)));
    let files = [one?, other?];
    let mut watches = Vec::new();
    for name in ["one", "other"] {
        watches.push(watch(fd, &guest.path(name), libc::IN_ATTRIB)?);
    }
    for turn in 0..=limit {
        os!(libc::fchmod(files[turn % 2].as_raw_fd(), 0o600))?;
    }
    let mut found = Vec::new();
    loop {
        match events(fd)? {
            none if none.is_empty() => break,
            some => found.extend(some),
        }
    }
    same!("events", found.len(), limit + 1);
    let last = found.last().map(|event| (event.0, event.1));
    same!("the last", last, Some((-1, libc::IN_Q_OVERFLOW)));
    guest.hold()?;
    same!("events meanwhile", events(fd)?, []);
    os!(libc::fchmod(files[1].as_raw_fd(), 0o644))?;
    let found: Vec<_> = events(fd)?.iter().map(|event| (event.0, event.1)).collect();
    same!("events", found, [(watches[1], libc::IN_ATTRIB)]);
    Ok(())
}

fn boxed(guest: &Guest) -> Check {
    crate::owners::alone_with_mounts()?;
    let fd = os!(libc::inotify_init1(libc::IN_NONBLOCK))?;
    let mut watched = Vec::new();
    for place in [guest.path("watched"), "/tmp/watched".into()] {
        let file = place.join("file");
        fs::create_dir(&place)?;
        fs::write(&file, "x")?;
        let directory = watch(fd, &place, libc::IN_CLOSE_WRITE | libc::IN_CREATE)?;
        watched.push((directory, watch(fd, &file, libc::IN_ATTRIB)?, place));
    }
    guest.hold()?;
    same!("events meanwhile", events(fd)?, []);
    for (directory, file, place) in watched {
        let path = place.join("file");
        fs::write(&path, "y")?;
        let written = (directory, libc::IN_CLOSE_WRITE, "file".to_owned());
        same!("of the directory", events(fd)?, [written]);
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        same!(
            "of the file",
            events(fd)?,
            [(file, libc::IN_ATTRIB, String::new())]
        );
        fs::write(place.join("new"), "z")?;
        same!("new", events(fd)?.len(), 2);
    }
    Ok(())
}
