//! Sockets, told apart by their family.

use std::os::fd::{AsFd, BorrowedFd};

use gelid_image::messages::FdTypes;
use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::{Errno, vsock};

use super::regfile::Opening;
use super::unix::Told;
use super::{Collector, Error, Object, Task, Unsupported};

/// `AF_UNIX`
const UNIX: i32 = 1;
/// `AF_INET`
const INET: i32 = 2;
/// `AF_INET6`
const INET6: i32 = 10;
/// `AF_NETLINK`
const NETLINK: i32 = 16;
/// `AF_PACKET`
const PACKET: i32 = 17;
/// `AF_VSOCK`
const VSOCK: i32 = vsock::FAMILY as i32;

/// Whether sockets of a family are those of IP.
pub(super) fn is_inet(family: i32) -> bool {
    matches!(family, INET | INET6)
}

/// Why a socket of a family is not dumped; `None` for one that is.
pub(super) fn refused(family: i32, socket: impl AsFd) -> Result<Option<Unsupported>, Errno> {
    Ok(match family {
        UNIX | INET | INET6 | NETLINK | PACKET => None,
        VSOCK => super::vsock::refused(socket)?,
        family => Some(Unsupported::Socket { family }),
    })
}

/// What a socket is asked for, whoever does so.
#[derive(Debug)]
pub(super) struct Answers {
    family: Result<i32, Errno>,
    /// Those of one that is a Unix socket.
    unix: Option<Box<Told>>,
}

impl Answers {
    pub(super) fn of(socket: BorrowedFd<'_>) -> Self {
        let family = sockopt::int(socket, IntOption::DOMAIN);
        Self {
            unix: (family == Ok(UNIX)).then(|| Box::new(Told::ask(socket))),
            family,
        }
    }
}

impl Collector<'_> {
    /// Records a socket. `answers` are there if it has been asked already.
    pub(super) fn socket(
        &mut self,
        task: Task<'_>,
        object: &Object<'_>,
        opening: Opening,
        answers: Option<Answers>,
    ) -> Result<(FdTypes, u32), Error> {
        let Answers { family, unix } = answers.unwrap_or_else(|| Answers::of(object.file));
        if let Some(told) = unix {
            return self.unix(task, object, opening, *told);
        }
        match family.map_err(object.failed("ask for the family of"))? {
            INET | INET6 => self.inet(object, opening),
            NETLINK => self.netlink(object, opening),
            PACKET => self.packet_sock(object, opening),
            VSOCK => self.vsock(object, opening),
            family => Err(object.unsupported(Unsupported::Socket { family })),
        }
    }
}
