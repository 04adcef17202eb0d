//! Sets of `epoll(7)`.
//!
//! `epoll`: events and data of all kinds of watches, which can be changed and removed afterwards. `epoll-nested`: sets in
//! sets. `epoll-oneshot`: watches that have fired and wait to be armed again. `epoll-numbers`: files watched under numbers
//! that belong to another file by now, or to none, and twice under two. `epoll-shared`: a set of parent and child.
//! `epoll-signalfd`, `epoll-timerfd`: signals and timers that go off afterwards. `epoll-many`: thousands of watches.
//! `epoll-sockets`: of sockets. `epoll-in-flight`: a set that is on its way between sockets.

use crate::Entry;
use crate::eventfd::{add, counter, take};
use crate::os::{errno, os};
use crate::protocol::{Check, Gate, Guest, ensure, same};
use crate::signalfd;
use crate::signals::bit;
use crate::unix::{pair, say, socket};
use crate::unix_rights::{give, take_one};
use rustix::net::SocketType;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("epoll", watches),
    Entry("epoll-nested", nested),
    Entry("epoll-oneshot", oneshot),
    Entry("epoll-numbers", numbers),
    Entry("epoll-shared", shared),
    Entry("epoll-signalfd", signals),
    Entry("epoll-timerfd", timers),
    Entry("epoll-many", many),
    Entry("epoll-sockets", sockets),
    Entry("epoll-in-flight", in_flight),
];

const IN: u32 = libc::EPOLLIN.cast_unsigned();
const OUT: u32 = libc::EPOLLOUT.cast_unsigned();
const EDGE: u32 = libc::EPOLLET.cast_unsigned();
const ONCE: u32 = libc::EPOLLONESHOT.cast_unsigned();
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE.cast_unsigned();

/// An empty set.
fn set() -> Check<i32> {
    os!(libc::epoll_create1(libc::EPOLL_CLOEXEC))
}

/// Adds, changes or removes a watch.
fn control(set: i32, op: i32, fd: i32, events: u32, data: u64) -> Check {
    let mut event = libc::epoll_event { events, u64: data };
    os!(libc::epoll_ctl(set, op, fd, &raw mut event))?;
    Ok(())
}

fn watch(set: i32, fd: i32, events: u32, data: u64) -> Check {
    control(set, libc::EPOLL_CTL_ADD, fd, events, data)
}

/// What a set reports within some milliseconds, ordered by data.
fn ready_within(set: i32, milliseconds: i32) -> Check<Vec<(u64, u32)>> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let count = os!(libc::epoll_wait(set, events.as_mut_ptr(), 64, milliseconds))?;
    let found = &events[..count.unsigned_abs() as usize];
    let mut found: Vec<_> = found
        .iter()
        .map(|event| (event.u64, event.events))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// What a set reports now.
fn ready(set: i32) -> Check<Vec<(u64, u32)>> {
    ready_within(set, 0)
}

/// Ends of a pipe.
fn pipe() -> Check<(i32, i32)> {
    let mut ends = [0; 2];
    os!(libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK))?;
    Ok((ends[0], ends[1]))
}

fn fill(fd: i32) -> Check {
    os!(libc::write(fd, c"x".as_ptr().cast(), 1))?;
    Ok(())
}

fn watches(guest: &Guest) -> Check {
    let set = set()?;
    let (level, level_write) = pipe()?;
    let (edge, edge_write) = pipe()?;
    let (silent, silent_write) = pipe()?;
    let (exclusive, exclusive_write) = pipe()?;
    let count = counter(1, 0)?;
    watch(set, level, IN, u64::MAX)?;
    watch(set, edge, IN | EDGE, 2)?;
    watch(set, silent, IN, 3)?;
    watch(set, exclusive, IN | EXCLUSIVE, 4)?;
    watch(set, count, IN | OUT, 0x1122_3344_5566_7788)?;
    watch(set, silent_write, 0, 6)?;
    fill(level_write)?;
    fill(edge_write)?;
    os!(libc::fcntl(set, libc::F_SETFD, 0))?;
    guest.hold()?;
    let all = [(2, IN), (0x1122_3344_5566_7788, IN | OUT), (u64::MAX, IN)];
    same!("ready", ready(set)?, all);
    // The edge is reported once.
    same!("ready again", ready(set)?, all[1..]);
    fill(edge_write)?;
    fill(exclusive_write)?;
    same!("ready then", ready(set)?, [all[0], (4, IN), all[1], all[2]]);
    control(set, libc::EPOLL_CTL_MOD, level, IN, 7)?;
    control(set, libc::EPOLL_CTL_DEL, count, 0, 0)?;
    os!(libc::close(exclusive))?;
    same!("after changes", ready(set)?, [(7, IN)]);
    same!(
        "still there",
        control(set, libc::EPOLL_CTL_ADD, silent, IN, 1).is_err(),
        true
    );
    same!("errno", errno(), libc::EEXIST);
    Ok(())
}

