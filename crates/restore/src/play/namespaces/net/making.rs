//! All network namespaces of a tree: which come from the caller, which are new, and who is in which.

use std::collections::HashSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use gelid_netlock::Lock;
use gelid_sys::clone::flags;
use gelid_sys::namespace::join;
use gelid_sys::proc::ns::Kind;
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, pidfd};
use rustix::fs::{Mode, OFlags};

use super::super::Stage;
use super::outside::Outside;
use super::{Others, finish, firewall, furnish, link};
use crate::files::Networks;
use crate::plan::births::Who;
use crate::plan::namespaces::net::{Contents, Description, Given, Net};
use crate::plan::{Life, Plan};
use crate::play::crew::Crew;
use crate::play::script::{Object, Script};
use crate::{Error, NetError, Options};

/// The network namespaces of a tree, while they come to be. Dropped, it undoes what they have changed outside, unless
/// that is [kept](Self::keep).
pub(crate) struct Making {
    /// The restorer's; none is needed for a tree that has but that.
    outside: Option<Outside>,
    given: BTreeMap<u32, OwnedFd>,
    made: Arc<Networks>,
    /// What keeps packets away from connections, by namespace.
    locks: BTreeMap<u32, Lock>,
}

impl Making {
    /// Takes what the caller gives. If the root is to be in one of these, so is this thread from now on, and bears it
    /// there.
    pub(crate) fn start(plan: &Plan, options: &Options) -> Result<Self, Error> {
        let mut making = Self {
            outside: None,
            given: BTreeMap::new(),
            made: Arc::default(),
            locks: BTreeMap::new(),
        };
        let namespaces = &plan.namespaces;
        if namespaces.networks.is_empty() {
            return Ok(making);
        }
        let failed = |operation, id| {
            move |errno| NetError::Kernel {
                id,
                operation,
                object: "a network namespace".to_owned(),
                errno,
            }
        };
        let host = namespaces.host_network.unwrap_or_default();
        making.outside = Some(Outside::own().map_err(failed("look at", host))?);
        for net in &namespaces.networks {
            if let Contents::Given(given) = &net.contents {
                let namespace = take(net.id, given, options)?;
                if net.is_root {
                    join(&namespace, Kind::Net).map_err(failed("join", net.id))?;
                }
                making.given.insert(net.id, namespace);
            }
        }
        Ok(making)
    }

    /// Makes those that the caller does not give, and what is in them. This thread is in the root's.
    pub(crate) fn make(&mut self, options: &Options, stage: &mut Stage<'_>) -> Result<(), Error> {
        let Some(outside) = &mut self.outside else {
            return Ok(());
        };
        let plan = stage.plan;
        let networks = &plan.namespaces.networks;
        let host = plan.namespaces.host_network.unwrap_or_default();
        let root = networks.iter().find(|net| net.is_root);
        let root = root.map_or(host, |net| net.id);
        let mut all = std::mem::take(&mut self.given);
        let own = stage.open(Kind::Net)?;
        for net in networks.iter().filter(|net| !net.is_root) {
            if let Entry::Vacant(place) = all.entry(net.id) {
                place.insert(stage.make(Kind::Net, net.id, &own)?);
            }
        }
        all.insert(root, own);
        let described: Vec<(u32, &Description)> = networks.iter().filter_map(description).collect();
        let others = Others::new(&all, described.iter().copied());
        let mut made = HashSet::new();
        for net in networks {
            let id = net.id;
            if let Contents::Given(_) = net.contents {
                continue;
            }
            enter(id, &all)?;
            let lock = plan.files.keep_packets_away(id);
            let lock = lock.map_err(|source| NetError::Firewall { id, source })?;
            let is_locked = lock.is_some();
            self.locks.extend(lock.map(|lock| (id, lock)));
            if let Contents::Empty { loopback: true } = net.contents {
                link::set_up_loopback(id)?;
            }
            if let Some((id, description)) = description(net) {
                let options = &options.net;
                furnish(
                    id,
                    description,
                    &others,
                    outside,
                    options,
                    &mut made,
                    is_locked,
                )?;
            }
        }
        for (id, description) in &described {
            enter(*id, &all)?;
            finish(*id, description, &others, outside, &options.net)?;
        }
        enter(root, &all)?;
        if root != host {
            let own = rustix::io::fcntl_dupfd_cloexec(&*outside, 0);
            let own = own.map_err(|errno| NetError::Kernel {
                id: host,
                operation: "hold",
                object: "the namespace of the restorer".to_owned(),
                errno,
            })?;
            all.insert(host, own);
        }
        let links = described.iter().flat_map(|(id, description)| {
            let fleeting = description.links.iter().filter(|link| link.is_fleeting());
            fleeting.map(|link| (*id, link.name.clone()))
        });
        let fleeting = links.collect();
        self.made = Arc::new(Networks::new(all, fleeting, root));
        Ok(())
    }

