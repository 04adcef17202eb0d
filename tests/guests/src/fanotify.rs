//! Watches of `fanotify(7)`.
//!
//! `fanotify`: files and directories, what is ignored, groups that tell names. `fanotify-mount`: a mount, and a file system.
//! `fanotify-permission`: somebody would wait for an answer. `fanotify-overflow`: more than a queue takes, read since;
//! `fanotify-unread`: the same, not read.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("fanotify", inodes),
    Entry("fanotify-mount", mounts),
    Entry("fanotify-permission", permission),
    Entry("fanotify-overflow", overflow),
    Entry("fanotify-unread", unread),
];

fn group(flags: u32) -> Check<i32> {
    let flags = flags | libc::FAN_NONBLOCK;
    // SAFETY: two numbers.
    let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_LARGEFILE) as u32) };
    ensure!(fd >= 0, "fanotify_init: errno {}", errno());
    Ok(fd)
}

fn mark(group: i32, flags: u32, mask: u64, path: &Path) -> Check {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::FAN_MARK_ADD | flags;
    os!(libc::fanotify_mark(
        group,
        flags,
        mask,
        libc::AT_FDCWD,
        path.as_ptr()
    ))?;
    Ok(())
}

/// Masks of all events that wait, and the files of those that have one.
fn events(group: i32) -> Check<Vec<(u64, Option<PathBuf>)>> {
    let mut events = Vec::new();
    let mut bytes = [0_u8; 8192];
    loop {
        // SAFETY: `bytes` is a live local of that length.
        let got = unsafe { libc::read(group, bytes.as_mut_ptr().cast(), bytes.len()) };
        if got == -1 && errno() == libc::EAGAIN {
            return Ok(events);
        }
        ensure!(got > 0, "read: {got}, errno {}", errno());
        let mut rest = &bytes[..got.unsigned_abs()];
        while rest.len() >= 24 {
            let word = |at: usize| {
                let mut word = [0; 4];
                word.copy_from_slice(&rest[at..at + 4]);
                u32::from_ne_bytes(word)
            };
            let (len, mask) = (word(0), u64::from(word(8)) | u64::from(word(12)) << 32);
            let fd = word(16).cast_signed();
            let path = (fd >= 0).then(|| fs::read_link(format!("/proc/self/fd/{fd}")));
            let path = path.and_then(Result::ok);
            if fd >= 0 {
                os!(libc::close(fd))?;
            }
            events.push((mask, path));
            rest = &rest[len as usize..];
        }
    }
}

