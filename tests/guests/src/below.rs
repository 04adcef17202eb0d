//! Namespaces below those of the root.
//!
//! `below KINDS GUEST`: another guest, as the first process in namespaces of its own, two processes below the root.
//! `below-levels`: pid namespaces in pid namespaces, with all that can be in one. `below-empty`: a pid namespace that
//! has no process yet. `below-gone`: one that has ended, for the children of somebody. `below-put`: somebody in one who
//! was put there from outside. `last-pid`: the number that comes next in a namespace of the root's own.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Gate, Guest, Kid, ensure, reap, same, status_field, until};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("below", other),
    Entry("below-levels", levels),
    Entry("below-empty", empty),
    Entry("below-gone", gone),
    Entry("below-put", put),
    Entry("last-pid", last_pid),
];

fn unshare(flags: i32) -> Check {
    os!(libc::unshare(flags))?;
    Ok(())
}

/// Runs another guest in there.
fn other(guest: &Guest) -> Check {
    let [kinds, name, args @ ..] = guest.args.as_slice() else {
        return Err("KINDS GUEST are missing".into());
    };
    let Some(Entry(_, body)) = crate::guests().find(|entry| entry.0 == name) else {
        return Err(Failure::new(format!("no guest is called {name}")));
    };
    let has = |kind| kinds.split_whitespace().any(|one| one == kind);
    let flags = kinds.split_whitespace().try_fold(0, |flags, kind| {
        Ok::<_, Failure>(flags | crate::inside::flag(kind)?)
    })?;
    let outer = std::process::id();
    let creator = guest.fork("creator", |guest| {
        unshare(flags)?;
        if has("user") {
            let (uid, gid) = (0, 0);
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        }
        let first = guest.fork("first", |guest| {
            if has("mnt") {
                crate::mounts::private()?;
                if has("pid") {
                    crate::mounts::procfs()?;
                }
            }
            os!(libc::setsid())?;
            body(&guest.for_another(outer, args.to_vec()))
        })?;
        first.join(guest)
    })?;
    creator.join(guest)
}

/// What a process and its namespaces call it, its group and its session.
fn called() -> Check<[String; 4]> {
    let children = fs::read_link("/proc/self/ns/pid_for_children");
    let own = fs::read_link("/proc/self/ns/pid")?;
    let children = children.map_or("none yet".to_owned(), |link| {
        if link == own { "own" } else { "others" }.to_owned()
    });
    Ok([
        status_field("NSpid")?,
        status_field("NSpgid")?,
        status_field("NSsid")?,
        children,
    ])
}

fn stay(guest: &Guest, gate: &Gate) -> Check {
    let before = (called()?, own()?);
    gate.arrive()?;
    guest.wait();
    same!("what it is called", (called()?, own()?), before);
    Ok(())
}

/// Process, group, session, as it knows them.
fn own() -> Check<[i32; 3]> {
    Ok([
        os!(libc::getpid())?,
        os!(libc::getpgid(0))?,
        os!(libc::getsid(0))?,
    ])
}

/// Somebody whose children are in a new pid namespace, with the first of them.
fn creator(guest: &Guest, gate: &Gate, name: &str, deeper: bool) -> Check {
    unshare(libc::CLONE_NEWPID)?;
    let first = guest.fork("first", |guest| first(guest, gate, name, deeper))?;
    stay(guest, gate)?;
    // Children still come there; and everybody there ends with the first.
    let next = guest.fork("next", |_| {
        ensure!(own()?[0] > 1, "the second is the first");
        Ok(())
    })?;
    next.join(guest)?;
    fs::write(guest.path(name), "")?;
    first.join(guest)?;
    // SAFETY: a child that does nothing.
    let none = unsafe { libc::fork() };
    if none == 0 {
        // SAFETY: ends it.
        unsafe { libc::_exit(9) }
    }
    same!("a child after the end", (none, errno()), (-1, libc::ENOMEM));
    Ok(())
}

fn first(guest: &Guest, gate: &Gate, name: &str, deeper: bool) -> Check {
    let mut kids: Vec<Kid> = Vec::new();
    kids.push(guest.fork("plain", |guest| stay(guest, gate))?);
    kids.push(guest.fork("session", |guest| {
        os!(libc::setsid())?;
        let thread = std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
        let member = guest.fork("member", |guest| stay(guest, gate))?;
        stay(guest, gate)?;
        ensure!(!thread.is_finished(), "a thread has ended");
        member.join(guest)
    })?);
    if deeper {
        kids.push(guest.fork("creator", |guest| creator(guest, gate, "deep", false))?);
    }
    let zombie = guest.fork("zombie", |_| Ok(()))?;
    let dead = guest.fork("dead", |guest| {
        os!(libc::setsid())?;
        guest
            .fork("orphan", |guest| {
                until("a new parent", || Ok(os!(libc::getppid())? == 1))?;
                stay(guest, gate)
            })
            .map(drop)
    })?;
    reap(dead.pid)?;
    stay(guest, gate)?;
    same!("status of a zombie", reap(zombie.pid)?, 0);
    for kid in &kids {
        kid.join(guest)?;
    }
    let mut status = 0;
    os!(libc::waitpid(-1, &raw mut status, 0))?;
    same!("status of an orphan", status, 0);
    until("another child of the creator", || {
        Ok(guest.path(name).exists())
    })
}

fn levels(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let one = guest.fork("creator", |guest| {
        os!(libc::setpgid(0, 0))?;
        creator(guest, &gate, "one", true)
    })?;
    let two = guest.fork("creator", |guest| creator(guest, &gate, "two", false))?;
    let third = guest.fork("empty", |guest| {
        unshare(libc::CLONE_NEWPID)?;
        stay(guest, &gate)?;
        first_alone(guest)
    })?;
    gate.wait(3 * 6 + 1)?;
    guest.hold()?;
    one.join(guest)?;
    two.join(guest)?;
    third.join(guest)
}

fn empty(guest: &Guest) -> Check {
    unshare(libc::CLONE_NEWPID)?;
    guest.hold()?;
    same!("children", called()?[3], "none yet");
    first_alone(guest)
}

fn gone(guest: &Guest) -> Check {
    unshare(libc::CLONE_NEWPID)?;
    guest.fork("first", |_| Ok(()))?.join(guest)?;
    guest.hold()?;
    same!("children", called()?[3], "others");
    Ok(())
}

fn put(guest: &Guest) -> Check {
    unshare(libc::CLONE_NEWPID)?;
    let gate = Gate::new()?;
    let first = guest.fork("first", |guest| stay(guest, &gate))?;
    let second = guest.fork("second", |guest| stay(guest, &gate))?;
    gate.wait(2)?;
    guest.hold()?;
    // It may be that it ends with the first.
    reap(second.pid)?;
    first.join(guest)
}

/// A child that begins a pid namespace.
fn first_alone(guest: &Guest) -> Check {
    let first = guest.fork("first", |_| {
        same!("first", own()?[0], 1);
        Ok(())
    })?;
    first.join(guest)
}

fn last_pid(guest: &Guest) -> Check {
    ensure!(std::process::id() == 1, "not in a namespace of its own");
    let mut before = 0;
    for _ in 0..20 {
        let kid = guest.fork("passing", |_| Ok(()))?;
        before = kid.pid;
        kid.join(guest)?;
    }
    guest.hold()?;
    let next = guest.fork("next", |_| Ok(()))?;
    same!("next number", next.pid, before + 1);
    next.join(guest)
}
