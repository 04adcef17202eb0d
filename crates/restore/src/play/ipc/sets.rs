//! Semaphores.

use gelid_sys::ipc::{Kind, sem};

use super::{IpcObject, failed, under_its_id};
use crate::Error;
use crate::plan::ipc::Set;

/// Makes all sets.
pub(super) fn make(sets: &[Set]) -> Result<(), Error> {
    for set in sets {
        let id = set.identity.id;
        let object = || IpcObject::Set(id);
        let perm = &set.identity.perm;
        let make = || {
            Kind::Sem.choose_id(id)?;
            sem::create(perm.key, set.values.len() as u32, perm.mode)
        };
        under_its_id((id, object), (perm.cuid, perm.cgid), make, sem::remove)?;
        sem::own(id, perm).map_err(failed("give its owners to", object()))?;
        // Nobody has touched what is zero.
        if set.values.iter().any(|value| *value != 0) {
            sem::set_values(id, &set.values).map_err(failed("set", object()))?;
        }
    }
    Ok(())
}
