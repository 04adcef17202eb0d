//! `io_uring(7)`, which is refused, since a ring cannot be made again as it was.
//!
//! `io-uring`: the reasons. The kernel tells nobody the flags that a ring was made with: what it tells of rings with different
//! ones is the same. And the counters of a ring are its own: they are not those that the program sees.
//! `io-uring-mapped`: a ring whose descriptor is closed.

use crate::Entry;
use crate::os::{Map, PAGE, errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[Entry("io-uring", ring), Entry("io-uring-mapped", mapped)];

const SUBMIT_ALL: u32 = 1 << 7;
const COOP_TASKRUN: u32 = 1 << 8;
const SINGLE_ISSUER: u32 = 1 << 12;
const DEFER_TASKRUN: u32 = 1 << 13;
/// `IORING_REGISTER_EVENTFD`
const EVENTFD: u32 = 4;
/// Offset of the requests.
const SQES: i64 = 0x1000_0000;

/// `struct io_uring_params`, in words.
type Params = [u32; 30];
/// Words of it: flags; where in the ring the counters of requests, and the list of them, are.
const FLAGS: usize = 2;
const HEAD: usize = 10;
const TAIL: usize = 11;
const ARRAY: usize = 16;

fn setup(flags: u32) -> Check<(i32, Params)> {
    let mut params: Params = [0; 30];
    params[FLAGS] = flags;
    // SAFETY: `params` is a live local of the size that the kernel expects.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, params.as_mut_ptr()) };
    if fd == -1 && [libc::ENOSYS, libc::EPERM, libc::EINVAL].contains(&errno()) {
        return Err(Failure::skip("no io_uring, or not with these flags"));
    }
    ensure!(fd >= 0, "io_uring_setup: errno {}", errno());
    Ok((fd as i32, params))
}

/// What the kernel tells of a ring.
fn told(fd: i32) -> Check<String> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let at = text.find("SqMask").ok_or("no SqMask in fdinfo")?;
    Ok(text[at..].to_owned())
}

/// The rings of both sides, and the room for requests.
fn map(fd: i32) -> Check<[Map; 2]> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let map = |at| Map::new(PAGE, access, libc::MAP_SHARED, fd, at);
    Ok([map(0)?, map(SQES)?])
}

/// A counter of the ring.
fn counter(ring: &Map, at: u32) -> *mut u32 {
    ring.at(at as usize).cast()
}

/// Hands one request in, the first of the room, which is zero: one that does nothing.
fn submit(fd: i32, ring: &Map, params: &Params) -> Check<i64> {
    // SAFETY: inside the ring.
    unsafe {
        let tail = counter(ring, params[TAIL]);
        let slot = tail.read_volatile() & 7;
        counter(ring, params[ARRAY] + 4 * slot).write_volatile(0);
        tail.write_volatile(tail.read_volatile() + 1);
    }
    os!(libc::syscall(libc::SYS_io_uring_enter, fd, 1, 0, 0, 0, 0))
}

fn ring(guest: &Guest) -> Check {
    let (fd, params) = setup(0)?;
    let plain = told(fd)?;
    for flags in [
        SUBMIT_ALL,
        COOP_TASKRUN,
        SINGLE_ISSUER,
        SINGLE_ISSUER | DEFER_TASKRUN,
    ] {
        let (other, _) = setup(flags)?;
        same!(format!("told of flags {flags:#x}"), told(other)?, plain);
        os!(libc::close(other))?;
    }
    // Nor does it tell whom a ring tells of its events.
    let (watched, _) = setup(0)?;
    let counter_fd = os!(libc::eventfd(0, 0))?;
    let register = libc::SYS_io_uring_register;
    os!(libc::syscall(
        register,
        watched,
        EVENTFD,
        &raw const counter_fd,
        1
    ))?;
    same!("told of an eventfd", told(watched)?, plain);
    os!(libc::close(watched))?;
    os!(libc::close(counter_fd))?;
    let [ring, _requests] = map(fd)?;
    guest.hold()?;
    same!("submitted", submit(fd, &ring, &params)?, 1);
    // SAFETY: inside the ring.
    let counted = unsafe {
        counter(&ring, params[HEAD]).write_volatile(100);
        counter(&ring, params[TAIL]).write_volatile(100);
        let submitted = submit(fd, &ring, &params)?;
        same!("submitted", submitted, 1);
        counter(&ring, params[HEAD]).read_volatile()
    };
    same!("counted by the kernel", counted, 2);
    Ok(())
}

fn mapped(guest: &Guest) -> Check {
    let (fd, params) = setup(0)?;
    let [ring, _requests] = map(fd)?;
    os!(libc::close(fd))?;
    guest.hold()?;
    // SAFETY: inside the ring.
    let head = unsafe { counter(&ring, params[HEAD]).read_volatile() };
    same!("head", head, 0);
    Ok(())
}
