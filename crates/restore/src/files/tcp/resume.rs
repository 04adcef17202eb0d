//! Letting connections go: packets pass again, and each tells its peer where it stands.

use gelid_image::messages::TcpStreamEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::tcp::{self, Queue, Repair};
use rustix::io::Errno;
use rustix::net::{Shutdown, connect, shutdown};

use super::super::Error;
use super::super::inet::Role;
use super::super::opened::OpenFiles;
use super::super::{Kind, open};
use super::State;
use super::forge::{ACK, FIN, Segment};
use super::make::Making;

impl OpenFiles {
    /// Lets packets through, and all connections go. A failure after that is one that peers see.
    pub(in super::super) fn resume(&self) -> Result<(), Error> {
        self.plan.network.unlock(&self.plan, &self.networks)?;
        for description in self.plan.descriptions.values() {
            let Kind::Internet(socket) = &description.kind else {
                continue;
            };
            let (Role::Stream(peer, stream), Some(own)) = (&socket.role, socket.own) else {
                continue;
            };
            let Some(fd) = self.fd(description.id) else {
                continue;
            };
            let object = description.label();
            let entered = self.networks.enter(description.network);
            entered.map_err(Error::system("join the network namespace of", &*object))?;
            let ends = (socket.scoped(own, &object)?, socket.scoped(*peer, &object)?);
            let making = Making::new(fd, &object, stream, ends);
            // Before the peer is told how much it may send.
            let sized = socket.options.set_receive_buffer(fd);
            sized.map_err(Error::system("set the options of", &*object))?;
            making.resume(&self.plan.dir, socket.inode)?;
            socket.finish(fd, &object)?;
            open::set_status(fd, description.flags.status(), &object)?;
        }
        Ok(())
    }
}

impl Making<'_> {
    fn resume(&self, dir: &Dir, inode: u32) -> Result<(), Error> {
        let stream = self.stream;
        match stream.state {
            State::Closed => return Ok(()),
            State::SynSent => {
                return match connect(self.fd, &self.peer) {
                    Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
                    Err(errno) => self.call("connect", Err(errno)),
                };
            }
            _ => {}
        }
        self.call("leave the queues of", tcp::choose(self.fd, Queue::None))?;
        self.call("leave the repair of", tcp::repair(self.fd, Repair::Off))?;
        if stream.unsent > 0 {
            let mut reader = dir.reader(ImageKind::TcpStream, inode)?;
            let _: TcpStreamEntry = reader.read_one()?;
            let before = u64::from(stream.received) + u64::from(stream.sent - stream.unsent);
            let _skipped = reader.payload(before)?;
            self.pour(&mut reader.payload(stream.unsent.into())?, stream.unsent)?;
        }
        if matches!(
            stream.state,
            State::FinWait1 | State::LastAck | State::Closing
        ) {
            match shutdown(self.fd, Shutdown::Write) {
                // The peer was quicker.
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(errno) => return self.call("shut down", Err(errno)),
            }
        }
        if stream.state == State::Closing {
            let end = Segment {
                from: self.peer,
                to: self.own,
                seq: stream.received_end.wrapping_sub(1),
                ack: stream.sent_end.wrapping_sub(stream.sent).wrapping_sub(1),
                flags: FIN | ACK,
            };
            // It may have come from the peer itself meanwhile.
            let _ = super::forge::send(end);
        }
        Ok(())
    }
}
