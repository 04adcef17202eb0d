//! Processes that share tables without being threads (`clone(2)`), and `vfork(2)`.
//!
//! `sharing-*`: children made with some of `CLONE_FILES`, `CLONE_FS`, `CLONE_SIGHAND`, `CLONE_VM`.
//! `kcmp(2)` must find exactly these tables the same between parent and child; and what one does to a
//! shared table the other must see. `vfork`, `vfork-vm`: dumped while the parent waits for its child.

use crate::Entry;
use crate::os::{Map, os};
use crate::protocol::{Check, Failure, Guest, ensure, nap, reap, same, wait_for};
use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("sharing-nothing", |guest| sharing(guest, &[0])),
    Entry("sharing-files", |guest| {
        sharing(guest, &[libc::CLONE_FILES])
    }),
    Entry("sharing-fs", |guest| sharing(guest, &[libc::CLONE_FS])),
    Entry("sharing-files-fs", |guest| {
        sharing(guest, &[libc::CLONE_FILES | libc::CLONE_FS])
    }),
    Entry("sharing-vm", |guest| sharing(guest, &[libc::CLONE_VM])),
    Entry("sharing-vm-sighand", |guest| {
        sharing(guest, &[libc::CLONE_VM | libc::CLONE_SIGHAND])
    }),
    Entry("sharing-all", |guest| sharing(guest, &[ALL])),
    Entry("sharing-mixed", |guest| {
        sharing(
            guest,
            &[libc::CLONE_FILES, libc::CLONE_FS, 0, libc::CLONE_FILES, ALL],
        )
    }),
    Entry("vfork", |guest| vfork(guest, 0)),
    Entry("vfork-vm", |guest| vfork(guest, libc::CLONE_VM)),
];

const ALL: i32 = libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_VM | libc::CLONE_SIGHAND;

/// What a child of [`sharing`] needs, made beforehand: it must not allocate.
struct Child {
    flags: i32,
    done: CString,
    up: std::sync::atomic::AtomicU32,
    shared: Map,
}

/// Runs in the child; with `CLONE_VM` it even shares the parent's thread-local storage, so it makes
/// system calls by rustix alone, which leaves `errno` be.
extern "C" fn child(argument: *mut c_void) -> i32 {
    // SAFETY: the parent keeps the structure until the child has been reaped.
    let child = unsafe { &*argument.cast::<Child>() };
    child.up.store(1, std::sync::atomic::Ordering::SeqCst);
    child.shared.set(0, 1);
    wait_for(&child.done);
    // What the parent did after the dump is seen here exactly if the table is shared.
    // SAFETY: the descriptor is only asked about.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(99) };
    let sees_file = rustix::io::fcntl_getfd(fd).is_ok();
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o123));
    let sees_umask = umask.as_raw_mode() == 0o123;
    let wrong_files = sees_file != (child.flags & libc::CLONE_FILES != 0);
    let wrong_fs = sees_umask != (child.flags & libc::CLONE_FS != 0);
    i32::from(wrong_files) | i32::from(wrong_fs) << 1
}

/// Whether two processes have the same table, by `kcmp(2)`.
fn same_table(one: i32, other: i32, kind: i32) -> Check<bool> {
    Ok(os!(libc::syscall(libc::SYS_kcmp, one, other, kind, 0, 0))? == 0)
}

fn sharing(guest: &Guest, sets: &[i32]) -> Check {
    const STACK: usize = 256 * 1024;
    const KINDS: [(i32, i32, &str); 4] = [
        (2, libc::CLONE_FILES, "file table"),
        (3, libc::CLONE_FS, "cwd and umask"),
        (4, libc::CLONE_SIGHAND, "signal handlers"),
        (1, libc::CLONE_VM, "address space"),
    ];
    let done = CString::new(guest.path("done").as_os_str().as_bytes())?;
    let mut kids = Vec::new();
    for flags in sets {
        let shared = Map::shared(4096)?;
        let state = Box::new(Child {
            flags: *flags,
            done: done.clone(),
            up: 0.into(),
            shared,
        });
        let stack = Map::anon(STACK)?;
        let argument = (&raw const *state).cast_mut().cast();
        let pid = os!(libc::clone(
            child,
            stack.at(STACK),
            flags | libc::SIGCHLD,
            argument
        ))?;
        while state.shared.get(0) == 0 {
            nap(Duration::from_millis(1));
        }
        kids.push((pid, *flags, state, stack));
    }
    guest.hold()?;
    let me = std::process::id().cast_signed();
    for (pid, flags, ..) in &kids {
        for (kind, flag, name) in KINDS {
            same!(
                format!("{name} shared with child {pid}"),
                same_table(me, *pid, kind)?,
                flags & flag != 0
            );
        }
    }
    for (pid, flags, state, _) in &kids {
        let up = state.up.load(std::sync::atomic::Ordering::SeqCst);
        same!(
            format!("word written by child {pid}"),
            up == 1,
            flags & libc::CLONE_VM != 0
        );
    }
    os!(libc::dup2(0, 99))?;
    os!(libc::umask(0o123) as i32)?;
    std::fs::write(guest.path("done"), "")?;
    for (pid, ..) in &kids {
        let status = reap(*pid)?;
        ensure!(
            status & 0x7f == 0,
            "child {pid} was killed: status {status:#x}"
        );
        let wrong = status >> 8;
        ensure!(
            wrong == 0,
            "child {pid}: files wrong {}, umask wrong {}",
            wrong & 1,
            wrong >> 1
        );
    }
    Ok(())
}

/// The guest seen from the child of `vfork`.
struct Waiting<'a> {
    guest: &'a Guest,
    parent: u32,
}

/// Runs while the parent is blocked in `clone`, so it may use everything.
extern "C" fn vforked(argument: *mut c_void) -> i32 {
    // SAFETY: the parent is blocked and keeps the structure.
    let waiting = unsafe { &*argument.cast::<Waiting<'_>>() };
    if waiting.guest.ready_as(waiting.parent).is_err() {
        return 1;
    }
    waiting.guest.wait();
    let alive =
        std::fs::read_to_string(format!("/proc/{}/stat", waiting.parent)).unwrap_or_default();
    // The parent must still be waiting: in D, as vfork waits.
    if alive.contains(") D ") { 42 } else { 2 }
}

fn vfork(guest: &Guest, flags: i32) -> Check {
    const STACK: usize = 1 << 20;
    let stack = Map::anon(STACK)?;
    let waiting = Waiting {
        guest,
        parent: std::process::id(),
    };
    let argument = (&raw const waiting).cast_mut().cast();
    let pid = os!(libc::clone(
        vforked,
        stack.at(STACK),
        flags | libc::CLONE_VFORK | libc::SIGCHLD,
        argument
    ))?;
    let status = reap(pid).map_err(|failure| Failure::new(format!("after vfork: {failure}")))?;
    same!(
        "status of the child",
        format!("{status:#x}"),
        format!("{:#x}", 42 << 8)
    );
    Ok(())
}
