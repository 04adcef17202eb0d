//! Threads whose system calls are turned into signals (`PR_SET_SYSCALL_USER_DISPATCH`), those of a tape too.

use crate::arch;
use crate::error::Error;
use gelid_sys::ptrace::{Dispatch, Stopped};
use gelid_sys::{Pid, vm};

/// How the system calls of a thread are diverted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Diverted {
    pub(crate) own: Dispatch,
    /// What it has meanwhile, if otherwise a tape's would be. Were the tracer dead, the program could go on like that.
    pub(crate) lent: Option<Dispatch>,
}

impl Diverted {
    /// `None` for a thread whose calls are not. `stub` is where those of a tape will come from.
    pub(crate) fn look(task: &Stopped, stub: u64) -> Result<Option<Self>, Error> {
        match task.dispatch() {
            Ok(own) if own.mode != 0 => {
                let lent = lent(task.pid(), own, stub)?;
                Ok(Some(Self { own, lent }))
            }
            // A kernel that cannot tell diverts nothing that anybody could put back.
            _ => Ok(None),
        }
    }
}

fn lent(tid: Pid, own: Dispatch, stub: u64) -> Result<Option<Dispatch>, Error> {
    let len = arch::code().len() as u64;
    if own.passes(&(stub..stub + len)) {
        return Ok(None);
    }
    if own.len == 0 {
        // Nothing of the program lies where the stub does.
        let offset = stub;
        return Ok(Some(Dispatch { offset, len, ..own }));
    }
    // There is one range only, and the program needs it; unless it is in code that may call anything.
    let mut byte = [0xff];
    let selector = own.selector..own.selector.saturating_add(1);
    match vm::read_ranges(tid, &[selector], &mut byte) {
        Ok(1) if byte == [0] => Ok(None),
        _ => Err(Error::Diverted { tid }),
    }
}
