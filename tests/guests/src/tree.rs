//! Process trees: who is whose child, session, group; zombies and stopped tasks.
//!
//! `tree-deep [N]`, `tree-wide [N]`: a chain and a fan, each process with memory of its own.
//! `sessions`: sessions and groups at several levels. `session-leader-dead`, `group-leader-dead`: members
//! outlive their leader. `orphans`: grandchildren that came to the subreaper. `zombies`: exit codes and
//! killing signals still to be collected. `stopped`, `stopped-tstp`: by SIGSTOP and by SIGTSTP, reported
//! to the parent or not.

use crate::Entry;
use crate::os::{Map, PAGE, os};
use crate::protocol::{Check, Gate, Guest, Kid, NAP, ensure, reap, same, until};
use std::sync::atomic::Ordering;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("tree-deep", deep),
    Entry("tree-wide", wide),
    Entry("sessions", sessions),
    Entry("session-leader-dead", session_leader_dead),
    Entry("group-leader-dead", group_leader_dead),
    Entry("orphans", orphans),
    Entry("zombies", zombies),
    Entry("stopped", stopped),
    Entry("stopped-tstp", stopped_tstp),
];

/// Where a process stands: pid, parent, group, session.
fn place() -> [i32; 4] {
    // SAFETY: these calls take no pointers.
    unsafe {
        [
            libc::getpid(),
            libc::getppid(),
            libc::getpgrp(),
            libc::getsid(0),
        ]
    }
}

/// Waits for go; the process must stand where it stood.
fn stay(guest: &Guest, gate: &Gate) -> Check {
    let before = place();
    gate.arrive()?;
    guest.wait();
    same!("pid, parent, group, session", place(), before);
    Ok(())
}

/// The same for the guest itself, after `count` others have come up.
fn hold(guest: &Guest, gate: Gate, count: usize) -> Check {
    let before = place();
    gate.wait(count)?;
    guest.hold()?;
    same!("pid, parent, group, session of the root", place(), before);
    Ok(())
}

fn deep(guest: &Guest) -> Check {
    fn level(guest: &Guest, gate: &Gate, left: usize) -> Check {
        let map = Map::anon(4 * PAGE)?;
        map.fill(0, 4, left as u64);
        let below = if left > 0 {
            Some(guest.fork(&format!("deep-{left}"), |guest| {
                level(guest, gate, left - 1)
            })?)
        } else {
            None
        };
        stay(guest, gate)?;
        map.check("own memory", 0, 4, left as u64)?;
        below.map_or(Ok(()), |kid| kid.join(guest))
    }
    let count = guest.number(0, 40)?;
    let gate = Gate::new()?;
    let kid = guest.fork("deep", |guest| level(guest, &gate, count - 1))?;
    hold(guest, gate, count)?;
    kid.join(guest)
}

