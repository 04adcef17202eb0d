//! Queues and their messages.

use gelid_sys::ipc::{Kind, msg};

use super::{IpcObject, failed, under_its_id};
use crate::Error;
use crate::plan::ipc::Queue;

/// Makes and fills all queues.
pub(super) fn make(queues: &[Queue]) -> Result<(), Error> {
    for queue in queues {
        let id = queue.identity.id;
        let object = || IpcObject::Queue(id);
        let perm = &queue.identity.perm;
        let make = || {
            Kind::Msg.choose_id(id)?;
            msg::create(perm.key, perm.mode)
        };
        under_its_id((id, object), (perm.cuid, perm.cgid), make, msg::remove)?;
        for message in &queue.messages {
            msg::send(id, message).map_err(failed("fill", object()))?;
        }
        // There may be more in it than it has room for now.
        msg::own(id, perm, queue.room.into()).map_err(failed("give its owners to", object()))?;
    }
    Ok(())
}
