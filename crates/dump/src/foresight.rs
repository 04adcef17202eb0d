//! What can be guessed of a tree while it still runs: how many images there will be.

use gelid_sys::nofile::{self, Raised};
use gelid_sys::proc::{self, stat, tasks};

use crate::Options;

/// Images that every tree has once: `inventory`, `pstree`, `seccomp`, `files`, `timens`, and the manifest. One too many
/// costs twice: ext4 has to make it, and shuns its inode for five seconds when nobody has taken it.
const OF_TREE: usize = 6;
/// Images of each process: `core`, `mm`, `pagemap`, `pages`, `ids`, `fs`, `fdinfo`.
const OF_PROCESS: usize = 7;
/// More would be too many open files.
const MOST: usize = 8192;
/// Descriptors that a dump needs for other things.
const OTHERS: u64 = 512;

/// Room for files to be made in advance.
pub(crate) struct Foresight {
    /// So many images are worth making.
    pub(crate) images: usize,
    _limit: Raised,
}

impl Foresight {
    /// Counts processes and threads; a guess, as they come and go.
    pub(crate) fn of(options: &Options) -> Self {
        let mut images = OF_TREE;
        let mut pids = vec![options.tree];
        while let Some(pid) = pids.pop()
            && images < MOST
        {
            let Ok(dir) = proc::task_dir(pid) else {
                continue;
            };
            let threads = stat::read(&dir).map_or(1, |stat| stat.num_threads);
            images += OF_PROCESS + usize::try_from(threads).unwrap_or(1).saturating_sub(1);
            pids.extend(tasks::children_of(&dir, pid).unwrap_or_default());
        }
        let limit = Raised::to(images as u64 + OTHERS);
        let room = usize::try_from(nofile::left(OTHERS)).unwrap_or(MOST);
        Self {
            images: images.min(MOST).min(room),
            _limit: limit,
        }
    }
}
