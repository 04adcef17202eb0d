//! Sockets between virtual machines that have no connection: `vsock(7)`.
//!
//! They are recorded as internet sockets of their family. The kernel does not tell their backlog.

use std::os::fd::AsFd;

use gelid_image::messages::{FdTypes, GelidInetSkEntry, InetSkEntry};
use gelid_sys::Errno;
use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::vsock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::inet::{CLOSED, LISTENING};
use super::regfile::Opening;
use super::{Collector, Error, InetRefusal, Object, Unsupported, sk_opts};

/// `SOCK_DGRAM`
const DGRAM: i32 = 2;

/// Why such a socket is not dumped; `None` for one that is.
pub(super) fn refused(socket: impl AsFd) -> Result<Option<Unsupported>, Errno> {
    let listens = sockopt::int(&socket, IntOption::ACCEPTCONN)? != 0;
    let mut fds = [PollFd::new(&socket, PollFlags::IN | PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default()))?;
    let ready = fds[0].revents();
    let datagrams = sockopt::int(&socket, IntOption::TYPE)? == DGRAM;
    // One that is about to be connected can neither be read nor written; one that was is shut down.
    Ok(match (listens, ready) {
        _ if datagrams => Some(Unsupported::VsockDatagrams),
        (true, PollFlags::IN) => Some(Unsupported::VsockPending),
        (true, _) if ready.is_empty() => None,
        (false, PollFlags::OUT) if !vsock::is_connected(&socket)? => None,
        _ => Some(Unsupported::VsockConnection),
    })
}

impl Collector<'_> {
    /// Records a socket of this family.
    pub(super) fn vsock(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let Some(network) = self.enter_network(object)? else {
            return Err(object.refused_inet(InetRefusal::Namespace));
        };
        let failed = |operation| object.failed(operation);
        if let Some(why) = refused(object.file).map_err(failed("ask for the state of"))? {
            return Err(object.unsupported(why));
        }
        let listens = sockopt::int(object.file, IntOption::ACCEPTCONN);
        let kind = sockopt::int(object.file, IntOption::TYPE);
        let own = vsock::address(object.file).map_err(failed("ask for the address of"))?;
        let option = self.unusual_options(object)?;
        let id = self.new_id()?;
        self.push_inet(InetSkEntry {
            id,
            ino: u32::try_from(object.stat.st_ino).unwrap_or_default(),
            family: vsock::FAMILY.into(),
            r#type: kind.map_err(failed("ask for the kind of"))?.cast_unsigned(),
            state: match listens.map_err(failed("ask for the state of"))? {
                0 => CLOSED,
                _ => LISTENING,
            },
            src_port: own.port,
            src_addr: vec![own.cid],
            flags: opening.flags,
            fown: opening.fown,
            opts: sk_opts::entry(object)?,
            ns_id: Some(network),
            gelid: (!option.is_empty()).then(|| GelidInetSkEntry {
                option,
                ..GelidInetSkEntry::default()
            }),
            ..InetSkEntry::default()
        })?;
        Ok((FdTypes::Inetsk, id))
    }
}
