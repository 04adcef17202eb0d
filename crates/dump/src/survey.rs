//! The first look at a frozen tree, from outside: processes, kinship, shared objects, mappings. Whatever is
//! refused is refused here, before a task has been touched.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use gelid_image::messages::TaskKobjIdsEntry;
use gelid_seize::{Checked, Process, State, Tree};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::smaps::Area;
use gelid_sys::proc::stat::{self, Stat};
use gelid_sys::proc::status::{self, Status};
use gelid_sys::{Pid, proc};

use crate::ids::Ids;
use crate::layout::{Expected, Layout, Looker, Promise};
use crate::namespace::{
    self, Census, ForChildren, Instances, Kept, Links, Number, Numbers, Own, Place, Users,
};
use crate::{Error, Options, Refusal, files, kinship};

/// A process of the tree, as it looks from outside.
#[derive(Debug)]
pub(crate) struct Task {
    /// As the dumper sees it.
    pub(crate) pid: Pid,
    /// A thread of it that lives, which is asked about it: the leader, unless that has ended before the others.
    pub(crate) living: Pid,
    /// Parent, as the dumper sees it; 0 for the root.
    pub(crate) ppid: i32,
    /// Threads, the leader first, even one that has ended, as the dumper sees them.
    pub(crate) tids: Vec<Pid>,
    /// How they are called inside.
    pub(crate) numbers: Vec<Number>,
    /// What it is called in a pid namespace below the root's.
    pub(crate) place: Option<Place>,
    /// Number of the pid namespace of its children, if it is another; 0 for one that is still empty.
    pub(crate) pid_ns_for_children: Option<u32>,
    pub(crate) stat: Stat,
    /// It has left the terminal of its session.
    pub(crate) no_terminal: bool,
    /// What it has unless it is a zombie.
    pub(crate) live: Option<Live>,
}

/// What only a process has that has not ended.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) ids: TaskKobjIdsEntry,
    pub(crate) status: Status,
    pub(crate) space: Space,
}

/// The address space of a process.
#[derive(Debug)]
pub(crate) enum Space {
    /// Seen in this process first.
    Own(Arc<Expected>),
    /// That of an earlier process, by its place in the list.
    Of(usize),
}

/// A number that no namespace has.
const NOWHERE: u32 = u32::MAX;

impl Task {
    /// It has to do with pid namespaces below the root's.
    fn is_nested(&self) -> bool {
        self.place.is_some() || self.pid_ns_for_children.is_some()
    }

    /// Its leader has not ended before the others.
    pub(crate) fn has_leader(&self) -> bool {
        self.living == self.pid
    }

    /// What a thread calls itself, counting those that live.
    pub(crate) fn own(&self, thread: usize) -> Option<i32> {
        let ended = usize::from(!self.has_leader());
        self.numbers.get(thread + ended).map(|number| number.own)
    }

    /// Its name, for messages.
    pub(crate) fn comm(&self) -> String {
        String::from_utf8_lossy(&self.stat.comm).into_owned()
    }

    /// Its number in images.
    pub(crate) fn number(&self) -> i32 {
        self.numbers
            .first()
            .map_or(self.pid.as_raw_pid(), |number| number.image)
    }
}

/// Refuses a root that cannot be dumped, before anything is frozen. Returns what the freezer need not check again.
pub(crate) fn root(options: &Options, namespaces: &Own) -> Result<Checked, Error> {
    let pid = options.tree;
    let checked = gelid_seize::check_root(pid)?;
    let Ok(dir) = proc::task_dir(pid) else {
        // The freezer knows how to say it.
        return Ok(checked);
    };
    let stat = stat::read(&dir)?;
    let comm = String::from_utf8_lossy(&stat.comm).into_owned();
    let dir = match stat.state.is_dead() {
        true => match living(&dir)? {
            Some(thread) => thread,
            None => return Ok(checked),
        },
        false => dir,
    };
    if stat.sid != pid.as_raw_pid() && !options.shell_job {
        let sid = stat.sid;
        return Err(Refusal::ShellJob { pid, comm, sid }.into());
    }
    namespace::check_root(options, &comm, &dir, namespaces)?;
    files::check(options, &dir)?;
    Ok(checked)
}

