//! Tasks that a dump refuses; the guest finds that nothing was disturbed.
//!
//! `refused-shared-undo`, `refused-thread-undo`: who undo operations on semaphores together, or apart.
//! `refused-32-bit`: 32-bit code; `call-32-bit`: 64-bit code in a 32-bit call, which is dumped. `refused-thread-names`, `refused-thread-lock`, `refused-thread-pidfd`: a thread with a
//! namespace, the lock of a file, or the pidfd of a thread that its process has not; `refused-thread-file`: or a file of
//! a thread in `/proc`. `refused-thread-watched`: such a pidfd in an epoll set. `refused-dead-thread`: a file of a thread that has ended. `refused-group`: in a group whose
//! leader is outside. `refused-discipline`, `refused-terminal`: a terminal with another line discipline, or of a session
//! outside.

use crate::Entry;
use crate::os::{Map, PAGE, os};
use crate::protocol::{Check, Failure, Guest, nap, reap, same, until};
use crate::pty;
use crate::sem::Set;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Barrier;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("refused-shared-undo", shared_undo),
    Entry("refused-thread-undo", thread_undo),
    Entry("refused-32-bit", narrow),
    Entry("call-32-bit", narrow_call),
    Entry("refused-thread-names", thread_names),
    Entry("refused-thread-lock", thread_lock),
    Entry("refused-thread-pidfd", thread_pidfd),
    Entry("refused-thread-file", thread_file),
    Entry("refused-thread-watched", thread_watched),
    Entry("refused-dead-thread", dead_thread),
    Entry("refused-group", group),
    Entry("refused-discipline", discipline),
    Entry("refused-terminal", terminal),
];

fn shared_undo(guest: &Guest) -> Check {
    let set = Set::new(&[5])?;
    set.change(0, -1, libc::SEM_UNDO)?;
    let flags = libc::CLONE_SYSVSEM | libc::SIGCHLD;
    // SAFETY: like fork(2), and the child ends without running anything of its parent.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        let changed = set.change(0, -1, libc::SEM_UNDO);
        let _ = fs::write(guest.path("changed"), "");
        guest.wait();
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(changed.is_err())) };
    }
    until("the child", || Ok(guest.path("changed").exists()))?;
    guest.hold()?;
    same!("child", reap(pid as i32)?, 0);
    // Undone when the last of both ends.
    same!("value", set.values()?, [3]);
    Ok(())
}

/// Has another thread do something while the guest is held, and afterwards.
fn beside<T: Send>(
    guest: &Guest,
    begin: impl FnOnce() -> Check<T> + Send,
    end: impl FnOnce(T) -> Check + Send,
) -> Check {
    let barrier = &Barrier::new(2);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let begun = begin();
            barrier.wait();
            barrier.wait();
            end(begun?)
        });
        barrier.wait();
        let held = guest.hold();
        barrier.wait();
        held?;
        let ended = thread.join();
        ended.map_err(|_| Failure::new("the thread panicked"))?
    })
}

fn thread_undo(guest: &Guest) -> Check {
    let set = &Set::new(&[5])?;
    let begin = || {
        os!(libc::unshare(libc::CLONE_SYSVSEM))?;
        set.change(0, -2, libc::SEM_UNDO)
    };
    beside(guest, begin, |()| Ok(()))?;
    until("what the thread had undone", || Ok(set.values()? == [5]))
}

/// A child that waits in a call of 32-bit code, made by code that `enter` runs.
fn in_narrow_call(guest: &Guest, enter: impl FnOnce(&Map)) -> Check {
    // mov $29, %eax (pause); int $0x80; jmp back
    const CODE: [u8; 9] = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let map = Map::new(PAGE, rights, flags, -1, 0)?;
    // SAFETY: the page is ours and has room.
    unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), map.at(0).cast(), CODE.len()) };
    let kid = guest.fork("narrow", |_| {
        enter(&map);
        Ok(())
    })?;
    let call = || Check::Ok(fs::read_to_string(format!("/proc/{}/syscall", kid.pid))?);
    let there = until("the call", || Ok(call()?.starts_with("29 ")));
    if there.is_err() {
        return Err(Failure::skip("no 32-bit code here"));
    }
    guest.hold()?;
    same!("the call", call()?.starts_with("29 "), true);
    os!(libc::kill(kid.pid, libc::SIGKILL))?;
    same!("status", reap(kid.pid)?, libc::SIGKILL);
    Ok(())
}

fn narrow(guest: &Guest) -> Check {
    /// The selector of 32-bit code.
    const CS: u64 = 0x23;
    in_narrow_call(guest, |code| {
        let at = code.addr() as u64;
        // SAFETY: never comes back, and the code touches no memory.
        unsafe {
            std::arch::asm!("push {cs}", "push {at}", "retfq", cs = in(reg) CS, at = in(reg) at, options(noreturn))
        }
    })
}

fn narrow_call(guest: &Guest) -> Check {
    in_narrow_call(guest, |code| {
        // SAFETY: as above; the same bytes mean the same to a 64-bit task.
        let enter: extern "C" fn() = unsafe { std::mem::transmute(code.addr()) };
        enter();
    })
}

fn thread_names(guest: &Guest) -> Check {
    let link = || Check::Ok(fs::read_link("/proc/thread-self/ns/uts")?);
    let begin = || {
        os!(libc::unshare(libc::CLONE_NEWUTS))?;
        link()
    };
    beside(guest, begin, |before| {
        same!("namespace", link()?, before);
        Ok(())
    })
}

