//! The plan of a restore: everything that the images say, checked, as plain data.

pub(crate) mod births;
pub(crate) mod cgroup;
mod cores;
pub(crate) mod inheritance;
pub(crate) mod ipc;
pub(crate) mod labels;
pub(crate) mod namespaces;
pub(crate) mod pagemap;
mod place;
pub(crate) mod protection;
pub(crate) mod ranges;
mod sharing;
pub(crate) mod space;
mod stop;
mod thread;
pub(crate) mod tree;
pub(crate) mod zone;

use std::collections::{HashMap, HashSet};

use gelid_image::messages::InventoryEntry;
use gelid_image::{Dir, ImageKind, ReadError};
use gelid_pages::{Pagemap, SetError, Sets};
use gelid_sys::lsm::Module;
use gelid_sys::proc::ns::Kind;

use crate::files::{self, Directories, FileOptions, FilesPlan, Session};
use crate::state::seccomp;
use crate::state::{self, ProcessState};
use births::{Births, Tables};
use cgroup::Cgroups;
use cores::Cores;
use inheritance::Inheritance;
use ipc::Ipc;
use namespaces::Namespaces;
use namespaces::joined::JoinOptions;
use namespaces::user::Users;
use sharing::first;
use space::Space;
pub(crate) use stop::Stop;
pub(crate) use thread::{Apart, Thread};
use tree::Node;

