//! Event files in `fdinfo`: eventfd, epoll, timerfd, signalfd, inotify. `proc_pid_fdinfo(5)`.

use super::FdInfo;
use crate::proc::text::{Fields, Malformed, Result, decimal, hex, number, signed, split_once};

/// An eventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eventfd {
    /// Its counter.
    pub count: u64,
    /// Whether a read takes one off (`EFD_SEMAPHORE`). Kernels before 6.5 do not tell.
    pub semaphore: bool,
}

/// A file that an epoll set watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Number it was added under.
    pub tfd: i32,
    /// Events and flags; of a watch that has fired with `EPOLLONESHOT`, flags alone.
    pub events: u32,
    /// What the program wants to be told.
    pub data: u64,
    /// Its position.
    pub pos: i64,
    /// Its inode.
    pub inode: u64,
    /// Device of the inode as the kernel has it: major << 20 | minor.
    pub dev: u32,
}

/// A timerfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timerfd {
    /// Its clock.
    pub clock: u32,
    /// Expirations that nobody has read.
    pub ticks: u64,
    /// Flags it was last set with.
    pub flags: u32,
    /// Seconds and nanoseconds until it expires; zero if it has or is off.
    pub value: (u64, u64),
    /// Seconds and nanoseconds from one expiration to the next.
    pub interval: (u64, u64),
}

/// A file or directory that an inotify descriptor watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notified {
    /// Number of the watch.
    pub wd: i32,
    /// The inode.
    pub inode: u64,
    /// Device of the inode as the kernel has it: major << 20 | minor.
    pub dev: u32,
    /// Events and flags.
    pub mask: u32,
    /// Events that are ignored.
    pub ignored_mask: u32,
    /// Type and bytes of a handle of the inode, if the file system gives any.
    pub handle: Option<(u32, Vec<u8>)>,
}

impl FdInfo {
    /// As an eventfd.
    ///
    /// # Errors
    ///
    /// [`Malformed`], as for the other kinds, if it is none.
    pub fn eventfd(&self) -> Result<Eventfd> {
        let what = "eventfd-count";
        let count = self.value(what).ok_or(Malformed(what))?;
        Ok(Eventfd {
            count: hex(count, what)?,
            semaphore: self.value("eventfd-semaphore") == Some(b"1"),
        })
    }

    /// As an epoll set: what it watches, in the kernel's order. Nothing if it is none.
    pub fn epoll(&self) -> Result<Vec<Watched>> {
        let lines = self.lines().filter(|line| line.starts_with(b"tfd:"));
        lines.map(watched).collect()
    }

    /// As a timerfd.
    pub fn timerfd(&self) -> Result<Timerfd> {
        let value = |what| self.value(what).ok_or(Malformed(what));
        let times = |what| -> Result<(u64, u64)> {
            let pair = value(what)?.strip_prefix(b"(").and_then(|pair| {
                let (seconds, rest) = split_once(pair, b',')?;
                Some((seconds, rest.strip_prefix(b" ")?.strip_suffix(b")")?))
            });
            let (seconds, nanoseconds) = pair.ok_or(Malformed(what))?;
            Ok((decimal(seconds, what)?, decimal(nanoseconds, what)?))
        };
        let flags = number(value("settime flags")?, 8, "settime flags")?;
        Ok(Timerfd {
            clock: decimal(value("clockid")?, "clockid")?,
            ticks: decimal(value("ticks")?, "ticks")?,
            flags: u32::try_from(flags).map_err(|_| Malformed("settime flags"))?,
            value: times("it_value")?,
            interval: times("it_interval")?,
        })
    }

    /// As a signalfd: the signals it takes, signal `n` as bit `n - 1`.
    pub fn signalfd(&self) -> Result<u64> {
        let mask = self.value("sigmask").ok_or(Malformed("sigmask"))?;
        hex(mask, "sigmask")
    }

    /// As a pidfd: the process; -1 if it has ended and has been waited for, 0 if it is in no namespace of this
    /// procfs.
    pub fn pidfd(&self) -> Result<i32> {
        signed(self.value("Pid").ok_or(Malformed("Pid"))?, "Pid")
    }

    /// As an inotify descriptor: its watches, the newest first. Nothing if it is none.
    pub fn inotify(&self) -> Result<Vec<Notified>> {
        let lines = self
            .lines()
            .filter_map(|line| line.strip_prefix(b"inotify "));
        lines.map(notified).collect()
    }
}

/// The number behind a key.
pub(super) fn field<T: TryFrom<u64>>(field: &[u8], key: &'static str) -> Result<T> {
    let digits = field.strip_prefix(key.as_bytes());
    let digits = digits.and_then(|rest| rest.strip_prefix(b":"));
    let value = hex(digits.ok_or(Malformed(key))?, key)?;
    T::try_from(value).map_err(|_| Malformed(key))
}

fn watched(line: &[u8]) -> Result<Watched> {
    let mut fields = Fields(line);
    let mut pair = |key: &'static str| -> Result<&[u8]> {
        match fields.need(key)?.strip_suffix(b":") {
            Some(found) if found == key.as_bytes() => fields.need(key),
            _ => Err(Malformed(key)),
        }
    };
    let (tfd, events, data) = (pair("tfd")?, pair("events")?, pair("data")?);
    let events = hex(events, "events")?;
    let pos = fields.need("pos")?.strip_prefix(b"pos:");
    Ok(Watched {
        tfd: signed(tfd, "tfd")?,
        events: u32::try_from(events).map_err(|_| Malformed("events"))?,
        data: hex(data, "data")?,
        pos: signed(pos.ok_or(Malformed("pos"))?, "pos")?,
        inode: field(fields.need("ino")?, "ino")?,
        dev: field(fields.need("sdev")?, "sdev")?,
    })
}