fn thread_lock(guest: &Guest) -> Check {
    let path = guest.path("locked");
    let begin = || {
        os!(libc::unshare(libc::CLONE_FILES))?;
        let file = File::create(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    };
    beside(guest, begin, |file| {
        let again = flock(File::open(&path)?, FlockOperation::NonBlockingLockExclusive);
        same!("lock", again, Err(rustix::io::Errno::WOULDBLOCK));
        drop(file);
        Ok(())
    })
}

/// The pidfd of a thread.
fn pidfd(tid: i32) -> Check<OwnedFd> {
    let fd = os!(libc::syscall(libc::SYS_pidfd_open, tid, libc::O_EXCL))?;
    // SAFETY: the kernel has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Its thread is there.
fn lives(fd: &OwnedFd) -> Check {
    let null = std::ptr::null::<libc::siginfo_t>();
    let send = libc::SYS_pidfd_send_signal;
    os!(libc::syscall(send, fd.as_raw_fd(), 0, null, 0))?;
    Ok(())
}

fn own_pidfd() -> Check<OwnedFd> {
    pidfd(rustix::thread::gettid().as_raw_pid())
}

fn thread_pidfd(guest: &Guest) -> Check {
    let begin = || {
        os!(libc::unshare(libc::CLONE_FILES))?;
        own_pidfd()
    };
    beside(guest, begin, |fd| lives(&fd))
}

fn thread_file(guest: &Guest) -> Check {
    let begin = || {
        os!(libc::unshare(libc::CLONE_FILES))?;
        Ok(File::open("/proc/thread-self/comm")?)
    };
    beside(guest, begin, |mut file| {
        file.read_to_string(&mut String::new())?;
        Ok(())
    })
}

fn thread_watched(guest: &Guest) -> Check {
    let begin = || {
        let (fd, set) = (own_pidfd()?, os!(libc::epoll_create1(0))?);
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 77,
        };
        let add = libc::EPOLL_CTL_ADD;
        os!(libc::epoll_ctl(set, add, fd.as_raw_fd(), &raw mut event))?;
        Ok((fd, set))
    };
    beside(guest, begin, |(fd, set)| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let came = os!(libc::epoll_wait(set, &raw mut event, 1, 0))?;
        same!("events", came, 0);
        lives(&fd)
    })
}

fn dead_thread(guest: &Guest) -> Check {
    let thread = std::thread::spawn(|| File::open("/proc/thread-self/comm"));
    let mut file = thread.join().map_err(|_| Failure::new("thread"))??;
    let mut text = String::new();
    let mut gone = || {
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        Check::Ok(read.is_err())
    };
    until("the end of the thread", &mut gone)?;
    guest.hold()?;
    same!("gone", gone()?, true);
    Ok(())
}

/// Somebody outside of the tree lives as long as this guest.
fn outsider(guest: &Guest, body: impl FnOnce() -> Check) -> Check<i32> {
    let own = rustix::process::getpid();
    let middle = guest.fork("middle", |guest| {
        guest.fork("outsider", |guest| {
            body()?;
            fs::write(guest.path("draft"), std::process::id().to_string())?;
            fs::rename(guest.path("draft"), guest.path("outsider"))?;
            until("the end", || {
                nap(Duration::from_millis(20));
                // Not before: it is asked for when the guest checks itself.
                Ok(rustix::process::test_kill_process(own).is_err())
            })
        })?;
        Ok(())
    })?;
    middle.join(guest)?;
    until("the outsider", || Ok(guest.path("outsider").exists()))?;
    fs::read_to_string(guest.path("outsider"))?
        .parse()
        .map_err(Failure::new)
}

fn group(guest: &Guest) -> Check {
    let leader = outsider(guest, || {
        os!(libc::setpgid(0, 0))?;
        Ok(())
    })?;
    let kid = guest.fork("kid", |guest| {
        os!(libc::setpgid(0, leader))?;
        fs::write(guest.path("joined"), "")?;
        guest.wait();
        same!("group", os!(libc::getpgrp())?, leader);
        Ok(())
    })?;
    until("the kid", || Ok(guest.path("joined").exists()))?;
    guest.hold()?;
    kid.join(guest)
}

fn discipline(guest: &Guest) -> Check {
    /// `N_NULL`
    const NULL: i32 = 27;
    const TIOCGETD: libc::c_ulong = 0x5424;
    const TIOCSETD: libc::c_ulong = 0x5423;
    let pty = pty::pty()?;
    let (slave, mut now) = (pty.slave.as_raw_fd(), NULL);
    if os!(libc::ioctl(slave, TIOCSETD, &raw const now)).is_err() {
        return Err(Failure::skip("no other line discipline"));
    }
    now = 0;
    guest.hold()?;
    os!(libc::ioctl(slave, TIOCGETD, &raw mut now))?;
    same!("discipline", now, NULL);
    Ok(())
}

fn terminal(guest: &Guest) -> Check {
    let pty = pty::pty()?;
    let (slave, master) = (pty.slave.as_raw_fd(), pty.master.as_raw_fd());
    let leader = outsider(guest, || {
        os!(libc::setsid())?;
        os!(libc::ioctl(slave, libc::TIOCSCTTY, 0))?;
        os!(libc::close(slave))?;
        os!(libc::close(master))?;
        Ok(())
    })?;
    guest.hold()?;
    let sid = rustix::termios::tcgetsid(&pty.master)?;
    same!("session", sid.as_raw_pid(), leader);
    Ok(())
}
