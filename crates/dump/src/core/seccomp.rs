//! What `seccomp(2)` forbids a thread. Section 22.2 of the format.
//!
//! While the tree is frozen nothing is forbidden, so tapes play. Filters are read from outside. Threads whose filters
//! are the same are taken to have the same ones: who may ask for more of them in all threads at once
//! (`SECCOMP_FILTER_FLAG_TSYNC`) depends on that, and the kernel tells it nowhere.

use std::collections::HashMap;

use gelid_image::messages::{CoreEntry, SeccompEntry, SeccompFilter, SeccompMode};
use gelid_sys::proc::{TaskDir, status};
use gelid_sys::ptrace::{SockFilter, Stopped};
use gelid_sys::{Errno, prctl, seccomp};
use gelid_tape::{Op, Tape};

use super::call::{self, Answers};
use super::{Cores, Error};

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Filter {
    program: Vec<SockFilter>,
    flags: u32,
}

/// What a thread is under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Restraint {
    /// Nothing.
    #[default]
    None,
    /// Strict mode.
    Strict,
    /// Filters, the newest first.
    Filters(Chain),
}

/// Filters of a thread, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Chain(Vec<Filter>);

/// The mode of a thread, asked for.
#[derive(Debug)]
pub(super) struct AskedMode(Op);

impl AskedMode {
    /// In strict mode this call would be the last one, were it in force.
    pub(super) fn ask(tape: &mut Tape) -> Self {
        Self(call::prctl(tape, prctl::PR_GET_SECCOMP, 0))
    }

    /// What a thread with these filters is under.
    pub(super) fn answer(
        &self,
        filters: &[Filter],
        answers: Answers<'_>,
    ) -> Result<Restraint, Error> {
        const STRICT: u64 = SeccompMode::Strict as u64;
        if !filters.is_empty() {
            return Ok(Restraint::Filters(Chain(filters.to_vec())));
        }
        let mode = answers.may(self.0, "prctl(PR_GET_SECCOMP)")?;
        Ok(match mode {
            Some(STRICT) => Restraint::Strict,
            _ => Restraint::None,
        })
    }
}

/// Reads the filters of a thread. `suspended` tells that none of them is in force now.
pub(super) fn filters(task: &Stopped, suspended: bool) -> Result<Vec<Filter>, Error> {
    match suspended {
        true => read(task),
        false => free(task),
    }
}

/// Refuses a thread whose tape would be under a filter.
fn free(task: &Stopped) -> Result<Vec<Filter>, Error> {
    let status = status::read(&TaskDir::open(task.pid())?)?;
    match status.seccomp {
        0 => Ok(Vec::new()),
        _ => Err(Error::Unsupported {
            tid: task.pid(),
            what: "seccomp, which this dumper cannot suspend",
            remedy: "run the dump as root, outside of any sandbox",
        }),
    }
}

