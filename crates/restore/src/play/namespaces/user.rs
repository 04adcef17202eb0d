//! Users of a user namespace.

use gelid_sys::proc::ns::IdRange;
use gelid_sys::syscall::nr;
use gelid_tape::Arg;

use super::super::script::{Object, Script};
use super::Stage;
use crate::Error;
use crate::plan::namespaces::user::Users;

const PR_SET_DUMPABLE: u64 = 4;

/// Tells who is who, unless others have done so, and makes the root the first user there.
pub(super) fn make(planned: &Users, stage: &mut Stage<'_>) -> Result<(), Error> {
    if stage.plan.namespaces.given_users.is_none() {
        stage.write("uid_map", &text(&planned.uids))?;
        if planned.denies_groups {
            stage.write("setgroups", b"deny")?;
        }
        stage.write("gid_map", &text(&planned.gids))?;
    }
    let mut script = Script::default();
    let three = |id: u32| [Arg::Value(id.into()); 3];
    if let Some(gid) = planned.first_gid() {
        script.must(Object::Itself, nr::setresgid, three(gid));
    }
    if let Some(uid) = planned.first_uid() {
        script.must(Object::Itself, nr::setresuid, three(uid));
    }
    // A change of users has cleared it, which children of this process do not expect.
    let args = [PR_SET_DUMPABLE.into(), 1.into()];
    script.must(Object::Itself, nr::prctl, args);
    stage.hand(script).map(drop)
}

/// A map as the kernel reads it.
pub(super) fn text(map: &[IdRange]) -> Vec<u8> {
    let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
    map.iter().map(line).collect::<String>().into_bytes()
}
