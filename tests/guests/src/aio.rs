//! Contexts of kernel AIO: `io_setup(2)`.
//!
//! `aio`: events taken and not taken, rings that have gone round, of several sizes; all their room. `aio-waiting`: a process that
//! waits for an event. `aio-forked`: the ring of the parent's context.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, nap, reap, same, until, wait_blocked};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("aio", contexts),
    Entry("aio-waiting", waiting),
    Entry("aio-forked", forked),
];

/// `struct iocb`: label, operation and file, buffer, length.
#[repr(C)]
#[derive(Default)]
struct Request {
    label: u64,
    key: [u32; 2],
    operation: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    len: u64,
    rest: [u64; 3],
}

/// `struct io_event`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    label: u64,
    request: u64,
    result: [i64; 2],
}

fn setup(requests: u32) -> Check<u64> {
    let mut context = 0_u64;
    // SAFETY: `context` is a live local.
    let made = unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut context) };
    if made == -1 && [libc::ENOSYS, libc::EAGAIN].contains(&errno()) {
        return Err(Failure::skip("no kernel AIO, or no more of it"));
    }
    same!("io_setup", made, 0);
    Ok(context)
}

/// Asks for one byte of a file, which is there at once; whether there is room.
fn submit(context: u64, file: &File, label: u64, byte: &mut u8) -> Check<bool> {
    let mut request = Request {
        label,
        fd: file.as_raw_fd().cast_unsigned(),
        buffer: std::ptr::from_mut(byte) as u64,
        len: 1,
        ..Request::default()
    };
    let list = [&raw mut request];
    // SAFETY: the list and what it leads to live until the call is over, the byte until the event is there.
    match unsafe { libc::syscall(libc::SYS_io_submit, context, 1, list.as_ptr()) } {
        -1 if errno() == libc::EAGAIN => Ok(false),
        got => {
            ensure!(got == 1, "io_submit: {got}, errno {}", errno());
            Ok(true)
        }
    }
}

/// Labels and results of events that are there.
fn take(context: u64, most: usize) -> Check<Vec<(u64, i64)>> {
    let mut events = vec![Event::default(); most];
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let got = os!(libc::syscall(
        libc::SYS_io_getevents,
        context,
        0,
        most,
        events.as_mut_ptr(),
        &raw const now
    ))?;
    let got = events[..got as usize].iter();
    Ok(got.map(|event| (event.label, event.result[0])).collect())
}

fn contexts(guest: &Guest) -> Check {
    let mut file = File::create_new(guest.path("data"))?;
    file.write_all(b"!")?;
    let file = File::open(guest.path("data"))?;
    let mut byte = 0;
    let mut all = Vec::new();
    // Requests made, and how many of their events are left there.
    for (room, made, left) in [
        (1, 0, 0),
        (10, 5, 2),
        (10, 300, 7),
        (10, 125, 0),
        (10, 210, 100),
        (1000, 2500, 0),
    ] {
        let context = setup(room)?;
        for label in 0..made {
            ensure!(submit(context, &file, label, &mut byte)?, "no room");
            if label >= left {
                same!("taken", take(context, 1)?.len(), 1);
            }
        }
        all.push((context, made, left));
    }
    guest.hold()?;
    for (context, made, left) in all {
        let expected: Vec<_> = (made - left..made).map(|label| (label, 1)).collect();
        same!("events", take(context, 100)?, expected);
        byte = 0;
        ensure!(submit(context, &file, 77, &mut byte)?, "no room");
        same!("event", take(context, 100)?, [(77, 1)]);
        same!("byte", byte, b'!');
        // All of the room is there, as in a fresh one.
        let fresh = setup(10)?;
        let fill = |context| -> Check<u32> {
            let mut count = 0;
            let mut byte = 0;
            while submit(context, &file, 0, &mut byte)? {
                count += 1;
            }
            Ok(count)
        };
        let count = fill(context)?;
        // Each processor sets some of the room aside.
        let other = fill(fresh)?;
        let near = made > 1000 || count.abs_diff(other) <= other / 4;
        ensure!(near, "room for {count}, in a fresh one for {other}");
        same!(
            "all are there",
            take(context, 100_000)?.len(),
            count as usize
        );
        os!(libc::syscall(libc::SYS_io_destroy, fresh))?;
        os!(libc::syscall(libc::SYS_io_destroy, context))?;
    }
    Ok(())
}

fn waiting(guest: &Guest) -> Check {
    let file = File::create_new(guest.path("data"))?;
    let context = setup(10)?;
    let me = std::process::id();
    let thread = std::thread::spawn(move || -> Check {
        let mut event = Event::default();
        let none = std::ptr::null::<libc::timespec>();
        let got = os!(libc::syscall(
            libc::SYS_io_getevents,
            context,
            1,
            1,
            &raw mut event,
            none
        ))?;
        same!("events", (got, event.label), (1, 5));
        Ok(())
    });
    let other = || -> Check<i32> {
        let mut tids = Vec::new();
        for entry in std::fs::read_dir("/proc/self/task")? {
            tids.push(entry?.file_name().to_string_lossy().parse::<u32>()?);
        }
        let tid = tids.into_iter().find(|tid| *tid != me);
        Ok(tid.ok_or("no other thread")?.cast_signed())
    };
    wait_blocked(other()?, libc::SYS_io_getevents)?;
    guest.hold()?;
    wait_blocked(other()?, libc::SYS_io_getevents)?;
    nap(Duration::from_millis(20)); // it stays so
    wait_blocked(other()?, libc::SYS_io_getevents)?;
    ensure!(submit(context, &file, 5, &mut 0)?, "no room");
    thread.join().map_err(|_| "thread")?
}

fn forked(guest: &Guest) -> Check {
    let context = setup(10)?;
    // SAFETY: the child sleeps and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        guest.wait();
        // SAFETY: ends the process without running the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    until("the child", || {
        Ok(std::fs::exists(format!("/proc/{pid}/maps"))?)
    })?;
    guest.hold()?;
    same!("events", take(context, 1)?, []);
    same!("status", reap(pid)?, 0);
    Ok(())
}