    /// Where sockets are made.
    pub(crate) fn made(&self) -> Arc<Networks> {
        Arc::clone(&self.made)
    }

    /// Gives namespaces their own rules of the firewall where these had to wait for connections. If the dump has kept
    /// packets away, they do so too.
    pub(crate) fn rule(&mut self, plan: &Plan) -> Result<(), Error> {
        let locks = std::mem::take(&mut self.locks);
        for (id, lock) in locks {
            let failed = |errno| NetError::Kernel {
                id,
                operation: "join",
                object: "it".to_owned(),
                errno,
            };
            self.made.enter(Some(id)).map_err(failed)?;
            let mut described = plan.namespaces.networks.iter().filter_map(description);
            if let Some((_, description)) = described.find(|(other, _)| *other == id) {
                firewall::rules(id, description)?;
                firewall::lift_lock_of_criu(id, description)?;
            }
            // They are lifted with the others.
            let kept = lock.keep();
            kept.map_err(|source| NetError::Firewall { id, source })?;
        }
        Ok(())
    }

    /// Everything outside stays as it is.
    pub(crate) fn keep(&mut self) {
        if let Some(outside) = &mut self.outside {
            outside.keep();
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // The rules go with their namespaces. Whoever was to lift them waits for the end of a pipe that tasks have too.
        for lock in std::mem::take(&mut self.locks).into_values() {
            let _ = lock.keep();
        }
    }
}

fn description(net: &Net) -> Option<(u32, &Description)> {
    match &net.contents {
        Contents::Described(description) => Some((net.id, description)),
        _ => None,
    }
}

/// What the caller gives.
fn take(id: u32, given: &Given, options: &Options) -> Result<OwnedFd, NetError> {
    match given {
        Given::Key(key) => {
            let missing = || NetError::NotGiven {
                id,
                object: format!("the network namespace {key}"),
                option: format!("--inherit-fd 'fd[N]:{key}'"),
            };
            let number = options.files.inherited(key.as_bytes());
            let number = number.ok_or_else(missing)?;
            let myself = pidfd::open(rustix::process::getpid());
            let taken = myself.and_then(|myself| pidfd::getfd(myself, number));
            taken.map_err(|errno| NetError::Kernel {
                id,
                operation: "take the descriptor of",
                object: format!("the network namespace {key}"),
                errno,
            })
        }
        Given::Path(path) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty());
            opened.map_err(|errno| NetError::Kernel {
                id,
                operation: "open",
                object: path.display().to_string(),
                errno,
            })
        }
    }
}

/// Has a task join a network namespace by a descriptor that it has.
fn joining(namespace: i32) -> Script {
    let mut script = Script::default();
    let args = [namespace.into(), flags::NEWNET.into()];
    script.must(Object::Descriptor(namespace), nr::setns, args);
    script
}

fn enter(id: u32, all: &BTreeMap<u32, OwnedFd>) -> Result<(), NetError> {
    let namespace = all.get(&id).ok_or(Errno::NOENT);
    let joined = namespace.and_then(|namespace| join(namespace, Kind::Net));
    joined.map_err(|errno| NetError::Kernel {
        id,
        operation: "join",
        object: "it".to_owned(),
        errno,
    })
}

/// Has tasks join their network namespaces, where these are not the root's.
pub(crate) fn scatter(plan: &Plan, networks: &Networks, crew: &mut Crew) -> Result<(), Error> {
    let network = |life: &Life| match life {
        Life::Alive(alive) => alive.network,
        Life::Zombie { .. } => None,
    };
    let root = plan.lives.first().and_then(network);
    let mut work = Vec::new();
    for (index, life) in plan.lives.iter().enumerate() {
        let own = network(life).filter(|own| Some(*own) != root);
        if let Some(namespace) = own.and_then(|own| networks.get(own)) {
            work.push((Who::Task(index), joining(namespace.as_raw_fd())));
        }
    }
    crew.play(&work).map(drop)
}
