//! `equal-memory`: two programs, each begun by `execve(2)`, with equal memory at different addresses; the second one has
//! some of it twice, and some here and there among other pages. The kernel may merge it all (`MADV_MERGEABLE`).

use crate::Entry;
use crate::os::{Map, PAGE};
use crate::protocol::{Check, Failure, Guest, ensure, until};
use std::os::unix::process::CommandExt;
use std::process::Command;

pub(crate) const GUESTS: &[Entry] = &[Entry("equal-memory", equal)];

const PAGES: usize = 1024;
/// Pages that the second program has twice.
const TWICE: usize = 300;
/// Pages of which it has one in three only.
const SPREAD: usize = 384;

fn equal(guest: &Guest) -> Check {
    if let [role, seed, place] = &guest.args[..]
        && role == "second"
    {
        let result = second(guest, seed.parse()?, place.parse()?);
        std::process::exit(guest.child_result(role, &result));
    }
    let seed = std::process::id().into();
    let map = memory(PAGES, seed)?;
    let kid = guest.fork("second", |guest| {
        let dir = guest.dir.as_os_str();
        let words = [
            "second".to_owned(),
            format!("{seed}"),
            format!("{}", map.addr()),
        ];
        let mut program = Command::new("/proc/self/exe");
        let error = program.arg("equal-memory").arg(dir).args(words).exec();
        Err(error.into())
    })?;
    until("the second program", || Ok(guest.path("second").exists()))?;
    guest.hold()?;
    map.check("the first program", 0, PAGES, seed)?;
    map.fill(0, PAGES, seed + 1);
    kid.join(guest)?;
    map.check("what the first program has written", 0, PAGES, seed + 1)
}

/// Memory that the kernel may merge, if it is one that does.
fn memory(pages: usize, seed: u64) -> Check<Map> {
    let map = Map::anon(pages * PAGE)?;
    map.fill(0, pages, seed);
    let _ = map.advise(0, pages * PAGE, libc::MADV_MERGEABLE);
    Ok(map)
}

fn second(guest: &Guest, seed: u64, place: usize) -> Check {
    // By an odd number of pages away from where the first one has it.
    let _apart = Map::anon(33 * PAGE)?;
    let map = memory(PAGES, seed)?;
    let twice = memory(TWICE, seed)?;
    let spread = memory(SPREAD, seed)?;
    for page in (0..SPREAD).filter(|page| page % 3 != 0) {
        spread.fill(page, page + 1, seed + 2);
    }
    if map.addr() == place {
        return Err(Failure::skip("both programs have the same addresses"));
    }
    std::fs::write(guest.path("second"), "")?;
    guest.wait();
    let check = || {
        map.check("the second program", 0, PAGES, seed)?;
        for page in 0..SPREAD {
            let seed = if page % 3 == 0 { seed } else { seed + 2 };
            spread.check("spread pages", page, page + 1, seed)?;
        }
        Ok::<_, Failure>(())
    };
    twice.check("twice", 0, TWICE, seed)?;
    twice.fill(0, TWICE, seed + 3);
    check()?;
    ensure!(twice.get(0) != map.get(0), "both are one");
    Ok(())
}
