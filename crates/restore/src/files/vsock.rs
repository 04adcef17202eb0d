//! Sockets between virtual machines: `vsock(7)`. They are recorded as internet sockets of their family.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use gelid_image::messages::InetSkEntry;
use gelid_sys::vsock::{self, ANY, Address};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with};

use super::open::Opener;
use super::sk_opts::{self, SocketOptions};
use super::socket_option::Values;
use super::{Error, Kind};

/// States as TCP has them.
const CLOSED: u32 = 7;
const LISTENING: u32 = 10;

/// A socket between virtual machines, without a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// Its inode at the dump.
    pub inode: u32,
    /// Stream, or messages in their order.
    pub kind: SocketType,
    /// What it is bound to.
    pub own: Option<Address>,
    /// Whether it listens.
    pub listens: bool,
    /// Options of the socket layer.
    pub options: SocketOptions,
    /// All other options.
    pub values: Values,
}

impl fmt::Display for Vsock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("vsock socket")?;
        match self.own {
            Some(Address { cid: ANY, port }) => write!(f, " of port {port}")?,
            Some(Address { cid, port }) => write!(f, " of port {port} of machine {cid}")?,
            None => {}
        }
        f.write_str(if self.listens { ", listening" } else { "" })
    }
}

/// Whether a record is of this family.
pub(super) fn is_one(entry: &InetSkEntry) -> bool {
    entry.family == u32::from(vsock::FAMILY)
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &InetSkEntry) -> Result<Vsock, Error> {
    let listens = match entry.state {
        CLOSED => false,
        LISTENING => true,
        state => {
            let rule = "it is 7 or 10";
            return Err(Error::invalid(object, "state", state, rule));
        }
    };
    if !matches!(entry.r#type, 1 | 5) {
        return Err(Error::invalid(object, "type", entry.r#type, "it is 1 or 5"));
    }
    let own = Address {
        cid: entry.src_addr.first().copied().unwrap_or(ANY),
        port: entry.src_port,
    };
    let option = entry.gelid.as_ref().map_or(&[][..], |gelid| &gelid.option);
    Ok(Vsock {
        inode: entry.ino,
        kind: SocketType::from_raw(entry.r#type),
        own: (own.port != ANY).then_some(own),
        listens,
        options: sk_opts::plan(object, &entry.opts)?,
        values: Values::plan(object, BTreeMap::new(), option)?,
    })
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Vsock(socket) = &description.kind else {
            continue;
        };
        opener.enter_network(description.id, description.label())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = AddressFamily::from_raw(vsock::FAMILY);
        let made = socket_with(family, socket.kind, flags, None);
        opener.add_socket(description, made, |fd, object| socket.prepare(fd, object))?;
    }
    Ok(())
}

impl Vsock {
    fn prepare(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        /// The most that the kernel takes by default: nobody tells what it was.
        const BACKLOG: i32 = 4096;
        self.options.apply(fd, object)?;
        self.values.set(fd, object, |_| true)?;
        match self.own.map(|own| vsock::bind(fd, own)) {
            Some(Err(Errno::ADDRINUSE)) => {
                return Err(Error::Occupied {
                    object: object.to_owned(),
                });
            }
            Some(bound) => bound.map_err(Error::system("bind", object))?,
            None => {}
        }
        match self.listens {
            true => listen(fd, BACKLOG).map_err(Error::system("listen with", object)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut InetSkEntry)| {
            let mut entry = InetSkEntry {
                family: 40,
                r#type: 5,
                state: LISTENING,
                src_port: 70_000,
                src_addr: vec![3],
                ..InetSkEntry::default()
            };
            change(&mut entry);
            plan("it", &entry).map_err(|error| error.to_string())
        };
        let fine = with(|_| {}).unwrap();
        let text = "vsock socket of port 70000 of machine 3, listening";
        assert_eq!(fine.to_string(), text);
        let closed = with(|it| (it.state, it.src_port) = (CLOSED, ANY)).unwrap();
        assert_eq!((closed.listens, closed.own), (false, None));
        assert!(with(|it| it.state = 1).unwrap_err().contains("state"));
        assert!(with(|it| it.r#type = 2).unwrap_err().contains("type"));
    }
}
