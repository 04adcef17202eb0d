//! Plays a plan: files, births, memory, threads, state, release.

mod aio;
pub(crate) mod births;
mod cgroup;
mod children;
mod crew;
mod descriptors;
mod end;
pub(crate) mod examine;
mod holes;
mod inheritance;
pub(crate) mod ipc;
mod kernel;
mod last;
mod locks;
pub(crate) mod namespaces;
pub(crate) mod script;
mod seccomp;
mod sources;
mod space;
mod state;
mod threads;

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use gelid_pages::{FillRequest, Filler, Filling, Owner, Sets};
use gelid_sys::Pid;
use gelid_sys::proc::ns::Kind;
use rustix::process::{WaitOptions, waitpid};

use self::births::root::Cradle;
use self::cgroup::Groups;
pub(crate) use self::crew::Numbering;
use self::crew::{Crew, Showing};
use self::descriptors::Doors;
use self::inheritance::Bequest;
use self::ipc::Objects;
use self::kernel::Kernel;
use self::namespaces::below::Keepers;
use self::script::Reel;
use self::sources::Sources;
use self::space::Multitudes;
use self::threads::Newborn;
use crate::files::{Context, MemoryTarget, Mounted, OpenFiles, Roots};
use crate::phase::Phase;
use crate::plan::births::Who;
use crate::plan::space::Space;
use crate::plan::{Life, Plan, zone};
use crate::state::Machine;
use crate::{Error, Hook, Options, Outcome};

