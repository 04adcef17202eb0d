//! Sockets, told apart by their family.

use std::os::fd::AsFd;

use gelid_image::messages::FdTypes;
use gelid_sys::Errno;
use gelid_sys::sockopt::{self, IntOption};

use super::regfile::Opening;
use super::{Collector, Error, Object, Task, Unsupported};

/// `AF_UNIX`
const UNIX: i32 = 1;

/// Why a socket is not dumped; `None` for one that is.
pub(super) fn refused(socket: impl AsFd) -> Result<Option<Unsupported>, Errno> {
    Ok(match sockopt::int(socket, IntOption::DOMAIN)? {
        UNIX => None,
        family => Some(Unsupported::Socket { family }),
    })
}

impl Collector<'_> {
    /// Records a socket.
    pub(super) fn socket(
        &mut self,
        task: Task<'_>,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        match refused(object.file).map_err(object.failed("ask for the family of"))? {
            None => self.unix(task, object, opening),
            Some(why) => Err(object.unsupported(why)),
        }
    }
}
