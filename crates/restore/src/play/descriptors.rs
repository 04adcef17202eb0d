//! Descriptor tables and directories on tapes.

mod crowded;
mod moves;

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use gelid_sys::clone::flags::NEWNS;
use gelid_sys::epoll;
use gelid_sys::syscall::nr;
use gelid_tape::Arg;
use rustix::process::Resource;

use self::crowded::Inherited;
use super::script::{Object, Reel, Script};
use crate::Error;
use crate::files::{
    Directories, Held, Mounted, OpenFiles, PlannedFd, Spare, Watching, is_own_root,
};
use crate::plan::Plan;
use crate::plan::space::Space;
use crate::state::Machine;

const O_CLOEXEC: i32 = 0o2_000_000;

/// Pidfds of those whom a task may take descriptors from, as numbers that it has: when its table is filled, and when it
/// has its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doors {
    pub(crate) now: Option<i32>,
    pub(crate) late: Option<i32>,
}

/// Appends what makes epoll sets watch files, and then what fills a table from the descriptors inherited. `kept` are left
/// open too.
pub(crate) fn all(
    reel: &mut Reel,
    pid: i32,
    (watches, table): (&[Watching], &[PlannedFd]),
    files: &OpenFiles,
    (kept, doors): (&[i32], Doors),
) -> Result<(), Error> {
    let mut inherited = Inherited::new(pid, (watches, table), files, (kept, doors));
    inherited.clear(reel);
    self::watches(reel, watches, files, &mut inherited, doors.now)?;
    self::table(reel, table, files, &inherited, (kept, doors))
}

/// Appends what fills a table from the descriptors inherited.
fn table(
    reel: &mut Reel,
    table: &[PlannedFd],
    files: &OpenFiles,
    inherited: &Inherited<'_>,
    (kept, doors): (&[i32], Doors),
) -> Result<(), Error> {
    let (late, early): (Vec<&PlannedFd>, Vec<_>) = match files.has_late() {
        true => table.iter().partition(|planned| files.is_late(planned.id)),
        false => (Vec::new(), table.iter().collect()),
    };
    let (fetched, present): (Vec<&PlannedFd>, Vec<_>) = early
        .iter()
        .partition(|planned| files.to_be_fetched(planned.id).is_some());
    inherited.place(reel, &present)?;
    let mut numbers: Vec<i32> = present.iter().map(|planned| planned.fd).collect();
    // What is still needed may lie between, if there is no room elsewhere.
    let highest = numbers.iter().max().copied().unwrap_or(-1);
    let used = doors_of(
        &[],
        early.iter().copied(),
        files,
        Doors {
            late: None,
            ..doors
        },
    );
    let mut left: BTreeSet<i32> = kept.iter().copied().collect();
    // What comes late has to be fetched too.
    left.extend(doors.late.filter(|_| !late.is_empty()));
    let between = used.union(&left).copied();
    numbers.extend(between.filter(|number| *number < highest));
    numbers.sort_unstable();
    numbers.dedup();
    let mut next = 0;
    for number in numbers {
        close(reel, next, number - 1);
        next = number + 1;
    }
    // What is there already counts only for what is fetched: otherwise it lies below.
    let mut taken: BTreeSet<i32> = match fetched.is_empty() {
        true => BTreeSet::new(),
        false => present.iter().map(|planned| planned.fd).collect(),
    };
    taken.extend(&left);
    taken.extend(&used);
    let mut lowest = 0;
    for planned in fetched {
        if let Some(way) = way(planned.id, files, doors.now) {
            fetch(reel, planned, way, &mut lowest, &taken);
            taken.insert(planned.fd);
        }
    }
    for door in used.difference(&left) {
        taken.remove(door);
        if *door < next {
            close(reel, *door, *door);
        }
    }
    for number in numbers_above(next, &taken) {
        close(reel, next, number - 1);
        next = number + 1;
    }
    close(reel, next, i32::MAX);
    Ok(())
}

/// Appends what fetches those that [`table`] has left out, as they could not be had yet.
pub(crate) fn late(reel: &mut Reel, table: &[PlannedFd], files: &OpenFiles, door: Option<i32>) {
    let (late, early): (Vec<&PlannedFd>, Vec<_>) =
        table.iter().partition(|planned| files.is_late(planned.id));
    let Some(door) = door.filter(|_| !late.is_empty()) else {
        return;
    };
    let mut taken: BTreeSet<i32> = early.iter().map(|planned| planned.fd).collect();
    taken.insert(door);
    let mut lowest = 0;
    for planned in late {
        if let Some((_, from)) = files.to_be_fetched(planned.id) {
            fetch(reel, planned, (door, from), &mut lowest, &taken);
            taken.insert(planned.fd);
        }
    }
    close(reel, door, door);
}

