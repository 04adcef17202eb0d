//! Options of sockets: of internet sockets those of the published format, and all others as far as they are not what a
//! new socket has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;

use gelid_image::messages::{GelidSocketOptionEntry, InetSkEntry, IpOptsEntry, TcpOptsEntry};
use gelid_sys::Errno;
use gelid_sys::sockopt::{OPTIONS, SocketOption};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::super::{Error, Object};
use super::{INET6, MPTCP, Make, RAW, TCP};

/// What new sockets have set, by what they were made as.
#[derive(Debug, Default)]
pub(super) struct Fresh(HashMap<Make, Vec<(SocketOption, Vec<u8>)>>);

impl Fresh {
    /// Options in which a socket, which has or had a connection or not, differs from a new one.
    pub(super) fn options(
        &mut self,
        object: &Object<'_>,
        make: Make,
        connected: bool,
    ) -> Result<Vec<GelidSocketOptionEntry>, Error> {
        let fresh = self.of(make).map_err(|errno| Error::Own {
            operation: "make a socket to compare with",
            errno,
        })?;
        let mut differing = Vec::new();
        for (option, usual) in fresh {
            if connected && is_of_connection(*option) {
                continue;
            }
            match option.get(object.file) {
                Ok(value) if value != *usual => {
                    let (level, name) = option.numbers();
                    differing.push(GelidSocketOptionEntry {
                        level: level.cast_unsigned(),
                        name: name.cast_unsigned(),
                        value,
                    });
                }
                Ok(_) | Err(Errno::NOPROTOOPT | Errno::OPNOTSUPP) => {}
                // Some can only be asked for in some states.
                Err(Errno::NOTCONN | Errno::INVAL) => {}
                Err(errno) => return Err(object.failed("ask for the options of")(errno)),
            }
        }
        Ok(differing)
    }

    /// What a new socket has set.
    fn of(&mut self, make: Make) -> Result<&[(SocketOption, Vec<u8>)], Errno> {
        match self.0.entry(make) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => Ok(vacant.insert(values(make)?)),
        }
    }
}

/// What a new socket has set.
fn values(make: Make) -> Result<Vec<(SocketOption, Vec<u8>)>, Errno> {
    let socket = match new(make) {
        // Sockets of ICMP are for groups of users that the dumper need not be in. They have no options of their
        // own.
        Err(Errno::ACCESS) => return Ok(Vec::new()),
        socket => socket?,
    };
    let values = OPTIONS.iter().map(|option| (*option, option.get(&socket)));
    let values = values.filter_map(|(option, value)| Some((option, value.ok()?)));
    // What this kind of sockets tells, but does not let anybody set, follows from something else.
    // One option may change another, so it is another socket that they are set of.
    let other = new(make)?;
    let settable = values.filter(|(option, value)| option.set(&other, value).is_ok());
    Ok(settable.collect())
}

/// A socket made the same way.
fn new(make: Make) -> Result<OwnedFd, Errno> {
    let family = AddressFamily::from_raw(make.family as u16);
    let kind = SocketType::from_raw(make.kind);
    let protocol = std::num::NonZeroU32::new(make.protocol).map(rustix::net::Protocol::from_raw);
    socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
}

/// Options that tell, of a connection, what was negotiated.
fn is_of_connection(option: SocketOption) -> bool {
    option == SocketOption::TCP_MAXSEG
}

/// Fills in what the published format has.
pub(super) fn published(
    object: &Object<'_>,
    make: Make,
    entry: &mut InetSkEntry,
) -> Result<(), Error> {
    let ask = |option: SocketOption| match option.int(object.file) {
        Err(Errno::NOPROTOOPT | Errno::OPNOTSUPP) => Ok(0),
        value => value.map_err(object.failed("ask for the options of")),
    };
    let on = |option| Ok::<_, Error>(Some(ask(option)? != 0).filter(|on| *on));
    let number = |option| Ok::<_, Error>(Some(ask(option)?.cast_unsigned()).filter(|it| *it != 0));
    let ip = entry.ip_opts.get_or_insert_with(IpOptsEntry::default);
    if make.family == INET6 {
        ip.freebind = on(SocketOption::IPV6_FREEBIND)?;
        ip.pktinfo = on(SocketOption::IPV6_RECVPKTINFO)?;
    } else {
        ip.freebind = on(SocketOption::IP_FREEBIND)?;
        ip.pktinfo = on(SocketOption::IP_PKTINFO)?;
        ip.tos = number(SocketOption::IP_TOS)?;
        ip.ttl = number(SocketOption::IP_TTL)?;
    }
    if make.kind == RAW || !matches!(make.protocol, TCP | MPTCP) {
        return Ok(());
    }
    entry.tcp_opts = Some(TcpOptsEntry {
        cork: on(SocketOption::TCP_CORK)?,
        nodelay: on(SocketOption::TCP_NODELAY)?,
        keepcnt: number(SocketOption::TCP_KEEPCNT)?,
        keepidle: number(SocketOption::TCP_KEEPIDLE)?,
        keepintvl: number(SocketOption::TCP_KEEPINTVL)?,
    });
    Ok(())
}
