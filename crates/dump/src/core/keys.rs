//! Memory protection keys of a process, `pkeys(7)`.

use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::Area;
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, PAGE_SIZE, Pid, pkey};
use gelid_tape::{Op, Tape};

use super::Error;
use super::call::Answers;

/// Keys, asked for one by one.
#[derive(Debug)]
pub(super) struct AskedKeys {
    /// From key 1 on; none where there are no keys.
    allocated: Vec<Op>,
}

/// What a process has of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Bit n: the program has key n.
    pub(crate) allocated: u32,
    /// The key that the kernel gives to memory that can only be executed, if there is any.
    pub(crate) execute_only: Option<u32>,
}

impl AskedKeys {
    /// Asks for them by giving each to memory that there is not.
    pub(super) fn ask(tape: &mut Tape) -> Self {
        let mut ask = |key: u32| {
            let args = [pkey::NOWHERE, PAGE_SIZE as u64, 0, key.into()];
            tape.call(nr::pkey_mprotect, args.map(Into::into))
        };
        let keys = 1..=if pkey::are_there() { pkey::LAST } else { 0 };
        Self {
            allocated: keys.map(&mut ask).collect(),
        }
    }

    /// What the task has said, and its mappings show.
    pub(super) fn answer(&self, answers: Answers<'_>, areas: &[Area]) -> Result<Keys, Error> {
        let mut allocated = 0;
        for (key, op) in (1..).zip(&self.allocated) {
            match answers.outcome.ok(*op) {
                Err(Errno::NOMEM) => allocated |= 1 << key,
                Err(Errno::INVAL) => {}
                said => {
                    return Err(Error::Call {
                        tid: answers.tid,
                        call: "pkey_mprotect",
                        errno: said.err().unwrap_or(Errno::INVAL),
                    });
                }
            }
        }
        Ok(Keys {
            allocated,
            execute_only: execute_only(answers.tid, areas, allocated)?,
        })
    }
}

/// The key that memory has which can only be executed, and that is not the program's own. The program may have given
/// one to such memory and freed it since, which looks the same.
fn execute_only(tid: Pid, areas: &[Area], allocated: u32) -> Result<Option<u32>, Error> {
    let all = Perms::READ | Perms::WRITE | Perms::EXEC;
    let candidates = areas.iter().filter(|area| {
        let key = area.protection_key;
        key != 0 && allocated & 1 << key == 0 && area.map.perms & all == Perms::EXEC
    });
    let mut keys = candidates.map(|area| area.protection_key);
    let first = keys.next();
    match keys.any(|key| Some(key) != first) {
        true => Err(Error::Unsupported {
            tid,
            what: "memory that can only be executed under a protection key that it has freed",
            remedy: "allocate the key again, or give the memory another",
        }),
        false => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::proc::smaps;

    #[test]
    fn the_key_of_memory_that_can_only_be_executed_is_found() {
        let me = rustix::process::getpid();
        let text = "1000-2000 --xp 0 00:00 0 \nProtectionKey: 0\nVmFlags: ex mr mw me \n\
            2000-3000 rw-p 0 00:00 0 \nProtectionKey: 2\nVmFlags: rd wr mr mw me ac \n\
            3000-4000 --xp 0 00:00 0 \nProtectionKey: 3\nVmFlags: ex mr mw me \n\
            4000-5000 --xp 0 00:00 0 \nProtectionKey: 4\nVmFlags: ex mr mw me \n";
        let areas = smaps::parse(text.as_bytes()).unwrap();
        let found = |allocated| execute_only(me, &areas, allocated).ok();
        assert_eq!(found(1 << 4), Some(Some(3)));
        assert_eq!(found(1 << 3), Some(Some(4)));
        assert_eq!(found(1 << 3 | 1 << 4), Some(None));
        assert_eq!(
            found(0),
            None,
            "one of both was freed, and nobody knows which"
        );
    }
}
