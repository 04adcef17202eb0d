//! Attributes of a process that `prctl(2)` and `personality(2)` set, and its identity in `/proc`.
//!
//! `autogroup`, `subreaper`, `pdeath-signal`, `no-new-privs`, `securebits`, `dumpable`, `personality`, `thp-disable`.
//! `login-uid`: the audit user.
//! `identity`: comm, exe, command line (rewritten in place), environment and auxiliary vector.
//! `exe-deleted`: the program file is gone.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Gate, Guest, ensure, reap, same, status_field, until};
use crate::signals::{bit, mask};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("autogroup", autogroup),
    Entry("subreaper", subreaper),
    Entry("pdeath-signal", pdeath_signal),
    Entry("no-new-privs", no_new_privs),
    Entry("securebits", securebits),
    Entry("dumpable", dumpable),
    Entry("personality", personality),
    Entry("thp-disable", thp_disable),
    Entry("login-uid", login_uid),
    Entry("identity", identity),
    Entry("exe-deleted", exe_deleted),
];

/// The number that a `prctl` stores behind its pointer.
fn get(option: i32) -> Check<i32> {
    let mut value = -1;
    os!(libc::prctl(option, &raw mut value))?;
    Ok(value)
}

fn subreaper(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let reaper = guest.fork("reaper", |guest| {
        os!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
        // Its child forks and leaves only after go: the grandchild must come to the reaper.
        let middle = guest.fork("middle", |guest| {
            let leaf = guest.fork("leaf", |_| Ok(()))?;
            // Not reaped: a zombie that changes its parent.
            gate.arrive()?;
            guest.wait();
            fs::write(guest.path("leaf"), leaf.pid.to_string())?;
            Ok(())
        })?;
        gate.leave()?;
        guest.wait();
        same!("subreaper", get(libc::PR_GET_CHILD_SUBREAPER)?, 1);
        middle.join(guest)?;
        let leaf: i32 = fs::read_to_string(guest.path("leaf"))?.parse()?;
        same!("status of the adopted child", reap(leaf)?, 0);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    same!(
        "subreaper of the root",
        get(libc::PR_GET_CHILD_SUBREAPER)?,
        0
    );
    reaper.join(guest)
}

fn pdeath_signal(guest: &Guest) -> Check {
    os!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    let gate = Gate::new()?;
    let middle = guest.fork("middle", |guest| {
        let leaf = guest.fork("leaf", |guest| {
            mask(Some(bit(libc::SIGUSR2)))?;
            os!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR2))?;
            gate.arrive()?;
            guest.wait();
            same!(
                "parent-death signal",
                get(libc::PR_GET_PDEATHSIG)?,
                libc::SIGUSR2
            );
            fs::write(guest.path("checked"), "")?;
            until("the signal of the parent's death", || {
                Ok(status_field("ShdPnd")? == format!("{:016x}", bit(libc::SIGUSR2)))
            })
        })?;
        gate.leave()?;
        guest.wait();
        until("the child has looked", || {
            Ok(guest.path("checked").exists())
        })?;
        fs::write(guest.path("leaf"), leaf.pid.to_string())?;
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    middle.join(guest)?;
    let leaf: i32 = fs::read_to_string(guest.path("leaf"))?.parse()?;
    let status = reap(leaf)?;
    ensure!(
        status == 0,
        "leaf: status {status:#x}: {}",
        guest.complaint("leaf")
    );
    Ok(())
}

fn login_uid(guest: &Guest) -> Check {
    const FILE: &str = "/proc/self/loginuid";
    let gate = Gate::new()?;
    if fs::read(FILE).is_err() {
        return Err(Failure::skip("no auditing"));
    }
    let before = fs::read_to_string(FILE)?;
    let kid = guest.fork("child", |guest| {
        fs::write(FILE, "4711")?;
        gate.arrive()?;
        guest.wait();
        same!("audit user", fs::read_to_string(FILE)?, "4711");
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    same!("parent's audit user", fs::read_to_string(FILE)?, before);
    kid.join(guest)
}

fn no_new_privs(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        os!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        gate.arrive()?;
        guest.wait();
        same!(
            "no_new_privs",
            os!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))?,
            1
        );
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    same!(
        "no_new_privs of the root",
        os!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))?,
        0
    );
    kid.join(guest)
}

fn securebits(guest: &Guest) -> Check {
    /// NOROOT and its lock, NO_SETUID_FIXUP, KEEP_CAPS.
    const BITS: i32 = 0x1 | 0x2 | 0x4 | 0x10;
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        os!(libc::prctl(libc::PR_SET_SECUREBITS, BITS))?;
        gate.arrive()?;
        guest.wait();
        same!(
            "securebits",
            os!(libc::prctl(libc::PR_GET_SECUREBITS))?,
            BITS
        );
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    same!(
        "securebits of the root",
        os!(libc::prctl(libc::PR_GET_SECUREBITS))?,
        0
    );
    kid.join(guest)
}

