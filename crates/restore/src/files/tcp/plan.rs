//! Records of connections, checked.

use std::collections::BTreeMap;

use gelid_image::messages::{InetSkEntry, InventoryEntry, TcpStreamEntry};
use gelid_image::{Dir, ImageKind, manifest};
use gelid_netlock::{Connection, Lock, Method};
use gelid_sys::tcp::{Negotiated, Window, negotiated};

use super::super::inet::Role;
use super::super::network::Networks;
use super::super::{Error, FileOptions, FilesPlan, Kind};
use super::Stream;

/// The state of a connection, as `tcp(7)` and RFC 9293 have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's")]
pub enum State {
    Established,
    SynSent,
    FinWait1,
    FinWait2,
    CloseWait,
    LastAck,
    Closing,
    /// It is over, but something may be left to be read.
    Closed,
}

impl State {
    pub(in super::super) fn numbered(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// Whether the end of the own stream was sent.
    pub(super) fn has_ended(self) -> bool {
        use State::{Closing, FinWait1, FinWait2, LastAck};
        matches!(self, FinWait1 | FinWait2 | LastAck | Closing)
    }

    /// Whether the end of the peer's stream has come.
    pub(in super::super) fn is_ended(self) -> bool {
        use State::{CloseWait, Closing, LastAck};
        matches!(self, CloseWait | LastAck | Closing)
    }
}

impl Stream {
    /// Reads and checks the record of the stream of a socket.
    pub(in super::super) fn read(
        dir: &Dir,
        object: &str,
        entry: &InetSkEntry,
        state: State,
    ) -> Result<Self, Error> {
        let mut reader = dir.reader(ImageKind::TcpStream, entry.ino)?;
        let stream: TcpStreamEntry = reader.read_one()?;
        let lengths = u64::from(stream.inq_len) + u64::from(stream.outq_len);
        // They must be there.
        reader.payload(lengths)?;
        let error = entry
            .gelid
            .as_ref()
            .is_some_and(|gelid| gelid.error == Some(true));
        Ok(Self {
            error,
            ..check(object, &stream, state)?
        })
    }
}

fn check(object: &str, entry: &TcpStreamEntry, state: State) -> Result<Stream, Error> {
    /// Most that RFC 7323 allows.
    const WIDEST: u32 = 14;
    let scales = (entry.snd_wscale, entry.rcv_wscale.unwrap_or_default());
    let wscale = match entry.opt_mask & negotiated::WSCALE {
        0 => None,
        _ if scales.0 > WIDEST || scales.1 > WIDEST => {
            let found = scales.0.max(scales.1);
            return Err(Error::invalid(
                object,
                "snd_wscale",
                found,
                "it is up to 14",
            ));
        }
        _ => Some((scales.0 as u8, scales.1 as u8)),
    };
    let unsent = entry.unsq_len.unwrap_or_default();
    if unsent > entry.outq_len {
        let rule = "it is a part of outq_len";
        return Err(Error::invalid(object, "unsq_len", unsent, rule));
    }
    if entry.mss_clamp == 0 || entry.mss_clamp > 65_535 {
        let rule = "it is 1 to 65535";
        return Err(Error::invalid(object, "mss_clamp", entry.mss_clamp, rule));
    }
    let window = (|| {
        Some(Window {
            snd_wl1: entry.snd_wl1?,
            snd_wnd: entry.snd_wnd?,
            max_window: entry.max_window?,
            rcv_wnd: entry.rcv_wnd?,
            rcv_wup: entry.rcv_wup?,
        })
    })();
    let timestamps = entry.opt_mask & negotiated::TIMESTAMPS != 0;
    Ok(Stream {
        state,
        received: entry.inq_len,
        received_end: entry.inq_seq,
        sent: entry.outq_len,
        unsent,
        sent_end: entry.outq_seq,
        negotiated: Negotiated {
            mss: entry.mss_clamp,
            wscale,
            sack: entry.opt_mask & negotiated::SACK != 0,
            timestamps,
        },
        timestamp: entry.timestamp.filter(|_| timestamps),
        window,
        error: false,
    })
}

/// What keeps packets away from the connections of the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Network {
    method: Method,
    /// Name of the dump.
    run: String,
    /// Connections were left out by the dump.
    close: bool,
}

