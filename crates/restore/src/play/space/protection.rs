//! Protection keys and seals. All keys are free in a task that has just been born, and the kernel gives the lowest
//! first.

use gelid_sys::syscall::nr;
use gelid_sys::{Errno, mseal, pkey};
use gelid_tape::Arg;

use super::super::script::{Object, Reel};
use super::sized;
use crate::plan::protection::{Guarded, MemoryKey, Protection};
use crate::plan::space::Space;
use crate::state::Error;

/// Refuses what this machine does not have, and gives up what makes no difference.
pub(crate) fn suit(spaces: &mut [Space]) -> Result<(), Error> {
    let has_keys = pkey::are_there();
    for space in spaces {
        check(space)?;
        if !has_keys {
            space.protection.forget_keys();
        }
    }
    Ok(())
}

/// Finds what this machine does not have.
pub(crate) fn check(space: &Space) -> Result<(), Error> {
    let tid = space.pid;
    if space.protection.own() != 0 && !pkey::are_there() {
        let component = "protection keys".into();
        return Err(Error::Processor { tid, component });
    }
    if space.protection.has_seals() && mseal::is_there() == Err(Errno::NOSYS) {
        return Err(Error::Kernel {
            tid,
            what: "sealed memory",
            since: "Linux 6.10",
        });
    }
    Ok(())
}

/// Appends what protects memory that nobody needs to touch any more.
pub(super) fn add(reel: &mut Reel, protection: &Protection) {
    let own = protection.own();
    let all = own | protection.execute_only.map_or(0, |key| 1 << key);
    let last = all.checked_ilog2().unwrap_or(0);
    for key in 1..=last {
        match protection.executable() {
            // The kernel takes its key when there is something to give it to.
            Some(area) if protection.execute_only == Some(key) => guard(reel, area),
            _ => reel.must(Object::Itself, nr::pkey_alloc, [0.into(), 0.into()]),
        }
    }
    for area in &protection.guarded {
        guard(reel, area);
    }
    let kept = protection.allocated | protection.execute_only.map_or(0, |key| 1 << key);
    for key in (1..=last).filter(|key| kept & 1 << key == 0) {
        reel.must(Object::Itself, nr::pkey_free, [u64::from(key).into()]);
    }
    for area in protection.guarded.iter().filter(|area| area.sealed) {
        let args = sized(&area.range, 0);
        reel.must(Object::Area(area.range.start), nr::mseal, args);
    }
}

/// Appends what gives memory its permissions and its key.
fn guard(reel: &mut Reel, area: &Guarded) {
    let object = Object::Area(area.range.start);
    let [start, len, prot] = sized(&area.range, area.prot.into());
    match area.key {
        MemoryKey::Own(key) => {
            let key: Arg = u64::from(key).into();
            reel.must(object, nr::pkey_mprotect, [start, len, prot, key]);
        }
        MemoryKey::Usual | MemoryKey::ExecuteOnly => {
            reel.must(object, nr::mprotect, [start, len, prot]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_in_order_and_those_that_are_too_many_given_back() {
        let area = |start: u64, key| Guarded {
            range: start..start + 0x1000,
            prot: 4,
            key,
            sealed: start == 0x1000,
        };
        let protection = Protection {
            allocated: 0b10000,
            execute_only: Some(2),
            guarded: vec![
                area(0x1000, MemoryKey::Own(3)),
                area(0x3000, MemoryKey::ExecuteOnly),
            ],
        };
        let mut reel = Reel::new(1 << 16);
        add(&mut reel, &protection);
        let scripts = reel.into_scripts();
        let calls: Vec<usize> = scripts[0].tape.numbers().collect();
        let (alloc, free) = (nr::pkey_alloc, nr::pkey_free);
        let taken = [alloc, nr::mprotect, alloc, alloc];
        let given = [nr::pkey_mprotect, nr::mprotect];
        let rest = [free, free, nr::mseal];
        assert_eq!(calls, [&taken[..], &given, &rest].concat());
        let mut reel = Reel::new(1 << 16);
        add(&mut reel, &Protection::default());
        assert!(reel.into_scripts().is_empty());
    }
}
