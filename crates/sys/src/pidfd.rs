//! Descriptors that stand for a task: `pidfd_open(2)`, `pidfd_getfd(2)`, `pidfd_send_signal(2)`, `process_mrelease(2)`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::process::Pid;

use crate::proc::ns::Kind;
use crate::syscall::call;

/// `PIDFD_THREAD` of `linux/pidfd.h`.
const THREAD: u32 = libc::O_EXCL as u32;

/// Opens a descriptor of the process `pid`, which must lead its thread group. Close-on-exec.
///
/// # Errors
///
/// `ESRCH` if there is no such process, `EINVAL` or `ENOENT` for a thread that leads none.
pub fn open(pid: Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

/// Opens a descriptor of the one thread `tid` (`PIDFD_THREAD`, since Linux 6.9).
pub fn open_thread(tid: Pid) -> Result<OwnedFd> {
    let args = [tid.as_raw_pid() as usize, THREAD as usize, 0, 0, 0, 0];
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let fd = unsafe { call(libc::SYS_pidfd_open as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A duplicate of descriptor `fd` of the task behind `pidfd`: the same open file description. Close-on-exec.
///
/// # Errors
///
/// `EBADF` if the task has no such descriptor, `EPERM` without `PTRACE_MODE_ATTACH_REALCREDS`, `ESRCH`
/// if the task has gone.
pub fn getfd(pidfd: impl AsFd, fd: RawFd) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    let flags = rustix::process::PidfdGetfdFlags::empty();
    rustix::process::pidfd_getfd(pidfd, fd, flags)
}

/// A namespace of the task behind `pidfd` (since Linux 6.11), as its link in procfs leads to. Close-on-exec. Of
/// [`Kind::PidForChildren`] also one that has no process yet, to which no link leads.
///
/// # Errors
///
/// `ENOTTY` or `EINVAL` if the kernel does not tell, `EOPNOTSUPP` if it has none of that kind, `ESRCH` if the task has
/// ended, `EPERM` without `PTRACE_MODE_READ_FSCREDS`.
pub fn namespace(pidfd: impl AsFd, kind: Kind) -> Result<OwnedFd> {
    /// `PIDFD_GET_CGROUP_NAMESPACE`; the others follow in the order of the names.
    const GET_FIRST: usize = 0xff01;
    let fd = pidfd.as_fd().as_raw_fd() as usize;
    let request = GET_FIRST + kind as usize;
    // SAFETY: the request takes no argument.
    let found = unsafe { call(libc::SYS_ioctl as usize, [fd, request, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(found as RawFd) })
}

/// Sends signal `number` (0 only tests for existence, real-time signals included) to the task.
pub fn send_signal(pidfd: impl AsFd, number: i32) -> Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let args = [fd as usize, number as usize, 0, 0, 0, 0];
    // SAFETY: with a null siginfo the kernel makes one up; no memory of ours is touched.
    unsafe { call(libc::SYS_pidfd_send_signal as usize, args) }.map(drop)
}

/// Helps a process that has been killed to give its memory back (`process_mrelease(2)`, since Linux 5.15).
///
/// # Errors
///
/// `EINVAL` if it is not ending, or somebody who is not has the same memory; `ESRCH` if it has none any more; `ENOSYS`.
pub fn release_memory(pidfd: impl AsFd) -> Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: process_mrelease takes two numbers and touches no memory of ours: nobody can be here and have been killed.
    unsafe {
        call(
            libc::SYS_process_mrelease as usize,
            [fd as usize, 0, 0, 0, 0, 0],
        )
    }
    .map(drop)
}

/// How the task behind `pidfd` has ended, as `wait(2)` has told its parent, who must have done so. `None` if the
/// kernel does not know (before 6.15, or if nobody had a pidfd then).
///
/// # Errors
///
/// `ESRCH` if it has not been waited for.
pub fn exit_status(pidfd: impl AsFd) -> Result<Option<i32>> {
    /// `PIDFD_INFO_EXIT`
    const EXIT: u64 = 1 << 3;
    let info = info(pidfd, EXIT)?;
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}

/// Who a task is, as the caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Number of the task itself.
    pub tid: i32,
    /// Number of its process.
    pub pid: i32,
    /// Parent of its process, as in `stat`; 0 if there is none that the caller sees.
    pub ppid: i32,
}

/// Who the task behind `pidfd` is (`PIDFD_GET_INFO`, since Linux 6.13): a tenth of what `/proc/PID/stat` costs.
///
/// # Errors
///
/// `ENOTTY` if the kernel does not tell, `ESRCH` if the task has ended.
pub fn identity(pidfd: impl AsFd) -> Result<Identity> {
    /// `PIDFD_INFO_PID`
    const IDS: u64 = 1;
    let [tid, pid, ppid, ..] = info(pidfd, IDS)?.ids;
    let [tid, pid, ppid] = [tid, pid, ppid].map(u32::cast_signed);
    Ok(Identity { tid, pid, ppid })
}

fn info(pidfd: impl AsFd, mask: u64) -> Result<Info> {
    /// `PIDFD_GET_INFO`
    const GET_INFO: libc::c_ulong = 0xc040_ff0b;
    let mut info = Info {
        mask,
        ..Info::default()
    };
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes a structure of the size that the number of the request tells.
    if unsafe { libc::ioctl(fd, GET_INFO, &raw mut info) } == -1 {
        let errno = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&errno).unwrap_or(Errno::INVAL));
    }
    Ok(info)
}