/// A thread of a process that has lost its leader, as a process.
fn living(dir: &TaskDir) -> Result<Option<TaskDir>, Error> {
    for tid in proc::tasks::threads(dir)? {
        if let Ok(thread) = proc::task_dir(tid)
            && stat::read(&thread).is_ok_and(|stat| !stat.state.is_dead())
        {
            return Ok(Some(thread));
        }
    }
    Ok(None)
}

/// Refuses a process under seccomp if that cannot be suspended while tapes play.
fn free(pid: Pid, comm: &str, status: &Status, suspended: bool) -> Result<(), Refusal> {
    match status.seccomp {
        _ if suspended => Ok(()),
        0 => Ok(()),
        mode => Err(Refusal::Seccomp {
            pid,
            comm: comm.to_owned(),
            mode,
        }),
    }
}

/// Looks at every process of the tree, at the mappings by way of `looker`.
pub(crate) fn tree(
    tree: &Tree,
    options: &Options,
    namespaces: &Own,
    looker: &dyn Looker,
) -> Result<(Vec<Task>, Census, Layouts), Error> {
    let mut surveyor = Surveyor {
        instances: Instances::new(*namespaces),
        kept: Rc::default(),
        numbers: Numbers::default(),
        users: Users::default(),
        for_children: Vec::new(),
        looker,
        ids: Ids::new(),
        spaces: HashMap::new(),
        is_alone: tree.processes().len() == 1,
        alone: None,
        suspended: tree.seccomp_suspended(),
    };
    let root = tree.root().pid;
    let mut tasks = Vec::with_capacity(tree.processes().len());
    for process in tree.processes() {
        let ppid = if process.pid == root { 0 } else { process.ppid };
        tasks.push(surveyor.task(process, ppid, tasks.len())?);
    }
    kinship::check(&tasks, options.shell_job)?;
    kinship::find_terminals(&mut tasks);
    let layouts = match surveyor.is_alone {
        true => Layouts::Here(surveyor.alone),
        false => Layouts::There,
    };
    namespace::check_clocks(&tasks)?;
    for (index, inode) in std::mem::take(&mut surveyor.for_children) {
        // One that nobody is in is not among them.
        let found = surveyor.instances.by_inode(inode);
        tasks[index].pid_ns_for_children = Some(found.unwrap_or(NOWHERE));
    }
    let nested = namespace::relate(&mut surveyor.instances, &tasks, &surveyor.users)?;
    if tasks.iter().any(Task::is_nested) {
        namespace::check_births(&tasks, &nested)?;
    }
    namespace::check_users(&tasks, &nested, &surveyor.instances)?;
    let mut census = Census {
        nested,
        last_pid: None,
        instances: surveyor.instances.into_met(),
        numbers: surveyor.numbers,
        users: surveyor.users,
    };
    census.last_pid = namespace::last_pid(&census, options);
    Ok((tasks, census, layouts))
}

/// What is still to be seen of the mappings of a tree.
pub(crate) enum Layouts {
    /// All of it, which the caller does: one process is looked at sooner than it is asked for.
    Here(Option<(Pid, Promise)>),
    /// The looker sees to it.
    There,
}

impl Layouts {
    /// Waits until all mappings are known, and refuses what is not dumped.
    pub(crate) fn wait(self, looker: &dyn Looker) -> Result<(), Error> {
        match self {
            Self::Here(None) => Ok(()),
            Self::Here(Some((pid, promise))) => {
                let part = |areas: &[Area]| looker.part(pid, areas);
                let layout = Arc::new(Layout::read_by_parts(pid, part)?);
                promise.keep(&layout);
                looker.seen(pid, layout)
            }
            Self::There => looker.looked(),
        }
    }
}

struct Surveyor<'a> {
    instances: Instances,
    kept: Rc<Kept>,
    numbers: Numbers,
    users: Users,
    /// Tasks whose children are born elsewhere, and the inode of the pid namespace.
    for_children: Vec<(usize, u64)>,
    looker: &'a dyn Looker,
    ids: Ids,
    /// The first process with each address space, by its id.
    spaces: HashMap<u32, usize>,
    is_alone: bool,
    /// The only process, which somebody is still to look at.
    alone: Option<(Pid, Promise)>,
    /// Nothing is forbidden by seccomp for the time.
    suspended: bool,
}

