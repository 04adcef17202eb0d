//! Which namespaces a process is in.
//!
//! Each link in procfs is an inode that the kernel makes for the question, and gives back at the end of the process. So a
//! pidfd is asked where it tells (since Linux 6.11). The kernel makes an inode for that too, but one for all who are in
//! the namespace, and as long as somebody has it open: the ten namespaces of a process take 15 us instead of 35, and as
//! long as by links if nobody keeps them.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::{Pid, pidfd, proc};

/// The namespaces of the process that was asked last, kept for the next, who is in the same as a rule.
#[derive(Debug, Default)]
pub(crate) struct Kept(RefCell<[Option<OwnedFd>; Kind::ALL.len()]>);

/// The namespaces of a process.
pub(crate) struct Links<'t> {
    dir: &'t TaskDir,
    pidfd: Option<(OwnedFd, Rc<Kept>)>,
}

impl<'t> Links<'t> {
    /// Those of the process, or thread, that `dir` is of, which is kept from ending meanwhile.
    pub(crate) fn held(dir: &'t TaskDir, is_leader: bool, kept: &Rc<Kept>) -> Self {
        let pidfd = match is_leader {
            true => pidfd::open(dir.pid()),
            false => pidfd::open_thread(dir.pid()),
        };
        // Without one there still are the links.
        let pidfd = pidfd.ok().map(|pidfd| (pidfd, Rc::clone(kept)));
        Self { dir, pidfd }
    }

    /// Those of any process.
    pub(crate) fn free(dir: &'t TaskDir) -> Self {
        Self { dir, pidfd: None }
    }

    /// Whose they are.
    pub(crate) fn pid(&self) -> Pid {
        self.dir.pid()
    }

    /// The inode of the namespace of a kind; 0 if the kernel has none of it, or none has been made for the children yet.
    pub(crate) fn inode(&self, kind: Kind) -> Result<u64, proc::Error> {
        match kind {
            // There is a link only if there is a process.
            Kind::PidForChildren => ns::id(self.dir, kind),
            kind => self.told(kind).map_or_else(|| ns::id(self.dir, kind), Ok),
        }
    }

    /// Whether the namespace of a kind is that with this inode.
    pub(crate) fn is(&self, kind: Kind, inode: u64) -> Result<bool, proc::Error> {
        Ok(self.told(kind) == Some(inode) || self.inode(kind)? == inode)
    }

    /// What the pidfd tells.
    fn told(&self, kind: Kind) -> Option<u64> {
        let (pidfd, kept) = self.pidfd.as_ref()?;
        let namespace = pidfd::namespace(pidfd, kind).ok()?;
        let inode = rustix::fs::fstat(&namespace).ok()?.st_ino;
        kept.0.borrow_mut()[kind as usize] = Some(namespace);
        Some(inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pidfds_tell_what_links_tell() {
        let dir = proc::task_dir(rustix::process::getpid()).unwrap();
        let (held, free) = (Links::held(&dir, true, &Rc::default()), Links::free(&dir));
        for kind in Kind::ALL {
            let inode = free.inode(kind).unwrap();
            assert_eq!(held.inode(kind), Ok(inode), "{kind:?}");
            assert_eq!(held.is(kind, inode), Ok(true), "{kind:?}");
            assert_eq!(held.is(kind, inode + 1), Ok(false), "{kind:?}");
        }
    }
}