/// Makes what the plan says, and lets it run.
pub(crate) fn run(
    plan: &mut Plan,
    sets: &Sets,
    options: &Options,
    root: &OwnedFd,
) -> Result<Outcome, Error> {
    let start = Instant::now();
    let dir = sets.dir();
    let kernel = Kernel::look()?;
    let zone = zone::find(&plan.spaces, &kernel.taken)?;
    tracing::debug!("room for tapes at {:#x}", zone.start);
    let sources = Sources::look(plan, sets, &kernel, |found| found)?;
    let mut machine = Machine::look()?;
    if plan.namespaces.user.is_some() {
        machine.enter_users(plan.creds_at_birth())?;
    }
    if !plan.namespaces.below.is_empty() {
        machine.enter_below()?;
    }
    space::suit(&mut plan.spaces)?;
    check(plan, &machine)?;
    // Their directories may be open.
    let groups = Groups::make(&plan.cgroups, &options.cgroups)?;
    let (base, held) = descriptors::place(plan)?;
    let mut crew = Crew::default();
    options.phase(Phase::Namespaces)?;
    let has_namespaces = plan.namespaces.any();
    namespaces::joined::enter(&options.join)?;
    let pids = namespaces::joined::pids(plan, options)?;
    let mut networks = namespaces::net::Making::start(plan, options)?;
    let mut filled = namespaces::Filled::default();
    if has_namespaces {
        let users = namespaces::joined::first_users(plan, &options.join)?;
        let cradle = Cradle {
            sibling: options.sibling,
            pids: pids.as_ref(),
            users: users.as_ref().map(AsFd::as_fd),
        };
        births::root::bear(plan, (&zone, &kernel), cradle, &mut crew)?;
        let given = (dir, options, base);
        filled = namespaces::make(plan, given, &groups, &mut networks, &mut crew)?;
    }
    let namespaces::Filled {
        mounted,
        keeper,
        keepers,
        further,
    } = filled;
    let networks_made = networks.made();
    let roots = Roots::new(root.as_fd(), mounted.as_ref());
    let birthplace = namespaces::Birthplace::of(plan, &mut crew)?;
    let objects = Objects::make(&plan.ipc, &further)?;

    options.phase(Phase::Files)?;
    let terminal = rustix::stdio::stdin();
    let hand = namespaces::Hand::of(plan, crew)?;
    let spare = held
        .is_crowded()
        .then(|| descriptors::spare(plan))
        .flatten();
    let files = plan.files.open(&Context {
        roots,
        base,
        held: &held,
        spare: spare.as_ref(),
        terminal: (options.files.shell_job || options.files.console).then_some(terminal),
        hooks: Some(&options.hooks),
        birthplace: birthplace.as_ref(),
        hand: Some(&hand),
        keeper: keeper.as_ref().map(|keeper| keeper.pidfd.as_fd()),
        networks: &networks_made,
        further: Some(&further),
    });
    let mut crew = hand.into_crew();
    let mut files = files?;
    files.open_mappings(plan.spaces.iter().flat_map(Space::files))?;

    let automounters = namespaces::mnt::automount::connect(plan, mounted.as_ref(), &files, base)?;

    options.phase(Phase::Births)?;
    let before = Instant::now();
    let filler = Filler::new(options.workers);
    let mut bequest = Bequest {
        plan,
        mounted: mounted.as_ref(),
        further: &further,
        zone: &zone,
        files: &files,
        sources: &sources,
        filler: &filler,
        groups: &groups,
        pages: 0,
    };
    match has_namespaces {
        // It has seen all that was opened meanwhile.
        true => births::early::part(&mut crew)?,
        // Its number had to be free so far.
        false => {
            let cradle = Cradle {
                sibling: options.sibling,
                ..Cradle::default()
            };
            births::root::bear(plan, (&zone, &kernel), cradle, &mut crew)?;
            births::root::enter(plan, &groups, &mut crew)?;
        }
    }
    births::run(&mut bequest, &mut crew)?;
    namespaces::net::scatter(plan, &networks_made, &mut crew)?;
    further.scatter(plan, &mut crew)?;
    automounters.wake(&mut crew)?;
    let mut pages = bequest.pages;
    let forking = before.elapsed();
    let pids = |number| crew.pid_of(number);
    let by_own_proc = birthplace.as_ref().is_some_and(|place| place.by_own_proc);
    files.open_of_processes(roots, by_own_proc, &pids)?;
    files.fill_late_queues()?;

    options.phase(Phase::Memory)?;
    let mut shared = fill_shared(plan, sets, &mut files, &filler)?;
    shared.extend(objects.fill(&plan.ipc, sets, &filler)?);
    let kept = further.kept();
    let held_files = (&files, mounted.as_ref(), (kept.as_slice(), &keepers));
    let (mut newborn, multitudes) =
        spaces(plan, &zone, (&kernel, &machine), held_files, &mut crew)?;
    files.end_stand_ins();
    let contexts = aio::make(plan, &mut crew)?;
    drop(held);
    let pages_of = (&sources, multitudes);
    let filling = inheritance::fill(plan, pages_of, &zone, &mut crew, &filler)?;

    namespaces::below::enter(plan, &further, &machine, &mut crew)?;

    options.phase(Phase::Threads)?;
    newborn.extend(threads::run(plan, &mut crew)?);
    newborn.sort_by_key(|newborn| (newborn.task, newborn.thread));
    enter_alone(plan, &groups, &crew)?;
    for filling in shared.into_iter().chain(filling) {
        pages += filling.wait()?.pages;
    }
    drop(filler);
    objects.complete(&plan.ipc)?;
    files.seal()?;
    aio::complete(plan, &machine, &contexts, &mut crew)?;
    late_descriptors(plan, &mut files, &keepers, &mut crew)?;
    if let Some(keeper) = keeper {
        keeper.end(&mut crew)?;
    }
    keepers.end(&mut crew)?;

    options.phase(Phase::State)?;
    let root_pid = crew.root()?.as_raw_pid();
    children::settle(plan, &mut crew)?;
    locks::take(plan, &files, &mut crew)?;
    ipc::redo(plan, &mut crew)?;
    state::complete_spaces(plan, &zone, &mut crew)?;
    let mut newborns = state::Newborns::new();
    for thread in newborn {
        newborns.entry(thread.task).or_default().push(thread);
    }
    seccomp::restrain(plan, &mut newborns, &mut crew)?;
    let mut release = end::Release::new(plan, options.leave_stopped);
    // Parents must not be told of children that stop, so their handlers come later.
    let late = |plan: &Plan, index| !stops_early(plan, index);
    for concerned in [stops_early as fn(&Plan, usize) -> bool, late] {
        release.add(state::run(
            plan,
            &machine,
            concerned,
            &mut newborns,
            &mut crew,
        )?);
        release.prepare(plan, &machine, &zone, concerned, &mut crew)?;
    }
    files.owners(&|number| crew.pid_of(number))?;
    files.seek_of_processes()?;
    files.start_timers()?;

    groups.dress(&plan.cgroups)?;

    options.phase(Phase::Release)?;
    options.hooks.tell(Hook::PostRestore, root_pid)?;
    networks.rule(plan)?;
    files.keep(roots)?;
    if let Some(mounted) = &mounted {
        namespaces::mnt::close(mounted)?;
    }
    if plan.namespaces.root(Kind::Net).is_some() {
        options.hooks.announce(Hook::NetworkUnlock, root_pid);
    }
    if let (Some(last), Some(place)) = (plan.namespaces.last_pid, &birthplace) {
        last::set(last, place, root_pid)?;
    }
    options.hooks.announce(Hook::PreResume, root_pid);
    release.let_go(&mut crew)?;
    groups.keep(&plan.cgroups);
    objects.keep();
    networks.keep();
    options.hooks.announce(Hook::PostResume, root_pid);
    if let Some(root) = Pid::from_raw(root_pid).filter(|_| stop_is_told(plan, 0)) {
        // ECHILD: it has another parent, whose business it is.
        let _ = waitpid(Some(root), WaitOptions::UNTRACED | WaitOptions::NOHANG);
    }
    Ok(Outcome {
        root: Pid::from_raw(root_pid),
        tasks: plan.nodes.len(),
        threads: plan.alive().map(|(_, alive)| alive.threads.len()).sum(),
        pages,
        forking,
        time: start.elapsed(),
    })
}

