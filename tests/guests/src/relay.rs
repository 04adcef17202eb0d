//! A tree that works without a pause.
//!
//! `relay [COUNT]`: processes in a ring, a tree of three levels, hand a number on. Whoever gets it compares it with the one
//! before, and a page of its own with what was there; one of each team has a thread beside, which wakes up all the time.

use crate::Entry;
use crate::os::{Map, PAGE, os};
use crate::protocol::{Check, Guest, Kid, same};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[Entry("relay", relay)];

/// Members of a team, the one who leads it among them.
const TEAM: usize = 7;
const PAGES: usize = 50;

/// Both ends of a pipe.
type Pipe = [i32; 2];

fn relay(guest: &Guest) -> Check {
    let count = guest.number(0, 50)?;
    let mut pipes: Vec<Pipe> = vec![[0; 2]; count];
    for pipe in &mut pipes {
        os!(libc::pipe(pipe.as_mut_ptr()))?;
    }
    let others: Vec<usize> = (1..count).collect();
    let mut leads = Vec::new();
    for team in others.chunks(TEAM) {
        let [lead, rest @ ..] = team else { continue };
        let pipes = &pipes;
        leads.push(guest.fork(&format!("lead-{lead}"), |guest| {
            let fork = |index: &usize| {
                guest.fork(&format!("relay-{index}"), |_| {
                    run(pipes, *index, false, || Ok(true))
                })
            };
            let kids: Vec<Kid> = rest.iter().map(fork).collect::<Check<_>>()?;
            let own = run(pipes, *lead, true, || Ok(true));
            kids.iter().try_for_each(|kid| kid.join(guest))?;
            own
        })?);
    }
    let first = 0_u64;
    os!(libc::write(pipes[0][1], (&raw const first).cast(), 8))?;
    let mut laps = 0;
    let own = run(&pipes, 0, false, || {
        laps += 1;
        // By now it has come by everybody.
        if laps == 2 {
            guest.ready()?;
        }
        Ok(laps < 2 || guest.waiting())
    });
    leads.iter().try_for_each(|kid| kid.join(guest))?;
    own
}

/// Hands the number on until nobody sends it any more, or `more` says no.
fn run(pipes: &[Pipe], index: usize, beside: bool, mut more: impl FnMut() -> Check<bool>) -> Check {
    let count = pipes.len();
    let (from, to) = (pipes[index][0], pipes[(index + 1) % count][1]);
    for end in pipes.as_flattened() {
        if *end != from && *end != to {
            os!(libc::close(*end))?;
        }
    }
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, index as u64);
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        if beside {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let result = hand_on((from, to), (index, count), &map, &mut more);
        stop.store(true, Ordering::Relaxed);
        result
    });
    os!(libc::close(from))?;
    os!(libc::close(to))?;
    result
}

fn hand_on(
    (from, to): (i32, i32),
    (index, count): (usize, usize),
    map: &Map,
    more: &mut impl FnMut() -> Check<bool>,
) -> Check {
    let numbers = (index as u64..).step_by(count);
    // What a page was filled with in the last lap that came to it.
    let mut filled = [index as u64; PAGES];
    for (page, number) in (0..PAGES).cycle().zip(numbers) {
        let mut token = 0_u64;
        if os!(libc::read(from, (&raw mut token).cast(), 8))? == 0 {
            break;
        }
        same!("number", token, number);
        map.check("own page", page, page + 1, filled[page])?;
        map.fill(page, page + 1, number);
        filled[page] = number;
        if !more()? {
            break;
        }
        token += 1;
        os!(libc::write(to, (&raw const token).cast(), 8))?;
    }
    Ok(())
}