/// The door by which a task fetches a file that it has not inherited, and the number of the file behind it. `nearest` is
/// the door of those who may not take anything from this process.
fn way(id: u32, files: &OpenFiles, nearest: Option<i32>) -> Option<(i32, i32)> {
    let (door, from) = files.to_be_fetched(id)?;
    Some((nearest.unwrap_or(door), from))
}

/// The doors that a task needs.
fn doors_of<'t>(
    watches: &[Watching],
    table: impl IntoIterator<Item = &'t PlannedFd>,
    files: &OpenFiles,
    doors: Doors,
) -> BTreeSet<i32> {
    let watched = watches.iter().map(|it| it.file);
    let all = watched.chain(table.into_iter().map(|planned| planned.id));
    let used = all.filter_map(|id| way(id, files, doors.now));
    used.map(|(door, _)| door).chain(doors.late).collect()
}

fn numbers_above(first: i32, numbers: &BTreeSet<i32>) -> impl Iterator<Item = i32> {
    numbers.range(first..).copied()
}

/// Appends what takes a descriptor from a process, by a pidfd and its number there. `taken` are the numbers that the table
/// has so far, and all below `lowest` are among them; all others below the one wanted are free or of no use.
fn fetch(
    reel: &mut Reel,
    planned: &PlannedFd,
    (door, from): (i32, i32),
    lowest: &mut i32,
    taken: &BTreeSet<i32>,
) {
    const F_SETFD: u64 = 2;
    let object = Object::Descriptor(planned.fd);
    while *lowest < planned.fd && taken.contains(lowest) {
        *lowest += 1;
    }
    let lowest = planned.fd.min(*lowest);
    // It comes at the lowest number that is free.
    close(reel, lowest, lowest);
    reel.must(
        object,
        nr::pidfd_getfd,
        [door.into(), from.into(), 0.into()],
    );
    if lowest != planned.fd {
        let flags = if planned.cloexec { O_CLOEXEC } else { 0 };
        let args = [lowest.into(), planned.fd.into(), flags.into()];
        reel.must(object, nr::dup3, args);
        close(reel, lowest, lowest);
    } else if !planned.cloexec {
        reel.must(object, nr::fcntl, [lowest.into(), F_SETFD.into(), 0.into()]);
    }
}

/// Appends what makes epoll sets watch files. Each is added by a descriptor of the number that the kernel is to
/// remember, whatever gets that number later.
fn watches(
    reel: &mut Reel,
    watches: &[Watching],
    files: &OpenFiles,
    inherited: &mut Inherited<'_>,
    nearest: Option<i32>,
) -> Result<(), Error> {
    /// For the calls and data of a watch.
    const SIZE: usize = 1024;
    for Watching { set, file, watch } in watches {
        let object = Object::Descriptor(watch.number);
        // It may not have been there when this task was born.
        let way = way(*file, files, nearest);
        inherited.make_room(reel, watch.number, way.is_none().then_some(*file));
        let set_fd = inherited.at(*set)?;
        // So that it is known what is to be closed.
        let free = way.and_then(|_| inherited.free_but(watch.number));
        let script = reel.script(SIZE);
        let file_fd: Arg = match way {
            Some((door, from)) => {
                // So that it does not come at that very number.
                let args = [door.into(), watch.number.into(), O_CLOEXEC.into()];
                script.must(object, nr::dup3, args);
                let args = [door.into(), from.into(), 0.into()];
                let fetched = script.must(object, nr::pidfd_getfd, args);
                free.map_or(fetched.into(), Arg::from)
            }
            None => inherited.at(*file)?.into(),
        };
        let is_there = way.is_none() && inherited.at(*file)? == watch.number;
        if !is_there {
            let args = [file_fd, watch.number.into(), O_CLOEXEC.into()];
            script.must(object, nr::dup3, args);
        }
        // What has fired fires once more, if there is anything that it can fire for.
        let ready = match watch.has_fired() {
            true => files.events(*file),
            false => 0,
        };
        let event = script.bytes(&epoll::event(watch.events | ready, watch.data));
        let add = epoll::EPOLL_CTL_ADD;
        let args = [set_fd.into(), add.into(), watch.number.into(), event.into()];
        script.must(object, nr::epoll_ctl, args);
        if ready != 0 {
            let event = script.tape.space(epoll::EVENT_SIZE);
            let args = [set_fd.into(), event.into(), 1.into(), 0.into()];
            script.call(nr::epoll_wait, args);
        }
        // Otherwise it goes when the table is filled.
        if inherited.is_crowded() {
            let copy = (!is_there).then_some(watch.number);
            for number in free.into_iter().chain(copy) {
                script.must(object, nr::close, [number.into()]);
            }
        }
    }
    Ok(())
}

