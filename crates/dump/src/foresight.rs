//! What can be guessed of a tree while it still runs: how many images there will be, and how large those of pages.

use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::time::{Duration, Instant};

use gelid_image::Staging;
use gelid_pages::{Format, PAGE_SIZE};
use gelid_sys::Pid;
use gelid_sys::nofile::{self, Raised};
use gelid_sys::proc::{self, TaskDir, scalar, stat, tasks};

use crate::{Options, files, snapshot};

/// Images that every tree has once: `inventory`, `pstree`, `seccomp`, `files`, `timens`, and the manifest. Others are
/// made when they are needed.
const OF_TREE: usize = 6;
/// Images of each process: `core`, `mm`, `pagemap`, `pages`, `ids`, `fs`, `fdinfo`.
const OF_PROCESS: usize = 7;
/// More would be too many open files.
const MOST: usize = 8192;
/// Files that are made before somebody looks whether the tree stands still.
const AT_ONCE: usize = 64;
/// That they take on a slow file system: 30 us for each, where 7 are usual.
const SLOW: Duration = Duration::from_millis(2);
/// Descriptors that a dump needs for other things.
pub(crate) const OTHERS: u64 = 512;

/// Pages of a process that are worth asking for blocks in advance.
const MANY: u64 = (16 << 20) / PAGE_SIZE as u64;
/// Packed, pages take about one of so many blocks.
const PACKED: u64 = 3;
/// Pages of a tree, those of files among them, that are done before a thread would have been started.
const FEW: u64 = 1024;

/// Room for files to be made in advance.
pub(crate) struct Foresight {
    /// So many images are worth making.
    images: usize,
    /// So many of them have to be there before the freeze.
    early: usize,
    /// Processes, and the bytes that their pages will have.
    rooms: Vec<(Pid, u64)>,
    /// Pages that are resident.
    pages: u64,
    /// Bytes of shared memory that one process has, the one that has most, if they may have to be copied.
    shared: u64,
    /// The processor that the root ran on before it began to wait, if it waits.
    waits_at: Option<usize>,
    /// Duplicates of the root's descriptors that there is room for until it ends.
    held: u64,
    _limit: Raised,
}

impl Foresight {
    /// Counts processes and threads; a guess, as they come and go.
    pub(crate) fn of(options: &Options) -> Self {
        let (mut images, mut all, mut pages) = (OF_TREE, 0, 0_u64);
        let (mut rooms, mut waits_at) = (Vec::new(), None);
        let (copied, mut shared) = (snapshot::may_be(options), 0);
        let parts = match options.pages.format {
            Format::Raw => 1,
            Format::Zstd { .. } | Format::Adaptive => PACKED,
        };
        let mut descriptors = 0;
        let mut pids = vec![options.tree];
        while let Some(pid) = pids.pop()
            && images < MOST
        {
            let Ok(dir) = proc::task_dir(pid) else {
                continue;
            };
            let stat = stat::read(&dir).ok();
            if pid == options.tree {
                let waiting = stat
                    .as_ref()
                    .filter(|seen| seen.state == stat::State::Sleeping);
                waits_at = waiting.and_then(|stat| usize::try_from(stat.processor).ok());
                descriptors = files::worth_holding(options, &dir);
            }
            if copied {
                shared = shared.max(scalar::shared_memory(&dir).unwrap_or(0));
            }
            let threads = stat.as_ref().map_or(1, |stat| stat.num_threads);
            let threads = usize::try_from(threads).unwrap_or(1);
            let resident = stat.map_or(0, |stat| u64::try_from(stat.rss).unwrap_or(0));
            pages = pages.saturating_add(resident);
            rooms.extend((resident >= MANY).then(|| (pid, bytes(&dir) / parts)));
            images += OF_PROCESS + threads.saturating_sub(1);
            all += threads;
            pids.extend(tasks::children_of(&dir, pid).unwrap_or_default());
        }
        let held = files::to_hold(descriptors);
        let limit = Raised::to(images as u64 + OTHERS + descriptors + held);
        // Of what is behind each of them another one may be kept.
        let held = held.min(nofile::left(images as u64 + OTHERS + descriptors));
        nofile::widen(&options.images, images as u64 + OTHERS + held);
        let room = usize::try_from(nofile::left(OTHERS)).unwrap_or(MOST);
        Self {
            images: images.min(MOST).min(room),
            early: (images - all).min(MOST).min(room),
            rooms,
            pages,
            shared,
            waits_at,
            held,
            _limit: limit,
        }
    }

    /// Whether there are so few pages that they need no workers.
    pub(crate) fn is_small(&self) -> bool {
        self.pages < FEW
    }

    /// Bytes of shared memory that may have to be copied, about; at least those of the largest segment.
    pub(crate) fn shared(&self) -> u64 {
        self.shared
    }

    /// Duplicates of descriptors that there is room for until the tree ends.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Where a small tree waits, if it does. The tracer is to be there: the two will wait for each other in turns. One that
    /// runs would have to make room first.
    pub(crate) fn meets_at(&self) -> Option<usize> {
        self.waits_at.filter(|_| self.is_small())
    }

    /// Makes the files for which a freeze is to wait: all but one for each thread.
    pub(crate) fn prepare(&self, staging: &Staging) {
        staging.prepare(self.early);
        for (pid, bytes) in &self.rooms {
            staging.prepare_room(pid.as_raw_pid().unsigned_abs(), *bytes);
        }
    }

    /// Makes the others while the threads are being stopped, which takes about as long, and waits for the tree. Where the file
    /// system is slow, what is missing then is made when it is needed.
    pub(crate) fn await_tree<T>(
        &self,
        staging: &Staging,
        frozen: &Receiver<T>,
    ) -> Result<T, RecvError> {
        let mut left = self.images - self.early;
        while left > 0 {
            let begun = Instant::now();
            let some = left.min(AT_ONCE);
            staging.prepare(some);
            left -= some;
            if begun.elapsed() < SLOW {
                continue;
            }
            match frozen.try_recv() {
                Ok(tree) => return Ok(tree),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => {}
            }
        }
        frozen.recv()
    }
}

/// What its pages will have, about: those of files are not written.
fn bytes(dir: &TaskDir) -> u64 {
    scalar::anonymous_pages(dir).unwrap_or(0) * PAGE_SIZE as u64
}