fn wide(guest: &Guest) -> Check {
    let count = guest.number(0, 500)?;
    NAP.store(count as u64 / 5 + 5, Ordering::Relaxed);
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    let map = Map::anon(4 * PAGE)?;
    map.fill(0, 4, 1);
    for index in 0..count {
        kids.push(guest.fork(&format!("wide-{index}"), |guest| {
            map.fill(2, 3, index as u64); // the others stay the parent's
            stay(guest, &gate)?;
            map.check("own page", 2, 3, index as u64)?;
            map.check("parent's pages", 0, 2, 1)
        })?);
    }
    hold(guest, gate, count)?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

fn sessions(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let member = |group: i32| {
        let gate = &gate;
        move |guest: &Guest| {
            os!(libc::setpgid(0, group))?;
            stay(guest, gate)
        }
    };
    let mut kids = Vec::new();
    kids.push(guest.fork("own-group", member(0))?);
    let group = kids[0].pid;
    until(
        "the first group",
        || Ok(os!(libc::getpgid(group))? == group),
    )?;
    kids.push(guest.fork("joins-group", member(group))?);
    kids.push(guest.fork("own-session", |guest| {
        os!(libc::setsid())?;
        let same_group = guest.fork("in-session", |guest| stay(guest, &gate))?;
        let other_group = guest.fork("group-in-session", member(0))?;
        let again = guest.fork("session-in-session", |guest| {
            os!(libc::setsid())?;
            let leaf = guest.fork("leaf", |guest| stay(guest, &gate))?;
            stay(guest, &gate)?;
            leaf.join(guest)
        })?;
        stay(guest, &gate)?;
        [same_group, other_group, again]
            .iter()
            .try_for_each(|kid| kid.join(guest))
    })?);
    hold(guest, gate, 7)?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

/// Makes this process the new parent of its orphaned descendants.
fn subreaper() -> Check {
    os!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    Ok(())
}

/// Forks a child that forks more and dies; its children become the guest's.
fn abandon(
    guest: &Guest,
    gate: &Gate,
    count: usize,
    before: impl Fn() -> Check,
    child: impl Fn(usize) -> Check,
) -> Check<Vec<i32>> {
    subreaper()?;
    let me = place()[0];
    let parent = guest.fork("dies", |guest| {
        before()?;
        for index in 0..count {
            guest.fork("orphan", |guest| {
                child(index)?;
                until("a new parent", || Ok(place()[1] == me))?;
                stay(guest, gate)
            })?;
        }
        Ok(())
    })?;
    parent.join(guest)?;
    let text = std::fs::read_to_string(format!("/proc/self/task/{me}/children"))?;
    text.split_whitespace()
        .map(|word| Ok(word.parse()?))
        .collect()
}

/// Waits for orphans like for children.
fn collect(guest: &Guest, orphans: &[i32]) -> Check {
    for pid in orphans {
        let status = reap(*pid)?;
        ensure!(
            status == 0,
            "orphan {pid}: status {status:#x}: {}",
            guest.complaint("orphan")
        );
    }
    Ok(())
}

fn session_leader_dead(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let setsid = || os!(libc::setsid()).map(|_| ());
    let orphans = abandon(guest, &gate, 3, setsid, |index| {
        // One in the dead leader's group, two in groups of their own in its session.
        if index > 0 {
            os!(libc::setpgid(0, 0)).map(|_| ())
        } else {
            Ok(())
        }
    })?;
    same!("number of orphans", orphans.len(), 3);
    hold(guest, gate, 3)?;
    collect(guest, &orphans)
}

fn group_leader_dead(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let leader = guest.fork("leader", |_| os!(libc::setpgid(0, 0)).map(|_| ()))?;
    // Its zombie still holds the group, so that others can join.
    until("leader is a zombie", || {
        Ok(std::fs::read_to_string(format!("/proc/{}/stat", leader.pid))?.contains(") Z "))
    })?;
    let mut kids = Vec::new();
    for index in 0..3 {
        kids.push(guest.fork(&format!("member-{index}"), |guest| {
            os!(libc::setpgid(0, leader.pid))?;
            stay(guest, &gate)
        })?);
    }
    for kid in &kids {
        until("joined the group", || {
            Ok(os!(libc::getpgid(kid.pid))? == leader.pid)
        })?;
    }
    leader.join(guest)?;
    hold(guest, gate, 3)?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

fn orphans(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let orphans = abandon(guest, &gate, 5, || Ok(()), |_| Ok(()))?;
    same!("number of orphans", orphans.len(), 5);
    hold(guest, gate, 5)?;
    collect(guest, &orphans)
}

fn zombies(guest: &Guest) -> Check {
    let mut want = Vec::new();
    for code in [0, 1, 42, 127, 255] {
        // SAFETY: ends the child at once.
        let kid = guest.fork("exits", |_| unsafe { libc::_exit(code) })?;
        want.push((kid.pid, code << 8));
    }
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    for signal in [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGSEGV,
        libc::SIGABRT,
        libc::SIGHUP,
        34,
        64,
    ] {
        let kid = guest.fork("killed", |_| {
            os!(libc::setrlimit(libc::RLIMIT_CORE, &raw const limit))?;
            if signal != libc::SIGKILL {
                os!(libc::signal(signal, libc::SIG_DFL))?;
            }
            os!(libc::kill(libc::getpid(), signal))?;
            Ok(())
        })?;
        want.push((kid.pid, signal));
    }
    for (pid, _) in &want {
        until("a zombie", || {
            Ok(std::fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") Z "))
        })?;
    }
    guest.hold()?;
    for (pid, status) in want {
        same!(
            format!("status of zombie {pid}"),
            format!("{:#x}", reap(pid)?),
            format!("{status:#x}")
        );
    }
    Ok(())
}

/// The letter of a task's state.
fn state(pid: i32) -> Check<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let state = stat.rsplit(") ").next().and_then(|rest| rest.get(..1));
    Ok(state.unwrap_or("?").to_owned())
}

/// Two children stopped by a signal, the first of them already reported to the parent.
fn stop(guest: &Guest, signal: i32) -> Check {
    let gate = Gate::new()?;
    let mut kids: Vec<Kid> = Vec::new();
    for label in ["reported", "unreported"] {
        let kid = guest.fork(label, |guest| {
            // A group of its own would make it orphaned, and the kernel ignores SIGTSTP there.
            os!(libc::setpgid(0, 0))?;
            stay(guest, &gate)
        })?;
        kids.push(kid);
    }
    gate.wait(2)?;
    for kid in &kids {
        os!(libc::kill(kid.pid, signal))?;
        until("stopped", || Ok(state(kid.pid)? == "T"))?;
    }
    let mut status = 0;
    let got = os!(libc::waitpid(kids[0].pid, &raw mut status, libc::WUNTRACED))?;
    same!(
        "stopped child and signal",
        (got, libc::WSTOPSIG(status)),
        (kids[0].pid, signal)
    );
    guest.hold()?;
    for kid in &kids {
        same!(format!("state of {}", kid.pid), state(kid.pid)?, "T");
    }
    for kid in &kids {
        os!(libc::kill(kid.pid, libc::SIGCONT))?;
    }
    kids.iter().try_for_each(|kid| kid.join(guest))
}

fn stopped(guest: &Guest) -> Check {
    stop(guest, libc::SIGSTOP)
}

fn stopped_tstp(guest: &Guest) -> Check {
    stop(guest, libc::SIGTSTP)
}
