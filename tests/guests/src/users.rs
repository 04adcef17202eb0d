//! User namespaces below that of the root.
//!
//! `users-maps`: several ranges, and users of them. `users-self`: one that an ordinary user has made for himself, where
//! `setgroups(2)` is denied. `users-unmapped`: one without maps. `users-levels`: one in another, and one in another that
//! nobody is in. `users-siblings`: two side by side with namespaces of their own, and somebody who has joined one.
//! `users-threads`: threads. `users-init`: pid namespaces of one, the first begun together with it.
//! `users-shared`: processes there that share their working directory, which is refused.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Gate, Guest, Kid, ensure, same, status_field, until};
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("users-maps", maps),
    Entry("users-self", by_oneself),
    Entry("users-unmapped", unmapped),
    Entry("users-levels", levels),
    Entry("users-siblings", siblings),
    Entry("users-threads", threads),
    Entry("users-init", inits),
    Entry("users-shared", shared),
];

/// The file that tells children that they may end.
const SEEN: &str = "seen";
const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
const NS_GET_USERNS: libc::c_ulong = 0xb701;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

pub(crate) fn leave(kinds: i32) -> Check {
    os!(libc::unshare(kinds))?;
    Ok(())
}

/// What a process knows of itself and its namespaces.
fn known() -> Check<Vec<String>> {
    let mut known = Vec::new();
    for file in ["uid_map", "gid_map", "setgroups"] {
        known.push(fs::read_to_string(format!("/proc/self/{file}"))?);
    }
    for field in [
        "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
    ] {
        known.push(status_field(field)?);
    }
    let own = fs::File::open("/proc/self/ns/user")?;
    let mut creator = 0u32;
    os!(libc::ioctl(
        own.as_raw_fd(),
        NS_GET_OWNER_UID,
        &raw mut creator
    ))?;
    known.push(creator.to_string());
    for kind in KINDS {
        known.push(format!("{kind} {}", owner(kind, &inode(&own)?)?));
    }
    Ok(known)
}

fn inode(file: &fs::File) -> Check<String> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.ino().to_string())
}

/// Whose one of the namespaces is.
fn owner(kind: &str, own: &str) -> Check<&'static str> {
    let namespace = fs::File::open(format!("/proc/self/ns/{kind}"))?;
    // SAFETY: a number of a descriptor that is open, and no pointer.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if owner < 0 {
        return Ok("above");
    }
    // SAFETY: the kernel has just given it, to nobody else.
    let owner = fs::File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    Ok(if inode(&owner)? == own {
        "own"
    } else {
        "below"
    })
}

/// Stays what it is over the dump.
pub(crate) fn stay(guest: &Guest, gate: &Gate) -> Check {
    let before = known()?;
    gate.arrive()?;
    guest.wait();
    same!("known", known()?, before);
    // The root has yet to look.
    let seen = guest.path(SEEN);
    until("the root to have looked", || Ok(seen.exists()))
}

/// Which of these processes have a namespace in common, by kind, and which user namespace is above whose.
fn relations(pids: &[i32]) -> Check<Vec<Vec<usize>>> {
    let mut relations = Vec::new();
    if shown()? != own().to_string() {
        // In that procfs they have other numbers.
        return Ok(relations);
    }
    for kind in KINDS {
        let link = |pid: &i32| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let links = pids.iter().map(link).collect::<Result<Vec<_>, _>>()?;
        let first = |link| links.iter().position(|other| other == link);
        relations.push(links.iter().filter_map(first).collect());
    }
    let users = |pid: &i32| fs::File::open(format!("/proc/{pid}/ns/user"));
    let users = pids.iter().map(users).collect::<Result<Vec<_>, _>>()?;
    let mut above = Vec::new();
    for namespace in &users {
        let mut steps = Vec::new();
        let mut at = namespace.try_clone()?;
        loop {
            let inode = inode(&at)?;
            for (place, other) in users.iter().enumerate() {
                if self::inode(other)? == inode {
                    steps.push(place);
                }
            }
            steps.push(100);
            // SAFETY: as in `owner`.
            let next = unsafe { libc::ioctl(at.as_raw_fd(), NS_GET_USERNS) };
            if next < 0 {
                break;
            }
            // SAFETY: the kernel has just given it, to nobody else.
            at = fs::File::from(unsafe { OwnedFd::from_raw_fd(next) });
        }
        above.push(steps);
    }
    relations.extend(above);
    Ok(relations)
}

