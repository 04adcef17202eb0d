//! A table of descriptors with hardly a free number below its limit.
//!
//! `full-table`: of one file, of sockets that an epoll set watches, or of files, as the first argument says; the second one
//! is the limit, the third how many numbers are left free.

use crate::Entry;
use crate::descriptors::{digits, position};
use crate::os::os;
use crate::protocol::{Check, Guest, same};
use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd};

pub(crate) const GUESTS: &[Entry] = &[Entry("full-table", full_table)];

/// A socket that is like no other one, in a set.
fn socket(number: i32, set: i32) -> Check<i32> {
    let fd = os!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
    let (value, size) = ((&raw const number).cast(), size_of::<i32>() as u32);
    os!(libc::setsockopt(
        fd,
        libc::SOL_SOCKET,
        libc::SO_MARK,
        value,
        size
    ))?;
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: number.unsigned_abs().into(),
    };
    let add = libc::EPOLL_CTL_ADD;
    os!(libc::epoll_ctl(set, add, fd, &raw mut event))?;
    Ok(fd)
}

fn mark(fd: i32) -> Check<i32> {
    let (mut mark, mut size) = (0_i32, size_of::<i32>() as u32);
    let (value, size) = ((&raw mut mark).cast(), &raw mut size);
    os!(libc::getsockopt(
        fd,
        libc::SOL_SOCKET,
        libc::SO_MARK,
        value,
        size
    ))?;
    Ok(mark)
}

/// What a set watches.
fn watched(set: i32) -> Check<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{set}"))?;
    let lines = text.lines().filter(|line| line.starts_with("tfd:"));
    let lines = lines.map(|line| line.split("pos:").next().unwrap_or_default());
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn full_table(guest: &Guest) -> Check {
    let kind = guest.args.first().map_or("one", String::as_str);
    let (limit, free) = (guest.number(1, 64)? as i32, guest.number(2, 5)? as i32);
    let most = libc::rlimit {
        rlim_cur: limit as u64,
        rlim_max: limit as u64,
    };
    os!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most))?;
    let file = digits(guest, "data")?;
    let set = os!(libc::epoll_create1(0))?;
    let name = |number| guest.path(&format!("file-{number}"));
    let numbers = set + 1..limit - free;
    for number in numbers.clone() {
        let fd = match kind {
            "one" => os!(libc::dup(file.as_raw_fd()))?,
            "files" => digits(guest, &format!("file-{number}"))?.into_raw_fd(),
            _ => socket(number, set)?,
        };
        same!("number", fd, number);
    }
    let before = watched(set)?;
    guest.hold()?;
    same!("watches", watched(set)?, before);
    for number in numbers {
        match kind {
            "one" => {
                os!(libc::lseek(number, 1, libc::SEEK_CUR))?;
                let moved = i64::from(number - set);
                same!("position", position(file.as_raw_fd())?, moved);
            }
            "files" => {
                let found = fs::read_link(format!("/proc/self/fd/{number}"))?;
                same!("name", found, name(number));
            }
            _ => same!("mark", mark(number)?, number),
        }
    }
    Ok(())
}
