//! Users and groups of a task that lives in a user namespace below that of the root: set before it enters, or, where it
//! was born there, as that calls them.

use gelid_sys::prctl::PR_SET_SECUREBITS;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Tape};

use super::{Creds, Machine, NO_SETUID_FIXUP, prctl};

/// Who users of the root's user namespace are in another.
pub(crate) struct Inside<'a> {
    pub(crate) uid: &'a dyn Fn(u32) -> Option<u32>,
    pub(crate) gid: &'a dyn Fn(u32) -> Option<u32>,
    /// Groups are those that it was born with.
    pub(crate) denies_groups: bool,
}

impl Creds {
    /// Becomes the users and groups that it is to be, with all that it may do: `inside` tells who they are where the
    /// task is; none where it is as it was born.
    pub(crate) fn write_users(
        &self,
        tape: &mut Tape,
        machine: &Machine,
        inside: Option<&Inside<'_>>,
    ) {
        let own = &machine.creds;
        let Some(inside) = inside else {
            let bits = own.secure_bits | NO_SETUID_FIXUP;
            prctl(tape, PR_SET_SECUREBITS, bits.into(), 0);
            return self.write_ids(tape, own);
        };
        prctl(tape, PR_SET_SECUREBITS, NO_SETUID_FIXUP.into(), 0);
        let groups: Option<Vec<u32>> = self.groups.iter().map(|id| (inside.gid)(*id)).collect();
        if let Some(groups) = groups.filter(|_| !inside.denies_groups) {
            let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
            let data = tape.bytes(&bytes);
            tape.must(nr::setgroups, [(groups.len() as u64).into(), data.into()]);
        }
        // What is not there is what it was born with.
        const KEEP: u32 = u32::MAX;
        let all = |ids: [u32; 4], who: &dyn Fn(u32) -> Option<u32>| {
            ids.map(|id| Arg::Value(who(id).unwrap_or(KEEP).into()))
        };
        let [real, effective, saved, filesystem] = all(self.gids, &inside.gid);
        tape.must(nr::setresgid, [real, effective, saved]);
        tape.call(nr::setfsgid, [filesystem]);
        let [real, effective, saved, filesystem] = all(self.uids, &inside.uid);
        tape.must(nr::setresuid, [real, effective, saved]);
        tape.call(nr::setfsuid, [filesystem]);
        prctl(tape, PR_SET_SECUREBITS, 0, 0);
    }

    /// Finds out who they are outside of the user namespace that they are of, and makes them those unless the task `stays`
    /// where it is.
    pub(crate) fn leave_users<E>(
        &mut self,
        uid: impl Fn(u32) -> Result<u32, E>,
        gid: impl Fn(u32) -> Result<u32, E>,
        stays: bool,
    ) -> Result<(), E> {
        let mut left = (self.uids, self.gids, self.groups.clone());
        left.0.iter_mut().try_for_each(|id| {
            *id = uid(*id)?;
            Ok(())
        })?;
        left.1.iter_mut().chain(&mut left.2).try_for_each(|id| {
            *id = gid(*id)?;
            Ok(())
        })?;
        if !stays {
            (self.uids, self.gids, self.groups) = left;
        }
        Ok(())
    }

    /// Users, groups (real, effective, saved, filesystem), and supplementary groups.
    pub(crate) fn ids(&self) -> ([u32; 4], [u32; 4], &[u32]) {
        (self.uids, self.gids, &self.groups)
    }
}