/// Lets threads enter their own groups, where these are not those of their leader.
fn enter_alone(plan: &Plan, groups: &Groups, crew: &Crew) -> Result<(), Error> {
    // Those that are put off are in the groups of their leaders.
    if plan.cgroups.threads.is_empty() {
        return Ok(());
    }
    for (node, alive) in plan.alive() {
        let set = |tid: i32| plan.cgroups.threads.get(&tid).copied();
        let leader = set(node.pid);
        for thread in alive.threads.iter().filter(|thread| thread.tid != node.pid) {
            let own = set(thread.tid);
            if own != leader {
                let tid = crew.pid_of(thread.tid).map_or(0, Pid::as_raw_pid);
                groups.enter_alone(&plan.cgroups, tid, leader, own)?;
            }
        }
    }
    Ok(())
}

/// A stopped task that does not share its memory.
fn stops_early(plan: &Plan, index: usize) -> bool {
    let stopped = match &plan.lives[index] {
        Life::Alive(alive) => alive.stopped.is_some(),
        Life::Zombie { .. } => false,
    };
    stopped && !plan.shares_space_with_any(index)
}

/// A stopped task whose parent has been told of it.
fn stop_is_told(plan: &Plan, index: usize) -> bool {
    let stopped = match &plan.lives[index] {
        Life::Alive(alive) => alive.stopped,
        Life::Zombie { .. } => None,
    };
    stopped.is_some_and(|stopped| stopped.told)
}

/// Refuses what this machine cannot bring back, before anything is made.
fn check(plan: &Plan, machine: &Machine) -> Result<(), Error> {
    for (_, alive) in plan.alive() {
        let machine = machine.of(alive.users);
        alive.process.check(machine)?;
        for thread in &alive.threads {
            thread.state.check(machine)?;
            thread.restraint.check(thread.tid, machine)?;
        }
    }
    Ok(())
}

/// Starts filling memory that belongs to no single task.
fn fill_shared(
    plan: &Plan,
    sets: &Sets,
    files: &mut OpenFiles,
    filler: &Filler,
) -> Result<Vec<Filling>, Error> {
    let mut filling = Vec::new();
    for (id, size, file) in files.shared_memory() {
        let Some(shared) = plan.shared.get(&id) else {
            continue;
        };
        let owner = Owner::Shared(id.into());
        filling.push(filler.fill(FillRequest {
            reader: Arc::new(sets.open(owner, shared)?),
            target: Arc::new(MemoryTarget::new(file, size)),
            placements: shared.by_page(),
            huge: Vec::new(),
            compared: Vec::new(),
        })?);
    }
    Ok(filling)
}