/// The number of this process in the procfs that is mounted.
fn shown() -> Check<String> {
    let link = fs::read_link("/proc/self")?;
    Ok(link.to_string_lossy().into_owned())
}

fn own() -> i32 {
    std::process::id() as i32
}

/// Waits for all of them to be there, over the dump, and for their end.
pub(crate) fn hold(guest: &Guest, gate: Gate, count: usize, kids: &[Kid]) -> Check {
    gate.wait(count)?;
    let mut pids: Vec<i32> = kids.iter().map(|kid| kid.pid).collect();
    pids.push(own());
    let before = relations(&pids)?;
    let known = self::known()?;
    guest.hold()?;
    same!("relations", relations(&pids)?, before);
    same!("of the root", self::known()?, known);
    fs::write(guest.path(SEEN), "")?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

/// A child that somebody above tells who is who, before it goes on.
pub(crate) fn mapped(
    guest: &Guest,
    label: &str,
    (flags, uids, gids): (i32, &str, &str),
    body: impl FnOnce(&Guest) -> Check,
) -> Check<Kid> {
    use std::io::{Read, Write};
    let (mut ready, left) = std::io::pipe()?;
    let (told, mut tell) = std::io::pipe()?;
    let kid = guest.fork(label, |guest| {
        os!(libc::close(tell.as_raw_fd()))?;
        leave(libc::CLONE_NEWUSER | flags)?;
        (&left).write_all(format!("{:16}", shown()?).as_bytes())?;
        (&told).read_exact(&mut [0])?;
        for fd in [left.as_raw_fd(), told.as_raw_fd(), ready.as_raw_fd()] {
            os!(libc::close(fd))?;
        }
        body(guest)
    })?;
    drop((left, told));
    let mut number = [0; 16];
    ready.read_exact(&mut number)?;
    let number = String::from_utf8_lossy(&number).trim_end().to_owned();
    fs::write(format!("/proc/{number}/uid_map"), uids)?;
    fs::write(format!("/proc/{number}/gid_map"), gids)?;
    tell.write_all(b"t")?;
    Ok(kid)
}

pub(crate) fn become_user(uids: [u32; 3], gids: [u32; 3], groups: &[u32]) -> Check {
    os!(libc::setgroups(groups.len(), groups.as_ptr()))?;
    os!(libc::setresgid(gids[0], gids[1], gids[2]))?;
    os!(libc::setresuid(uids[0], uids[1], uids[2]))?;
    // Otherwise what is in `/proc` is not its.
    os!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
    Ok(())
}

fn maps(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let ranges = ("0 100 10\n20 40 5\n1000 50 7\n", "0 60 30\n100 10 10\n");
    let other = mapped(guest, "other", (0, ranges.0, ranges.1), |guest| {
        become_user([3, 22, 1001], [100, 3, 4], &[2, 105])?;
        stay(guest, &gate)
    })?;
    let first = mapped(guest, "first", (0, "0 0 9\n", "0 0 9\n"), |guest| {
        let kid = guest.fork("kid", |guest| {
            become_user([7; 3], [8; 3], &[])?;
            stay(guest, &gate)
        })?;
        stay(guest, &gate)?;
        kid.join(guest)
    })?;
    hold(guest, gate, 3, &[other, first])
}

/// Becomes an ordinary user in a user namespace that is its own.
fn for_oneself(uid: u32, gid: u32, flags: i32) -> Check {
    become_user([uid; 3], [gid; 3], &[gid, 55, 66])?;
    leave(libc::CLONE_NEWUSER | flags)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    Ok(fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?)
}

fn by_oneself(guest: &Guest) -> Check {
    // Where it is not ours, others see it already.
    let _ = guest.open_to_all();
    let gate = Gate::new()?;
    let alone = guest.fork("alone", |guest| {
        for_oneself(1234, 1235, libc::CLONE_NEWUTS)?;
        os!(libc::sethostname(c"gelid-users".as_ptr(), 11))?;
        let kid = guest.fork("kid", |guest| stay(guest, &gate))?;
        stay(guest, &gate)?;
        os!(libc::sethostname(c"gelid-after".as_ptr(), 11))?;
        kid.join(guest)
    })?;
    let init = guest.fork("creator", |guest| {
        for_oneself(2345, 2346, libc::CLONE_NEWPID)?;
        let init = guest.fork("init", |guest| {
            os!(libc::setsid())?;
            let kid = guest.fork("kid of init", |guest| stay(guest, &gate))?;
            stay(guest, &gate)?;
            kid.join(guest)
        })?;
        stay(guest, &gate)?;
        init.join(guest)
    })?;
    hold(guest, gate, 5, &[alone, init])
}

fn unmapped(guest: &Guest) -> Check {
    guest.open_to_all()?;
    let gate = Gate::new()?;
    let root = guest.fork("root", |guest| {
        leave(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
        stay(guest, &gate)
    })?;
    let user = guest.fork("user", |guest| {
        become_user([77, 78, 79], [87, 88, 89], &[5])?;
        leave(libc::CLONE_NEWUSER)?;
        stay(guest, &gate)
    })?;
    hold(guest, gate, 2, &[root, user])
}

fn levels(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let map = "0 1000 100\n";
    let outer = mapped(guest, "outer", (libc::CLONE_NEWUTS, map, map), |guest| {
        become_user([0; 3], [0; 3], &[])?;
        let inner = mapped(
            guest,
            "inner",
            (libc::CLONE_NEWIPC, "0 5 3\n7 50 2\n", "0 9 3\n"),
            |guest| {
                become_user([1; 3], [2; 3], &[1])?;
                stay(guest, &gate)
            },
        )?;
        stay(guest, &gate)?;
        inner.join(guest)
    })?;
    let deep = mapped(guest, "deep", (libc::CLONE_NEWNET, map, map), |guest| {
        become_user([0; 3], [0; 3], &[])?;
        // Nobody stays there.
        leave(libc::CLONE_NEWUSER | libc::CLONE_NEWUTS)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", "33 0 1")?;
        fs::write("/proc/self/gid_map", "44 0 1")?;
        stay(guest, &gate)
    })?;
    hold(guest, gate, 3, &[outer, deep])
}

fn siblings(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kinds =
        libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;
    let mut kids = Vec::new();
    for (label, map) in [("one", "0 300 20\n"), ("two", "0 330 20\n")] {
        let kid = mapped(guest, label, (kinds, map, map), |guest| {
            become_user([0; 3], [0; 3], &[])?;
            os!(libc::sethostname(label.as_ptr().cast(), 3))?;
            let mine = guest.fork(&format!("{label}, second"), |guest| {
                leave(libc::CLONE_NEWUTS)?;
                stay(guest, &gate)
            })?;
            stay(guest, &gate)?;
            let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
            same!("name", name.trim_end(), label);
            os!(libc::sethostname(c"changed".as_ptr(), 7))?;
            mine.join(guest)
        })?;
        kids.push(kid);
    }
    if shown()? != own().to_string() {
        // Nobody has a name for them to be joined by.
        return hold(guest, gate, 4, &kids);
    }
    let one = kids[0].pid;
    let joined = guest.fork("joined", |guest| {
        for (kind, flag) in [("uts", libc::CLONE_NEWUTS), ("user", libc::CLONE_NEWUSER)] {
            let namespace = fs::File::open(format!("/proc/{one}/ns/{kind}"))?;
            os!(libc::setns(namespace.as_raw_fd(), flag))?;
        }
        os!(libc::setresuid(4, 4, 4))?;
        stay(guest, &gate)
    })?;
    kids.push(joined);
    hold(guest, gate, 5, &kids)
}

fn threads(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let map = "0 500 10\n";
    let kid = mapped(guest, "kid", (0, map, map), |guest| {
        become_user([0; 3], [0; 3], &[])?;
        let (sender, numbers) = mpsc::channel();
        let threads: Vec<_> = (0..5)
            .map(|_| {
                let sender = sender.clone();
                let dir = guest.path("go");
                std::thread::spawn(move || {
                    // SAFETY: no pointer, and it cannot fail.
                    let tid = unsafe { libc::gettid() };
                    let told = sender.send(tid).map_err(Failure::new);
                    told.and_then(|()| {
                        while !dir.exists() {
                            std::thread::sleep(std::time::Duration::from_millis(2));
                        }
                        // SAFETY: as above.
                        same!("thread", unsafe { libc::gettid() }, tid);
                        known().map(drop)
                    })
                })
            })
            .collect();
        let numbers: Vec<i32> = numbers.iter().take(threads.len()).collect();
        ensure!(numbers.len() == 5, "{} threads", numbers.len());
        stay(guest, &gate)?;
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| Failure::new("a thread panicked"))??;
        }
        Ok(())
    })?;
    hold(guest, gate, 1, &[kid])
}

