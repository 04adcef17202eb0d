//! Reels that are played while those of other processes are still being made.

use std::collections::VecDeque;
use std::vec;

use super::{Crew, finish_unread};
use crate::Error;
use crate::plan::births::Who;
use crate::play::script::Script;

/// Processes that play at the same time. The first has mostly come to the end of its tape when the last begins, so
/// that nobody waits; and the memory of its reel is there for the next one.
const MOST: usize = 32;

/// Processes that play reels, the one that began first before all others. Nobody wants to know what calls return.
#[derive(Default)]
pub(crate) struct Showing {
    playing: VecDeque<(Who, Script, vec::IntoIter<Script>)>,
}

impl Showing {
    /// Has a process begin with its reel.
    pub(crate) fn begin(
        &mut self,
        who: Who,
        reel: Vec<Script>,
        crew: &mut Crew,
    ) -> Result<(), Error> {
        self.go_on(who, reel.into_iter(), crew)?;
        while self.playing.len() > MOST {
            self.next(crew)?;
        }
        Ok(())
    }

    /// Waits for the end of all reels.
    pub(crate) fn end(mut self, crew: &mut Crew) -> Result<(), Error> {
        while !self.playing.is_empty() {
            self.next(crew)?;
        }
        Ok(())
    }

    /// Waits for the first tape.
    fn next(&mut self, crew: &mut Crew) -> Result<(), Error> {
        let Some((who, script, reel)) = self.playing.pop_front() else {
            return Ok(());
        };
        let body = crew.body(who)?;
        finish_unread(&mut body.carrier, body.pid, &script)?;
        self.go_on(who, reel, crew)
    }

    fn go_on(
        &mut self,
        who: Who,
        mut reel: vec::IntoIter<Script>,
        crew: &mut Crew,
    ) -> Result<(), Error> {
        if let Some(script) = reel.next() {
            crew.start(who, &script)?;
            self.playing.push_back((who, script, reel));
        }
        Ok(())
    }
}