impl Surveyor<'_> {
    fn task(&mut self, process: &Process, ppid: i32, index: usize) -> Result<Task, Error> {
        let pid = process.pid;
        let dir = process.dir()?;
        let mut task = Task {
            pid,
            living: process.living(),
            ppid,
            tids: process.threads.iter().map(|thread| thread.tid).collect(),
            numbers: Vec::new(),
            place: None,
            pid_ns_for_children: None,
            stat: stat::read(&dir)?,
            no_terminal: false,
            live: None,
        };
        if let State::Zombie(_) = process.state {
            task.tids = vec![pid];
            let own = match self.instances.has_nested_numbers() {
                true => self.instances.pid_of(&dir, pid)?,
                false => None,
            };
            self.number(&mut task, own, None)?;
            return Ok(task);
        }
        if !task.has_leader() {
            task.tids.insert(0, pid);
            (task.stat.pid, task.stat.comm) =
                (pid.as_raw_pid(), stat::read(&proc::task_dir(pid)?)?.comm);
        }
        let living = task.living;
        let tables = self.ids.of(living)?;
        let first = *self.spaces.entry(tables[0]).or_insert(index);
        let mut space = Space::Of(first);
        if first == index {
            let (expected, promise) = Expected::promised();
            space = Space::Own(expected);
            match self.is_alone {
                true => self.alone = Some((living, promise)),
                false => self.looker.look(living, promise)?,
            }
        }
        let links = match self.is_alone {
            // There is nobody to keep them for.
            true => Links::free(&dir),
            false => Links::held(&dir, task.has_leader(), &self.kept),
        };
        let namespaces = self.instances.of(&links, index == 0)?;
        let clocks = self.instances.for_children(&links, namespaces[4])?;
        namespace::refuse(&self.instances, pid, &task.comm())?;
        let mut status = status::read(&dir)?;
        if index == 0 {
            self.look_inside(&dir, &status)?;
        }
        let own = namespaces[0];
        let of_leader = task.has_leader().then_some(&status);
        self.number(&mut task, own, of_leader)?;
        match self.instances.numbers_for_children(&links, own)? {
            ForChildren::Own => {}
            ForChildren::New => task.pid_ns_for_children = Some(0),
            ForChildren::Of(inode) => self.for_children.push((index, inode)),
        }
        self.users.translate(&mut status)?;
        free(pid, &task.comm(), &status, self.suspended)?;
        task.live = Some(Live {
            ids: TaskKobjIdsEntry {
                time_ns_for_children_id: clocks,
                ..namespace::entry(tables, namespaces)
            },
            status,
            space,
        });
        Ok(task)
    }
}

impl Surveyor<'_> {
    /// Finds out how the root's own namespaces call what the dumper sees.
    fn look_inside(&mut self, dir: &TaskDir, status: &Status) -> Result<(), Error> {
        if self.instances.has_numbers() {
            self.numbers = Numbers::inside(status);
        }
        if self.instances.has_users() {
            self.users = Users::inside(dir)?;
        }
        Ok(())
    }

    /// Finds the numbers of all threads; `own` is the pid namespace, `status` that of the leader, if it has been read.
    fn number(
        &mut self,
        task: &mut Task,
        own: Option<u32>,
        status: Option<&Status>,
    ) -> Result<(), Error> {
        let nested = own.filter(|id| self.instances.is_nested(*id));
        if !self.numbers.differ() && nested.is_none() {
            task.numbers = task.tids.iter().map(|tid| Number::same(*tid)).collect();
            return Ok(());
        }
        let dir = proc::task_dir(task.pid)?;
        let depth = self.numbers.depth();
        for tid in &task.tids {
            let read;
            let status = match status.filter(|_| *tid == task.pid) {
                Some(status) => status,
                None if *tid == task.pid => {
                    read = status::read(&dir)?;
                    &read
                }
                None => {
                    read = status::read(&dir.thread(*tid)?)?;
                    &read
                }
            };
            let number = self.numbers.note(*tid, status)?;
            task.numbers.push(number);
            if let Some(id) = nested {
                self.numbers.note_nested(id, number);
            }
            match (&mut task.place, nested) {
                (Some(place), _) => place.thread(depth, status),
                (place, Some(id)) => *place = Some(Place::new(id, depth, status)),
                (None, None) => {}
            }
        }
        Ok(())
    }
}