/// Bytes of tape that the audit user takes, with some to spare.
const LOGIN: usize = 512;

/// Bytes of tape that a namespace takes.
const NAMESPACE: usize = 128;

/// Builds all address spaces, directories and descriptor tables. Gives the threads that have some of these alone.
fn spaces(
    plan: &Plan,
    zone: &Range<u64>,
    (kernel, machine): (&Kernel, &Machine),
    (files, mounted, (kept, keepers)): (&OpenFiles, Option<&Mounted>, (&[i32], &Keepers)),
    crew: &mut Crew,
) -> Result<(Vec<Newborn>, Multitudes), Error> {
    let mut showing = Showing::default();
    let mut later = Vec::new();
    let mut moved = Vec::new();
    let mut multitudes = Multitudes::new();
    for (index, life) in plan.lives.iter().enumerate() {
        let Life::Alive(alive) = life else { continue };
        let (who, pid) = (Who::Task(index), plan.nodes[index].pid);
        let body = crew.body(who)?;
        let (host, room) = (body.host, body.carrier.room());
        let mut reel = Reel::new(room);
        if alive.builds {
            let space = &plan.spaces[alive.space];
            let inheritance = &plan.inheritance[index];
            if !inheritance.is_early {
                inheritance::settle(&mut reel, inheritance);
            }
            let missing = inheritance::missing(inheritance);
            let (at, many) = space::build(&mut reel, space, zone, &missing, kernel, files)?;
            moved.extend(at.map(|at| (host, at)));
            multitudes.extend(many.map(|many| (index, many)));
        }
        alive.process.log_in(&mut reel.script(LOGIN).tape, machine);
        if let Some(fs) = &alive.fs {
            if plan.enters_mounts(index) && !plan.enters_mounts_early(index) {
                let script = reel.script(NAMESPACE);
                descriptors::mount_namespace(script, alive.mount_namespace, mounted);
            }
            descriptors::directories(&mut reel, pid, fs, files, machine)?;
        }
        // Whoever shares a table still needs all that is inherited, so those wait.
        let shared = plan.shares_files(index) || alive.has_apart();
        let mut last = Reel::new(room);
        if let Some(id) = alive.files {
            let reel = if shared { &mut last } else { &mut reel };
            let doors = Doors {
                now: keepers
                    .door(plan.births.users(index).bears)
                    .or(files.door()),
                late: keepers.late_door(life).or(files.door()),
            };
            let all = (plan.files.watches(id), plan.files.table(id));
            descriptors::all(reel, pid, all, files, (kept, doors))?;
        }
        showing.begin(who, reel.into_scripts(), crew)?;
        later.push((who, last.into_scripts()));
    }
    showing.end(crew)?;
    for (host, at) in moved {
        crew.hosts[host].set_syscall_at(at);
    }
    let newborn = threads::apart(plan, (files, machine), crew)?;
    crew.play_reels(later)?;
    Ok((newborn, multitudes))
}

/// Gives tasks what had to wait for their threads.
fn late_descriptors(
    plan: &Plan,
    files: &mut OpenFiles,
    keepers: &Keepers,
    crew: &mut Crew,
) -> Result<(), Error> {
    if !files.open_of_threads(&|number| crew.pid_of(number))? {
        return Ok(());
    }
    let mut reels = Vec::new();
    for (index, life) in plan.lives.iter().enumerate() {
        if let Life::Alive(alive) = life
            && let Some(id) = alive.files
        {
            let who = Who::Task(index);
            let mut reel = Reel::new(crew.body(who)?.carrier.room());
            let door = keepers.late_door(life).or(files.door());
            descriptors::late(&mut reel, plan.files.table(id), files, door);
            reels.push((who, reel.into_scripts()));
        }
    }
    crew.play_reels(reels)
}