fn notified(line: &[u8]) -> Result<Notified> {
    let mut fields = Fields(line);
    Ok(Notified {
        wd: field(fields.need("wd")?, "wd")?,
        inode: field(fields.need("ino")?, "ino")?,
        dev: field(fields.need("sdev")?, "sdev")?,
        mask: field(fields.need("mask")?, "mask")?,
        ignored_mask: field(fields.need("ignored_mask")?, "ignored_mask")?,
        handle: handle(&mut fields)?,
    })
}

/// Type and bytes of a handle, at the end of a line.
pub(super) fn handle(fields: &mut Fields<'_>) -> Result<Option<(u32, Vec<u8>)>> {
    let Some(len) = fields.next() else {
        return Ok(None);
    };
    let len: usize = field(len, "fhandle-bytes")?;
    let kind = field(fields.need("fhandle-type")?, "fhandle-type")?;
    let digits = fields.need("f_handle")?.strip_prefix(b"f_handle:");
    let digits = digits.ok_or(Malformed("f_handle"))?;
    let bytes = digits.chunks(2).map(|byte| {
        let byte = hex(byte, "f_handle")?;
        u8::try_from(byte).map_err(|_| Malformed("f_handle"))
    });
    let bytes: Vec<u8> = bytes.collect::<Result<_>>()?;
    if bytes.len() != len || digits.len() != 2 * len {
        return Err(Malformed("f_handle"));
    }
    Ok(Some((kind, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::fdinfo::parse;

    fn info(lines: &str) -> FdInfo {
        parse(format!("pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\n{lines}").into_bytes())
            .unwrap()
    }

    #[test]
    fn counters_and_masks() {
        let semaphore =
            info("eventfd-count:               1f\neventfd-id: 1\neventfd-semaphore: 1\n");
        let expected = Eventfd {
            count: 31,
            semaphore: true,
        };
        assert_eq!(semaphore.eventfd(), Ok(expected));
        let old = info("eventfd-count:                0\neventfd-id: 1\n");
        assert!(!old.eventfd().unwrap().semaphore);
        assert_eq!(info("").eventfd(), Err(Malformed("eventfd-count")));
        let mask = info("sigmask:\tfffffffe7ffbfeff\n").signalfd();
        assert_eq!(mask, Ok(0xffff_fffe_7ffb_feff));
    }

    #[test]
    fn watches_of_epoll() {
        let info = info(
            "tfd:        4 events: c0000000 data: 1122334455667788  pos:0 ino:3d1800 sdev:f\n\
             tfd:       17 events:       19 data: ffffffffffffffff  pos:-1 ino:40e sdev:fe00000\n",
        );
        let watched = info.epoll().unwrap();
        assert_eq!(watched.len(), 2);
        assert_eq!((watched[0].tfd, watched[0].events), (4, 0xc000_0000));
        let expected = Watched {
            tfd: 17,
            events: 0x19,
            data: u64::MAX,
            pos: -1,
            inode: 0x40e,
            dev: 0xfe0_0000,
        };
        assert_eq!(watched[1], expected);
    }

    #[test]
    fn times() {
        let info = info(
            "clockid: 1\nticks: 77\nsettime flags: 03\nit_value: (204306894, 123212592)\n\
             it_interval: (0, 10000000)\n",
        );
        let expected = Timerfd {
            clock: 1,
            ticks: 77,
            flags: 3,
            value: (204_306_894, 123_212_592),
            interval: (0, 10_000_000),
        };
        assert_eq!(info.timerfd(), Ok(expected));
    }

    #[test]
    fn watches_of_inotify() {
        let info = info(
            "inotify wd:3e8 ino:a2d962 sdev:fe00000 mask:84000fff ignored_mask:0 fhandle-bytes:8 \
             fhandle-type:1 f_handle:62d9a2008ff729b8\n\
             inotify wd:1 ino:1 sdev:16 mask:100 ignored_mask:0 \n",
        );
        let watches = info.inotify().unwrap();
        let expected = Notified {
            wd: 1000,
            inode: 0xa2_d962,
            dev: 0xfe0_0000,
            mask: 0x8400_0fff,
            ignored_mask: 0,
            handle: Some((1, vec![0x62, 0xd9, 0xa2, 0, 0x8f, 0xf7, 0x29, 0xb8])),
        };
        assert_eq!(watches[0], expected);
        assert_eq!((watches[1].wd, &watches[1].handle), (1, &None));
    }

    #[test]
    fn odd_lines_are_refused() {
        for lines in [
            "tfd: 4 events: 1\n",
            "tfd: 4 events: 1 data: 0 pos:0 ino:x sdev:1\n",
            "inotify wd:1\n",
            "inotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 fhandle-bytes:2 fhandle-type:1 f_handle:00\n",
            "inotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 fhandle-bytes:1 fhandle-type:1 f_handle:0\n",
        ] {
            let info = info(lines);
            assert!(info.epoll().is_err() || info.inotify().is_err(), "{lines}");
        }
    }
}
