//! Tables of more descriptors than somebody would ask for one by one.
//!
//! `large-table [COUNT]`: of every kind, with and without the flag that closes them on `execve(2)`, at all positions; some of
//! the last ones have locks and leases. A child has the same descriptions, under other flags, and another one the same
//! table.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, reap, same, until};
use std::fs::{self, OpenOptions};
use std::os::fd::IntoRawFd;

pub(crate) const GUESTS: &[Entry] = &[Entry("large-table", large_table)];

/// Kinds of descriptors.
const KINDS: usize = 11;

fn large_table(guest: &Guest) -> Check {
    let count = guest.number(0, 1000)?;
    let fds = (0..count).map(|index| open(guest, index));
    let fds: Vec<i32> = fds.collect::<Check<_>>()?;
    let flag = |shift: usize| {
        let mut all = fds.iter().enumerate();
        all.try_for_each(|(index, fd)| {
            let flag = i32::from((index / KINDS + index + shift).is_multiple_of(3));
            os!(libc::fcntl(*fd, libc::F_SETFD, flag)).map(drop)
        })
    };
    flag(0)?;
    lock(guest, &fds)?;
    let gate = Gate::new()?;
    let me = std::process::id().cast_signed();
    let kid = guest.fork("other", |guest| {
        flag(1)?;
        let before = face(&fds)?;
        gate.arrive()?;
        guest.wait();
        same_faces(&face(&fds)?, &before)?;
        let own = std::process::id().cast_signed();
        for fd in &fds {
            let order = os!(libc::syscall(libc::SYS_kcmp, me, own, 0, *fd, *fd))?;
            same!(format!("description of {fd}"), order, 0);
        }
        fs::write(guest.path("compared"), "")?;
        Ok(())
    })?;
    let sharer = share(guest, &fds)?;
    gate.wait(1)?;
    let before = face(&fds)?;
    guest.hold()?;
    same_faces(&face(&fds)?, &before)?;
    until("a look", || Ok(guest.path("compared").exists()))?;
    kid.join(guest)?;
    same!("child", reap(sharer)?, 0);
    Ok(())
}

/// One of the kind that comes next, and its other ends, which stay open.
fn open(guest: &Guest, index: usize) -> Check<i32> {
    let path = guest.path(&format!("file-{}", index % 40));
    fs::write(&path, "0123456789")?;
    let file =
        |options: &mut OpenOptions| Ok::<_, std::io::Error>(options.open(&path)?.into_raw_fd());
    let mut ends = [0; 2];
    Ok(match index % KINDS {
        0 | 10 => {
            let fd = file(OpenOptions::new().read(true).write(true))?;
            os!(libc::lseek(fd, (index % 11) as i64 + 3, libc::SEEK_SET))?;
            fd
        }
        1 => file(OpenOptions::new().append(true))?,
        2 => {
            os!(libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK))?;
            os!(libc::write(
                ends[1],
                path.as_os_str().as_encoded_bytes().as_ptr().cast(),
                5
            ))?;
            ends[0]
        }
        3 => {
            os!(libc::socketpair(
                libc::AF_UNIX,
                libc::SOCK_STREAM,
                0,
                ends.as_mut_ptr()
            ))?;
            ends[1]
        }
        4 => os!(libc::eventfd(index as u32, 0))?,
        5 => {
            let fd = os!(libc::memfd_create(c"memory".as_ptr(), 0))?;
            os!(libc::ftruncate(fd, 100))?;
            os!(libc::lseek(fd, index as i64 % 90, libc::SEEK_SET))?;
            fd
        }
        6 => os!(libc::open(
            c"/".as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY
        ))?,
        7 => os!(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR))?,
        8 => os!(libc::open(c"/proc/self/status".as_ptr(), libc::O_PATH))?,
        _ => {
            let fifo = guest.path("fifo");
            if !fifo.exists() {
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &fifo,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
                    0,
                )?;
            }
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&fifo)?
                .into_raw_fd()
        }
    })
}

/// Locks some of the last files.
fn lock(guest: &Guest, fds: &[i32]) -> Check {
    let files: Vec<i32> = fds.iter().copied().skip(10).step_by(KINDS).collect();
    let [.., posix, ofd, whole] = files[..] else {
        return Err("too few descriptors".into());
    };
    let mut range = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: 0,
        l_start: 5,
        l_len: 3,
        l_pid: 0,
    };
    os!(libc::fcntl(posix, libc::F_SETLK, &raw mut range))?;
    range.l_start = 50;
    os!(libc::fcntl(ofd, libc::F_OFD_SETLK, &raw mut range))?;
    os!(libc::flock(whole, libc::LOCK_SH))?;
    let leased = guest.path("leased");
    fs::write(&leased, "")?;
    let leased = OpenOptions::new().read(true).open(&leased)?.into_raw_fd();
    os!(libc::fcntl(leased, libc::F_SETLEASE, libc::F_RDLCK))?;
    Ok(())
}

/// A child with the same table, which looks whether it is there.
fn share(guest: &Guest, fds: &[i32]) -> Check<i32> {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: as fork, but that descriptors are shared; the child closes none of its parent's.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        guest.wait();
        let last = fds.last().copied().unwrap_or(-1);
        let found = os!(libc::fcntl(last, libc::F_GETFD)).map(drop);
        let code = guest.child_result("sharer", &found);
        // SAFETY: ends the process without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    Ok(i32::try_from(child).map_err(|_| "clone")?)
}

fn same_faces(found: &[String], before: &[String]) -> Check {
    for (found, before) in found.iter().zip(before) {
        same!("descriptor", found, before);
    }
    same!("descriptors", found.len(), before.len());
    Ok(())
}

/// What the kernel tells of each descriptor, without what a restore changes; of locks kind, type and range.
fn face(fds: &[i32]) -> Check<Vec<String>> {
    let mut all = Vec::new();
    // With the lease, and other ends.
    let last = fds.iter().max().copied().unwrap_or_default() + 1;
    for fd in 3..=last {
        let Ok(text) = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else {
            continue;
        };
        let mut told = vec![fd.to_string()];
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["lock:", _, kind, _, how, _, _, start, end] => {
                    told.push(format!("{kind} {how} {start} {end}"));
                }
                ["pos:" | "flags:" | "eventfd-count:", value] => told.push(value.to_owned()),
                _ => {}
            }
        }
        let link = fs::read_link(format!("/proc/self/fd/{fd}"))?;
        let link = link.to_string_lossy();
        // The process has another number there if this one is in a namespace of its own.
        let end = if link.starts_with("/proc/") { "/" } else { ":" };
        told.push(
            link.trim_start_matches('/')
                .split(end)
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
        all.push(told.join(" "));
    }
    Ok(all)
}
