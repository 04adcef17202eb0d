//! TUN and TAP devices. `tun`: queues of a persistent device, one of them detached, and a file without a device.
//! `tun-fleeting`, whose device goes with it, is refused.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, same};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

pub(crate) const GUESTS: &[Entry] = &[Entry("tun", tun), Entry("tun-fleeting", fleeting)];

const TUNSETIFF: u64 = 0x4004_54ca;
const TUNGETIFF: u64 = 0x8004_54d2;
const TUNSETPERSIST: u64 = 0x4004_54cb;
const TUNSETQUEUE: u64 = 0x4004_54d9;
const TAP: u16 = 2;
const TUN: u16 = 1;
const NO_PI: u16 = 0x1000;
const MULTI_QUEUE: u16 = 0x100;
const DETACH: u16 = 0x400;

/// `struct ifreq`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

impl Request {
    fn new(name: &str, flags: u16) -> Self {
        let mut request = Self {
            name: [0; 16],
            flags,
            rest: [0; 22],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }

    fn make(&mut self, file: &File, what: u64) -> Check {
        os!(libc::ioctl(file.as_raw_fd(), what, &raw mut *self))?;
        Ok(())
    }
}

fn open() -> Check<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    file.map_err(|error| Failure::skip(format!("/dev/net/tun: {error}")))
}

fn attached(name: &str, flags: u16) -> Check<File> {
    let file = open()?;
    let made = Request::new(name, flags).make(&file, TUNSETIFF);
    match made {
        Err(_) if errno() == libc::EPERM => Err(Failure::skip("TUN devices cannot be made")),
        made => made.map(|()| file),
    }
}

/// A queue of a new device that goes with it.
pub(crate) fn fleeting_device(name: &str) -> Check<File> {
    attached(name, TUN | NO_PI)
}

fn state(file: &File) -> Check<Request> {
    let mut request = Request::new("", 0);
    request.make(file, TUNGETIFF)?;
    Ok(request)
}

fn tun(guest: &Guest) -> Check {
    let name = format!("glt{}", std::process::id());
    let loose = open()?;
    let one = attached(&name, TAP | NO_PI | MULTI_QUEUE)?;
    os!(libc::ioctl(one.as_raw_fd(), TUNSETPERSIST, 1))?;
    let other = attached(&name, TAP | NO_PI | MULTI_QUEUE)?;
    Request::new("", DETACH).make(&other, TUNSETQUEUE)?;
    let before = [state(&one)?, state(&other)?];
    let address = std::fs::read_to_string(format!("/sys/class/net/{name}/address"))?;
    guest.hold()?;
    same!("queues", [state(&one)?, state(&other)?], before);
    let now = std::fs::read_to_string(format!("/sys/class/net/{name}/address"))?;
    same!("address", now, address);
    same!(
        "without a device",
        state(&loose).is_err() && errno() == libc::EBADFD,
        true
    );
    Request::new(&format!("{name}x"), TUN).make(&loose, TUNSETIFF)?;
    os!(libc::ioctl(one.as_raw_fd(), TUNSETPERSIST, 0))?;
    Ok(())
}

fn fleeting(guest: &Guest) -> Check {
    let file = attached(&format!("glf{}", std::process::id()), TUN)?;
    let before = state(&file)?;
    guest.hold()?;
    same!("device", state(&file)?, before);
    Ok(())
}
