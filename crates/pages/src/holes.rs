//! Small pages at the price of a copy: holes in an address space, filled through userfaultfd.
//!
//! Used from the start for mappings that have no huge pages anyway; for others only when these are slow to get, since the
//! kernel makes none where holes are registered. Until then, and where a page is already, pages are written as everywhere
//! else; never both at once, as a write to a registered hole fails.

use crate::PAGE_SIZE;
use crate::source::{Remaining, byte_len};
use gelid_sys::userfaultfd::Holes;
use rustix::io::{Errno, Result};
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Mappings of one process whose holes may be filled (`UFFDIO_COPY`): each private, anonymous, and whole.
#[derive(Debug)]
pub struct HoleMappings {
    /// Where they are to be filled.
    pub holes: Holes,
    /// Mappings without huge pages that have been registered already; ascending.
    pub registered: Vec<Range<u64>>,
    /// Mappings to be registered once huge pages are slow to get; ascending.
    pub huge: Vec<Range<u64>>,
}

/// The same as it becomes.
#[derive(Debug)]
pub(crate) struct Fillable {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` when it is over.
    holes: Option<Holes>,
    /// Where holes are filled; ascending.
    registered: Vec<Range<u64>>,
    /// Where pages are written, so far.
    huge: Vec<Range<u64>>,
    /// Holes are filled there, too.
    small: bool,
}

impl Fillable {
    pub(crate) fn new(mappings: HoleMappings) -> Self {
        let state = State {
            holes: Some(mappings.holes),
            registered: mappings.registered,
            huge: mappings.huge,
            small: false,
        };
        Self {
            state: RwLock::new(state),
        }
    }

    /// From now on holes are filled everywhere; false if there are no others, or the kernel does not want to.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.exclusive();
        let huge = std::mem::take(&mut state.huge);
        if let (Some(holes), false) = (&state.holes, huge.is_empty()) {
            state.small = huge.iter().all(|range| holes.register(range).is_ok());
            if !state.small {
                // What has been registered ends with the descriptor.
                *state = State::default();
                return false;
            }
            state.registered.extend(huge);
            state.registered.sort_unstable_by_key(|range| range.start);
        }
        state.small
    }

    /// The mappings are as all others again.
    pub(crate) fn end(&self) {
        *self.exclusive() = State::default();
    }

    /// Keeps all as it is as long as what this returns lives.
    pub(crate) fn hold(&self) -> Held<'_> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Held(state)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holes that stay what they are.
pub(crate) struct Held<'a>(RwLockReadGuard<'a, State>);

impl Held<'_> {
    /// Fills what is first in `left`, as far as there are registered holes, from `bytes`, which are those of all of it.
    pub(crate) fn fill(&self, bytes: &[u8], left: &mut Remaining) -> Result<()> {
        let Some(holes) = &self.0.holes else {
            return Ok(());
        };
        while let Some(range) = left.ranges().first().cloned()
            && let Some(end) = self.end_of(range.start)
        {
            let end = range.end.min(end);
            let rest = &bytes[left.done..][..byte_len(&(range.start..end))];
            match holes.fill(range.start, rest) {
                Ok(done) if done > 0 => left.advance(done),
                // Whatever the kernel is busy with ends.
                Ok(_) | Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(Errno::EXIST) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// What of `range`, which could not be filled, may be written without coming to a hole.
    pub(crate) fn writable(&self, range: &Range<u64>) -> Option<Range<u64>> {
        self.0.holes.as_ref()?;
        let next = self.next(range.start);
        let end = match next {
            Some(next) if next.start <= range.start => range.start + PAGE_SIZE as u64,
            Some(next) => next.start,
            None => range.end,
        };
        Some(range.start..end.min(range.end))
    }

    /// Where the registered mapping ends that `address` is in.
    fn end_of(&self, address: u64) -> Option<u64> {
        let next = self.next(address)?;
        (next.start <= address).then_some(next.end)
    }

    /// The registered mapping that `address` is in, or the next.
    fn next(&self, address: u64) -> Option<&Range<u64>> {
        let ranges = &self.0.registered;
        ranges.get(ranges.partition_point(|range| range.end <= address))
    }
}
