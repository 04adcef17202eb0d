//! What `seccomp(2)` forbids threads.
//!
//! While a restore lasts nothing is forbidden (`PTRACE_O_SUSPEND_SECCOMP`), so filters are installed before the rights
//! to do so are gone, and tapes play on. The filters that all threads of a process have in common are installed by
//! its leader for all of them at once, so that they are the same ones, as they were; what a thread has beyond that,
//! by itself.

use std::collections::HashMap;
use std::sync::Arc;

use gelid_image::messages::{CoreEntry, SeccompEntry, SeccompMode};
use gelid_image::{Dir, ImageKind};
use gelid_sys::seccomp::{self, FLAG_LOG, FLAG_TSYNC, FLAG_TSYNC_ESRCH};
use gelid_sys::syscall::nr;
use gelid_tape::Tape;

use super::{Error, Machine};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<u8>,
    log: bool,
    /// The image says that all threads of a process have it.
    of_all: bool,
}

/// What a thread is under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Restraint {
    strict: bool,
    /// The oldest first.
    filters: Arc<Vec<Filter>>,
}

/// What the image of a thread tells: mode and oldest filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    mode: Option<i32>,
    filter: Option<u32>,
}

impl Told {
    pub(crate) fn of(core: &CoreEntry) -> Self {
        let tc = core.tc.as_ref();
        let thread = core.thread_core.as_ref();
        let mode = tc.and_then(|tc| tc.old_seccomp_mode);
        let filter = tc.and_then(|tc| tc.old_seccomp_filter);
        Self {
            mode: mode.or_else(|| thread.and_then(|thread| thread.seccomp_mode)),
            filter: filter.or_else(|| thread.and_then(|thread| thread.seccomp_filter)),
        }
    }
}

/// All filters of the images, and the chains that have been followed.
#[derive(Debug)]
pub(crate) struct Filters {
    image: SeccompEntry,
    chains: HashMap<u32, Arc<Vec<Filter>>>,
}

impl Filters {
    /// Reads the image, if there is one.
    pub(crate) fn read(dir: &Dir) -> Result<Self, gelid_image::ReadError> {
        let image: Option<SeccompEntry> = dir.read_opt(ImageKind::Seccomp, ())?;
        Ok(Self {
            image: image.unwrap_or_default(),
            chains: HashMap::new(),
        })
    }

    /// What the threads of a process are under. `told` is by their images, the leader's first.
    pub(crate) fn of_process(&mut self, told: &[(i32, Told)]) -> Result<Vec<Restraint>, Error> {
        let mut all: Vec<Restraint> = Vec::with_capacity(told.len());
        for (tid, told) in told {
            let own = self.of_thread(*tid, *told)?;
            let leader = all.first();
            let shared = leader.filter(|leader| leader.filters.iter().all(|filter| filter.of_all));
            all.push(match (own, shared) {
                (Some(own), _) => own,
                (None, Some(leader)) => Restraint {
                    strict: false,
                    filters: Arc::clone(&leader.filters),
                },
                (None, None) => Restraint::default(),
            });
        }
        Ok(all)
    }

    /// `None` if its image does not tell.
    fn of_thread(&mut self, tid: i32, told: Told) -> Result<Option<Restraint>, Error> {
        let Told { mode, filter } = told;
        let Some(mode) = mode else { return Ok(None) };
        let wrong = |what| Error::Wrong { tid, what };
        let strict = match SeccompMode::try_from(mode) {
            Ok(SeccompMode::Disabled) => return Ok(Some(Restraint::default())),
            Ok(SeccompMode::Strict) => true,
            Ok(SeccompMode::Filter) => false,
            Err(_) => return Err(wrong("the seccomp mode is not known")),
        };
        let filters = match (strict, filter) {
            (true, _) => Arc::default(),
            (false, None) => return Err(wrong("its seccomp filter is missing")),
            (false, Some(oldest)) => self.chain(tid, oldest)?,
        };
        Ok(Some(Restraint { strict, filters }))
    }

    /// A chain from its oldest filter on.
    fn chain(&mut self, tid: i32, oldest: u32) -> Result<Arc<Vec<Filter>>, Error> {
        if let Some(known) = self.chains.get(&oldest) {
            return Ok(Arc::clone(known));
        }
        let all = &self.image.seccomp_filters;
        let mut chain = Vec::new();
        let mut next = Some(oldest);
        while let Some(index) = next {
            let found = usize::try_from(index).ok().and_then(|index| all.get(index));
            let what = "its seccomp filter is not in seccomp.img";
            let filter = found.ok_or(Error::Wrong { tid, what })?;
            if chain.len() >= all.len() {
                let what = "its seccomp filters lead to themselves";
                return Err(Error::Wrong { tid, what });
            }
            let len = filter.filter.len();
            let fits = (1..=seccomp::MOST).contains(&(len / INSTRUCTION));
            if !fits || !len.is_multiple_of(INSTRUCTION) {
                let what = "its seccomp filter is no program of 1 to 4096 instructions";
                return Err(Error::Wrong { tid, what });
            }
            let flags = filter.flags.unwrap_or(0);
            if flags & !(FLAG_LOG | FLAG_TSYNC) != 0 {
                let what = "a seccomp filter with flags that are not known";
                let remedy = "restore with a newer gelid";
                return Err(Error::Unsupported { tid, what, remedy });
            }
            chain.push(Filter {
                program: filter.filter.clone(),
                log: flags & FLAG_LOG != 0,
                of_all: flags & FLAG_TSYNC != 0,
            });
            next = filter.prev;
        }
        let chain = Arc::new(chain);
        self.chains.insert(oldest, Arc::clone(&chain));
        Ok(chain)
    }
}

