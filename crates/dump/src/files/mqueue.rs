//! POSIX message queues: `mq_overview(7)`.
//!
//! A queue and the messages in it belong to the host, as a file and its contents do: they stay where they are when the
//! tree ends, unless the tree has an IPC namespace of its own, with which all of them are recorded. A
//! description of a queue is recorded by the path that it has where queues are usually mounted.

use std::ffi::{CStr, CString};

use gelid_image::messages::{FdTypes, RegFileEntry};
use gelid_sys::namespace::inside;
use gelid_sys::proc::ns::Kind;
use gelid_sys::{Errno, mqueue};
use rustix::fs::OFlags;

use super::kind::DELETED;
use super::regfile::{MQUEUE_MAGIC, Opening};
use super::{Collector, Error, Object, Unsupported};

/// Where queues are usually mounted.
const MOUNT: &[u8] = b"/dev/mqueue";

impl Collector<'_> {
    /// Whether what looks like a file is a queue.
    pub(super) fn is_message_queue(&mut self, object: &Object<'_>) -> Result<bool, Error> {
        Ok(object.is_regular() && self.magic(object)? == MQUEUE_MAGIC)
    }

    /// Records a queue.
    pub(super) fn message_queue(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let last = object.link.rsplit(|byte| *byte == b'/').next();
        let name = last.unwrap_or_default();
        if opening.flags & OFlags::PATH.bits() != 0 || name.ends_with(DELETED) {
            return Err(object.unsupported(Unsupported::MessageQueue));
        }
        let (taken, ipc_ns) = self.told_of(object, name)?;
        if self.tree.iter().any(|pid| pid.as_raw_pid() == taken) {
            return Err(object.unsupported(Unsupported::MessageNotice));
        }
        let id = self.new_id()?;
        self.push_regular(RegFileEntry {
            id,
            flags: opening.flags,
            pos: opening.pos,
            fown: opening.fown,
            name: [MOUNT, b"/", name].concat(),
            mode: Some(object.stat.st_mode),
            mqueue: Some(true),
            ipc_ns,
            ..RegFileEntry::default()
        })?;
        Ok((FdTypes::Reg, id))
    }

    /// Who is told of the next message; by the way it is looked whether the name leads to the queue, and in which IPC
    /// namespace, if that is not the root's.
    fn told_of(&self, object: &Object<'_>, name: &[u8]) -> Result<(i32, Option<u32>), Error> {
        let unsupported = || object.unsupported(Unsupported::MessageQueue);
        let path = CString::new(name).map_err(|_| unsupported())?;
        let failed = || object.failed("look at");
        if let Some(told) = told(&path, object.inode()).map_err(failed())? {
            return Ok((told, None));
        }
        let nested = self.census.of(Kind::Ipc).filter(|one| !one.root);
        for instance in nested {
            let namespace = instance.open().map_err(|_| unsupported())?;
            let look = || told(&path, object.inode());
            let found = inside(namespace, Kind::Ipc, |errno| errno, look);
            if let Some(told) = found.map_err(failed())? {
                return Ok((told, Some(instance.id)));
            }
        }
        Err(unsupported())
    }
}

/// Who is told of the next message of a queue, if its name leads to it where the calling thread is.
fn told(name: &CStr, inode: (u64, u64)) -> Result<Option<i32>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let queue = match mqueue::open(name, flags) {
        Err(Errno::NOENT) => return Ok(None),
        queue => queue?,
    };
    let stat = rustix::fs::fstat(&queue)?;
    if (stat.st_dev, stat.st_ino) != inode {
        return Ok(None);
    }
    let mut text = [0; 256];
    let len = rustix::io::pread(&queue, &mut text, 0)?;
    Ok(mqueue::notified(&text[..len]))
}