/// What the kernel tells of a group.
fn told(group: i32) -> Check<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{group}"))?;
    let lines = text.lines().filter(|line| line.starts_with("fanotify"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn inodes(guest: &Guest) -> Check {
    let (directory, file) = (guest.path("watched"), guest.path("watched/file"));
    let quiet = guest.path("watched/quiet");
    fs::create_dir(&directory)?;
    fs::write(&file, "x")?;
    fs::write(&quiet, "x")?;
    let plain = group(libc::FAN_CLASS_NOTIF)?;
    let children = libc::FAN_CLOSE_WRITE | libc::FAN_EVENT_ON_CHILD;
    mark(plain, 0, children, &directory)?;
    mark(plain, 0, libc::FAN_MODIFY, &file)?;
    let ignored = libc::FAN_MARK_IGNORED_MASK | libc::FAN_MARK_IGNORED_SURV_MODIFY;
    mark(plain, ignored, libc::FAN_CLOSE_WRITE, &quiet)?;
    let names = group(libc::FAN_CLOEXEC | libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME)?;
    mark(names, 0, libc::FAN_CREATE | libc::FAN_DELETE, &directory)?;
    let before = (told(plain)?, told(names)?);
    guest.hold()?;
    same!("groups", (told(plain)?, told(names)?), before);
    same!(
        "meanwhile",
        (events(plain)?, events(names)?),
        (vec![], vec![])
    );
    fs::write(&quiet, "y")?;
    fs::write(&file, "y")?;
    let found = events(plain)?;
    let all = found.iter().fold(0, |all, (mask, _)| all | mask);
    same!("events", all, libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE);
    let of_file = |(_, path): &(u64, Option<PathBuf>)| path.as_ref() == Some(&file);
    ensure!(found.iter().all(of_file), "{found:?}");
    fs::write(directory.join("new"), "")?;
    let masks: Vec<u64> = events(names)?.iter().map(|(mask, _)| *mask).collect();
    same!("names", masks, [libc::FAN_CREATE]);
    Ok(())
}

fn mounts(guest: &Guest) -> Check {
    let shm = Path::new("/dev/shm");
    let file = shm.join(format!("gelid-guest.{}", std::process::id()));
    let (mount, system) = (group(libc::FAN_CLASS_NOTIF)?, group(libc::FAN_REPORT_FID)?);
    mark(mount, libc::FAN_MARK_MOUNT, libc::FAN_CLOSE_WRITE, shm)?;
    let flags = libc::FAN_MARK_FILESYSTEM;
    mark(system, flags, libc::FAN_CREATE | libc::FAN_ONDIR, shm)?;
    let before = (told(mount)?, told(system)?);
    guest.hold()?;
    same!("groups", (told(mount)?, told(system)?), before);
    fs::write(&file, "x")?;
    let (of_mount, of_system) = (events(mount)?, events(system)?);
    fs::remove_file(&file)?;
    let written = (libc::FAN_CLOSE_WRITE, Some(file));
    // Others use it too.
    ensure!(of_mount.contains(&written), "{of_mount:?}");
    let created = of_system
        .iter()
        .any(|(mask, _)| mask & libc::FAN_CREATE != 0);
    ensure!(created, "{of_system:?}");
    Ok(())
}

fn permission(guest: &Guest) -> Check {
    let file = guest.path("watched");
    fs::write(&file, "x")?;
    let group = group(libc::FAN_CLASS_CONTENT)?;
    mark(group, 0, libc::FAN_OPEN_PERM, &file)?;
    let before = told(group)?;
    guest.hold()?;
    same!("group", told(group)?, before);
    Ok(())
}

/// A group that tells names of what is made in a directory, and has more to tell than it can.
fn overflowing(guest: &Guest) -> Check<(i32, PathBuf)> {
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events");
    let limit: usize = limit.map_or(Ok(usize::MAX), |text| text.trim().parse())?;
    if limit > 1 << 15 {
        return Err(Failure::skip(format!("{limit} events in a queue")));
    }
    let directory = guest.path("watched");
    fs::create_dir(&directory)?;
    let names = group(libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME)?;
    let moves = libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
    mark(names, 0, moves, &directory)?;
    let mut name = directory.join("0");
    fs::write(&name, "")?;
    // What happens to one name is one event.
    for turn in 1..=limit + 1 {
        let next = directory.join(turn.to_string());
        fs::rename(&name, &next)?;
        name = next;
    }
    Ok((names, name))
}

/// What was told; the last must be that there was more.
fn told_of_overflow(group: i32) -> Check {
    let found = events(group)?;
    let last = found.last().map(|(mask, _)| *mask);
    same!("the last", last, Some(libc::FAN_Q_OVERFLOW));
    Ok(())
}

fn overflow(guest: &Guest) -> Check {
    let (group, file) = overflowing(guest)?;
    told_of_overflow(group)?;
    guest.hold()?;
    same!("meanwhile", events(group)?, vec![]);
    fs::rename(&file, guest.path("watched/last"))?;
    let masks: Vec<u64> = events(group)?.iter().map(|(mask, _)| *mask).collect();
    same!("names", masks, [libc::FAN_MOVED_FROM, libc::FAN_MOVED_TO]);
    Ok(())
}

fn unread(guest: &Guest) -> Check {
    let (group, _) = overflowing(guest)?;
    guest.hold()?;
    told_of_overflow(group)
}