fn read(task: &Stopped) -> Result<Vec<Filter>, Error> {
    let tid = task.pid();
    let failed = |errno| Error::Thread {
        tid,
        object: "the seccomp filters",
        errno,
    };
    let mut filters = Vec::new();
    loop {
        let index = filters.len();
        let program = match task.seccomp_filter(index) {
            Ok(Some(program)) => program,
            Ok(None) => break,
            // It has none, or the kernel knows none.
            Err(Errno::INVAL | Errno::IO) if index == 0 => return Ok(filters),
            Err(errno) => return Err(failed(errno)),
        };
        let asks = |insn: &SockFilter| seccomp::asks_supervisor(insn.code, insn.k);
        if program.iter().any(asks) {
            return Err(Error::Unsupported {
                tid,
                what: "a seccomp filter that asks a supervisor (SECCOMP_RET_USER_NOTIF)",
                remedy: "run it without that supervisor",
            });
        }
        let flags = match task.seccomp_flags(index) {
            Ok(flags) => flags as u32,
            // Linux before 4.16.
            Err(Errno::IO) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        filters.push(Filter { program, flags });
    }
    // They were told the oldest first.
    filters.reverse();
    Ok(filters)
}

/// Gives every thread the number of its first filter; the filters of all of them, each chain once.
pub(super) fn record(cores: &mut [Cores]) -> SeccompEntry {
    let mut all = All::default();
    for process in cores {
        let Some((leader, others)) = process.restraints.split_first() else {
            continue;
        };
        let shared = others.iter().all(|other| other == leader);
        put(&mut process.leader, leader, shared, &mut all);
        for ((_, core), restraint) in process.threads.iter_mut().zip(others) {
            match restraint {
                // They are those of the leader.
                Restraint::Filters(_) if shared => of_thread(core, None, None),
                restraint => put(core, restraint, false, &mut all),
            }
        }
    }
    SeccompEntry {
        seccomp_filters: all.filters,
    }
}

fn put(core: &mut CoreEntry, restraint: &Restraint, shared: bool, all: &mut All) {
    if let Restraint::Filters(chain) = restraint {
        let oldest = all.add(chain, shared);
        of_thread(core, Some(SeccompMode::Filter), Some(oldest));
    } else {
        put_unfiltered(core, restraint);
    }
}

/// Says in the record of a thread what it is under, unless that is a filter, which needs the records of all others.
pub(super) fn put_unfiltered(core: &mut CoreEntry, restraint: &Restraint) -> bool {
    let mode = match restraint {
        Restraint::None => SeccompMode::Disabled,
        Restraint::Strict => SeccompMode::Strict,
        Restraint::Filters(_) => return false,
    };
    of_thread(core, Some(mode), None);
    true
}

fn of_thread(core: &mut CoreEntry, mode: Option<SeccompMode>, filter: Option<u32>) {
    if let Some(thread) = &mut core.thread_core {
        thread.seccomp_mode = mode.map(Into::into);
        thread.seccomp_filter = filter;
    }
}

/// All filters so far.
#[derive(Default)]
struct All {
    filters: Vec<SeccompFilter>,
    /// By chain, and whether the threads of a process share it, the number of the oldest.
    chains: HashMap<(Chain, bool), u32>,
}

impl All {
    /// The number of the oldest filter of a chain.
    fn add(&mut self, chain: &Chain, shared: bool) -> u32 {
        let key = (chain.clone(), shared);
        if let Some(oldest) = self.chains.get(&key) {
            return *oldest;
        }
        let shared = if shared { seccomp::FLAG_TSYNC } else { 0 };
        for (age, filter) in chain.0.iter().enumerate() {
            let flags = filter.flags | shared;
            self.filters.push(SeccompFilter {
                filter: filter.program.iter().flat_map(bytes).collect(),
                // The one before is newer.
                prev: (age > 0).then(|| self.filters.len() as u32 - 1),
                flags: (flags != 0).then_some(flags),
            });
        }
        let oldest = self.filters.len() as u32 - 1;
        self.chains.insert(key, oldest);
        oldest
    }
}

fn bytes(insn: &SockFilter) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&insn.code.to_ne_bytes());
    (bytes[2], bytes[3]) = (insn.jt, insn.jf);
    bytes[4..].copy_from_slice(&insn.k.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(ks: &[u32]) -> Chain {
        let filter = |k: &u32| Filter {
            program: vec![SockFilter {
                code: 6,
                k: *k,
                ..SockFilter::default()
            }],
            flags: 0,
        };
        Chain(ks.iter().map(filter).collect())
    }

    #[test]
    fn chains_run_from_the_oldest_to_the_newest() {
        let mut all = All::default();
        assert_eq!(all.add(&chain(&[3, 2, 1]), false), 2);
        assert_eq!(all.add(&chain(&[5]), true), 3);
        assert_eq!(all.add(&chain(&[3, 2, 1]), false), 2);
        let prevs: Vec<_> = all.filters.iter().map(|filter| filter.prev).collect();
        assert_eq!(prevs, [None, Some(0), Some(1), None]);
        let flags: Vec<_> = all.filters.iter().map(|filter| filter.flags).collect();
        assert_eq!(flags, [None, None, None, Some(1)]);
        assert_eq!(all.filters[2].filter, [6, 0, 0, 0, 1, 0, 0, 0]);
    }
}
