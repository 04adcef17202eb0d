//! Options of the socket layer. Section 14.1 of the format.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use gelid_image::messages::SkOptsEntry;
use gelid_sys::Errno;
use gelid_sys::sockopt::{self, IntOption};
use rustix::net::sockopt::{Timeout, socket_linger, socket_timeout};

use super::{Error, Object};

/// The record of the options of a socket.
pub(super) fn entry(object: &Object<'_>) -> Result<SkOptsEntry, Error> {
    read(object.file).map_err(object.failed("ask for the options of"))
}

/// The same of any descriptor.
pub(super) fn read(socket: BorrowedFd<'_>) -> Result<SkOptsEntry, Errno> {
    let int = |option| sockopt::int(socket, option).map(i32::cast_unsigned);
    // Some kinds of sockets do not have some options.
    let on = |option| match int(option) {
        Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) => Ok(None),
        value => Ok::<_, Errno>(Some(value? != 0)),
    };
    let timeout = |which| Ok::<_, Errno>(socket_timeout(socket, which)?.map_or((0, 0), parts));
    let sent = timeout(Timeout::Send)?;
    let received = timeout(Timeout::Recv)?;
    let linger = socket_linger(socket)?.map(|time| time.as_secs());
    Ok(SkOptsEntry {
        so_sndbuf: int(IntOption::SNDBUF)?,
        so_rcvbuf: int(IntOption::RCVBUF)?,
        so_snd_tmo_sec: sent.0,
        so_snd_tmo_usec: sent.1,
        so_rcv_tmo_sec: received.0,
        so_rcv_tmo_usec: received.1,
        reuseaddr: on(IntOption::REUSEADDR)?,
        so_bound_dev: Some(sockopt::device(socket)?)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(&name).into_owned()),
        so_priority: Some(int(IntOption::PRIORITY)?),
        so_rcvlowat: Some(int(IntOption::RCVLOWAT)?),
        so_mark: Some(int(IntOption::MARK)?).filter(|mark| *mark != 0),
        so_passcred: on(IntOption::PASSCRED)?,
        so_passsec: on(IntOption::PASSSEC)?,
        so_dontroute: on(IntOption::DONTROUTE)?,
        so_no_check: on(IntOption::NO_CHECK)?,
        so_filter: sockopt::filter(socket)?.into_iter().map(word).collect(),
        so_reuseport: on(IntOption::REUSEPORT)?,
        so_broadcast: on(IntOption::BROADCAST)?,
        so_keepalive: on(IntOption::KEEPALIVE)?,
        so_oobinline: Some(int(IntOption::OOBINLINE)?),
        so_linger: linger.map(|time| u32::try_from(time).unwrap_or(u32::MAX)),
        so_buf_lock: match int(IntOption::BUF_LOCK) {
            Err(Errno::NOPROTOOPT) => None,
            lock => Some(lock?),
        },
        ..SkOptsEntry::default()
    })
}

/// Seconds and microseconds.
fn parts(time: Duration) -> (u64, u64) {
    (time.as_secs(), time.subsec_micros().into())
}

/// An instruction of a filter as one number.
fn word(instruction: sockopt::Instruction) -> u64 {
    u64::from(instruction.code) << 48
        | u64::from(instruction.jt) << 40
        | u64::from(instruction.jf) << 32
        | u64::from(instruction.k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_one_number() {
        let instruction = sockopt::Instruction {
            code: 0x15,
            jt: 1,
            jf: 2,
            k: 0xdead_beef,
        };
        assert_eq!(word(instruction), 0x0015_0102_dead_beef);
    }
}
