//! TUN and TAP devices: `/dev/net/tun`, `Documentation/networking/tuntap.rst`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

const TUNSETIFF: usize = 0x4004_54ca;
const TUNGETIFF: usize = 0x8004_54d2;
const TUNSETQUEUE: usize = 0x4004_54d9;
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
