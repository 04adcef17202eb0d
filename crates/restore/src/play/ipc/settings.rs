//! Settings of an IPC namespace.

use std::fs;
use std::io;

use gelid_sys::Errno;

use super::{IpcObject, as_user, failed};
use crate::Error;
use crate::plan::ipc::Variables;

/// What is wide enough for everything that may be in a namespace, whatever its settings are now.
const WIDE: &[(&str, &str)] = &[
    ("kernel/sem", "65536\t1024000000\t500\t32768"),
    ("kernel/msgmax", "2147483647"),
    ("kernel/msgmnb", "2147483647"),
    ("kernel/msgmni", "32768"),
    ("kernel/shmmni", "32768"),
    ("fs/mqueue/queues_max", "65536"),
    ("fs/mqueue/msg_max", "65536"),
    ("fs/mqueue/msgsize_max", "16777216"),
];

/// Widens those of the namespace that the calling thread is in, so that everything can be made.
pub(super) fn widen(root: (u32, u32)) -> Result<(), Error> {
    for (name, value) in WIDE {
        set(name, value, root)?;
    }
    Ok(())
}

/// Sets what is recorded.
pub(super) fn restore(variables: &Variables, root: (u32, u32)) -> Result<(), Error> {
    for (name, value) in &variables.settings {
        set(name, value, root)?;
    }
    Ok(())
}

/// Sets one. The kernel lets the user do that who is root in the namespace.
fn set(name: &'static str, value: &str, root: (u32, u32)) -> Result<(), Error> {
    let path = format!("/proc/sys/{name}");
    let written = as_user(root, || {
        let written = fs::write(path, value);
        written.map_err(|error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    });
    written.map_err(failed("set", IpcObject::Setting(name)))
}
