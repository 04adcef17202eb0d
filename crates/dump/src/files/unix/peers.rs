//! Who is whose peer, told when all sockets of the tree are known.

use std::collections::HashSet;

use gelid_image::messages::{FdTypes, FileEntry, SkShutdown, UnixSkEntry};
use gelid_sys::diag::UnixSocket;
use rustix::io::Errno;

use super::super::{Collector, Error, Name};
use super::{CONNECTED, DGRAM, LISTENING, Socket, UnixRefusal};

/// A socket outside of the dumped tree (`uflags`).
const EXTERN: u32 = 1;
/// One by which the dump was asked for.
const SERVICE: u32 = 2;

impl Collector<'_> {
    /// Writes the records of all sockets, and of those outside that they are connected with.
    pub(in super::super) fn peers(&mut self) -> Result<(), Error> {
        self.queues()?;
        let waiting = self.waiting()?;
        self.refuse_pidfds()?;
        let mut outside = Vec::new();
        for at in self.order(&waiting) {
            let socket = &self.sockets.met[at];
            match socket.peer {
                0 if socket.entry.peer != 0 => {}
                0 if socket.is_unaccepted() => return Err(socket.refused(UnixRefusal::Unaccepted)),
                0 => {}
                peer if self.sockets.by_inode.contains_key(&peer) || outside.contains(&peer) => {}
                peer if self.options.service == Some(peer) => {
                    self.sockets.met[at].entry.uflags |= SERVICE;
                }
                peer => {
                    let seen = self.outside(at, peer)?;
                    self.push_outside(seen)?;
                    outside.push(peer);
                }
            }
            let mut entry = std::mem::take(&mut self.sockets.met[at].entry);
            if entry.peer == 0 {
                entry.peer = self.sockets.met[at].peer;
            }
            self.push(FileEntry {
                r#type: FdTypes::Unixsk.into(),
                id: entry.id,
                usk: Some(Box::new(entry)),
                ..FileEntry::default()
            })?;
        }
        Ok(())
    }

    /// Refuses pidfds in queues of which nobody is left to send them, by word of whom they come, or in which they come without
    /// a connection.
    fn refuse_pidfds(&self) -> Result<(), Error> {
        let sockets = &self.sockets;
        let is_open = |socket: &Socket| socket.entry.shutdown.is_none();
        let late = sockets.met.iter();
        let mut late = late.filter(|socket| sockets.with_pidfds.contains(&socket.entry.id));
        let cannot = |socket: &&Socket| {
            let peer = sockets.by_inode.get(&socket.peer);
            let peer = peer.and_then(|at| sockets.met.get(*at));
            let is_connected =
                peer.is_some_and(|peer| is_open(peer) && peer.peer == socket.entry.ino);
            !is_connected
                || !is_open(socket)
                || socket.entry.r#type == DGRAM
                || sockets.with_senders.contains(&socket.entry.id)
        };
        match late.find(cannot) {
            Some(socket) => Err(socket.refused(UnixRefusal::Pidfd)),
            None => Ok(()),
        }
    }

    /// The order of the records. CRIU makes the later end of a pair and gives the earlier one away, which
    /// works if the later one is that which it has met first.
    fn order(&self, waiting: &[usize]) -> Vec<usize> {
        let sockets = &self.sockets;
        let mut order = Vec::with_capacity(sockets.met.len());
        let mut done: HashSet<usize> = waiting.iter().copied().collect();
        for (at, socket) in sockets.met.iter().enumerate() {
            let peer = sockets.by_inode.get(&socket.peer).copied();
            order.extend(peer.into_iter().chain([at]).filter(|at| done.insert(*at)));
        }
        // Behind those that they wait for, in the order in which a restore is to connect them.
        order.extend(waiting);
        order
    }

    /// Those who wait to be accepted, in the order in which they came; their peer becomes the one that
    /// listens.
    fn waiting(&mut self) -> Result<Vec<usize>, Error> {
        let mut waiting = Vec::new();
        for at in 0..self.sockets.met.len() {
            let socket = &self.sockets.met[at];
            let inode = socket.entry.ino;
            for client in socket.pending.clone() {
                let socket = &self.sockets.met[at];
                if client == 0 {
                    return Err(socket.refused(UnixRefusal::Gone));
                }
                let Some(client) = self.sockets.by_inode.get(&client).copied() else {
                    return Err(socket.refused(UnixRefusal::Visitor));
                };
                let met = &mut self.sockets.met[client];
                // What it has sent is where nobody can look.
                if met.entry.backlog != 0 {
                    return Err(met.refused(UnixRefusal::SentEarly));
                }
                met.entry.peer = inode;
                waiting.push(client);
            }
        }
        Ok(waiting)
    }

    /// The socket outside that one of the tree is connected with, if that is allowed.
    fn outside(&mut self, at: usize, peer: u32) -> Result<UnixSocket, Error> {
        let seen = match &self.sockets.diag {
            Some(diag) => diag.unix(peer),
            None => Err(Errno::BADF),
        };
        let socket = &self.sockets.met[at];
        let seen = seen.map_err(|errno| Error::System {
            operation: "ask for the state of the peer of",
            place: socket.place,
            name: socket.link.clone(),
            errno,
        })?;
        let seen = seen.unwrap_or_else(|| UnixSocket {
            inode: peer,
            ..UnixSocket::default()
        });
        let inode = socket.entry.ino;
        let datagrams = socket.entry.r#type == DGRAM;
        let named = self.options.outside_by_name && datagrams && !seen.name.is_empty();
        if named || self.options.sockets.contains(&inode) {
            return Ok(seen);
        }
        Err(socket.refused(UnixRefusal::Outside {
            inode,
            peer,
            name: (!seen.name.is_empty()).then(|| readable(&seen.name)),
            datagrams,
        }))
    }

    fn push_outside(&mut self, seen: UnixSocket) -> Result<(), Error> {
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Unixsk.into(),
            id,
            usk: Some(Box::new(UnixSkEntry {
                id,
                ino: seen.inode,
                // So CRIU has it, whatever the socket is.
                r#type: DGRAM,
                state: LISTENING,
                uflags: EXTERN,
                name: seen.name,
                ..UnixSkEntry::default()
            })),
            ..FileEntry::default()
        })
    }
}

impl Socket {
    /// It is connected with one that has no descriptor yet.
    fn is_unaccepted(&self) -> bool {
        let closed = self.entry.shutdown == Some(SkShutdown::Both.into());
        self.entry.r#type != DGRAM && self.entry.state == CONNECTED && !closed
    }
}

/// A name as people write it: an abstract one starts with `@`.
fn readable(name: &[u8]) -> Name {
    Name(match name {
        [0, rest @ ..] => [b"@", rest].concat(),
        name => name.strip_suffix(&[0]).unwrap_or(name).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable() {
        assert_eq!(readable(b"/run/x\0").to_string(), "/run/x");
        assert_eq!(readable(b"\0abstract").to_string(), "@abstract");
    }
}