fn dumpable(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        os!(libc::prctl(libc::PR_SET_DUMPABLE, 0))?;
        gate.arrive()?;
        guest.wait();
        same!("dumpable", os!(libc::prctl(libc::PR_GET_DUMPABLE))?, 0);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    same!(
        "dumpable of the root",
        os!(libc::prctl(libc::PR_GET_DUMPABLE))?,
        1
    );
    kid.join(guest)
}

fn personality(guest: &Guest) -> Check {
    const WANT: u64 =
        (libc::ADDR_NO_RANDOMIZE | libc::ADDR_COMPAT_LAYOUT | libc::STICKY_TIMEOUTS) as u64;
    os!(libc::personality(WANT))?;
    guest.hold()?;
    same!(
        "personality",
        os!(libc::personality(0xffff_ffff))?,
        i32::try_from(WANT).map_err(Failure::new)?
    );
    Ok(())
}

fn thp_disable(guest: &Guest) -> Check {
    os!(libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0))?;
    guest.hold()?;
    same!(
        "THP disabled",
        os!(libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0))?,
        1
    );
    Ok(())
}

/// What `/proc/self` says about who this process is.
fn faces() -> Check<Vec<(&'static str, Vec<u8>)>> {
    let mut faces = Vec::new();
    for name in ["comm", "cmdline", "environ", "auxv"] {
        faces.push((name, fs::read(format!("/proc/self/{name}"))?));
    }
    faces.push((
        "exe",
        fs::read_link("/proc/self/exe")?
            .into_os_string()
            .into_encoded_bytes(),
    ));
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields 26 to 28 and 45 to 52: code, data, brk, stack, arguments, environment.
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let layout = [&fields[23..26], &fields[42..49]].concat().join(" ");
    faces.push(("layout", layout.into_bytes()));
    Ok(faces)
}

fn identity(guest: &Guest) -> Check {
    rustix::thread::set_name(c"not (the) name")?;
    // As programs do that change their title: over the memory of the arguments.
    let stat = fs::read_to_string("/proc/self/stat")?;
    let start: usize = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .nth(45)
        .unwrap_or("0")
        .parse()?;
    ensure!(start != 0, "no argument area in stat");
    let title: *mut u8 = std::ptr::with_exposed_provenance_mut(start);
    for (index, byte) in b"TITLE".iter().enumerate() {
        // SAFETY: the first argument is the path of this program, longer than the title.
        unsafe { title.add(index).write_volatile(*byte) };
    }
    let before = faces()?;
    guest.hold()?;
    for ((name, now), (_, then)) in faces()?.iter().zip(&before) {
        same!(
            name,
            String::from_utf8_lossy(now),
            String::from_utf8_lossy(then)
        );
    }
    Ok(())
}

fn exe_deleted(guest: &Guest) -> Check {
    use std::os::unix::process::CommandExt;
    let copy = guest.path("program");
    if guest.args.first().is_none_or(|word| word != "again") {
        fs::copy("/proc/self/exe", &copy)?;
        return Err(std::process::Command::new(&copy)
            .arg("exe-deleted")
            .arg(&guest.dir)
            .arg("again")
            .exec()
            .into());
    }
    fs::remove_file(&copy)?;
    let want = format!("{} (deleted)", copy.display());
    same!(
        "exe",
        fs::read_link("/proc/self/exe")?.display().to_string(),
        want
    );
    guest.hold()?;
    same!(
        "exe",
        fs::read_link("/proc/self/exe")?.display().to_string(),
        want
    );
    Ok(())
}

/// The nice value of a session's group.
fn autogroup(guest: &Guest) -> Check {
    let nice = || -> Check<String> {
        let text = fs::read_to_string("/proc/self/autogroup")?;
        let nice = text.rsplit(' ').next();
        Ok(nice.unwrap_or_default().trim().to_owned())
    };
    if fs::write("/proc/self/autogroup", "5").is_err() {
        return Err(Failure::skip("sessions have no groups for the scheduler"));
    }
    let kid = guest.fork("other session", |guest| {
        os!(libc::setsid())?;
        fs::write("/proc/self/autogroup", "-3")?;
        fs::write(guest.path("ready-too"), "")?;
        guest.wait();
        same!("nice value of the other", nice()?, "-3");
        Ok(())
    })?;
    until("the other", || Ok(guest.path("ready-too").exists()))?;
    guest.hold()?;
    same!("nice value", nice()?, "5");
    kid.join(guest)
}
