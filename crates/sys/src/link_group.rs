//! Groups of the link layer that links are in: `netdevice(7)`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

/// `SIOCADDMULTI`
const ADD: usize = 0x8931;
/// Bytes of the name of a link, with its end.
const NAME: usize = 16;
/// Bytes of an address in `struct ifreq`.
const ADDRESS: usize = 14;

/// `struct ifreq` with a hardware address, whose family is `AF_UNSPEC`.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    family: u16,
    address: [u8; ADDRESS],
    rest: [u8; 8],
}

const _: () = assert!(size_of::<Request>() == 40);

/// Lets a link receive what is sent to a group. `socket` says in which network namespace it is.
///
/// # Errors
///
/// `ENAMETOOLONG` if no link or group is as long, `ENODEV`, `EINVAL` if the link has no groups.
pub fn join(socket: impl AsFd, link: &[u8], group: &[u8]) -> Result<()> {
    let mut request = Request {
        name: [0; NAME],
        family: 0,
        address: [0; ADDRESS],
        rest: [0; 8],
    };
    let name = request.name[..NAME - 1].get_mut(..link.len());
    let address = request.address.get_mut(..group.len());
    match (name, address) {
        (Some(name), Some(address)) => {
            name.copy_from_slice(link);
            address.copy_from_slice(group);
        }
        _ => return Err(Errno::NAMETOOLONG),
    }
    let fd = socket.as_fd().as_raw_fd() as usize;
    let args = [fd, ADD, &raw mut request as usize, 0, 0, 0];
    // SAFETY: the request reads a `struct ifreq`, which this is.
    unsafe { call(libc::SYS_ioctl as usize, args) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_longer_is_asked_for() {
        let channel = crate::netlink::channel::Channel::route().unwrap();
        assert_eq!(
            join(&channel, &[b'x'; 16], &[1; 6]),
            Err(Errno::NAMETOOLONG)
        );
        assert_eq!(join(&channel, b"lo", &[1; 15]), Err(Errno::NAMETOOLONG));
        let missing = join(&channel, b"no-such-link", &[1, 0, 0x5e, 0, 0, 1]);
        assert!(matches!(
            missing,
            Err(Errno::NODEV | Errno::PERM | Errno::NOTTY)
        ));
    }
}
