//! Threads are born in their processes.

use gelid_sys::clone::{CloneArgs, flags};
use gelid_sys::ptrace::Stopped;
use gelid_sys::syscall::nr;

use super::births::taken_or;
use super::crew::Crew;
use super::script::{Object, Script};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::tree::Node;
use crate::plan::{Life, Plan};

/// Everything that threads of one process share.
const SHARED: u64 = flags::VM
    | flags::FS
    | flags::FILES
    | flags::SIGHAND
    | flags::THREAD
    | flags::SYSVSEM
    | flags::PTRACE;
/// Threads that are born by one tape.
const BROOD: usize = 512;

/// A thread that is no leader, in its first stop.
#[derive(Debug)]
pub(crate) struct Newborn {
    /// Index of its task.
    pub(crate) task: usize,
    /// Index among the threads of the task.
    pub(crate) thread: usize,
    pub(crate) stopped: Stopped,
}

/// Creates all threads but the leaders.
pub(crate) fn run(plan: &Plan, crew: &mut Crew) -> Result<Vec<Newborn>, Error> {
    let mut born = Vec::new();
    let mut next = 1;
    loop {
        let mut work = Vec::new();
        for (index, life) in plan.lives.iter().enumerate() {
            let Life::Alive(alive) = life else { continue };
            if alive.threads.len() > next {
                let last = alive.threads.len().min(next + BROOD);
                let node = &plan.nodes[index];
                work.push((Who::Task(index), script(node, next..last), next..last));
            }
        }
        if work.is_empty() {
            return Ok(born);
        }
        let (scripts, ranges): (Vec<_>, Vec<_>) = work
            .into_iter()
            .map(|(who, script, range)| ((who, script), range))
            .unzip();
        for (who, range) in scripts.iter().map(|(who, _)| *who).zip(&ranges) {
            if let Who::Task(task) = who
                && let Life::Alive(alive) = &plan.lives[task]
            {
                let threads = alive.threads[range.clone()].iter();
                crew.expect_threads(threads.map(|thread| thread.tid));
            }
        }
        crew.play(&scripts).map_err(taken_or)?;
        for ((who, _), range) in scripts.iter().zip(ranges) {
            let Who::Task(task) = *who else { continue };
            let Life::Alive(alive) = &plan.lives[task] else {
                continue;
            };
            for thread in range {
                let stopped = crew.newborn_thread(alive.threads[thread].tid)?;
                born.push(Newborn {
                    task,
                    thread,
                    stopped,
                });
            }
        }
        next += BROOD;
    }
}

fn script(node: &Node, threads: std::ops::Range<usize>) -> Script {
    let mut script = Script::default();
    let args = CloneArgs {
        flags: SHARED,
        set_tid_size: node.level() as u64 + 1,
        ..CloneArgs::default()
    };
    let bytes = args.to_bytes();
    for thread in threads {
        let data = script.bytes(&bytes);
        let numbers = node.set_tid(thread);
        let numbers: Vec<u8> = numbers.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let tids = script.bytes(&numbers);
        script.tape.link(data, CloneArgs::SET_TID, tids);
        let size = bytes.len() as u64;
        script.must(
            Object::Task(node.threads[thread]),
            nr::clone3,
            [data.into(), size.into()],
        );
    }
    script
}