impl Network {
    /// Reads it from the inventory; without one there is nothing.
    pub(in super::super) fn read(dir: &Dir) -> Result<Self, Error> {
        let inventory: Option<InventoryEntry> = dir.read_opt(ImageKind::Inventory, ())?;
        let inventory = inventory.unwrap_or_default();
        let number = inventory.network_lock_method;
        let object = "inventory.img";
        let method = Method::numbered(number).ok_or_else(|| {
            let found = number.unwrap_or_default();
            Error::invalid(object, "network_lock_method", found, "it is 0, 1 or 2")
        })?;
        // It becomes the name of a table.
        let run = inventory.dump_criu_run_id.unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if run.len() > 64 || !run.bytes().all(plain) {
            let rule = "it has up to 64 letters, digits and hyphens";
            return Err(Error::invalid(object, "dump_criu_run_id", run, rule));
        }
        Ok(Self {
            method,
            run,
            close: inventory.tcp_close == Some(true),
        })
    }

    /// Refuses images without connections unless these are to be closed.
    pub(in super::super) fn check(&self, options: &FileOptions) -> Result<(), Error> {
        match self.close && !options.tcp_close {
            true => Err(Error::Unsupported {
                object: "inventory.img".into(),
                what: "of a dump that left connections of TCP out",
                remedy: "use --tcp-close",
            }),
            false => Ok(()),
        }
    }

    /// Lets packets through to the connections of a plan, in the network namespace of each.
    pub(super) fn unlock(&self, plan: &FilesPlan, networks: &Networks) -> Result<(), Error> {
        let mut by_network: BTreeMap<Option<u32>, [Vec<Connection>; 2]> = BTreeMap::new();
        for (network, ends, open) in connections(plan) {
            by_network.entry(network).or_default()[usize::from(open)].push(ends);
        }
        for (network, [closed, open]) in by_network {
            let join = Error::system("join a network namespace of", "connections");
            networks.enter(network).map_err(join)?;
            gelid_netlock::unlock(self.method, &self.run, &open)?;
            // CRIU keeps packets away from what is closed too.
            if !closed.is_empty() && !matches!(manifest::read(&plan.dir), Ok(Some(_))) {
                gelid_netlock::unlock(self.method, &self.run, &closed)?;
            }
        }
        Ok(())
    }
}

impl FilesPlan {
    /// Keeps packets away from connections in a network namespace that is being made, until what is returned is gone.
    pub(crate) fn keep_packets_away(
        &self,
        network: u32,
    ) -> Result<Option<Lock>, gelid_netlock::Error> {
        let all = connections(self);
        let ends: Vec<Connection> = all
            .filter(|(here, _, open)| *here == Some(network) && *open)
            .map(|(_, ends, _)| ends)
            .collect();
        match ends.is_empty() {
            true => Ok(None),
            false => Lock::set(self.network.method, &self.network.run, &ends).map(Some),
        }
    }
}

/// The connections of a plan: their network namespaces, their ends, and whether they are open.
fn connections(plan: &FilesPlan) -> impl Iterator<Item = (Option<u32>, Connection, bool)> {
    plan.descriptions.values().filter_map(|description| {
        let Kind::Internet(socket) = &description.kind else {
            return None;
        };
        let (peer, open) = match &socket.role {
            Role::Stream(peer, stream) => (*peer, stream.state != State::Closed),
            Role::Parted(peer) => (*peer, true),
            _ => return None,
        };
        let ends = Connection::new(socket.own?, peer);
        Some((description.network, ends, open))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> TcpStreamEntry {
        TcpStreamEntry {
            opt_mask: 7,
            mss_clamp: 1460,
            outq_len: 9,
            unsq_len: Some(4),
            ..TcpStreamEntry::default()
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut TcpStreamEntry)| {
            let mut entry = entry();
            change(&mut entry);
            check("it", &entry, State::Established).map_err(|error| error.to_string())
        };
        let fine = with(|_| {}).unwrap();
        assert_eq!((fine.unsent, fine.negotiated.wscale), (4, Some((0, 0))));
        assert_eq!((fine.window, fine.timestamp), (None, None));
        assert!(
            with(|it| it.unsq_len = Some(10))
                .unwrap_err()
                .contains("unsq_len")
        );
        assert!(
            with(|it| it.snd_wscale = 15)
                .unwrap_err()
                .contains("wscale")
        );
        assert!(with(|it| it.mss_clamp = 0).unwrap_err().contains("mss"));
        assert!(with(|it| it.mss_clamp = 65_536).is_err());
    }

    #[test]
    fn states_know_their_ends() {
        let ended = |number| State::numbered(number).map(|it| (it.has_ended(), it.is_ended()));
        assert_eq!(ended(1), Some((false, false)));
        assert_eq!(ended(4), Some((true, false)));
        assert_eq!(ended(8), Some((false, true)));
        assert_eq!(ended(9), Some((true, true)));
        assert_eq!(ended(11), Some((true, true)));
        assert_eq!((ended(3), ended(10), ended(0)), (None, None, None));
    }
}