/// Forks with flags of `clone(2)`.
pub(crate) fn fork_with(
    guest: &Guest,
    label: &str,
    flags: i32,
    body: impl FnOnce(&Guest) -> Check,
) -> Check<i32> {
    let flags = (flags | libc::SIGCHLD) as libc::c_long;
    let pid = os!(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0))?;
    if pid == 0 {
        let code = guest.child_result(label, &body(guest));
        // SAFETY: ends the process without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    Ok(pid as i32)
}

pub(crate) fn ended(guest: &Guest, pid: i32, label: &str) -> Check {
    let status = crate::protocol::reap(pid)?;
    ensure!(
        status == 0,
        "child {label} status {status:#x}: {}",
        guest.complaint(label)
    );
    Ok(())
}

fn inits(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let all = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
    // Those of namespaces above that of the root do not stay.
    let above = usize::from(shown()? != own().to_string());
    let pids = || {
        let all = status_field("NSpid")?;
        Check::Ok(
            all.split_whitespace()
                .skip(above)
                .map(|pid| format!("{pid} "))
                .collect::<String>(),
        )
    };
    let creator = guest.fork("creator", |guest| {
        let zygote = fork_with(guest, "zygote", all, |guest| {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", "0 0 1")?;
            fs::write("/proc/self/gid_map", "0 0 1")?;
            os!(libc::setsid())?;
            let before = pids()?;
            let renderer = fork_with(guest, "renderer", libc::CLONE_NEWPID, |guest| {
                let before = pids()?;
                let kid = guest.fork("kid", |guest| stay(guest, &gate))?;
                stay(guest, &gate)?;
                same!("numbers", pids()?, before);
                kid.join(guest)
            })?;
            let deeper = fork_with(guest, "deeper", all, |guest| {
                let before = pids()?;
                stay(guest, &gate)?;
                same!("numbers", pids()?, before);
                Ok(())
            })?;
            stay(guest, &gate)?;
            same!("numbers", pids()?, before);
            ended(guest, renderer, "renderer")?;
            ended(guest, deeper, "deeper")
        })?;
        stay(guest, &gate)?;
        ended(guest, zygote, "zygote")
    })?;
    hold(guest, gate, 5, &[creator])
}

fn shared(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("kid", |guest| {
        leave(libc::CLONE_NEWUSER)?;
        let other = fork_with(guest, "other", libc::CLONE_FS, |guest| stay(guest, &gate))?;
        stay(guest, &gate)?;
        ended(guest, other, "other")
    })?;
    hold(guest, gate, 2, &[kid])
}