/// The first version of `struct pidfd_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroupid: u64,
    /// Thread, process, parent, then users and groups.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// Whether the task behind `pidfd` has ended (it may still be a zombie), without waiting.
///
/// # Errors
///
/// As `poll(2)`.
pub fn has_exited(pidfd: impl AsFd) -> Result<bool> {
    exits_within(pidfd, Duration::ZERO)
}

/// The same, waiting for its end. A signal may end the wait before its time.
///
/// # Errors
///
/// As `poll(2)`.
pub fn exits_within(pidfd: impl AsFd, time: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let time = Timespec::try_from(time).map_err(|_| Errno::INVAL)?;
    match poll(&mut fds, Some(&time)) {
        Err(Errno::INTR) => Ok(false),
        polled => Ok(polled.map(|_| !fds[0].revents().is_empty())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_fetched() {
        let me = open(rustix::process::getpid()).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let fetched = getfd(&me, writer.as_raw_fd()).unwrap();
        rustix::io::write(&fetched, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte), Ok(1));
        assert_eq!(getfd(&me, -1).err(), Some(Errno::BADF));
        assert_eq!(getfd(&me, 9999).err(), Some(Errno::BADF));
    }

    #[test]
    fn exit_is_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let fd = open(pid).unwrap();
        assert_eq!(send_signal(&fd, 0), Ok(()));
        assert_eq!(has_exited(&fd), Ok(false));
        assert_eq!(release_memory(&fd), Err(Errno::INVAL));
        send_signal(&fd, libc::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!(release_memory(&fd), Err(Errno::SRCH));
        assert_eq!(has_exited(&fd), Ok(true));
        assert_eq!(send_signal(&fd, 0), Err(Errno::SRCH));
        assert_eq!(open(pid).err(), Some(Errno::SRCH));
    }

    #[test]
    fn identities_are_as_procfs_tells() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let fd = open(Pid::from_child(&child)).unwrap();
        let told = identity(&fd);
        child.kill().unwrap();
        child.wait().unwrap();
        let pid = Pid::from_child(&child).as_raw_pid();
        let ppid = rustix::process::getpid().as_raw_pid();
        let tid = pid;
        match told {
            // Before Linux 6.13.
            Err(Errno::NOTTY) => eprintln!("skipped: PIDFD_GET_INFO"),
            told => assert_eq!(told, Ok(Identity { tid, pid, ppid })),
        }
    }

    #[test]
    fn namespaces_are_those_of_the_links() {
        let own = rustix::process::getpid();
        let (me, links) = (open(own).unwrap(), crate::proc::task_dir(own).unwrap());
        for kind in Kind::ALL {
            match namespace(&me, kind) {
                Ok(found) => {
                    let inode = rustix::fs::fstat(found).unwrap().st_ino;
                    assert_eq!(crate::proc::ns::id(&links, kind), Ok(inode), "{kind:?}");
                }
                // Linux before 6.11, or without namespaces of the kind.
                Err(errno) => {
                    assert!([Errno::NOTTY, Errno::INVAL, Errno::OPNOTSUPP].contains(&errno))
                }
            }
        }
    }

    #[test]
    fn a_thread_has_a_descriptor() {
        let tid = rustix::thread::gettid();
        match open_thread(tid) {
            Ok(fd) => assert_eq!(has_exited(fd), Ok(false)),
            Err(errno) => assert_eq!(errno, Errno::INVAL), // Linux before 6.9
        }
    }
}
