//! TUN and TAP devices: `/dev/net/tun`, `Documentation/networking/tuntap.rst`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

use crate::netlink::message::Attributes;
use crate::syscall::call;

const TUNSETIFF: usize = 0x4004_54ca;
const TUNSETPERSIST: usize = 0x4004_54cb;
const TUNSETOWNER: usize = 0x4004_54cc;
const TUNSETGROUP: usize = 0x4004_54ce;
const TUNGETIFF: usize = 0x8004_54d2;
const TUNGETSNDBUF: usize = 0x8004_54d3;
const TUNSETSNDBUF: usize = 0x4004_54d4;
const TUNGETVNETHDRSZ: usize = 0x8004_54d7;
const TUNSETVNETHDRSZ: usize = 0x4004_54d8;
const TUNSETQUEUE: usize = 0x4004_54d9;
const TUNSETIFINDEX: usize = 0x4004_54da;
const TUNGETDEVNETNS: usize = 0x54e3;
/// Bytes of the name of a device, with its end.
const NAME: usize = 16;

/// `IFF_TUN`, `IFF_TAP`, `IFF_NAPI`, `IFF_NAPI_FRAGS`, `IFF_NO_CARRIER`, `IFF_MULTI_QUEUE`, `IFF_NO_PI`,
/// `IFF_ONE_QUEUE`, `IFF_VNET_HDR`: what a device is attached with.
pub const ATTACHING: u16 = 0x7173;
/// `IFF_DETACH_QUEUE`: of a queue that gets nothing.
pub const DETACHED: u16 = 0x400;
/// `IFF_PERSIST`: of a device that stays when nobody has it open.
pub const PERSISTENT: u16 = 0x800;

/// `struct ifreq`, as far as it is used.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40);

impl Request {
    fn new(name: &[u8], flags: u16) -> Result<Self> {
        let mut request = Self {
            name: [0; NAME],
            flags,
            rest: [0; 22],
        };
        match request.name.get_mut(..name.len()) {
            Some(place) if name.len() < NAME => place.copy_from_slice(name),
            _ => return Err(Errno::NAMETOOLONG),
        }
        Ok(request)
    }

    fn make(&mut self, fd: impl AsFd, what: usize) -> Result<()> {
        let fd = fd.as_fd().as_raw_fd() as usize;
        let args = [fd, what, &raw mut *self as usize, 0, 0, 0];
        // SAFETY: each request above reads and writes a `struct ifreq`, which this is.
        unsafe { call(libc::SYS_ioctl as usize, args) }.map(drop)
    }
}

/// The name of the device that a file is a queue of, and its flags; none if it is none yet.
///
/// # Errors
///
/// `ENOTTY` if it is another file.
pub fn device(file: impl AsFd) -> Result<Option<(Vec<u8>, u16)>> {
    let mut request = Request::new(b"", 0)?;
    match request.make(file, TUNGETIFF) {
        Err(Errno::BADFD) => return Ok(None),
        asked => asked?,
    }
    let name = request.name.split(|byte| *byte == 0).next();
    Ok(Some((name.unwrap_or_default().to_vec(), request.flags)))
}

/// Makes a file a queue of a device, which comes to be unless it is there.
///
/// # Errors
///
/// `EBUSY` if the device has no other queue to give, `EINVAL` if it is of another kind, `EPERM`.
pub fn attach(file: impl AsFd, name: &[u8], flags: u16) -> Result<()> {
    Request::new(name, flags)?.make(file, TUNSETIFF)
}

/// Has a queue get nothing any more.
///
/// # Errors
///
/// `EINVAL` if the device has one queue only.
pub fn detach(file: impl AsFd) -> Result<()> {
    Request::new(b"", DETACHED)?.make(file, TUNSETQUEUE)
}

/// Has the device that [`attach`] makes get an index.
///
/// # Errors
///
/// `EINVAL` if the file is a queue already.
pub fn set_index(file: impl AsFd, index: u32) -> Result<()> {
    let index = index.cast_signed();
    let at = &raw const index as usize;
    // SAFETY: the request reads an `int`.
    unsafe { ioctl(&file, TUNSETIFINDEX, at) }
}

