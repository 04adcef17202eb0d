//! What semaphores get back when a process ends, on tapes.

use gelid_sys::ipc::sem::{MOST, NOWAIT, Operation, UNDO};
use gelid_sys::syscall::nr;

use super::super::crew::Crew;
use super::super::script::{Object, Reel};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::ipc::{Ipc, Undo};
use crate::plan::{Life, Plan};

/// Has each process do again what is to be undone.
pub(crate) fn redo(plan: &Plan, crew: &mut Crew) -> Result<(), Error> {
    let mut reels = Vec::new();
    for (index, life) in plan.lives.iter().enumerate() {
        let Life::Alive(alive) = life else { continue };
        if alive.undo.is_empty() {
            continue;
        }
        let who = Who::Task(index);
        let mut reel = Reel::new(crew.body(who)?.carrier.room());
        for undo in &alive.undo {
            for operations in calls(plan.ipc.of_task(alive), undo) {
                write(&mut reel, undo, &operations);
            }
        }
        reels.push((who, reel.into_scripts()));
    }
    crew.play_reels(reels)
}

/// A change of a semaphore, and whether it is undone.
type Change = (i32, bool);

/// The operations of each call. The semaphore of a host has got back what it gets when its process ended, and gives it
/// again if it can; one that was made anew has its value and keeps it.
fn calls(plan: &Ipc, undo: &Undo) -> Vec<Vec<Change>> {
    let set = plan.sets.iter().find(|set| set.identity.id == undo.set);
    let value = set.and_then(|set| set.values.get(usize::from(undo.number)));
    match value {
        None => vec![vec![(-undo.change, true)]],
        Some(value) => balanced(i32::from(*value), undo.change),
    }
}

/// Calls that leave the value alone, and never lead it out of its bounds.
fn balanced(value: i32, change: i32) -> Vec<Vec<Change>> {
    let above = i32::from(MOST) - value;
    let (step, mut left) = (value.max(above), change);
    let mut calls = Vec::new();
    while left != 0 {
        let done = left.clamp(-step, step);
        // Down first where there is more room below.
        let undone_first = (done > 0) == (value >= above);
        calls.push(match undone_first {
            true => vec![(-done, true), (done, false)],
            false => vec![(done, false), (-done, true)],
        });
        left -= done;
    }
    calls
}

fn write(reel: &mut Reel, undo: &Undo, changes: &[Change]) {
    const SIZE: usize = 256;
    let bytes: Vec<u8> = changes
        .iter()
        .flat_map(|(change, is_undone)| {
            let operation = Operation {
                number: undo.number,
                // A host's may be one too large; that semaphore could not take it.
                change: i16::try_from(*change).unwrap_or(i16::MAX),
                flags: NOWAIT | if *is_undone { UNDO } else { 0 },
            };
            operation.as_bytes()
        })
        .collect();
    let script = reel.script(SIZE);
    let data = script.bytes(&bytes);
    let args = [undo.set.into(), data.into(), (changes.len() as u64).into()];
    script.must(Object::Semaphores(undo.set), nr::semop, args);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_and_never_leave_their_bounds() {
        for value in [0, 1, 5, 16383, 16384, 32766, 32767] {
            for change in [-32768, -32767, -5, -1, 1, 7, 20000, 32767] {
                let mut undone = 0;
                for call in balanced(value, change) {
                    let mut now = value;
                    for (step, is_undone) in call {
                        now += step;
                        assert!((0..=32767).contains(&now), "{value} {change}");
                        undone -= if is_undone { step } else { 0 };
                    }
                    assert_eq!(now, value);
                }
                assert_eq!(undone, change);
            }
        }
    }
}