/// Closes a range; an empty one is nothing to do.
fn close(reel: &mut Reel, first: i32, last: i32) {
    if first <= last {
        let args = [first.into(), last.into(), 0.into()];
        reel.must(Object::Descriptor(first), nr::close_range, args);
    }
}

/// Where this process may have the descriptors that tasks inherit: from a number on that is above all
/// tables, or, where the limit forbids that, between the numbers of the tables, which are held for the time. Where there
/// is not enough room between them either, open files have to be in the midst of the tables.
pub(crate) fn place(plan: &Plan) -> Result<(i32, Held), Error> {
    /// For files that are opened for a moment.
    const SPARE: u64 = 256;
    let first_free = plan.files.first_free();
    let needed = plan.files.len() as u64 + SPARE;
    let limit = rustix::process::getrlimit(Resource::Nofile).maximum;
    if limit.is_none_or(|limit| first_free as u64 + needed <= limit) {
        return Ok((first_free, Held::default()));
    }
    let numbers: BTreeSet<i32> = plan.files.numbers().collect();
    let between = limit
        .unwrap_or_default()
        .saturating_sub(numbers.len() as u64);
    let held = Held::take(numbers, between < needed).map_err(|errno| Error::Task {
        operation: "holding descriptors",
        pid: plan.root(),
        errno,
    })?;
    Ok((0, held))
}

/// What files of a tree are needed for beside tables, and who is in it. None if its tasks may not fetch files from somebody
/// here.
pub(crate) fn spare(plan: &Plan) -> Option<Spare> {
    if plan.namespaces.user.is_some() || !plan.namespaces.below.is_empty() {
        return None;
    }
    let mapped = plan.spaces.iter().flat_map(Space::files);
    let mut needed: BTreeSet<u32> = mapped.map(|(id, _)| id).collect();
    needed.extend(plan.spaces.iter().map(|space| space.mm.exe_file_id));
    for (_, alive) in plan.alive() {
        let of_threads = alive
            .threads
            .iter()
            .filter_map(|thread| thread.apart.fs.as_ref());
        let directories = alive.fs.iter().chain(of_threads);
        needed.extend(directories.flat_map(|fs| [fs.cwd, fs.root]));
    }
    let nodes = plan.nodes.iter();
    let numbers = nodes.flat_map(|node| {
        node.threads
            .iter()
            .copied()
            .chain([node.pid, node.pgid, node.sid])
    });
    Some(Spare {
        needed,
        numbers: numbers.collect(),
    })
}

/// Has a task join a mount namespace: that of the root, if it is in no other.
pub(crate) fn mount_namespace(script: &mut Script, id: Option<u32>, mounted: Option<&Mounted>) {
    let found = mounted.and_then(|mounted| {
        let at = id.map_or(Some(&0), |id| mounted.nested.get(&id))?;
        mounted.namespaces.get(*at)
    });
    if let Some(namespace) = found {
        let args = [namespace.as_raw_fd().into(), NEWNS.into()];
        script.must(Object::Itself, nr::setns, args);
    }
}

/// Appends what sets root, current directory and umask. Who may not change the root can do without where it is the one
/// that all are born with.
pub(crate) fn directories(
    reel: &mut Reel,
    pid: i32,
    fs: &Directories,
    files: &OpenFiles,
    machine: &Machine,
) -> Result<(), Error> {
    let fd = |id| {
        let found = files.fd(id).ok_or(Error::NoSuchFile { pid, id });
        found.map(|fd| fd.as_raw_fd())
    };
    let root = fd(fs.root)?;
    let is_born_with = |directory| is_own_root(directory).unwrap_or(false);
    if machine.changes_roots || !files.fd(fs.root).is_some_and(is_born_with) {
        let script = reel.script(512);
        script.must(Object::File(fs.root), nr::fchdir, [root.into()]);
        let here = script.bytes(b".\0");
        script.must(Object::File(fs.root), nr::chroot, [here.into()]);
    }
    let cwd = fd(fs.cwd)?;
    reel.must(Object::File(fs.cwd), nr::fchdir, [cwd.into()]);
    reel.must(Object::Itself, nr::umask, [u64::from(fs.umask).into()]);
    Ok(())
}