/// Number of filters, from the oldest on, that all of some threads have.
pub(crate) fn common(all: &[Restraint]) -> usize {
    let Some((first, others)) = all.split_first() else {
        return 0;
    };
    let shared = |other: &Restraint| {
        if Arc::ptr_eq(&other.filters, &first.filters) {
            return first.filters.len();
        }
        let both = other.filters.iter().zip(first.filters.iter());
        both.take_while(|(one, other)| one.same(other)).count()
    };
    let len = first.filters.len();
    others.iter().map(shared).min().unwrap_or(len).min(len)
}

impl Restraint {
    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        self.strict || !self.filters.is_empty()
    }

    /// Refuses what could not be suspended while the restore lasts.
    pub(crate) fn check(&self, tid: i32, machine: &Machine) -> Result<(), Error> {
        const SYS_ADMIN: u64 = 1 << 21;
        if !self.is_any() || machine.creds.has(SYS_ADMIN) && machine.seccomp == 0 {
            return Ok(());
        }
        Err(Error::Unsupported {
            tid,
            what: "seccomp",
            remedy: "restore as root, outside of any sandbox",
        })
    }

    /// Its filters, the oldest first.
    pub(crate) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Whether it is strict mode.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }
}

impl Filter {
    fn same(&self, other: &Self) -> bool {
        (&self.program, self.log) == (&other.program, other.log)
    }

    /// Bytes of a tape that installs it, and a little more.
    pub(crate) fn size(&self) -> usize {
        const CALL: usize = 512;
        self.program.len() + CALL
    }

    /// Installs it, for all threads of the process or one.
    pub(crate) fn write(&self, tape: &mut Tape, for_all: bool) {
        let log = if self.log { FLAG_LOG } else { 0 };
        let all = if for_all {
            FLAG_TSYNC | FLAG_TSYNC_ESRCH
        } else {
            0
        };
        let len = u16::try_from(self.program.len() / INSTRUCTION).unwrap_or(u16::MAX);
        let program = tape.bytes(&seccomp::program(len));
        let instructions = tape.bytes(&self.program);
        tape.link(program, seccomp::INSTRUCTIONS, instructions);
        let args = [
            u64::from(seccomp::SET_MODE_FILTER).into(),
            u64::from(log | all).into(),
            program.into(),
        ];
        tape.must(nr::seccomp, args);
    }
}

/// Forbids everything but a few calls.
pub(crate) fn write_strict(tape: &mut Tape) {
    let args = [
        u64::from(seccomp::SET_MODE_STRICT).into(),
        0.into(),
        0.into(),
    ];
    tape.must(nr::seccomp, args);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::{SeccompFilter, ThreadCoreEntry};

    fn told(mode: Option<SeccompMode>, filter: Option<u32>) -> Told {
        Told::of(&CoreEntry {
            thread_core: Some(ThreadCoreEntry {
                seccomp_mode: mode.map(Into::into),
                seccomp_filter: filter,
                ..ThreadCoreEntry::default()
            }),
            ..CoreEntry::default()
        })
    }

    fn filters(all: &[(u8, Option<u32>, u32)]) -> Filters {
        let filter = |(byte, prev, flags): &(u8, Option<u32>, u32)| SeccompFilter {
            filter: vec![*byte; 8],
            prev: *prev,
            flags: Some(*flags),
        };
        Filters {
            image: SeccompEntry {
                seccomp_filters: all.iter().map(filter).collect(),
            },
            chains: HashMap::new(),
        }
    }

    const FILTER: Option<SeccompMode> = Some(SeccompMode::Filter);

    #[test]
    fn a_chain_begins_with_the_oldest() {
        let mut filters = filters(&[(3, None, 0), (2, Some(0), 2), (1, Some(1), 0), (1, None, 0)]);
        let told = [
            (7, told(FILTER, Some(2))),
            (8, told(FILTER, Some(3))),
            (9, told(Some(SeccompMode::Strict), None)),
            (10, told(None, None)),
        ];
        let all = filters.of_process(&told).unwrap();
        let first: Vec<u8> = all[0].filters.iter().map(|one| one.program[0]).collect();
        assert_eq!(first, [1, 2, 3]);
        assert!(all[0].filters[1].log && !all[0].filters[0].log);
        assert!(all[2].strict && all[2].is_any() && !all[3].is_any());
        assert_eq!(
            (common(&all[..2]), common(&all[..1]), common(&all)),
            (1, 3, 0)
        );
    }

    #[test]
    fn threads_share_what_the_leader_has_for_all() {
        let mut filters = filters(&[(2, None, 1), (1, Some(0), 1)]);
        let told = [(7, told(FILTER, Some(1))), (8, told(None, None))];
        let all = filters.of_process(&told).unwrap();
        assert_eq!(all[0], all[1]);
        assert_eq!(common(&all), 2);
    }

    #[test]
    fn records_that_cannot_be_are_refused() {
        let refused = |mut filters: Filters, oldest| {
            filters
                .of_process(&[(7, told(FILTER, oldest))])
                .unwrap_err()
        };
        refused(filters(&[]), Some(0));
        refused(filters(&[(1, None, 0)]), None);
        refused(filters(&[(1, Some(9), 0)]), Some(0));
        refused(filters(&[(1, Some(1), 0), (2, Some(0), 0)]), Some(0));
        refused(filters(&[(1, None, 8)]), Some(0));
        for len in [0, 7, 8 * 4097] {
            let mut filters = filters(&[(1, None, 0)]);
            filters.image.seccomp_filters[0].filter = vec![0; len];
            refused(filters, Some(0));
        }
        let mut odd = told(FILTER, Some(0));
        odd.mode = Some(9);
        filters(&[(1, None, 0)])
            .of_process(&[(7, odd)])
            .unwrap_err();
    }
}
