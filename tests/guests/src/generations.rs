//! `generations`: memory of which a little changes whenever the harness says so, by a file `change-N`; and a child that
//! has had all of it since a `fork(2)`, and changes nothing but one page of its own.

use crate::Entry;
use crate::os::{Map, PAGE};
use crate::protocol::{Check, Guest, nap, until};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[Entry("generations", generations)];

const PAGES: usize = 2048;
/// Pages that a change gives other contents.
const CHANGED: usize = 5;
/// The page that is the child's own.
const OWN: usize = 1500;

/// Where the pages of a change begin.
fn place(change: usize) -> usize {
    change * 40
}

fn generations(guest: &Guest) -> Check {
    let seed = std::process::id().into();
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, seed);
    let kid = guest.fork("child", |guest| {
        map.fill(OWN, OWN + 1, seed + 100);
        std::fs::write(guest.path("child"), "")?;
        guest.wait();
        map.check("the child", 0, OWN, seed)?;
        map.check("the child's own", OWN, OWN + 1, seed + 100)?;
        map.check("the child", OWN + 1, PAGES, seed)
    })?;
    until("the child", || Ok(guest.path("child").exists()))?;
    let mut changes = 0;
    guest.ready()?;
    while guest.waiting() {
        if guest.path(&format!("change-{}", changes + 1)).exists() {
            changes += 1;
            change(&map, changes, seed)?;
            std::fs::write(guest.path(&format!("changed-{changes}")), "")?;
        }
        nap(Duration::from_millis(2));
    }
    let mut at = 0;
    for change in 1..=changes {
        let from = place(change);
        map.check("what stays", at, from, seed)?;
        let zeros = from + CHANGED;
        map.check("what was changed", from, zeros, seed + change as u64)?;
        map.check_zero("what was cleared or given back", zeros, zeros + 3)?;
        at = zeros + 3;
    }
    map.check("what stays behind", at, PAGES, seed)?;
    kid.join(guest)
}

/// Changes some pages, clears one, and gives two back.
fn change(map: &Map, change: usize, seed: u64) -> Check {
    let from = place(change);
    let zeros = from + CHANGED;
    map.fill(from, zeros, seed + change as u64);
    for offset in (zeros * PAGE..(zeros + 1) * PAGE).step_by(8) {
        map.set(offset, 0);
    }
    map.advise((zeros + 1) * PAGE, 2 * PAGE, libc::MADV_DONTNEED)?;
    Ok(())
}