fn nested(guest: &Guest) -> Check {
    let (outer, middle, inner) = (set()?, set()?, set()?);
    let (read, write) = pipe()?;
    let (other, other_write) = pipe()?;
    watch(outer, middle, IN, 1)?;
    watch(middle, inner, IN, 2)?;
    watch(inner, read, IN, 3)?;
    watch(outer, other, IN | EDGE, 4)?;
    guest.hold()?;
    same!("ready", ready(outer)?, []);
    fill(write)?;
    same!("outer", ready(outer)?, [(1, IN)]);
    same!("middle", ready(middle)?, [(2, IN)]);
    same!("inner", ready(inner)?, [(3, IN)]);
    fill(other_write)?;
    same!("outer then", ready(outer)?, [(1, IN), (4, IN)]);
    Ok(())
}

fn oneshot(guest: &Guest) -> Check {
    let set = set()?;
    let (read, write) = pipe()?;
    let (armed, armed_write) = pipe()?;
    let count = counter(1, 0)?;
    watch(set, read, IN | ONCE, 1)?;
    watch(set, count, OUT | ONCE, 2)?;
    watch(set, write, OUT | ONCE | EDGE, 3)?;
    fill(write)?;
    same!("fired", ready(set)?, [(1, IN), (2, OUT), (3, OUT)]);
    watch(set, armed, IN | ONCE, 4)?;
    guest.hold()?;
    same!("ready", ready(set)?, []);
    fill(armed_write)?;
    same!("one is ready", ready(set)?, [(4, IN)]);
    same!("and no more", ready(set)?, []);
    control(set, libc::EPOLL_CTL_MOD, read, IN | ONCE, 5)?;
    control(set, libc::EPOLL_CTL_MOD, count, IN | ONCE, 6)?;
    same!("armed again", ready(set)?, [(5, IN), (6, IN)]);
    Ok(())
}

fn numbers(guest: &Guest) -> Check {
    let set = set()?;
    let (reused, reused_write) = pipe()?;
    let (closed, closed_write) = pipe()?;
    let (twice, twice_write) = pipe()?;
    watch(set, reused, IN, 1)?;
    let reused_else = os!(libc::fcntl(reused, libc::F_DUPFD, 50))?;
    let (by_another, _) = pipe()?;
    os!(libc::dup2(by_another, reused))?;
    let moved = os!(libc::fcntl(closed, libc::F_DUPFD, 60))?;
    let high = os!(libc::dup2(closed, 900))?;
    watch(set, closed, IN | ONCE, 2)?;
    watch(set, high, IN | EDGE, 3)?;
    os!(libc::close(closed))?;
    os!(libc::close(high))?;
    let other = os!(libc::fcntl(twice, libc::F_DUPFD, 70))?;
    watch(set, twice, IN, 4)?;
    watch(set, other, IN, 5)?;
    // The number of one, and the file behind it, are watched both.
    watch(set, reused, IN, 6)?;
    guest.hold()?;
    same!("ready", ready(set)?, []);
    fill(reused_write)?;
    fill(closed_write)?;
    fill(twice_write)?;
    same!(
        "ready then",
        ready(set)?,
        [(1, IN), (2, IN), (3, IN), (4, IN), (5, IN)]
    );
    // Only under the number that it was added by can a watch be removed.
    ensure!(
        control(set, libc::EPOLL_CTL_DEL, reused_else, 0, 0).is_err(),
        "it is watched under the number it has now"
    );
    os!(libc::dup2(reused_else, reused))?;
    control(set, libc::EPOLL_CTL_DEL, reused, 0, 0)?;
    os!(libc::dup2(moved, 900))?;
    control(set, libc::EPOLL_CTL_DEL, 900, 0, 0)?;
    control(set, libc::EPOLL_CTL_DEL, other, 0, 0)?;
    same!("ready at last", ready(set)?, [(4, IN)]);
    Ok(())
}

fn shared(guest: &Guest) -> Check {
    let set = set()?;
    let (read, write) = pipe()?;
    watch(set, read, IN, 1)?;
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        // Watched by the parent's set, under a number that only the child has.
        let count = counter(0, 0)?;
        let count = os!(libc::fcntl(count, libc::F_DUPFD, 40))?;
        watch(set, count, IN, 2)?;
        gate.arrive()?;
        guest.wait();
        add(count, 5)?;
        while ready_within(set, 10)? != [(1, IN), (2, IN)] {}
        same!("count", take(count)?, 5);
        control(set, libc::EPOLL_CTL_DEL, count, 0, 0)
    })?;
    gate.wait(1)?;
    guest.hold()?;
    fill(write)?;
    kid.join(guest)?;
    same!("ready", ready(set)?, [(1, IN)]);
    Ok(())
}

