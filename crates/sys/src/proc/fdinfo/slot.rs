//! One slot of the calling process's own table of descriptors, whose names in procfs are asked about one file after the
//! other.
//!
//! What `/proc/self/fdinfo/N` says is that of whatever is open as `N` when it is read. To put a duplicate there and to
//! read once more costs a quarter of looking up, opening and closing the file of each descriptor of another process,
//! for which the kernel makes an inode each time, and the link `/proc/self/fd/N` half of that of the other.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{DupFlags, retry_on_intr};

use super::super::{Error, TaskDir};
use super::{FdInfo, parse};

/// Bytes of the longest text that is taken.
const ROOM: usize = 2048;

/// A slot, which is taken when it is first needed.
#[derive(Debug, Default)]
pub struct Slot(Option<Taken>);

#[derive(Debug)]
struct Taken {
    own: TaskDir,
    /// A duplicate of what was last asked about.
    file: OwnedFd,
    info: OwnedFd,
    /// Its name in procfs.
    name: String,
}

impl Slot {
    /// What `fdinfo` says of a descriptor of the caller's, but for whether it is closed on `execve`, and for locks
    /// that belong to a table of descriptors (those of `F_SETLK`); `None` if that is longer than the two kilobytes that
    /// there is room for.
    ///
    /// A duplicate of the last file that was asked about stays open.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] for what the kernel refuses: a duplicate (`EMFILE`), or the files of procfs; [`Error::Parse`].
    pub fn info(&mut self, file: impl AsFd) -> Result<Option<FdInfo>, Error> {
        self.with(file)?.info()
    }

    /// What [`fd::link`](super::super::fd::link) would say of it in the caller's own table.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], as above.
    pub fn link(&mut self, file: impl AsFd) -> Result<CString, Error> {
        let taken = self.with(file)?;
        taken.own.link(&taken.name)
    }

    fn with(&mut self, file: impl AsFd) -> Result<&Taken, Error> {
        let taken = match self.0.take() {
            Some(mut taken) => {
                taken.put(&file)?;
                taken
            }
            None => Taken::by(&file)?,
        };
        Ok(self.0.insert(taken))
    }
}

impl Taken {
    fn by(file: impl AsFd) -> Result<Self, Error> {
        let own = TaskDir::open(rustix::process::getpid())?;
        let file = rustix::io::fcntl_dupfd_cloexec(file, 0);
        let file = file.map_err(|errno| own.read_error("fd", errno))?;
        let number = file.as_raw_fd();
        Ok(Self {
            info: own.open_file(&format!("fdinfo/{number}"), OFlags::RDONLY)?,
            name: format!("fd/{number}"),
            own,
            file,
        })
    }

    fn put(&mut self, file: impl AsFd) -> Result<(), Error> {
        let put = retry_on_intr(|| rustix::io::dup3(&file, &mut self.file, DupFlags::CLOEXEC));
        put.map_err(|errno| self.own.read_error("fd", errno))
    }

    fn info(&self) -> Result<Option<FdInfo>, Error> {
        let mut text = [0; ROOM];
        // From its beginning on, the kernel makes it up anew.
        let len = retry_on_intr(|| rustix::io::pread(&self.info, &mut text, 0));
        let len = len.map_err(|errno| self.own.read_error("fdinfo", errno))?;
        if len == ROOM {
            return Ok(None);
        }
        let info = parse(text[..len].to_vec());
        let mut info = info.map_err(|what| self.own.parse_error("fdinfo", what))?;
        info.flags &= !(libc::O_CLOEXEC as u32);
        Ok(Some(info))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fd;
    use super::super::read;
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn each_file_tells_the_same_as_in_procfs() {
        let own = TaskDir::open(rustix::process::getpid()).unwrap();
        let counters = [3, 7].map(|count| eventfd(count, EventfdFlags::CLOEXEC).unwrap());
        let mut slot = Slot::default();
        let pipe = rustix::pipe::pipe().unwrap();
        for file in counters.iter().chain([&pipe.0, &pipe.1, &counters[0]]) {
            let mut told = read(&own, file.as_raw_fd()).unwrap();
            told.flags &= !(libc::O_CLOEXEC as u32);
            let seen = slot.info(file).unwrap().unwrap();
            assert_eq!(
                (seen.pos, seen.flags, seen.mnt_id, seen.ino),
                (told.pos, told.flags, told.mnt_id, told.ino)
            );
            assert!(seen.lines().eq(told.lines()));
            let link = fd::link(&own, file.as_raw_fd()).unwrap();
            assert_eq!(slot.link(file).unwrap(), link);
        }
        let count = slot.info(&counters[1]).unwrap().unwrap();
        assert_eq!(count.number("eventfd-count"), Some(7));
    }

    #[test]
    fn a_long_text_is_told_elsewhere() {
        use rustix::event::epoll;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut slot = Slot::default();
        assert!(slot.info(&set).unwrap().is_some());
        let counters: Vec<_> = (0..64)
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap())
            .collect();
        for counter in &counters {
            epoll::add(
                &set,
                counter,
                epoll::EventData::new_u64(0),
                epoll::EventFlags::IN,
            )
            .unwrap();
        }
        assert_eq!(slot.info(&set).unwrap(), None);
    }
}
