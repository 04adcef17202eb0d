//! Who has a number that a task is to get.

use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::proc::{self, TaskDir};
use gelid_sys::{Errno, Pid};

use super::super::script::Object;
use crate::Error;

/// Tells who has a number, in the pid namespace with an inode, or in that of this process. Where nobody
/// is found it may be free in a moment.
pub(crate) fn taken(pid: i32, namespace: Option<u64>) -> Error {
    let who = match namespace {
        None => Pid::from_raw(pid),
        Some(namespace) => called(pid, namespace),
    };
    let dir = who.and_then(|pid| TaskDir::open(pid).ok());
    let stat = dir.and_then(|dir| proc::stat::read(&dir).ok());
    let passing = stat.as_ref().is_none_or(|stat| stat.state.is_dead());
    let comm = stat.map(|stat| stat.comm).unwrap_or_default();
    Error::PidTaken {
        pid,
        comm: String::from_utf8_lossy(&comm).into_owned(),
        passing,
    }
}

/// Tells who has a pid, if that is the reason of a failure.
pub(crate) fn taken_or(error: Error, namespace: Option<u64>) -> Error {
    match error {
        Error::Call {
            object: Object::Task(pid),
            errno: Errno::EXIST,
            ..
        } => taken(pid, namespace),
        error => error,
    }
}

/// The inode of the pid namespace of a process.
pub(crate) fn namespace_of(process: Pid) -> Option<u64> {
    ns::id(&TaskDir::open(process).ok()?, Kind::Pid).ok()
}

/// The process that is called so in a pid namespace.
fn called(number: i32, namespace: u64) -> Option<Pid> {
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let mut all = all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    all.find(|pid| {
        let is_called = || {
            let status = proc::status::read(&TaskDir::open(*pid).ok()?).ok()?;
            Some(status.ns_pid.last() == Some(&number))
        };
        namespace_of(*pid) == Some(namespace) && is_called() == Some(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_number_is_named() {
        let own = rustix::process::getpid();
        let Error::PidTaken { passing, comm, .. } = taken(own.as_raw_pid(), None) else {
            panic!("another error");
        };
        assert!(!passing && !comm.is_empty());
        let number = proc::status::read(&TaskDir::open(own).unwrap()).unwrap();
        let number = *number.ns_pid.last().unwrap();
        let namespace = namespace_of(own).unwrap();
        assert_eq!(called(number, namespace), Some(own));
        assert_eq!(called(0, namespace), None);
    }
}
