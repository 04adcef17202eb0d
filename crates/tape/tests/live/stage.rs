//! A frozen process whose threads carry tapes.

use gelid_seize::{Process, Tree};
use gelid_sys::Pid;
use gelid_sys::proc::{self, maps};
use gelid_sys::signal::SigSet;
use gelid_tape::{Carrier, Ground, Host, Identity, closing_signal};

/// Host and carriers of one process, in the order of its threads.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) carriers: Vec<Carrier>,
}

/// Bytes of tape for each thread.
pub(crate) const ROOM: usize = 1024;

/// What a thread is to itself.
pub(crate) fn identity(process: &Process, thread: usize) -> Identity {
    let dir = process.dir().unwrap();
    let thread = dir.thread(process.threads[thread].tid).unwrap();
    let status = proc::status::read(&thread).unwrap();
    Identity {
        tgid: *status.ns_tgid.last().unwrap(),
        tid: *status.ns_pid.last().unwrap(),
        signal: closing_signal(
            SigSet(status.sig_caught),
            SigSet(status.sig_pending | status.shared_pending),
        ),
    }
}

/// Where a host can settle in a process.
pub(crate) fn ground(process: &Process) -> Ground {
    let mut ground = ground_of(process.pid);
    let maps = maps::read(&process.dir().unwrap()).unwrap();
    let places = process
        .threads
        .iter()
        .map(|thread| thread.task().unwrap().regs().unwrap().rsp);
    let stack = maps.iter().find(|map| map.path == b"[stack]");
    ground.spare = stack.and_then(|stack| {
        let used = places.filter(|rsp| stack.range().contains(rsp)).min()?;
        let spare = stack.start..(stack.start + 16384);
        (spare.end + 16384 < used).then_some(spare)
    });
    ground
}

/// The same, without anything to spare.
pub(crate) fn ground_of(pid: Pid) -> Ground {
    let maps = maps::read(&proc::task_dir(pid).unwrap()).unwrap();
    let wanted = maps::Perms::READ | maps::Perms::EXEC;
    let mut code: Vec<_> = maps
        .iter()
        .filter(|map| map.perms.contains(wanted) && !map.perms.contains(maps::Perms::SHARED))
        .collect();
    code.sort_by_key(|map| map.path != b"[vdso]");
    Ground {
        code: code.iter().map(|map| map.range()).collect(),
        spare: None,
    }
}

impl Stage {
    /// Lets all threads of a process of the tree board.
    pub(crate) fn set(tree: &mut Tree, process: usize) -> Self {
        Self::with_room(tree, process, ROOM)
    }

    /// The same, with `room` bytes of tape each.
    pub(crate) fn with_room(tree: &mut Tree, process: usize, room: usize) -> Self {
        let process = &mut tree.processes_mut()[process];
        let ground = ground(process);
        let identities: Vec<_> = (0..process.threads.len())
            .map(|thread| identity(process, thread))
            .collect();
        let mut tasks = process
            .threads
            .iter_mut()
            .map(|thread| thread.take().unwrap());
        let all = Host::region_size(room) * identities.len() + 4096;
        let first = tasks.next().unwrap();
        let (mut host, first) = Host::seized(first, identities[0], &ground, all, room).unwrap();
        let others = tasks
            .zip(&identities[1..])
            .map(|(task, identity)| host.board(task, *identity, room).unwrap());
        let carriers = std::iter::once(first).chain(others).collect();
        Self { host, carriers }
    }

    /// Takes everything back, the first thread last or, if `turned`, first.
    pub(crate) fn strike(mut self, tree: &mut Tree, process: usize, turned: bool) {
        let mut threads: Vec<_> = tree.processes_mut()[process].threads.iter_mut().collect();
        if !turned {
            self.carriers.reverse();
            threads.reverse();
        }
        let last = self.carriers.pop().unwrap();
        for (carrier, thread) in self.carriers.into_iter().zip(&mut threads) {
            thread.put(carrier.release().unwrap());
        }
        let last_thread = threads.pop().unwrap();
        last_thread.put(self.host.leave(last).unwrap());
    }
}