/// Has the device of a queue stay, or go, when nobody has it open.
pub fn set_persistent(file: impl AsFd, stays: bool) -> Result<()> {
    // SAFETY: the request takes a number.
    unsafe { ioctl(&file, TUNSETPERSIST, usize::from(stays)) }
}

/// Says which user and group may attach to the device; -1 leaves that to those with rights.
pub fn set_users(file: impl AsFd, owner: i32, group: i32) -> Result<()> {
    for (what, id) in [(TUNSETOWNER, owner), (TUNSETGROUP, group)] {
        if id != -1 {
            // SAFETY: the request takes a number.
            unsafe { ioctl(&file, what, id.cast_unsigned() as usize) }?;
        }
    }
    Ok(())
}

/// Size of the virtio header, and of the send buffer, bytes.
pub fn buffers(file: impl AsFd) -> Result<(u32, u32)> {
    let mut sizes = [0u32; 2];
    for (what, size) in [TUNGETVNETHDRSZ, TUNGETSNDBUF].into_iter().zip(&mut sizes) {
        // SAFETY: the request writes an `int`.
        unsafe { ioctl(&file, what, &raw mut *size as usize) }?;
    }
    Ok((sizes[0], sizes[1]))
}

/// Sets what [`buffers`] tells, where that is another.
///
/// # Errors
///
/// `EINVAL` for sizes that cannot be.
pub fn set_buffers(file: impl AsFd, header: u32, send: u32) -> Result<()> {
    let now = buffers(&file)?;
    for (what, now, size) in [
        (TUNSETVNETHDRSZ, now.0, header),
        (TUNSETSNDBUF, now.1, send),
    ] {
        if now != size {
            // SAFETY: the request reads an `int`.
            unsafe { ioctl(&file, what, &raw const size as usize) }?;
        }
    }
    Ok(())
}

/// The network namespace of the device that a file is a queue of.
///
/// # Errors
///
/// `EBADFD` if it is none, `EPERM` without `CAP_NET_ADMIN` there.
pub fn network(file: impl AsFd) -> Result<OwnedFd> {
    let fd = file.as_fd().as_raw_fd() as usize;
    // SAFETY: the request takes no address.
    let network = unsafe { call(libc::SYS_ioctl as usize, [fd, TUNGETDEVNETNS, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(network as RawFd) })
}

/// What a device was attached with and whether it stays, as rtnetlink tells it (`IFLA_TUN_*`).
#[must_use]
pub fn told_flags(data: Attributes<'_>) -> u16 {
    const KIND: u16 = 3;
    /// Attribute, `IFF_*` flag, and what the attribute says if the flag is set.
    const FLAGS: [(u16, u16, bool); 4] = [
        (4, 0x1000, false),
        (5, 0x4000, true),
        (6, PERSISTENT, true),
        (7, 0x100, true),
    ];
    let mut flags = data.byte(KIND).map_or(0, u16::from);
    for (kind, flag, when) in FLAGS {
        if data.byte(kind).is_some_and(|on| (on != 0) == when) {
            flags |= flag;
        }
    }
    flags
}

/// # Safety
///
/// `argument` is what the request takes: a number, or the address of what it reads or writes.
unsafe fn ioctl(fd: impl AsFd, what: usize, argument: usize) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd() as usize;
    // SAFETY: the caller vouches for the argument.
    unsafe { call(libc::SYS_ioctl as usize, [fd, what, argument, 0, 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn a_device_goes_with_its_file() {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::open("/dev/net/tun", flags, Mode::empty()) else {
            return;
        };
        assert_eq!(device(&file), Ok(None));
        let name = format!("gl{}", std::process::id());
        match attach(&file, name.as_bytes(), 0x1001) {
            Err(Errno::PERM) => return,
            attached => attached.unwrap(),
        }
        assert_eq!(device(&file), Ok(Some((name.into_bytes(), 0x1001))));
        assert_eq!(attach(&file, &[b'x'; 16], 1), Err(Errno::NAMETOOLONG));
        assert!(detach(&file).is_err());
    }
}
