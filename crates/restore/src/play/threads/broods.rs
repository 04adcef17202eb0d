//! Births of many threads that are put off until these get their state: while one brood is born, on one processor, the
//! brood before it is dressed by the tracer on another.

use super::super::births::taken::taken_or;
use super::super::crew::{Crew, finish_unread};
use super::super::script::Script;
use super::{Newborn, SHARED, birth};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::{Life, Plan};

/// With fewer threads than this there is nothing to be gained.
const MANY: usize = 96;
/// Threads that are born by one tape. Nothing overlaps with the first brood and the last one's state.
const BROOD: usize = 64;

/// Whether the threads of a task can be born that late: nobody needs them before, and who is born is told by its number.
pub(crate) fn is_put_off(plan: &Plan, index: usize, crew: &Crew) -> bool {
    let Life::Alive(alive) = &plan.lives[index] else {
        return false;
    };
    let group = |tid: i32| plan.cgroups.threads.get(&tid);
    let leader = group(plan.nodes[index].pid);
    alive.threads.len() > MANY
        && crew.sees_numbers()
        && alive.users.is_none()
        && !plan.is_restrained()
        && !plan.files.has_late()
        && alive.threads.iter().all(|thread| {
            let is_among_others = group(thread.tid) == leader;
            is_among_others && !thread.apart.is_any()
        })
}

/// The threads of a task whose births were put off.
pub(crate) struct Broods {
    task: usize,
    /// The next to be born.
    next: usize,
    /// Those that are being born.
    playing: Option<(Script, std::ops::Range<usize>)>,
}

impl Broods {
    /// Begins with the births. The leader must not be given anything else to play until there are no more.
    pub(crate) fn begin(plan: &Plan, task: usize, crew: &mut Crew) -> Result<Self, Error> {
        let mut broods = Self {
            task,
            next: 1,
            playing: None,
        };
        broods.start(plan, crew)?;
        Ok(broods)
    }

    /// The next threads, in their first stops; none at the end. Those behind them are being born then.
    pub(crate) fn next(&mut self, plan: &Plan, crew: &mut Crew) -> Result<Vec<Newborn>, Error> {
        let Some((script, threads)) = self.playing.take() else {
            return Ok(Vec::new());
        };
        let body = crew.body(Who::Task(self.task))?;
        let played = finish_unread(&mut body.carrier, body.pid, &script);
        played.map_err(|error| taken_or(error, crew.pid_namespace()))?;
        self.start(plan, crew)?;
        let numbers = &plan.nodes[self.task].threads;
        let born = threads.map(|thread| {
            Ok(Newborn {
                task: self.task,
                thread,
                stopped: crew.newborn_thread(numbers[thread])?,
            })
        });
        born.collect()
    }

    fn start(&mut self, plan: &Plan, crew: &mut Crew) -> Result<(), Error> {
        let node = &plan.nodes[self.task];
        let threads = self.next..node.threads.len().min(self.next + BROOD);
        if threads.is_empty() {
            return Ok(());
        }
        let mut script = Script::default();
        for thread in threads.clone() {
            let numbers = node.set_tid(thread);
            birth(&mut script, SHARED, &numbers, node.threads[thread]);
        }
        crew.expect_threads(node.threads[threads.clone()].iter().copied());
        let body = crew.body(Who::Task(self.task))?;
        let pid = body.pid.as_raw_pid();
        let started = body.carrier.start(&script.tape);
        started.map_err(|source| Error::Tape { pid, source })?;
        self.next = threads.end;
        self.playing = Some((script, threads));
        Ok(())
    }
}
