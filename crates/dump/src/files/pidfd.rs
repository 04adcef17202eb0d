//! Descriptors of processes: `pidfd_open(2)`. Section 16.4 of the format.

use gelid_image::messages::{FdTypes, FileEntry, PidfdEntry};
use gelid_sys::pidfd;
use gelid_sys::proc::fdinfo::FdInfo;
use rustix::fs::OFlags;

use super::descriptions::Inode;
use super::eventpoll::Set;
use super::regfile::Opening;
use super::{Collector, Error, Object, Unsupported};

/// `PidfdEntry::nspid` of who has ended and been waited for.
const GONE: i32 = -1;

impl Collector<'_> {
    /// Records a pidfd: of a process of the tree, of one of its threads, or of somebody who is gone.
    pub(super) fn pidfd(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let pid = info.pidfd().map_err(object.odd())?;
        let of_thread = opening.flags & OFlags::EXCL.bits() != 0;
        let known = if of_thread { &self.threads } else { &self.tree };
        if pid != GONE && !known.iter().any(|known| known.as_raw_pid() == pid) {
            return Err(object.unsupported(Unsupported::PidfdOutside { pid }));
        }
        let id = self.new_id()?;
        if pid != GONE {
            let of_process = self.is_process(pid);
            self.live_pidfds.insert(id, !of_process);
            if !of_process {
                let inode = (object.stat.st_dev, object.stat.st_ino);
                self.thread_pidfds.insert(inode, pid);
            }
        }
        self.push(FileEntry {
            r#type: FdTypes::Pidfd.into(),
            id,
            pidfd: Some(PidfdEntry {
                id,
                // All that counts is which are the same.
                ino: object.stat.st_ino as u32,
                flags: opening.flags & !OFlags::ACCMODE.bits(),
                nspid: match pid {
                    GONE => GONE,
                    pid => self.census.numbers.number(pid),
                },
                fown: opening.fown,
                status: match pid {
                    GONE => pidfd::exit_status(object.file).ok().flatten(),
                    _ => None,
                },
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Pidfd, id))
    }

    /// Whether a process of the tree is called so by the dumper, its main thread with it.
    pub(crate) fn is_process(&self, pid: i32) -> bool {
        self.tree.iter().any(|known| known.as_raw_pid() == pid)
    }

    /// Refuses a watch of the pidfd of a thread, which is there when sets are watching already.
    pub(super) fn refuse_watched_thread(&self, set: &Set, inode: Inode) -> Result<(), Error> {
        match self.thread_pidfds.get(&inode) {
            Some(&pid) => {
                let (place, name) = set.told();
                Err(Error::WatchedThread { place, name, pid })
            }
            None => Ok(()),
        }
    }
}
