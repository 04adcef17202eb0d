//! Typed kernel interface of gelid: the Linux calls that rustix does not have.
//!
//! **Model.** Each module is named after the kernel interface it wraps. A wrapper is one call: it takes
//! typed arguments, owns descriptors, checks lengths, and returns [`rustix::io::Result`]; what an errno
//! means for a dump is for the caller to say. Nothing here keeps state, and nothing probes before it is
//! asked to.
//!
//! **Limitations.** x86-64 only so far; what differs by machine is in [`arch`]. `unsafe` is allowed
//! here and in `gelid-tape` alone.
//!
//! ```
//! // The kernel's own view of one mapping of this process.
//! let maps = gelid_sys::proc::task_dir(rustix::process::getpid()).unwrap();
//! assert!(gelid_sys::proc::stat::read(&maps).unwrap().pid > 0);
//! ```

pub mod aio;
pub mod arch;
pub mod aside;
pub mod bpf;
pub mod cgroup;
pub mod clone;
pub mod diag;
pub mod epoll;
pub mod fanotify;
pub mod fown;
pub mod guardian;
pub mod handle;
pub mod inherit;
pub mod inotify;
pub mod ipc;
pub mod kcmp;
#[cfg(test)]
mod layout;
pub mod link_group;
pub mod lock;
pub mod lsm;
pub mod madvise;
pub mod map;
pub mod mm;
pub mod mount;
pub mod mqueue;
pub mod mseal;
pub mod multicast;
pub mod namespace;
pub mod netlink;
pub mod nofile;
pub mod packet;
pub mod pagemap;
pub mod pidfd;
pub mod pkey;
pub mod prctl;
pub mod probe;
pub mod proc;
pub mod procmap;
pub mod ptrace;
pub mod pty;
pub mod row;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod signalfd;
pub mod sockopt;
pub mod stand_in;
pub mod syscall;
pub mod tcp;
pub mod timerfd;
pub mod tty;
pub mod tun;
pub mod unix;
pub mod userfaultfd;
pub mod vm;
pub mod vsock;
pub mod wait;

pub use rustix::io::Errno;
pub use rustix::process::Pid;

/// Bytes in a page of the smallest size, the unit of pagemaps and images on this machine.
pub const PAGE_SIZE: usize = 4096;
