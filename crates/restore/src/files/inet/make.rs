//! Making internet sockets.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::multicast;
use gelid_sys::sockopt::{self, IntOption, SocketOption};
use rustix::fs::fchown;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, Shutdown, SocketFlags, SocketType, bind, connect, listen, netdevice,
    shutdown, socket_with,
};
use rustix::process::{Gid, Uid, getgid, getuid};

use super::super::open::{Opener, set_status};
use super::super::tcp::Making;
use super::super::{Description, Error, Kind};
use super::{Internet, Role};

/// Makes all of them: first those that listen, as a port may be theirs and that of their connections.
pub(in super::super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let descriptions = plan.descriptions.values();
    let sockets: Vec<(&Description, &Internet)> = descriptions
        .filter_map(|description| match &description.kind {
            Kind::Internet(socket) => Some((description, &**socket)),
            _ => None,
        })
        .collect();
    for (description, socket) in &sockets {
        let object = description.label();
        opener.enter_network(description.id, &object)?;
        let fd = make(socket).map_err(|errno| refused(opener, socket, &object, errno))?;
        let fd = opener.raise(fd, &object)?;
        socket.prepare(fd.as_fd(), &object)?;
        opener.add(description.id, fd);
    }
    for (description, socket) in sockets {
        let object = description.label();
        opener.enter_network(description.id, &object)?;
        let fd = opener.reach(description.id, &object)?;
        let fd = fd.as_fd();
        if let (Role::Stream(peer, stream), Some(own)) = (&socket.role, socket.own) {
            let ends = (socket.scoped(own, &object)?, socket.scoped(*peer, &object)?);
            let making = Making::new(fd, &object, stream, ends);
            making.make(&plan.dir, socket.inode)?;
            // The rest is for the end.
            continue;
        }
        socket.complete(fd, &object)?;
        set_status(fd, description.flags.status(), &object)?;
    }
    Ok(())
}

/// A new socket.
fn make(socket: &Internet) -> Result<OwnedFd, Errno> {
    let protocol = NonZeroU32::new(socket.protocol).map(Protocol::from_raw);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = || socket_with(socket.family, socket.kind, flags, protocol);
    match make() {
        // Sockets of ICMP are for some groups of users only.
        Err(Errno::ACCESS) if socket.kind == SocketType::DGRAM => as_group(ping_group()?, make),
        made => made,
    }
}

/// The first of the groups that may have sockets of ICMP.
fn ping_group() -> Result<Gid, Errno> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range");
    let range = range.map_err(|_| Errno::ACCESS)?;
    let mut ends = range.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => Ok(Gid::from_raw(first)),
        _ => Err(Errno::ACCESS),
    }
}

/// Does something with another group, which is that of the thread alone.
fn as_group<T>(group: Gid, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let own = (getgid(), rustix::process::getegid());
    rustix::thread::set_thread_res_gid(own.0, group, own.1)?;
    let done = act();
    rustix::thread::set_thread_res_gid(own.0, own.1, own.1)?;
    done
}

/// The error of a socket that could not be made.
fn refused(opener: &Opener<'_>, socket: &Internet, object: &str, errno: Errno) -> Error {
    match errno {
        Errno::ACCESS if socket.kind == SocketType::DGRAM => Error::Unsupported {
            object: object.to_owned(),
            what: "a socket of ICMP, for which no group of users is allowed here",
            remedy: "widen net.ipv4.ping_group_range",
        },
        errno => opener.failed("make", object, errno),
    }
}

