//! What is seen of tasks from outside: files of procfs, namespaces, what they share.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use gelid_sys::kcmp::{Kind as Shared, kcmp};
use gelid_sys::proc::ns::Kind;
use gelid_sys::proc::{TaskDir, task_dir};
use gelid_sys::{Errno, Pid, namespace, pidfd};
use rustix::fs::OFlags;

use crate::dump::Process;
use crate::{Failure, cgroups};

/// What a file of procfs has at most, but for those of many lines.
const RECORD: usize = 4096;

/// So much of `smaps` leaves nothing to be printed twice: the kernel prints into a page, and throws away what does not
/// fit at its end.
const PIECE: usize = 3 << 10;

/// Namespaces that a thread can have alone while it shares directories with the others, which rules out mounts.
const OF_THREADS: [Kind; 4] = [Kind::Net, Kind::Uts, Kind::Ipc, Kind::Cgroup];

/// All that is looked at beside descriptors, mappings and pages.
pub(crate) fn look(all: &[Process]) -> Result<(), Failure> {
    let mut record = vec![0; RECORD];
    let mut known = [Shared::Vm, Shared::Files, Shared::Fs].map(|kind| (kind, Vec::new()));
    for (place, (pid, threads)) in all.iter().enumerate() {
        let dir = task_dir(*pid)?;
        process(&dir, place == 0, &mut record)?;
        for (kind, known) in &mut known {
            among(*kind, *pid, known)?;
        }
        namespaces(*pid, &Kind::ALL)?;
        let others = threads.iter().filter(|tid| *tid != pid);
        others.clone().try_for_each(|tid| thread(*pid, *tid))?;
        cgroups::look(&dir, threads)?;
    }
    Ok(())
}

/// What no call of the task itself tells: `stat` has boundaries of memory, relations and the number of threads; links
/// have paths. `status`, `auxv` and `limits` are not among it.
fn process(dir: &TaskDir, is_root: bool, record: &mut [u8]) -> Result<(), Failure> {
    for name in ["stat", "oom_score_adj", "coredump_filter", "timers"] {
        read(dir, name, record)?;
    }
    let rest: &[&str] = match is_root {
        // Of a session, whose leader the root is.
        true => &["loginuid", "autogroup"],
        false => &["loginuid"],
    };
    for name in rest {
        // Some kernels have none.
        let _ = read(dir, name, record);
    }
    for name in ["exe", "cwd", "root"] {
        dir.link(name)?;
    }
    // Nobody may have come while the tree was being stopped. Where there are more threads, theirs were read before.
    read(dir, &format!("task/{}/children", dir.pid()), record)?;
    Ok(())
}

/// Whether a thread shares descriptors and directories with its process, and where it has namespaces of its own. A
/// link of procfs takes 3 to 10 us, a namespace by a pidfd 2.4.
fn thread(pid: Pid, tid: Pid) -> Result<(), Failure> {
    kcmp(Shared::Files, (pid, 0), (tid, 0))?;
    kcmp(Shared::Fs, (pid, 0), (tid, 0))?;
    namespaces(tid, &OF_THREADS)
}

fn namespaces(tid: Pid, kinds: &[Kind]) -> Result<(), Failure> {
    let task = pidfd::open_thread(tid)?;
    for kind in kinds {
        match pidfd::namespace(&task, *kind) {
            Ok(found) => drop(namespace::inode(found)?),
            // There is none for children yet, or the kernel has none.
            Err(Errno::SRCH | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Finds a task among those that are ordered by an object of theirs.
fn among(kind: Shared, pid: Pid, known: &mut Vec<Pid>) -> Result<(), Failure> {
    let mut failed = None;
    let found = known.binary_search_by(|other| {
        kcmp(kind, (*other, 0), (pid, 0)).unwrap_or_else(|errno| {
            failed = Some(errno);
            Ordering::Equal
        })
    });
    if let Some(errno) = failed {
        return Err(errno.into());
    }
    if let Err(place) = found {
        known.insert(place, pid);
    }
    Ok(())
}

/// Reads a file that comes by one read.
pub(crate) fn read<'a>(
    dir: &TaskDir,
    name: &str,
    record: &'a mut [u8],
) -> Result<&'a [u8], Failure> {
    let mut file = File::from(dir.open_file(name, OFlags::RDONLY)?);
    let read = file.read(record)?;
    Ok(&record[..read])
}

/// Reads `smaps`, which alone tells the flags of a mapping, of all processes, one after the other: nobody can begin in
/// the middle. Each file that is mapped is looked at once, by its path.
pub(crate) fn mappings(all: &[Process]) -> Result<(), Failure> {
    let mut files: HashSet<Vec<u8>> = HashSet::new();
    let mut buffer = vec![0; PIECE];
    for (pid, _) in all {
        let mut smaps = File::from(task_dir(*pid)?.open_file("smaps", OFlags::RDONLY)?);
        loop {
            let read = smaps.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if buffer[..read].contains(&b'/') {
                let lines = buffer[..read].split(|byte| *byte == b'\n');
                let paths = lines.filter_map(|line| {
                    let start = line.iter().position(|byte| *byte == b'/')?;
                    Some(&line[start..])
                });
                for path in paths {
                    if !files.contains(path) {
                        files.insert(path.to_vec());
                        // One that is gone, or whose name stands in two pieces, is looked at in vain.
                        let _ = rustix::fs::stat(path);
                    }
                }
            }
        }
    }
    Ok(())
}