fn signals(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        let set = set()?;
        let fd = signalfd::descriptor(bit(libc::SIGUSR1), 0)?;
        watch(set, fd, IN, 1)?;
        same!("ready", ready_within(set, 10)?, []);
        gate.arrive()?;
        guest.wait();
        let found = ready_within(set, 10_000)?;
        same!("ready", found, [(1, IN)]);
        same!("signal", signalfd::take(fd)?.0, 10);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    os!(libc::kill(kid.pid, libc::SIGUSR1))?;
    kid.join(guest)
}

fn timers(guest: &Guest) -> Check {
    let set = set()?;
    let mut fds = Vec::new();
    for milliseconds in [1, 600, 86_400_000] {
        let fd = os!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0))?;
        let time = Duration::from_millis(milliseconds);
        crate::timerfd::set(fd, 0, time, Duration::ZERO)?;
        watch(set, fd, IN | ONCE, milliseconds)?;
        fds.push(fd);
    }
    // Edge-triggered: the first has been told, and is told no more.
    same!("ready", ready_within(set, 100)?, [(1, IN)]);
    guest.hold()?;
    same!("ready then", ready_within(set, 5000)?, [(600, IN)]);
    same!("no more", ready(set)?, []);
    for fd in &fds[..2] {
        same!("ticks", take(*fd)?, 1);
    }
    Ok(())
}

fn sockets(guest: &Guest) -> Check {
    let set = set()?;
    let (one, other) = pair(SocketType::STREAM)?;
    let (quiet, far) = pair(SocketType::DGRAM)?;
    let lonely = socket(SocketType::STREAM)?;
    let hang_up = libc::EPOLLRDHUP.cast_unsigned();
    watch(set, one.as_raw_fd(), IN | hang_up | EDGE, 1)?;
    watch(set, other.as_raw_fd(), OUT | ONCE, 2)?;
    watch(set, quiet.as_raw_fd(), IN, 3)?;
    watch(set, lonely.as_raw_fd(), IN, 4)?;
    let found = ready(set)?;
    ensure!(found.contains(&(2, OUT)), "ready: {found:?}");
    guest.hold()?;
    let found: Vec<_> = ready(set)?
        .into_iter()
        .filter(|event| event.0 != 4)
        .collect();
    same!("ready", found, []);
    say(&other, "x")?;
    say(&far, "y")?;
    let found: Vec<_> = ready(set)?
        .into_iter()
        .filter(|event| event.0 != 4)
        .collect();
    same!("ready then", found, [(1, IN), (3, IN)]);
    drop(other);
    let found = ready(set)?;
    let gone = IN | hang_up | libc::EPOLLHUP.cast_unsigned();
    ensure!(found.contains(&(1, gone)), "ready at last: {found:?}");
    Ok(())
}

fn in_flight(guest: &Guest) -> Check {
    let (one, other) = pair(SocketType::DGRAM)?;
    let set = set()?;
    let (read, write) = pipe()?;
    watch(set, read, IN, 1)?;
    {
        // SAFETY: the descriptor is open until it has been sent.
        let set = unsafe { BorrowedFd::borrow_raw(set) };
        give(&one, "set", &[set])?;
    }
    os!(libc::close(set))?;
    guest.hold()?;
    let set = take_one("set", &other)?;
    same!("ready", ready(set.as_raw_fd())?, []);
    fill(write)?;
    same!("ready then", ready(set.as_raw_fd())?, [(1, IN)]);
    control(set.as_raw_fd(), libc::EPOLL_CTL_DEL, read, 0, 0)
}

fn many(guest: &Guest) -> Check {
    const COUNT: u64 = 3000;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    os!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    limit.rlim_cur = limit.rlim_max;
    os!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    let set = set()?;
    let mut counters = Vec::new();
    for index in 0..COUNT {
        let fd = counter(0, 0)?;
        watch(set, fd, IN, index)?;
        counters.push(fd);
    }
    guest.hold()?;
    same!("ready", ready(set)?, []);
    for index in [0, COUNT / 2, COUNT - 1] {
        add(counters[index as usize], 1)?;
        same!("ready", ready(set)?, [(index, IN)]);
        take(counters[index as usize])?;
    }
    Ok(())
}
