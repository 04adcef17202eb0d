//! The root: forked from this process, which is then taken away from it.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use gelid_sys::clone::{fork_inside, fork_sleeper, fork_within};
use gelid_sys::prctl::PR_SET_PDEATHSIG;
use gelid_sys::ptrace::{self, Options, Stopped};
use gelid_sys::signal::{KernelSigAction, NSIG};
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, Pid, wait};
use gelid_tape::Host;

use super::super::cgroup::Groups;
use super::super::crew::{Body, Crew, identity};
use super::super::kernel::Kernel;
use super::super::namespaces::Birthplace;
use super::super::script::{Object, Script};
use super::taken::taken;
use super::{LEADER_ROOM, signal, tape_error};
use crate::Error;
use crate::plan::Plan;
use crate::plan::births::Who;
use crate::plan::space::TASK_SIZE;
use crate::plan::zone::PARKING;

/// How the root is born.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cradle<'a> {
    /// As a child of the parent of this process.
    pub(crate) sibling: bool,
    /// In a pid namespace that the caller gives.
    pub(crate) pids: Option<&'a Birthplace>,
    /// In a user namespace that the caller gives.
    pub(crate) users: Option<BorrowedFd<'a>>,
}

/// Bears the root, in new namespaces if it is to have some. In these it shares the descriptors of this process.
pub(crate) fn bear(
    plan: &Plan,
    (zone, kernel): (&Range<u64>, &Kernel),
    cradle: Cradle<'_>,
    crew: &mut Crew,
) -> Result<(), Error> {
    let number = plan.root();
    let task = fork(plan, cradle, crew)?;
    let pid = task.pid();
    let rseq = task.rseq().unwrap_or_default();
    let made = Host::fresh(
        task,
        identity(number, number, signal(plan, Who::Task(0))),
        zone.start..zone.end - PARKING,
        kernel.syscall_at(),
        LEADER_ROOM,
    );
    let (mut host, carrier) = made.map_err(|failed| tape_error(number, failed))?;
    let mut script = Script::default();
    if rseq.rseq_abi_pointer != 0 {
        const UNREGISTER: u64 = 1;
        script.must(
            Object::Itself,
            nr::rseq,
            [
                rseq.rseq_abi_pointer.into(),
                u64::from(rseq.rseq_abi_size).into(),
                UNREGISTER.into(),
                u64::from(rseq.signature).into(),
            ],
        );
    }
    bare(&mut script);
    let parked = kernel.park(&mut script, zone);
    for range in [0..zone.start, zone.end..TASK_SIZE] {
        let len = range.end - range.start;
        script.must(Object::Itself, nr::munmap, [range.start.into(), len.into()]);
    }
    host.set_syscall_at(parked);
    crew.hosts.push(host);
    let body = Body {
        pid,
        number,
        carrier,
        host: 0,
    };
    crew.bodies.insert(Who::Task(0), body);
    crew.play(&[(Who::Task(0), script)]).map(drop)
}

/// Lets it enter its groups. Whoever is born of it afterwards is in the same ones.
pub(crate) fn enter(plan: &Plan, groups: &Groups, crew: &mut Crew) -> Result<(), Error> {
    let set = plan.cgroups.threads.get(&plan.root()).copied();
    groups.enter(&plan.cgroups, crew.root()?.as_raw_pid(), None, set)
}

fn fork(plan: &Plan, cradle: Cradle<'_>, crew: &mut Crew) -> Result<Stopped, Error> {
    let Cradle { sibling, pids, .. } = cradle;
    let number = plan.root();
    let failed = |operation| {
        move |errno| Error::Task {
            operation,
            pid: number,
            errno,
        }
    };
    let wanted = Pid::from_raw(number);
    if let Some(groups) = plan.groups_at_birth() {
        // Only this thread has them then, and nothing that it does needs any. There may be no other way to them.
        rustix::thread::set_thread_groups(&groups).map_err(failed("setgroups"))?;
    }
    let inside = pids.map(Birthplace::enter).transpose();
    let inside = inside.map_err(failed("joining the pid namespace"))?;
    let flags = plan.namespaces.flags();
    let born = match cradle.users {
        Some(users) => fork_within(users, flags, wanted, sibling),
        None if plan.namespaces.any() => fork_inside(flags, wanted, sibling),
        None => fork_sleeper(wanted, sibling),
    };
    drop(inside);
    let pid = born.map_err(|errno| match errno {
        Errno::EXIST => taken(number, pids.and_then(Birthplace::inode)),
        errno => failed("clone3")(errno),
    })?;
    crew.note_root(pid, plan.numbering())?;
    // Whoever is born of it has the same ones.
    let suspend = match plan.is_restrained() {
        true => Options::SUSPEND_SECCOMP,
        false => Options::empty(),
    };
    let options = Options::TRACESYSGOOD | Options::EXITKILL | suspend;
    let running = ptrace::seize(pid, options).map_err(failed("PTRACE_SEIZE"))?;
    running.interrupt().map_err(failed("PTRACE_INTERRUPT"))?;
    let status = wait::wait_task(pid).map_err(failed("wait4"))?;
    if status.is_dead() {
        return Err(Error::Ended { pid, status });
    }
    Ok(running.stopped())
}

/// Clears what the root has from this process and hands on to its children.
fn bare(script: &mut Script) {
    const SS_DISABLE: i32 = 2;
    let action = script.bytes(&KernelSigAction::default().to_bytes());
    for signal in 1..=NSIG as i32 {
        // SIGKILL and SIGSTOP have none.
        script.call(
            nr::rt_sigaction,
            [signal.into(), action.into(), 0.into(), 8.into()],
        );
    }
    let mut stack = [0; 24];
    stack[8..12].copy_from_slice(&SS_DISABLE.to_ne_bytes());
    let stack = script.bytes(&stack);
    script.must(Object::Itself, nr::sigaltstack, [stack.into(), 0.into()]);
    // By now it ends with its tracer.
    script.must(
        Object::Itself,
        nr::prctl,
        [PR_SET_PDEATHSIG.into(), 0.into()],
    );
}
