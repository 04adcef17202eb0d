//! What an entry of an archive says beyond its header: exact times, extended attributes, sockets in a directory.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use gelid_sys::Errno;
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fsetxattr};
use tar::Entry;

/// What extended attributes are called in an archive.
const XATTR: &str = "SCHILY.xattr.";
/// What a socket in a directory is called there.
const SOCKET: &str = "GELID.socket";

/// What an entry says beyond its header.
#[derive(Debug, Default)]
pub(super) struct Extended {
    attributes: Vec<(String, Vec<u8>)>,
    changed: Option<Timespec>,
    accessed: Option<Timespec>,
    pub(super) sockets: Vec<Socket>,
}

/// A socket in a directory.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) name: Vec<u8>,
    pub(super) mode: Mode,
    pub(super) owner: (u32, u32),
    pub(super) times: Timestamps,
}

impl Socket {
    /// Reads its mode, owner, group, times and name.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let mode = u32::from_str_radix(next()?, 8).ok()? & 0o7777;
        let owner = (next()?.parse().ok()?, next()?.parse().ok()?);
        let last_modification = time(next()?)?;
        let last_access = time(next()?)?;
        let digits = next()?.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok();
        let name = digits.map(byte).collect::<Option<Vec<u8>>>()?;
        let is_name = !name.is_empty() && name.len() <= 255 && !name.contains(&b'/');
        let is_name = is_name && !name.contains(&0) && !matches!(&*name, b"." | b"..");
        is_name.then_some(Self {
            name,
            mode: Mode::from_raw_mode(mode),
            owner,
            times: Timestamps {
                last_access,
                last_modification,
            },
        })
    }
}

impl Extended {
    pub(super) fn read(entry: &mut Entry<'_, impl Read>) -> io::Result<Self> {
        let mut read = Self::default();
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(read);
        };
        for extension in extensions {
            let extension = extension?;
            let Ok(key) = extension.key() else { continue };
            match key {
                "mtime" => read.changed = extension.value().ok().and_then(time),
                "atime" => read.accessed = extension.value().ok().and_then(time),
                SOCKET => {
                    let socket = extension.value().ok().and_then(Socket::read);
                    let odd = || io::Error::other("a socket that cannot be understood");
                    read.sockets.push(socket.ok_or_else(odd)?);
                }
                key => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        let value = extension.value_bytes().to_vec();
                        read.attributes.push((name.to_owned(), value));
                    }
                }
            }
        }
        Ok(read)
    }

    pub(super) fn times(&self, seconds: u64) -> Timestamps {
        let changed = Timespec {
            tv_sec: seconds.cast_signed(),
            tv_nsec: 0,
        };
        let omitted = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        Timestamps {
            last_access: self.accessed.unwrap_or(omitted),
            last_modification: self.changed.unwrap_or(changed),
        }
    }

    pub(super) fn set(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        for (name, value) in &self.attributes {
            match fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
                // Those of a security module that is not here, or a kind that this file system does not have.
                Err(Errno::OPNOTSUPP) => {}
                set => set?,
            }
        }
        Ok(())
    }
}

/// Seconds with a fraction.
fn time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = format!("{fraction:0<9}");
    Some(Timespec {
        tv_sec: seconds.parse().ok()?,
        tv_nsec: nanos.get(..9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_names_of_their_own() {
        for bad in ["612f", "", "2e2e", "6100", "6g", "é"] {
            assert!(
                Socket::read(&format!("755 7 8 5 6 {bad}")).is_none(),
                "{bad}"
            );
        }
        assert!(Socket::read("9 7 8 5 6 61").is_none());
        let socket = Socket::read("1755 7 8 5.25 6.5 6162").unwrap();
        assert_eq!((&*socket.name, socket.owner), (&b"ab"[..], (7, 8)));
        assert_eq!(socket.mode.as_raw_mode(), 0o1755);
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(
            time("5.25").map(|t| (t.tv_sec, t.tv_nsec)),
            Some((5, 250_000_000))
        );
        assert_eq!(time("-5").map(|t| (t.tv_sec, t.tv_nsec)), Some((-5, 0)));
        assert!(time("x").is_none());
    }
}
