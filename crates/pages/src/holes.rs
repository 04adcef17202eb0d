//! Small pages at the price of a copy: holes in an address space, filled through userfaultfd.
//!
//! Used only when huge pages are slow to get, since the kernel makes none where holes are registered. Until then, and
//! where a page is already, pages are written as everywhere else; never both at once, as a write to a registered hole fails.

use crate::PAGE_SIZE;
use crate::source::{Remaining, byte_len};
use gelid_sys::userfaultfd::Holes;
use rustix::io::{Errno, Result};
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Mappings whose holes may be filled.
#[derive(Debug)]
pub(crate) struct Fillable {
    /// Whole mappings, ascending.
    ranges: Vec<Range<u64>>,
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    /// Pages are written.
    Written(Holes),
    /// Holes in the ranges are filled.
    Filled(Holes),
    /// No holes any more.
    Over,
}

impl Fillable {
    pub(crate) fn new(holes: Holes, ranges: Vec<Range<u64>>) -> Self {
        Self {
            ranges,
            state: RwLock::new(State::Written(holes)),
        }
    }

    /// From now on holes are filled; false if the kernel does not want to.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.exclusive();
        *state = match std::mem::replace(&mut *state, State::Over) {
            State::Written(holes) => {
                let registered = |range: &Range<u64>| holes.register(range).is_ok();
                match self.ranges.iter().all(registered) {
                    true => State::Filled(holes),
                    // What has been registered ends with the descriptor.
                    false => State::Over,
                }
            }
            state => state,
        };
        matches!(*state, State::Filled(_))
    }

    /// The mappings are as all others again.
    pub(crate) fn end(&self) {
        *self.exclusive() = State::Over;
    }

    /// Keeps all as it is as long as what this returns lives.
    pub(crate) fn hold(&self) -> Held<'_> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Held {
            ranges: &self.ranges,
            state,
        }
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holes that stay what they are.
pub(crate) struct Held<'a> {
    ranges: &'a [Range<u64>],
    state: RwLockReadGuard<'a, State>,
}

impl Held<'_> {
    /// Fills what is first in `left`, as far as there are registered holes, from `bytes`, which are those of all of it.
    pub(crate) fn fill(&self, bytes: &[u8], left: &mut Remaining) -> Result<()> {
        let State::Filled(holes) = &*self.state else {
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
        let State::Filled(_) = &*self.state else {
            return None;
        };
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
        let at = self.ranges.partition_point(|range| range.end <= address);
        self.ranges.get(at)
    }
}
