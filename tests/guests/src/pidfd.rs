//! Descriptors of processes: `pidfd_open(2)`.
//!
//! `pidfd`: of a child, of the process itself, shared, of several kinds. `pidfd-dead`: of who is gone, and how they went.
//! `pidfd-zombie`: of who has not been waited for. `pidfd-thread`: of one thread. `pidfd-epoll`: watched. `pidfd-outside`:
//! of a process outside of the tree. `pidfd-in-flight`: to be received from sockets. `pidfd-queued`:
//! in a queue that is full, and where the receiver has asked for the names of senders since.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Guest, ensure, reap, same, until};
use crate::unix::{now, say};
use crate::unix_rights::{give, take, take_one};
use rustix::net::{RecvFlags, SendFlags, SocketType};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("pidfd", live),
    Entry("pidfd-dead", dead),
    Entry("pidfd-zombie", zombie),
    Entry("pidfd-thread", thread),
    Entry("pidfd-epoll", watched),
    Entry("pidfd-outside", outside),
    Entry("pidfd-in-flight", in_flight),
    Entry("pidfd-queued", queued),
];

/// `PIDFD_THREAD`
const THREAD: i32 = libc::O_EXCL;

fn open(pid: i32, flags: i32) -> Check<OwnedFd> {
    let fd = os!(libc::syscall(libc::SYS_pidfd_open, pid, flags))?;
    // SAFETY: the kernel has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn has_ended(fd: &OwnedFd) -> Check<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    Ok(os!(libc::poll(&raw mut poll, 1, 0))? == 1)
}

fn inode(fd: &OwnedFd) -> Check<u64> {
    // SAFETY: all-zero is a valid `stat`.
    let mut stat: libc::stat = unsafe { zeroed() };
    os!(libc::fstat(fd.as_raw_fd(), &raw mut stat))?;
    Ok(stat.st_ino)
}

fn send(fd: &OwnedFd, signal: i32) -> Result<(), i32> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a siginfo the kernel makes one up.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, none, 0) } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}

/// How who is gone has ended, if the kernel tells.
fn status(fd: &OwnedFd) -> Check<Option<i32>> {
    const GET_INFO: libc::c_ulong = 0xc040_ff0b;
    const EXIT: u32 = 1 << 3;
    let mut info = [0_u32; 16];
    info[0] = EXIT;
    // SAFETY: the kernel reads and writes 64 bytes.
    let got = unsafe { libc::ioctl(fd.as_raw_fd(), GET_INFO, info.as_mut_ptr()) };
    if got == -1 && [libc::ENOTTY, libc::EINVAL, libc::ESRCH].contains(&errno()) {
        return Ok(None);
    }
    same!("PIDFD_GET_INFO", got, 0);
    Ok((info[0] & EXIT != 0).then_some(info[15].cast_signed()))
}

fn in_flight(guest: &Guest) -> Check {
    let kid = guest.fork("child", |guest| {
        guest.wait();
        until("a signal", || Ok(false))
    })?;
    let held = open(kid.pid, 0)?;
    let gone = guest.fork("gone", |_| Ok(()))?;
    let dead = open(gone.pid, 0)?;
    gone.join(guest)?;
    let mut pairs = Vec::new();
    for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
        let (one, other) = crate::unix::pair(kind)?;
        let own = open(std::process::id().cast_signed(), libc::O_NONBLOCK)?;
        let again = open(kid.pid, 0)?;
        give(
            &one,
            "pidfds",
            &[held.as_fd(), own.as_fd(), again.as_fd(), dead.as_fd()],
        )?;
        give(&one, "the socket itself", &[other.as_fd()])?;
        say(&one, "last")?;
        pairs.push((one, other));
    }
    drop(dead);
    guest.hold()?;
    for (one, other) in &pairs {
        let (text, files) = take(other)?;
        same!("text", text, "pidfds");
        let [of_kid, own, again, dead] = &files[..] else {
            return Err("not four".into());
        };
        for fd in [of_kid, own, again] {
            ensure!(!has_ended(fd)?, "somebody has ended");
            same!("reached", send(fd, 0), Ok(()));
        }
        ensure!(has_ended(dead)?, "the dead one lives");
        same!("one process", inode(of_kid)?, inode(&held)?);
        same!("the same process", inode(again)?, inode(&held)?);
        ensure!(inode(own)? != inode(&held)?, "two processes");
        let flags = os!(libc::fcntl(own.as_raw_fd(), libc::F_GETFL))?;
        same!("flags", flags & libc::O_NONBLOCK, libc::O_NONBLOCK);
        let itself = take_one("the socket itself", other)?;
        same!("text", now(&itself), Ok("last".into()));
        say(one, "more")?;
        same!("text", now(other), Ok("more".into()));
    }
    same!("killed", send(&held, libc::SIGKILL), Ok(()));
    same!("status", reap(kid.pid)?, libc::SIGKILL);
    Ok(())
}

