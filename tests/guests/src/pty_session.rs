//! Sessions with a pseudoterminal each, as shells have them.
//!
//! `pty-sessions`: two of them, with groups in the foreground and in the background, `/dev/tty`, and a task that
//! has left its terminal. `pty-dead-group`: nobody is left in the foreground. `pty-master-outside` and
//! `pty-slave-outside` are refused.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, Kid, ensure, nap, same, until};
use crate::pty::{self, Pty, read, set, write};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, getpgrp, getpid, setpgid, setsid};
use rustix::termios::{tcgetpgrp, tcgetsid, tcsetpgrp};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("pty-sessions", sessions),
    Entry("pty-dead-group", dead_group),
    Entry("pty-master-outside", master_outside),
    Entry("pty-slave-outside", slave_outside),
];

/// Signals that have come, a bit for each.
static CAME: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    CAME.fetch_or(1 << signal, Ordering::SeqCst);
}

fn handle(signals: &[i32]) -> Check {
    for signal in signals {
        let handler = note as extern "C" fn(i32) as libc::sighandler_t;
        os!(libc::signal(*signal, handler) as isize)?;
    }
    Ok(())
}

fn came(signal: i32) -> bool {
    CAME.load(Ordering::SeqCst) & 1 << signal != 0
}

fn dev_tty() -> Result<OwnedFd, rustix::io::Errno> {
    rustix::fs::open("/dev/tty", OFlags::RDWR, Mode::empty())
}

/// Becomes the leader of a session with this terminal.
fn lead(pty: &Pty) -> Check {
    setsid()?;
    os!(libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCSCTTY, 0))?;
    Ok(())
}

/// Waits for a word of the parent, who says it by a file.
fn word(guest: &Guest, name: &str) -> Check {
    until(name, || Ok(guest.path(name).exists()))
}

fn sessions(guest: &Guest) -> Check {
    let ptys = [pty::pty()?, pty::pty()?];
    let mut kids = Vec::new();
    let gate = Gate::new()?;
    for (number, pty) in ptys.iter().enumerate() {
        set(&pty.slave, |termios| termios.c_lflag &= !libc::ECHO)?;
        kids.push(guest.fork(&format!("leader {number}"), |guest| {
            leader(guest, pty, number, &gate)
        })?);
    }
    gate.wait(2)?;
    guest.hold()?;
    for pty in &ptys {
        let sid = tcgetsid(&pty.master)?;
        ensure!(
            kids.iter().any(|kid| Pid::from_raw(kid.pid) == Some(sid)),
            "the session of the terminal"
        );
        same!(
            "said by /dev/tty",
            read(&pty.master)?,
            format!("tty {}\r\n", sid.as_raw_pid()).into_bytes()
        );
        // The group in the foreground is interrupted, nobody else.
        write(&pty.master, b"\x03")?;
    }
    for kid in &kids {
        kid.join(guest)?;
    }
    Ok(())
}

/// A shell, with a job in the foreground, one in the background, and one that has left.
fn leader(guest: &Guest, pty: &Pty, number: usize, gate: &Gate) -> Check {
    lead(pty)?;
    let inner = Gate::new()?;
    let job = |name: &str, body: &dyn Fn(&Guest) -> Check| -> Check<Kid> {
        guest.fork(&format!("{name} {number}"), |guest| {
            setpgid(None, None)?;
            gate.leave()?;
            handle(&[libc::SIGINT, libc::SIGHUP])?;
            inner.arrive()?;
            body(guest)
        })
    };
    // Outside the foreground nobody is interrupted.
    let front = job("front", &|_| {
        until("an interrupt", || Ok(came(libc::SIGINT)))
    })?;
    let back = job("back", &|guest| {
        word(guest, &format!("done-{number}"))?;
        ensure!(!came(libc::SIGINT), "the background was interrupted");
        same!("own group", getpgrp(), getpid());
        Ok(())
    })?;
    let left = guest.fork(&format!("left {number}"), |guest| {
        gate.leave()?;
        os!(libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCNOTTY, 0))?;
        inner.arrive()?;
        word(guest, &format!("done-{number}"))?;
        same!("left", dev_tty().err(), Some(rustix::io::Errno::NXIO));
        Ok(())
    })?;
    inner.wait(3)?;
    let group = Pid::from_raw(front.pid).ok_or("no group")?;
    handle(&[libc::SIGTTOU])?;
    tcsetpgrp(&pty.slave, group)?;
    let tty = dev_tty()?;
    gate.arrive()?;
    guest.wait();
    same!("foreground", tcgetpgrp(&tty)?, group);
    same!("session", tcgetsid(&pty.slave)?, getpid());
    write(&tty, format!("tty {}\n", getpid().as_raw_pid()).as_bytes())?;
    front.join(guest)?;
    std::fs::write(guest.path(&format!("done-{number}")), "")?;
    back.join(guest)?;
    left.join(guest)?;
    ensure!(!came(libc::SIGINT), "the shell was interrupted");
    // A new child has the terminal too.
    let child = guest.fork(&format!("new {number}"), |_| {
        dev_tty().map(drop).map_err(Into::into)
    })?;
    child.join(guest)
}

fn dead_group(guest: &Guest) -> Check {
    let pty = pty::pty()?;
    let gate = Gate::new()?;
    let kid = guest.fork("leader", |guest| {
        lead(&pty)?;
        let job = guest.fork("job", |_| {
            setpgid(None, None)?;
            nap(Duration::from_millis(1));
            Ok(())
        })?;
        let group = Pid::from_raw(job.pid).ok_or("no group")?;
        // Whoever comes first makes the group.
        let _ = setpgid(Some(group), Some(group));
        tcsetpgrp(&pty.slave, group)?;
        job.join(guest)?;
        gate.arrive()?;
        guest.wait();
        same!("foreground", tcgetpgrp(&pty.slave)?, group);
        handle(&[libc::SIGTTOU])?;
        os!(libc::signal(libc::SIGTTOU, libc::SIG_IGN) as isize)?;
        tcsetpgrp(&pty.slave, getpid())?;
        same!("foreground", tcgetpgrp(&pty.slave)?, getpid());
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    kid.join(guest)
}

fn master_outside(guest: &Guest) -> Check {
    let pty = pty::pty()?;
    keep_outside(guest, pty.slave.as_raw_fd())?;
    drop(pty.master);
    guest.hold()?;
    Ok(())
}

fn slave_outside(guest: &Guest) -> Check {
    let pty = pty::pty()?;
    keep_outside(guest, pty.master.as_raw_fd())?;
    drop(pty.slave);
    guest.hold()?;
    ensure!(
        !pty::ready(&pty.master)?.contains(rustix::event::PollFlags::HUP),
        "somebody has the slave"
    );
    Ok(())
}

/// Somebody who is no descendant of this keeps all descriptors but one, as long as this lives.
fn keep_outside(guest: &Guest, but: i32) -> Check {
    let own = getpid();
    let kid = guest.fork("parent", |guest| {
        let keeper = guest.fork("keeper", |_| {
            os!(libc::close(but))?;
            until("the end", || {
                nap(Duration::from_millis(50));
                Ok(rustix::process::test_kill_process(own).is_err())
            })
        })?;
        drop(keeper);
        Ok(())
    })?;
    kid.join(guest)
}
