//! Layouts of many tasks, read by whoever has the time: the kernel walks through all pages for each.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use gelid_sys::Pid;

use crate::Error;
use crate::layout::{Layout, Promise};

/// A layout that has been read, and its place in the order in which they were asked for.
pub(crate) type Seen = (usize, Pid, Arc<Layout>);

/// Layouts that somebody wants.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(usize, Pid, Promise)>,
    asked: usize,
    /// Those that are being read.
    busy: usize,
    /// The first that is not to be had.
    failed: Option<(usize, Error)>,
}

impl Looks {
    /// Asks for one.
    pub(crate) fn ask(&self, pid: Pid, promise: Promise) {
        let mut state = self.state();
        let number = state.asked;
        state.asked += 1;
        state.waiting.push_back((number, pid, promise));
    }

    /// Reads the next one that nobody has begun, and shows it; false if there is none.
    pub(crate) fn read_one(&self, seen: impl FnOnce(Seen)) -> bool {
        let mut state = self.state();
        let Some((number, pid, promise)) = state.waiting.pop_front() else {
            return false;
        };
        state.busy += 1;
        drop(state);
        let _busy = Busy(self);
        match Layout::read(pid).map(Arc::new) {
            Ok(layout) => {
                promise.keep(&layout);
                seen((number, pid, layout));
            }
            Err(error) => self.fail(number, error),
        }
        true
    }

    /// Reads those that nobody has begun, and waits for the others.
    ///
    /// # Errors
    ///
    /// That of the first that is not to be had, in the order in which they were asked for.
    pub(crate) fn read_all(&self, mut seen: impl FnMut(Seen)) -> Result<(), Error> {
        while self.read_one(&mut seen) {}
        let state = self.state();
        let state = self.changed.wait_while(state, |state| state.busy > 0);
        let failed = state.unwrap_or_else(PoisonError::into_inner).failed.take();
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Nothing is asked for any more, but those before it are being read.
    fn fail(&self, number: usize, error: Error) {
        let mut state = self.state();
        state.waiting.clear();
        if state
            .failed
            .as_ref()
            .is_none_or(|(first, _)| number < *first)
        {
            state.failed = Some((number, error));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody reads, until it is dropped.
struct Busy<'a>(&'a Looks);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Expected;

    fn asked(looks: &Looks, pid: Pid) -> Arc<Expected> {
        let (expected, promise) = Expected::promised();
        looks.ask(pid, promise);
        expected
    }

    #[test]
    fn all_are_read_once_by_two() {
        let own = rustix::process::getpid();
        let looks = Looks::default();
        let expected: Vec<_> = (0..20).map(|_| asked(&looks, own)).collect();
        let (mut here, mut there) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| while looks.read_one(|(number, ..)| there.push(number)) {});
            looks.read_all(|(number, ..)| here.push(number)).unwrap();
        });
        let mut all: Vec<_> = here.into_iter().chain(there).collect();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..20));
        assert!(expected.iter().all(|layout| layout.get().is_some()));
        assert!(!looks.read_one(|_| ()));
    }

    #[test]
    fn the_first_failure_is_told_and_nobody_waits() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Pid::from_child(&child);
        child.wait().unwrap();
        let looks = Looks::default();
        let first = asked(&looks, rustix::process::getpid());
        let failed = asked(&looks, gone);
        let last = asked(&looks, rustix::process::getpid());
        let error = looks.read_all(|_| ()).unwrap_err();
        assert!(error.to_string().contains(&gone.to_string()), "{error}");
        assert!(first.get().is_some() && failed.get().is_none() && last.get().is_none());
    }
}
