//! Locks in `fdinfo`, and of the whole machine in `/proc/locks`. `proc_locks(5)`.

use super::FdInfo;
use crate::proc::text::{Fields, Malformed, Result, decimal, signed};

/// To whom a lock belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// To a descriptor table: `fcntl(F_SETLK)`.
    Posix,
    /// To an open file description: `flock(2)`.
    Flock,
    /// To an open file description: `fcntl(F_OFD_SETLK)`.
    Ofd,
    /// To an open file description: `fcntl(F_SETLEASE)`.
    Lease {
        /// Somebody wants to open the file.
        breaking: bool,
    },
}

/// What a lock allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockType {
    /// Others may have the same.
    Read,
    /// Nobody else may have one.
    Write,
    /// What is left of a lease when it has been broken.
    None,
}

/// A lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lock {
    /// To whom it belongs.
    pub kind: LockKind,
    /// What it allows; of a lease that is being broken, what will be left of it.
    pub lock_type: LockType,
    /// Process that took it; -1 for [`LockKind::Ofd`].
    pub pid: i32,
    /// First byte.
    pub start: i64,
    /// Number of bytes; 0 is all up to the end of the file, wherever that will be.
    pub len: i64,
}

/// A request that waits for a lock, as `/proc/locks` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<'t> {
    /// The lock in its way, as its line has it behind the number.
    pub held: &'t [u8],
    /// Who waits; -1 if that is not told.
    pub pid: i32,
}

impl FdInfo {
    /// Locks that the descriptor has part in, each with its text behind the number.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for a kind of lock that is not known.
    pub fn locks(&self) -> impl Iterator<Item = Result<(Lock, &[u8])>> {
        let values = self.pairs().filter(|(key, _)| *key == b"lock");
        values.map(|(_, value)| {
            let (_, text) = numbered(value).ok_or(Malformed("lock"))?;
            Ok((lock(text)?, text))
        })
    }
}

/// Requests that wait, from the text of `/proc/locks`. Lines that cannot be understood are left out.
pub fn waiting(text: &[u8]) -> impl Iterator<Item = Waiting<'_>> {
    let mut held: &[u8] = b"";
    crate::proc::text::lines(text).filter_map(move |line| {
        let (_, rest) = numbered(line)?;
        let Some(request) = rest.trim_ascii_start().strip_prefix(b"-> ") else {
            held = rest;
            return None;
        };
        let pid = request.split(u8::is_ascii_whitespace);
        let pid = pid.filter(|word| !word.is_empty()).nth(3)?;
        Some(Waiting {
            held,
            pid: signed(pid, "pid").ok()?,
        })
    })
}

/// Splits `7: POSIX …`.
fn numbered(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..colon], line.get(colon + 2..)?))
}

/// Understands `POSIX  ADVISORY  WRITE 4242 fe:00:4711 0 EOF`.
fn lock(text: &[u8]) -> Result<Lock> {
    let mut fields = Fields(text);
    let kind = match (fields.need("kind")?, fields.need("state")?) {
        (b"POSIX", b"ADVISORY") => LockKind::Posix,
        (b"FLOCK", b"ADVISORY") => LockKind::Flock,
        (b"OFDLCK", b"ADVISORY") => LockKind::Ofd,
        (b"LEASE", b"ACTIVE") => LockKind::Lease { breaking: false },
        (b"LEASE", b"BREAKING") => LockKind::Lease { breaking: true },
        _ => return Err(Malformed("lock")),
    };
    let lock_type = match fields.need("type")? {
        b"READ" => LockType::Read,
        b"WRITE" => LockType::Write,
        b"UNLCK" => LockType::None,
        _ => return Err(Malformed("type of a lock")),
    };
    let pid = signed(fields.need("pid")?, "pid")?;
    fields.need("inode")?;
    let start: i64 = signed(fields.need("start")?, "start")?;
    let len = match fields.need("end")? {
        b"EOF" => 0,
        end => {
            let end: i64 = decimal(end, "end")?;
            let len = end.checked_sub(start).and_then(|len| len.checked_add(1));
            len.filter(|len| *len > 0).ok_or(Malformed("end"))?
        }
    };
    Ok(Lock {
        kind,
        lock_type,
        pid,
        start,
        len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_understood() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t4\n\
            lock:\t1: FLOCK  ADVISORY  READ 9747 fe:00:4 0 EOF\n\
            lock:\t2: POSIX  ADVISORY  WRITE 9747 fe:00:4 0 4\n\
            lock:\t3: OFDLCK ADVISORY  WRITE -1 fe:00:4 10 14\n\
            lock:\t4: LEASE  BREAKING  UNLCK 9747 fe:00:4 0 EOF\n\
            lock:\t5: LEASE  ACTIVE    READ 9747 fe:00:4 0 EOF\n";
        let info = super::super::parse(text.to_vec()).unwrap();
        let locks: Vec<Lock> = info.locks().map(|lock| lock.unwrap().0).collect();
        let lock = |kind, lock_type, pid, start, len| Lock {
            kind,
            lock_type,
            pid,
            start,
            len,
        };
        let lease = |breaking| LockKind::Lease { breaking };
        assert_eq!(
            locks,
            [
                lock(LockKind::Flock, LockType::Read, 9747, 0, 0),
                lock(LockKind::Posix, LockType::Write, 9747, 0, 5),
                lock(LockKind::Ofd, LockType::Write, -1, 10, 5),
                lock(lease(true), LockType::None, 9747, 0, 0),
                lock(lease(false), LockType::Read, 9747, 0, 0),
            ]
        );
    }

    #[test]
    fn others_are_refused() {
        for text in [
            &b"DELEG  ACTIVE    READ 1 fe:00:4 0 EOF"[..],
            b"POSIX  ADVISORY  WRITE 1 fe:00:4 7 5",
            b"POSIX  ADVISORY  EXEC 1 fe:00:4 0 EOF",
            b"POSIX  ADVISORY  WRITE",
            b"",
        ] {
            assert!(lock(text).is_err(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn requests_that_wait_are_found() {
        let text = b"1: POSIX  ADVISORY  WRITE 77 fe:00:4 0 EOF\n\
            1: -> POSIX  ADVISORY  READ 78 fe:00:4 0 EOF\n\
            1:  -> OFDLCK ADVISORY  READ -1 fe:00:4 0 EOF\n\
            2: LEASE  BREAKING  UNLCK 79 fe:00:5 0 EOF\n\
            2: -> LEASE  BREAKER   WRITE 80 <none>:0 0 EOF\n";
        let posix = &b"POSIX  ADVISORY  WRITE 77 fe:00:4 0 EOF"[..];
        let lease = &b"LEASE  BREAKING  UNLCK 79 fe:00:5 0 EOF"[..];
        let found: Vec<_> = waiting(text).map(|it| (it.held, it.pid)).collect();
        assert_eq!(found, [(posix, 78), (posix, -1), (lease, 80)]);
    }
}