fn queued(guest: &Guest) -> Check {
    let own = open(std::process::id().cast_signed(), 0)?;
    let (one, full) = crate::unix::pair(SocketType::STREAM)?;
    give(&one, "pidfd", &[own.as_fd()])?;
    let (piece, mut written) = ([b'x'; 3001], 0);
    while let Ok(more) = rustix::net::send(&one, &piece, SendFlags::DONTWAIT) {
        written += more;
    }
    let (other, names) = crate::unix::pair(SocketType::SEQPACKET)?;
    give(&other, "pidfd", &[own.as_fd()])?;
    rustix::net::sockopt::set_socket_passcred(&names, true)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&other, 4608)?;
    let room = rustix::net::sockopt::socket_send_buffer_size(&other)?;
    guest.hold()?;
    same!("reached", send(&take_one("pidfd", &full)?, 0), Ok(()));
    let (mut buffer, mut found) = ([0; 4096], 0);
    while let Ok((more, _)) = rustix::net::recv(&full, &mut buffer, RecvFlags::DONTWAIT) {
        ensure!(
            buffer[..more].iter().all(|byte| *byte == b'x'),
            "other bytes"
        );
        found += more;
    }
    same!("bytes", found, written);
    // 65534 is nobody.
    same!(
        "no names",
        crate::unix_senders::heard(&names)?,
        Some((0, 65534, 65534))
    );
    let now = rustix::net::sockopt::socket_send_buffer_size(&other)?;
    same!("room", now, room);
    ensure!(
        rustix::net::sockopt::socket_passcred(&names)?,
        "not asked any more"
    );
    Ok(())
}

fn live(guest: &Guest) -> Check {
    let kid = guest.fork("child", |guest| {
        guest.wait();
        until("a signal", || Ok(false))
    })?;
    let (one, two) = (open(kid.pid, 0)?, open(kid.pid, libc::O_NONBLOCK)?);
    let twin = one.try_clone()?;
    let own = open(std::process::id().cast_signed(), 0)?;
    let (mut read, mut write) = std::io::pipe()?;
    let number = own.as_raw_fd();
    let other = guest.fork("other", |guest| {
        guest.wait();
        ensure!(!has_ended(&own)?, "the parent has ended");
        let mine = open(std::process::id().cast_signed(), 0)?;
        ensure!(inode(&own)? != inode(&mine)?, "both are the same");
        let got = os!(libc::syscall(
            libc::SYS_pidfd_getfd,
            number,
            write.as_raw_fd(),
            0
        ))?;
        // SAFETY: the kernel has just made it.
        let mut got = unsafe { File::from_raw_fd(got as i32) };
        Ok(got.write_all(b"!")?)
    })?;
    guest.hold()?;
    for fd in [&one, &two, &twin, &own] {
        ensure!(!has_ended(fd)?, "somebody has ended");
    }
    same!("one process", inode(&one)?, inode(&two)?);
    ensure!(inode(&one)? != inode(&own)?, "two processes");
    let flags = os!(libc::fcntl(two.as_raw_fd(), libc::F_GETFL))?;
    same!("flags", flags & libc::O_NONBLOCK, libc::O_NONBLOCK);
    let flags = os!(libc::fcntl(one.as_raw_fd(), libc::F_GETFL))?;
    same!("flags", flags & libc::O_NONBLOCK, 0);
    other.join(guest)?;
    write.flush()?;
    let mut byte = [0];
    read.read_exact(&mut byte)?;
    same!("by way of the parent", byte, *b"!");
    same!("signal", send(&twin, libc::SIGKILL), Ok(()));
    same!("status", reap(kid.pid)?, libc::SIGKILL);
    ensure!(has_ended(&one)? && has_ended(&two)?, "it has ended");
    same!("signal", send(&one, 0), Err(libc::ESRCH));
    Ok(())
}