impl Internet {
    /// Sets the options of a new socket and binds it.
    fn prepare(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        self.options.apply(fd, object)?;
        self.values.set(fd, object, |option| !is_late(option))?;
        self.options
            .priority(fd)
            .map_err(Error::system("set the priority of", object))?;
        let own = match (self.own, &self.role) {
            (Some(own), Role::Alone | Role::Listening(_) | Role::Connected(_)) => own,
            _ => return Ok(()),
        };
        // Others of the tree may have the same address, whatever they think of that afterwards.
        let reuse = sockopt::set_int(fd, IntOption::REUSEADDR, 1);
        reuse.map_err(Error::system("share the address of", object))?;
        let own = self.scoped(own, object)?;
        if self.absent {
            self.bind_free(fd, true, object)?;
        }
        let bound = bind(fd, &own);
        if self.absent {
            self.bind_free(fd, false, object)?;
        }
        match bound {
            Err(Errno::ADDRINUSE) => Err(Error::Occupied {
                object: object.to_owned(),
            }),
            bound => bound.map_err(Error::system("bind", object)),
        }
    }

    /// Lets it be bound to addresses that are not there, or no more.
    fn bind_free(&self, fd: BorrowedFd<'_>, on: bool, object: &str) -> Result<(), Error> {
        let option = match self.family {
            AddressFamily::INET6 => SocketOption::IPV6_FREEBIND,
            _ => SocketOption::IP_FREEBIND,
        };
        let set = option.set(fd, &i32::from(on).to_ne_bytes());
        set.map_err(Error::system("set the options of", object))
    }

    /// Does what needs all of them to be bound.
    fn complete(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        match &self.role {
            Role::Alone | Role::Stream(..) | Role::Parted(_) => {}
            Role::Listening(backlog) => {
                let backlog = i32::try_from(*backlog).unwrap_or(i32::MAX);
                match listen(fd, backlog) {
                    Err(Errno::ADDRINUSE) => {
                        return Err(Error::Occupied {
                            object: object.to_owned(),
                        });
                    }
                    listening => listening.map_err(Error::system("listen with", object))?,
                }
            }
            Role::Connected(peer) => {
                let peer = self.scoped(*peer, object)?;
                connect(fd, &peer).map_err(Error::system("connect", object))?;
            }
        }
        for membership in &self.memberships {
            let joined = multicast::join(fd, membership);
            joined.map_err(Error::system("join a group with", object))?;
        }
        self.finish(fd, object)
    }

    /// Sets what would have been in the way before.
    pub(in super::super) fn finish(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        let reused = self.options.reuse(fd);
        let reused = reused.and_then(|()| self.options.set_buffers(fd));
        reused.map_err(Error::system("set the options of", object))?;
        self.values.set(fd, object, is_late)?;
        let how = match self.shutdown {
            1 => Some(Shutdown::Read),
            2 => Some(Shutdown::Write),
            3 => Some(Shutdown::Both),
            _ => None,
        };
        if let Some(how) = how {
            match shutdown(fd, how) {
                // It is done all the same.
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(errno) => return Err(Error::system("shut down", object)(errno)),
            }
        }
        if let Some(uid) = self.uid.filter(|uid| *uid != getuid().as_raw()) {
            let owner = (uid != u32::MAX).then(|| Uid::from_raw(uid));
            fchown(fd, owner, None).map_err(Error::system("set the owner of", object))?;
        }
        Ok(())
    }

    /// An address with the interface that it is of.
    pub(in super::super) fn scoped(
        &self,
        address: SocketAddr,
        object: &str,
    ) -> Result<SocketAddr, Error> {
        let (SocketAddr::V6(mut address), Some(name)) = (address, &self.interface) else {
            return Ok(address);
        };
        let index = socket_with(self.family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .and_then(|any| netdevice::name_to_index(any, name));
        let index = index.map_err(Error::system("find the interface of", object))?;
        if address.ip().is_unicast_link_local() || address.ip().is_multicast() {
            address.set_scope_id(index);
        }
        Ok(address.into())
    }
}

/// Options that hold back what is written, or that a connection begins with anew.
fn is_late(option: SocketOption) -> bool {
    [
        SocketOption::TCP_CORK,
        SocketOption::UDP_CORK,
        SocketOption::TCP_WINDOW_CLAMP,
    ]
    .contains(&option)
}
