//! One slot of the calling process's own table of descriptors, whose names in procfs are asked about one file after the
//! other.
//!
//! What `/proc/self/fdinfo/N` says is that of whatever is open as `N` when it is read. To put a duplicate there and to
//! read once more costs a quarter of looking up, opening and closing the file of each descriptor of another process,
//! for which the kernel makes an inode each time, and the link `/proc/self/fd/N` half of that of the other.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{DupFlags, retry_on_intr};

use super::super::{Error, Last, TaskDir, whole};
use super::{FdInfo, parse};

/// Bytes of most texts.
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
    /// that belong to a table of descriptors (those of `F_SETLK`).
    ///
    /// A duplicate of the last file that was asked about stays open until another one takes its place, or it is
    /// [released](Self::release). The table must be that of the first thread of the process, as it is unless somebody has
    /// left that (`unshare(2)`).
    ///
    /// # Errors
    ///
    /// [`Error::Read`] for what the kernel refuses: a duplicate (`EMFILE`), or the files of procfs, `EFBIG` beyond
    /// [`MAX_FILE`](super::super::MAX_FILE) bytes; [`Error::Parse`].
    pub fn info(&mut self, file: impl AsFd) -> Result<FdInfo, Error> {
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

    /// Closes the duplicate of what was last asked about. The slot stays taken.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], as above.
    pub fn release(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Some(Taken {
                own, file, info, ..
            }) => put(own, &*info, file),
            None => Ok(()),
        }
    }

    fn with(&mut self, file: impl AsFd) -> Result<&Taken, Error> {
        let taken = match self.0.take() {
            Some(mut taken) => {
                put(&taken.own, &file, &mut taken.file)?;
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

    fn info(&self) -> Result<FdInfo, Error> {
        // From its beginning on, the kernel makes it up anew.
        let read = |text: &mut Vec<u8>| {
            let at = text.len() as u64;
            rustix::io::pread(&self.info, spare_capacity(text), at)
        };
        let text =
            whole(ROOM, Last::Short, read).map_err(|errno| self.own.read_error("fdinfo", errno))?;
        let info = parse(text).map_err(|what| self.own.parse_error("fdinfo", what))?;
        Ok(info.of_description())
    }
}

/// Puts a duplicate where another one is.
fn put(own: &TaskDir, file: impl AsFd, slot: &mut OwnedFd) -> Result<(), Error> {
    let put = retry_on_intr(|| rustix::io::dup3(&file, slot, DupFlags::CLOEXEC));
    put.map_err(|errno| own.read_error("fd", errno))
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
            let told = read(&own, file.as_raw_fd()).unwrap().of_description();
            let seen = slot.info(file).unwrap();
            assert_eq!(
                (seen.pos, seen.flags, seen.mnt_id, seen.ino),
                (told.pos, told.flags, told.mnt_id, told.ino)
            );
            assert!(seen.lines().eq(told.lines()));
            let link = fd::link(&own, file.as_raw_fd()).unwrap();
            assert_eq!(slot.link(file).unwrap(), link);
        }
        let count = slot.info(&counters[1]).unwrap();
        assert_eq!(count.number("eventfd-count"), Some(7));
    }

    #[test]
    fn what_is_released_is_closed() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut slot = Slot::default();
        slot.release().unwrap();
        slot.info(&writer).unwrap();
        drop(writer);
        slot.release().unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0]), Ok(0));
        slot.link(&reader).unwrap();
    }

    #[test]
    fn long_texts_are_read_whole() {
        use rustix::event::epoll;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut slot = Slot::default();
        for many in [0, 1, 64, 500] {
            let counters: Vec<_> = (0..many)
                .map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap())
                .collect();
            for counter in &counters {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&set, counter, data, epoll::EventFlags::IN).unwrap();
            }
            let info = slot.info(&set).unwrap();
            assert_eq!(info.lines().count(), many);
        }
    }
}