fn dead(guest: &Guest) -> Check {
    let end = |name: &str, code: i32, signal: i32| -> Check<[OwnedFd; 2]> {
        let (ready, go) = std::io::pipe()?;
        let kid = guest.fork(name, |_| {
            let _ = (&ready).read(&mut [0])?;
            if signal != 0 {
                os!(libc::raise(signal))?;
            }
            // SAFETY: ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        })?;
        let both = [open(kid.pid, 0)?, open(kid.pid, 0)?];
        (&go).write_all(b"!")?;
        reap(kid.pid)?;
        Ok(both)
    };
    let ended = end("ended", 7, 0)?;
    let stopped = end("stopped", 0, libc::SIGTERM)?;
    let before = [status(&ended[0])?, status(&stopped[0])?];
    let heir = guest.fork("heir", |guest| {
        guest.wait();
        same!("one process", inode(&ended[0])?, inode(&ended[1])?);
        Ok(())
    })?;
    guest.hold()?;
    for both in [&ended, &stopped] {
        same!("one process", inode(&both[0])?, inode(&both[1])?);
        ensure!(
            has_ended(&both[0])? && has_ended(&both[1])?,
            "they have ended"
        );
        same!("signal", send(&both[1], 0), Err(libc::ESRCH));
    }
    ensure!(inode(&ended[0])? != inode(&stopped[0])?, "two processes");
    same!("status", [status(&ended[0])?, status(&stopped[0])?], before);
    heir.join(guest)
}

fn zombie(guest: &Guest) -> Check {
    // SAFETY: the child ends at once.
    let pid = match unsafe { libc::fork() } {
        // SAFETY: without running the parent's exit handlers.
        0 => unsafe { libc::_exit(5) },
        pid => pid,
    };
    let fd = open(pid, 0)?;
    until("the end", || has_ended(&fd))?;
    guest.hold()?;
    ensure!(has_ended(&fd)?, "it has ended");
    // SAFETY: all-zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    let number = fd.as_raw_fd().cast_unsigned();
    os!(libc::waitid(
        libc::P_PIDFD,
        number,
        &raw mut info,
        libc::WEXITED
    ))?;
    // SAFETY: of a child that ended.
    let found = unsafe { (info.si_pid(), info.si_status()) };
    same!("code", found, (pid, 5));
    Ok(())
}

fn thread(guest: &Guest) -> Check {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: no arguments.
        let _ = tell.send(unsafe { libc::gettid() });
        let _ = ended.recv();
    });
    let tid = told.recv().map_err(|_| "the thread ended")?;
    let me = std::process::id().cast_signed();
    let (of_thread, of_leader) = (open(tid, THREAD)?, open(me, THREAD)?);
    let of_process = open(me, 0)?;
    guest.hold()?;
    for fd in [&of_thread, &of_leader, &of_process] {
        ensure!(!has_ended(fd)?, "it has ended");
    }
    ensure!(inode(&of_thread)? != inode(&of_leader)?, "two threads");
    drop(end);
    thread.join().map_err(|_| "thread")?;
    until("the end of the thread", || has_ended(&of_thread))?;
    ensure!(
        !has_ended(&of_leader)? && !has_ended(&of_process)?,
        "others live"
    );
    Ok(())
}

fn watched(guest: &Guest) -> Check {
    let kid = guest.fork("child", |guest| {
        guest.wait();
        Ok(())
    })?;
    let fd = open(kid.pid, 0)?;
    let set = os!(libc::epoll_create1(0))?;
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 77,
    };
    os!(libc::epoll_ctl(
        set,
        libc::EPOLL_CTL_ADD,
        fd.as_raw_fd(),
        &raw mut event
    ))?;
    guest.hold()?;
    event.u64 = 0;
    same!(
        "events",
        os!(libc::epoll_wait(set, &raw mut event, 1, 10_000))?,
        1
    );
    same!("data", { event.u64 }, 77);
    kid.join(guest)
}

fn outside(guest: &Guest) -> Check {
    let fd = open(1, 0)?;
    guest.hold()?;
    ensure!(!has_ended(&fd)?, "it lives on");
    Ok(())
}
