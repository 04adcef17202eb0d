//! Threads with descriptors, or directories, of their own (`unshare(2)` in a thread).
//!
//! The format has no word for them. Their descriptors are in an `fdinfo` of their own, their directories in an `fs`, as
//! of a process; that they are theirs is said in the part of `core` that is gelid's.

use std::os::fd::AsFd;

use gelid_image::messages::CoreEntry;
use gelid_image::{ImageKind, Staging};
use gelid_sys::kcmp::Kind;
use gelid_sys::proc::ns;
use gelid_sys::proc::{TaskDir, fd, fdinfo, status};
use gelid_sys::{Pid, pidfd, proc};
use rustix::fs::OFlags;

use crate::files::{self, Collector};
use crate::namespace::{Census, Numbers, OfThread};
use crate::survey::Task;
use crate::{Error, Refusal, fs, ids, records};

/// A thread, and what it has of its own.
#[derive(Debug, Clone)]
pub(crate) struct Apart {
    /// Index of its process.
    pub(crate) task: usize,
    pub(crate) tid: Pid,
    /// Number of its descriptor table.
    pub(crate) files: Option<u32>,
    /// It has directories and a umask.
    pub(crate) fs: bool,
}

/// Finds them, and refuses threads that have left more of what the threads of a process share.
pub(crate) fn find(tasks: &[Task], census: &Census) -> Result<Vec<Apart>, Error> {
    let live = tasks.iter().filter_map(|task| task.live.as_ref());
    let mut next = live.map(|live| live.ids.files_id).max().unwrap_or(1) + 1;
    let mut found = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        if task.tids.len() > 1 {
            of_process(task, index, &mut next, &mut found)?;
        }
    }
    for this in &found {
        let task = &tasks[this.task];
        if task.live.as_ref().is_some_and(|live| census.is_below(live)) {
            let what = "descriptors or directories, in a user namespace below that of the root,";
            return Err(refused(task, this.tid, what));
        }
        for (kind, has) in [(Kind::Files, this.files.is_some()), (Kind::Fs, this.fs)] {
            if has && is_shared(kind, this, tasks, &found)? {
                let what = match kind {
                    Kind::Files => {
                        "a table of descriptors, in common with others than its process,"
                    }
                    _ => "directories, in common with others than its process,",
                };
                return Err(refused(&tasks[this.task], this.tid, what));
            }
        }
    }
    Ok(found)
}

fn of_process(
    task: &Task,
    index: usize,
    next: &mut u32,
    found: &mut Vec<Apart>,
) -> Result<(), Error> {
    let dir = proc::task_dir(task.living)?;
    let of_leader = OfThread::look(&dir)?;
    for &tid in task.tids.iter().skip(1) {
        let thread = dir.thread(tid)?;
        if let Some(what) = of_leader.differs(OfThread::look(&thread)?) {
            return Err(refused(task, tid, what));
        }
        let own = |kind| Ok::<_, Error>(!ids::shared(kind, task.living, tid)?);
        let (files, fs) = (own(Kind::Files)?, own(Kind::Fs)?);
        if fs && ns::id(&thread, ns::Kind::Mnt)? != ns::id(&dir, ns::Kind::Mnt)? {
            return Err(refused(task, tid, "a mount namespace"));
        }
        if files || fs {
            found.push(Apart {
                task: index,
                tid,
                files: files.then_some(*next),
                fs,
            });
            *next += u32::from(files);
        }
    }
    Ok(())
}

/// Whether somebody else has the table, or the directories, of a thread.
fn is_shared(kind: Kind, this: &Apart, tasks: &[Task], found: &[Apart]) -> Result<bool, Error> {
    let others = found.iter().map(|other| other.tid);
    let others = others.filter(|other| *other != this.tid);
    let live = tasks.iter().filter(|task| task.live.is_some());
    for other in live.map(|task| task.living).chain(others) {
        if ids::shared(kind, this.tid, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn refused(task: &Task, tid: Pid, what: &'static str) -> Error {
    let (pid, comm) = (task.pid, task.comm());
    let refusal = Refusal::Unshared {
        pid,
        tid,
        comm,
        what,
    };
    refusal.into()
}

impl Apart {
    /// Says in the record of the thread what it has of its own.
    pub(crate) fn note(&self, core: &mut CoreEntry) {
        if let Some(thread) = &mut core.thread_core {
            let gelid = thread.gelid.get_or_insert_default();
            (gelid.files_id, gelid.own_fs) = (self.files, self.fs.then_some(true));
        }
    }

    /// Writes the descriptors and directories of the thread.
    pub(crate) fn write(
        &self,
        staging: &Staging,
        files: &mut Collector<'_>,
        (task, numbers): (&Task, &Numbers),
    ) -> Result<(), Error> {
        let pid = self.tid;
        let pidfd = pidfd::open_thread(pid).map_err(|errno| Error::Pidfd { pid, errno })?;
        let dir = proc::task_dir(pid)?;
        let held = files::Task {
            pid,
            dir: &dir,
            pidfd: pidfd.as_fd(),
        };
        let status = status::read(&dir)?;
        if let Some(id) = self.files {
            self.refuse_threads(&dir, task, files)?;
            records::table(staging, (id, status.fd_size), (held, None), files)?;
        }
        if self.fs {
            let fs = fs::entry(files, held, &status)?;
            staging.put(ImageKind::Fs, numbers.number(pid.as_raw_pid()), &fs)?;
        }
        Ok(())
    }

    /// Refuses what is of threads among the descriptors of the thread: they are not there when it is filled.
    fn refuse_threads(
        &self,
        dir: &TaskDir,
        task: &Task,
        files: &Collector<'_>,
    ) -> Result<(), Error> {
        for number in fd::list(dir)? {
            let link = fd::link(dir, number)?;
            let link = link.as_bytes();
            let what = if link.starts_with(b"anon_inode:[pidfd]") {
                let info = fdinfo::read(dir, number)?;
                let of_thread = info.flags & OFlags::EXCL.bits() != 0
                    && info
                        .pidfd()
                        .is_ok_and(|pid| pid > 0 && !files.is_process(pid));
                of_thread.then_some("a pidfd of a thread, in a table of descriptors,")
            } else {
                let of_thread = files::is_of_thread(link);
                of_thread.then_some("a file of a thread in /proc, in a table of descriptors,")
            };
            if let Some(what) = what {
                return Err(refused(task, self.tid, what));
            }
        }
        Ok(())
    }
}
