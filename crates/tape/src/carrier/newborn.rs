//! Threads that were born on a tape, by the hundred: what is known of them is not asked for.

use super::{Carrier, Identity, Place, Saved};
use crate::arch::Way;
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::SigSet;

impl Carrier {
    /// Takes over a thread that has executed nothing but tapes since it was born: its system calls are not diverted, as
    /// nobody inherits that, and it is in no restartable sequence, as it executes nothing of the program.
    pub(crate) fn newborn(
        task: Stopped,
        identity: Identity,
        regs: UserRegs,
        way: Way,
        room: usize,
    ) -> Self {
        let mask = SigSet::ALL;
        Self {
            tid: task.pid(),
            place: Place::Still(task),
            saved: Saved { regs, mask },
            identity,
            stub: way.stub,
            keys: way.keys,
            region: way.block,
            room,
            diverted: None,
            masked: false,
            playing: None,
        }
    }
}