/// Why there is no plan. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// An image cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Files cannot be restored.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The state of a task cannot be restored.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The set has no task.
    #[error("pstree.img holds no task; the images are not those of a dump")]
    NoTasks,
    /// The tree does not make sense.
    #[error("pstree.img: task {pid} {what}")]
    Tree {
        /// The task.
        pid: i32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An image of a task does not make sense.
    #[error("core-{pid}.img: {what}")]
    Core {
        /// The task or thread.
        pid: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// An address space does not make sense.
    #[error("mm-{pid}.img: {what}, at {start:#x}")]
    Space {
        /// The task.
        pid: i32,
        /// What is wrong.
        what: &'static str,
        /// Where.
        start: u64,
    },
    /// A mapping cannot be restored yet.
    #[error("task {pid}: {what} at {start:#x} cannot be restored yet; dump the program without it")]
    UnsupportedArea {
        /// The task.
        pid: i32,
        /// What it is.
        what: &'static str,
        /// Where.
        start: u64,
    },
    /// A pagemap does not make sense.
    #[error("pagemap of pages-{pages_id}: {what}, at {vaddr:#x}")]
    Pagemap {
        /// Number of the pages.
        pages_id: u32,
        /// What is wrong.
        what: &'static str,
        /// Where.
        vaddr: u64,
    },
    /// Pages are not there, or those of an earlier set.
    #[error(transparent)]
    Pages(#[from] SetError),
    /// Cgroups do not make sense.
    #[error("cgroup.img: {what}: {found}")]
    Cgroup {
        /// What is wrong.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// An object of System V IPC does not make sense.
    #[error("{}: object {id} {what}", .kind.spec().symbol)]
    Ipc {
        /// The kind of image.
        kind: ImageKind,
        /// The object.
        id: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A network namespace does not make sense.
    #[error("{image}: {what}: {found}")]
    Net {
        /// The image.
        image: String,
        /// What is wrong.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// A mount does not make sense, or what it is of is not given.
    #[error("mount {id} at {point}: {what}")]
    Mount {
        /// Its number at the dump.
        id: u32,
        /// Where it was.
        point: String,
        /// What is wrong.
        what: String,
    },
    /// A namespace of its own cannot be restored yet.
    #[error("task {pid} has a {kind} namespace of its own, which cannot be restored yet")]
    Namespace {
        /// The task.
        pid: i32,
        /// Its kind.
        kind: &'static str,
    },
    /// Names of the host do not make sense.
    #[error("utsns-{id}.img: a name is longer than 64 bytes")]
    Uts {
        /// Number of the namespace.
        id: u32,
    },
    /// Clocks cannot show this.
    #[error("timens-{id}.img: no clock can show that")]
    Clocks {
        /// Number of the namespace.
        id: u32,
    },
    /// Maps of users do not make sense.
    #[error("userns-{id}.img: there are no such users and groups")]
    Users {
        /// Number of the namespace.
        id: u32,
    },
    /// Somebody is not known in the user namespace that is given.
    #[error("task {pid} has user or group {id}, whom the user namespace to be joined does not map")]
    Unknown {
        /// The task or thread.
        pid: i32,
        /// Who it is.
        id: u32,
    },
    /// No place is left in the address spaces.
    #[error("no {need} bytes are free in all of the address spaces at the same place")]
    NoRoom {
        /// Bytes wanted.
        need: u64,
    },
}

/// A task that lives.
#[derive(Debug)]
pub(crate) struct Alive {
    pub(crate) process: ProcessState,
    /// The leader first.
    pub(crate) threads: Vec<Thread>,
    /// Number of seccomp filters, from the oldest on, that all threads have.
    pub(crate) common_filters: usize,
    /// Index of its address space.
    pub(crate) space: usize,
    /// It builds the address space; others share it.
    pub(crate) builds: bool,
    /// It sets the signal handlers, which others share.
    pub(crate) handles: bool,
    /// The descriptor table, if it is the one to fill it.
    pub(crate) files: Option<u32>,
    /// Directories and umask, if it is the one to set them.
    pub(crate) fs: Option<Directories>,
    /// Number in the images of its network namespace.
    pub(crate) network: Option<u32>,
    /// Number of its mount namespace, if that is not the one of the root.
    pub(crate) mount_namespace: Option<u32>,
    /// Namespaces of other kinds that the root is not in; none for that of the restorer.
    pub(crate) further: Vec<(Kind, Option<u32>)>,
    /// Its user namespace, if that is below the root's.
    pub(crate) users: Option<u32>,
    /// Number of the time namespace of its children, if that is another.
    pub(crate) clocks_for_children: Option<u32>,
    /// How it was stopped.
    pub(crate) stopped: Option<Stop>,
    /// It has left the terminal of its session.
    pub(crate) no_terminal: bool,
    /// What semaphores get back when it ends.
    pub(crate) undo: Vec<ipc::Undo>,
}

/// What becomes of a task.
#[derive(Debug)]
pub(crate) enum Life {
    /// It has ended with this status, as `wait(2)` tells it.
    Zombie { status: i32, comm: Vec<u8> },
    /// It lives.
    Alive(Box<Alive>),
}

/// A restore, planned. See [`plan()`](crate::plan()).
#[derive(Debug)]
pub struct Plan {
    pub(crate) nodes: Vec<Node>,
    pub(crate) lives: Vec<Life>,
    pub(crate) births: Births,
    pub(crate) spaces: Vec<Space>,
    /// By task.
    pub(crate) inheritance: Vec<Inheritance>,
    pub(crate) files: FilesPlan,
    pub(crate) cgroups: Cgroups,
    pub(crate) ipc: Ipc,
    module: Option<Module>,
    pub(crate) namespaces: Namespaces,
    /// By shared memory id.
    pub(crate) shared: HashMap<u32, Pagemap>,
    /// Tasks whose descriptor table others have too.
    shared_files: HashSet<usize>,
    /// Tasks whose address space others have too.
    shared_spaces: HashSet<usize>,
    /// Tasks whose root and working directory others have too.
    shared_directories: HashSet<usize>,
}

impl Plan {
    /// Makes the plan from an image directory; changes nothing.
    ///
    /// # Errors
    ///
    /// [`PlanError`]: what is missing, damaged, contradictory or not supported.
    pub(crate) fn read(
        sets: &mut Sets,
        options: &FileOptions,
        joined: Option<(&JoinOptions, &Users)>,
    ) -> Result<Self, PlanError> {
        let dir = &sets.dir().clone();
        let inventory: InventoryEntry = dir.read_one(ImageKind::Inventory, ())?;
        let nodes = tree::read(dir)?;
        let cores = Cores::of(&nodes, dir);
        let mut reader = Reader::new(sets, &inventory, cores)?;
        for node in &nodes {
            reader.task(node)?;
        }
        let mut namespaces = std::mem::take(&mut reader.namespaces.namespaces);
        namespaces.read(dir)?;
        place::check(&nodes, |id| namespaces.pid_ns_above(id))?;
        let tables = thread::tables(&reader.lives, &reader.files)?;
        let mut files = FilesPlan::read(dir, &tables, options)?;
        if let Some(users) = &namespaces.user {
            users.enter(&mut reader.lives);
        }
        if let (Some((options, users)), [root, ..]) = (joined, &nodes[..]) {
            namespaces.join_users(users, options, (root.pid, &mut reader.lives))?;
        }
        if let Some(users) = namespaces.outside() {
            files.leave_users(users);
        }
        let sessions: Vec<Session> = files.sessions().collect();
        let mut births = births::plan(&nodes, &reader.tables, &sessions, options.shell_job)?;
        births::users::plan(&mut births, &nodes, &reader.lives, &namespaces)?;
        pagemap::find_owners(&mut reader.spaces)?;
        let ipc = Ipc::read(reader.sets, &inventory, &namespaces, &mut reader.spaces)?;
        let inheritance = reader.inheritance(&births);
        files.check_processes(|pid| nodes.iter().any(|node| node.is_called(pid)))?;
        let has = |id: i32| nodes.iter().any(|node| node.threads.contains(&id));
        files.find_processes(|pid| nodes.iter().any(|node| node.pid == pid), has)?;
        files.find_locked(|pid| {
            let index = nodes.iter().position(|node| node.pid == pid)?;
            Some(reader.tables[index].as_ref()?.files)
        })?;
        for index in reader.fs.into_values() {
            if let Life::Alive(alive) = &mut reader.lives[index] {
                alive.fs = Some(files.fs(nodes[index].pid)?);
            }
        }
        thread::directories(&mut reader.lives, &files)?;
        let shared = pagemap::shared(reader.sets, files.shared_memory())?;
        Ok(Self {
            lives: reader.lives,
            spaces: reader.spaces,
            nodes,
            births,
            inheritance,
            files,
            cgroups: Cgroups::default(),
            ipc,
            module: labels::module(&inventory),
            namespaces,
            shared,
            shared_files: reader.shared_files,
            shared_spaces: reader.shared_spaces,
            shared_directories: reader.shared_directories,
        })
    }

    /// Pid of the root task.
    #[must_use]
    pub fn root(&self) -> i32 {
        self.nodes[0].pid
    }

    /// Tasks that live, with their nodes.
    pub(crate) fn alive(&self) -> impl Iterator<Item = (&Node, &Alive)> {
        let both = self.nodes.iter().zip(&self.lives);
        both.filter_map(|(node, life)| match life {
            Life::Alive(alive) => Some((node, &**alive)),
            Life::Zombie { .. } => None,
        })
    }
}

/// Reads the images of one task after the other, and notes who shares what.
struct Reader<'a> {
    dir: Dir,
    cores: Cores,
    sets: &'a mut Sets,
    namespaces: namespaces::Reader,
    lives: Vec<Life>,
    tables: Vec<Option<Tables>>,
    spaces: Vec<Space>,
    /// By id of an address space, its index and the task that builds it.
    by_vm: HashMap<u32, (usize, usize)>,
    /// By id of a table, the first task that has it.
    files: HashMap<u32, usize>,
    fs: HashMap<u32, usize>,
    sighand: HashMap<u32, usize>,
    shared_files: HashSet<usize>,
    shared_spaces: HashSet<usize>,
    shared_directories: HashSet<usize>,
    filters: seccomp::Filters,
}

impl<'a> Reader<'a> {
    fn inheritance(&self, births: &Births) -> Vec<Inheritance> {
        let is_shared = |index| {
            let guest = |life: &Life| matches!(life, Life::Alive(alive) if !alive.builds);
            self.shared_spaces.contains(&index) || guest(&self.lives[index])
        };
        inheritance::plan(births, &self.lives, &self.spaces, is_shared)
    }

    fn new(
        sets: &'a mut Sets,
        inventory: &InventoryEntry,
        cores: Cores,
    ) -> Result<Self, PlanError> {
        Ok(Self {
            cores,
            dir: sets.dir().clone(),
            filters: seccomp::Filters::read(sets.dir())?,
            sets,
            namespaces: namespaces::Reader::new(inventory),
            lives: Vec::new(),
            tables: Vec::new(),
            spaces: Vec::new(),
            by_vm: HashMap::new(),
            files: HashMap::new(),
            fs: HashMap::new(),
            sighand: HashMap::new(),
            shared_files: HashSet::new(),
            shared_spaces: HashSet::new(),
            shared_directories: HashSet::new(),
        })
    }

    fn task(&mut self, node: &Node) -> Result<(), PlanError> {
        const DEAD: u32 = 2;
        const ZOMBIE: u32 = 6;
        let pid = node.pid;
        let cores::Process { core, mut rest } = self.cores.of_process(pid)?;
        let Some(process) = &core.tc else {
            return Err(PlanError::Core {
                pid,
                what: "the part of the process is missing",
            });
        };
        if matches!(process.task_state, DEAD | ZOMBIE) {
            self.tables.push(None);
            self.lives.push(Life::Zombie {
                status: process.exit_code.cast_signed(),
                comm: process.comm.clone(),
            });
            return Ok(());
        }
        let stopped = Stop::of(process);
        let gelid = process.gelid.as_ref();
        let no_terminal = gelid.is_some_and(|gelid| gelid.no_terminal == Some(true));
        let ids = rest.ids(&self.dir, pid)?;
        self.namespaces.task(node, &ids)?;
        let own = |thread| (node.threads[thread], node.own(thread));
        let own: HashMap<i32, i32> = (0..node.threads.len()).map(own).collect();
        let state = ProcessState::read(pid, &core)?.called(node.own(0), &own);
        let undo = ipc::undo::read(pid, &core)?;
        let mut records = Vec::with_capacity(node.threads.len());
        records.push(thread::Record::read((pid, pid), &core)?);
        for tid in node.threads.iter().filter(|tid| **tid != pid) {
            records.push(self.cores.of_thread((pid, *tid))?);
        }
        let (threads, common_filters) = thread::all(node, records, &mut self.filters)?;
        let index = self.lives.len();
        let (space, builder) = match self.by_vm.get(&ids.vm_id) {
            Some(found) => *found,
            None => {
                let mm = rest.mm(&self.dir, pid)?;
                self.spaces.push(Space::read(self.sets, pid, mm)?);
                let found = (self.spaces.len() - 1, index);
                self.by_vm.insert(ids.vm_id, found);
                found
            }
        };
        if builder != index {
            self.shared_spaces.insert(builder);
        }
        let fills = first(&mut self.files, ids.files_id, index);
        if !fills {
            self.shared_files.insert(self.files[&ids.files_id]);
        }
        let alive = Alive {
            process: state,
            threads,
            common_filters,
            space,
            builds: builder == index,
            handles: first(&mut self.sighand, ids.sighand_id, index),
            files: fills.then_some(ids.files_id),
            fs: None,
            network: ids.net_ns_id,
            mount_namespace: self.namespaces.namespaces.nested_mounts(&ids),
            further: self.namespaces.further(&ids),
            users: ids
                .user_ns_id
                .filter(|id| self.namespaces.namespaces.is_users(*id)),
            clocks_for_children: ids.time_ns_for_children_id,
            stopped,
            no_terminal,
            undo,
        };
        if !first(&mut self.fs, ids.fs_id, index) {
            self.shared_directories.insert(self.fs[&ids.fs_id]);
        }
        self.tables.push(Some(Tables {
            vm: ids.vm_id,
            files: ids.files_id,
            fs: ids.fs_id,
            sighand: ids.sighand_id,
        }));
        self.lives.push(Life::Alive(Box::new(alive)));
        Ok(())
    }
}
