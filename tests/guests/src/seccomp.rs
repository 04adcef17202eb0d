//! What `seccomp(2)` forbids.
//!
//! `seccomp-strict`: strict mode, in one of two threads too. `seccomp-filters`: several, handed on to a child that adds some, one
//! that is logged. `seccomp-threads`: what threads have in common and what they have not; one more for all of them.
//! `seccomp-poor`: filters of a process that has since lost every right. `seccomp-narrow`: hardly a call is left.
//! `seccomp-long`: the longest filters. `seccomp-supervised`: one that asks somebody else.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{
    Check, Guest, Kid, ensure, reap, same, status_field, until, wait_blocked, within,
};
use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("seccomp-strict", strict),
    Entry("seccomp-filters", filters),
    Entry("seccomp-threads", threads),
    Entry("seccomp-poor", poor),
    Entry("seccomp-narrow", narrow),
    Entry("seccomp-long", long),
    Entry("seccomp-supervised", supervised),
];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TSYNC: u64 = libc::SECCOMP_FILTER_FLAG_TSYNC;
const LOG: u64 = libc::SECCOMP_FILTER_FLAG_LOG;

const fn insn(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// A program that answers one system call with `verdict`, all others with `rest`.
fn verdict(call: libc::c_long, verdict: u32, rest: u32) -> Vec<libc::sock_filter> {
    vec![
        insn(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        insn(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            call as u32,
        ),
        insn(libc::BPF_RET | libc::BPF_K, 0, 0, verdict),
        insn(libc::BPF_RET | libc::BPF_K, 0, 0, rest),
    ]
}

fn fails(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// Installs a program; what the call returns, or the errno.
fn install(program: &[libc::sock_filter], flags: u64) -> Result<i64, i32> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program lives until the call is over.
    match unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    } {
        -1 => Err(errno()),
        value => Ok(value),
    }
}

/// Makes one system call fail in a way of its own.
fn forbid(call: libc::c_long, with: i32, flags: u64) -> Check {
    same!(
        "install",
        install(&verdict(call, fails(with), ALLOW), flags),
        Ok(0)
    );
    Ok(())
}

/// How a system call without arguments fails; 0 if it does not.
fn tried(call: libc::c_long) -> i32 {
    // SAFETY: the calls tried here change nothing.
    match unsafe { libc::syscall(call, 0, 0, 0, 0, 0, 0) } {
        -1 => errno(),
        _ => 0,
    }
}

const GETTID: libc::c_long = libc::SYS_gettid;
const GETPGRP: libc::c_long = libc::SYS_getpgrp;
const GETUID: libc::c_long = libc::SYS_getuid;
const GETGID: libc::c_long = libc::SYS_getgid;

fn mode_of(pid: i32) -> Check<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    Ok(line.ok_or("no Seccomp in status")?.trim().to_owned())
}

/// A pair of pipes: to a child, and back.
struct Line {
    there: [i32; 2],
    back: [i32; 2],
}

impl Line {
    fn new() -> Check<Self> {
        let (mut there, mut back) = ([0; 2], [0; 2]);
        os!(libc::pipe(there.as_mut_ptr()))?;
        os!(libc::pipe(back.as_mut_ptr()))?;
        Ok(Self { there, back })
    }

    /// The child's side, by the two calls that are left to it.
    fn serve(&self, bytes: usize) {
        let mut byte = 0_u8;
        for _ in 0..bytes {
            let byte = &raw mut byte;
            // SAFETY: `byte` is a live local.
            unsafe {
                libc::read(self.there[0], byte.cast(), 1);
                libc::write(self.back[1], byte.cast(), 1);
            }
        }
    }

    fn ask(&self) -> Check {
        let mut byte = b'?';
        os!(libc::write(self.there[1], (&raw const byte).cast(), 1))?;
        byte = 0;
        os!(libc::read(self.back[0], (&raw mut byte).cast(), 1))?;
        same!("answer", byte, b'?');
        Ok(())
    }
}

fn end(code: i64) -> ! {
    loop {
        // SAFETY: ends this thread, which is all that is left to it.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
}

fn strict(guest: &Guest) -> Check {
    let (good, bad) = (Line::new()?, Line::new()?);
    let spawn = |name: &str, line: &Line, then: fn()| -> Check<Kid> {
        let kid = guest.fork(name, |_| {
            os!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT))?;
            line.serve(1);
            then();
            end(0)
        })?;
        wait_blocked(kid.pid, libc::SYS_read)?;
        Ok(kid)
    };
    let good_kid = spawn("good", &good, || {})?;
    let bad_kid = spawn("bad", &bad, || {
        tried(GETTID);
    })?;
    guest.hold()?;
    for (kid, line) in [(&good_kid, &good), (&bad_kid, &bad)] {
        same!("mode", mode_of(kid.pid)?, "1");
        line.ask()?;
    }
    good_kid.join(guest)?;
    same!("forbidden", reap(bad_kid.pid)?, libc::SIGKILL);
    Ok(())
}

/// What is left of the flags of a filter of a stopped child.
fn flags_of(pid: i32, index: u64) -> Check<u64> {
    const GET_METADATA: u32 = 0x420d;
    let mut metadata = [index, 0];
    os!(libc::ptrace(
        GET_METADATA as libc::c_uint,
        pid,
        size_of_val(&metadata),
        metadata.as_mut_ptr()
    ))?;
    Ok(metadata[1])
}

fn filters(guest: &Guest) -> Check {
    const COUNT: &str = "Seccomp_filters";
    let first = guest.fork("first", |guest| {
        forbid(GETTID, 101, 0)?;
        forbid(GETPGRP, 102, LOG)?;
        let heir = guest.fork("heir", |guest| {
            forbid(GETUID, 103, 0)?;
            // Of two that have something against a call the newer one is obeyed.
            forbid(GETTID, 104, 0)?;
            fs::write(guest.path("heir"), std::process::id().to_string())?;
            guest.wait();
            same!("filters", status_field(COUNT)?, "4");
            same!("gettid", tried(GETTID), 104);
            same!("getpgrp", tried(GETPGRP), 102);
            same!("getuid", tried(GETUID), 103);
            same!("getgid", tried(GETGID), 0);
            until("a look", || Ok(guest.path("looked").exists()))
        })?;
        guest.wait();
        same!("filters", status_field(COUNT)?, "2");
        same!("no_new_privs", status_field("NoNewPrivs")?, "0");
        same!("gettid", tried(GETTID), 101);
        same!("getpgrp", tried(GETPGRP), 102);
        same!("getuid", tried(GETUID), 0);
        heir.join(guest)
    })?;
    until("the heir", || Ok(guest.path("heir").exists()))?;
    guest.hold()?;
    // Who is under seccomp cannot ask for them.
    let heir: i32 = fs::read_to_string(guest.path("heir"))?.parse()?;
    os!(libc::ptrace(libc::PTRACE_SEIZE, heir, 0, 0))?;
    os!(libc::ptrace(libc::PTRACE_INTERRUPT, heir, 0, 0))?;
    let mut status = 0;
    os!(libc::waitpid(heir, &raw mut status, libc::__WALL))?;
    let flags: Check<Vec<u64>> = (0..4).map(|index| flags_of(heir, index)).collect();
    os!(libc::ptrace(libc::PTRACE_DETACH, heir, 0, 0))?;
    same!("flags", flags?, [0, LOG, 0, 0]);
    fs::write(guest.path("looked"), "")?;
    first.join(guest)
}

fn threads(guest: &Guest) -> Check {
    static STAGE: AtomicI32 = AtomicI32::new(0);
    const DUMPS: Duration = Duration::from_secs(600);
    let stage = |at: i32| {
        let come = || Ok(STAGE.load(Ordering::Acquire) >= at);
        within(DUMPS, "the next stage", come)
    };
    forbid(GETTID, 101, 0)?;
    std::thread::scope(|scope| -> Check {
        let plain = scope.spawn(move || -> Check {
            STAGE.fetch_add(1, Ordering::AcqRel);
            stage(3)?;
            same!("gettid", tried(GETTID), 101);
            same!("getpgrp", tried(GETPGRP), 0);
            stage(5)?;
            same!("getuid", tried(GETUID), 103);
            Ok(())
        });
        let own = scope.spawn(move || -> Check {
            forbid(GETPGRP, 102, 0)?;
            STAGE.fetch_add(1, Ordering::AcqRel);
            stage(3)?;
            same!("gettid", tried(GETTID), 101);
            same!("getpgrp", tried(GETPGRP), 102);
            stage(4)
        });
        stage(2)?;
        guest.hold()?;
        same!("getpgrp", tried(GETPGRP), 0);
        STAGE.store(3, Ordering::Release);
        // One thread has what this one has not.
        let program = verdict(GETUID, fails(103), ALLOW);
        ensure!(install(&program, TSYNC) != Ok(0), "another thread differs");
        STAGE.store(4, Ordering::Release);
        own.join().map_err(|_| "thread")??;
        // The kernel forgets a thread a little after it is joined.
        until("for all", || Ok(install(&program, TSYNC) == Ok(0)))?;
        STAGE.store(5, Ordering::Release);
        plain.join().map_err(|_| "thread")??;
        same!("getuid", tried(GETUID), 103);
        Ok(())
    })
}

fn poor(guest: &Guest) -> Check {
    guest.open_to_all()?;
    let kid = guest.fork("poor", |guest| {
        forbid(GETTID, 101, 0)?;
        os!(libc::setgroups(0, std::ptr::null()))?;
        os!(libc::setresgid(4711, 4711, 4711))?;
        os!(libc::setresuid(4711, 4711, 4711))?;
        fs::write(guest.path("poor"), "")?;
        guest.wait();
        same!("gettid", tried(GETTID), 101);
        same!("no_new_privs", status_field("NoNewPrivs")?, "0");
        same!("capabilities", status_field("CapEff")?, "0000000000000000");
        let more = install(&verdict(GETPGRP, fails(102), ALLOW), 0);
        same!("more of them", more, Err(libc::EACCES));
        Ok(())
    })?;
    until("the poor", || Ok(guest.path("poor").exists()))?;
    guest.hold()?;
    kid.join(guest)
}

fn narrow(guest: &Guest) -> Check {
    let line = Line::new()?;
    let kill = libc::SECCOMP_RET_KILL_PROCESS;
    let kid = guest.fork("narrow", |_| {
        let mut program = vec![insn(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
        for call in [libc::SYS_read, libc::SYS_write, libc::SYS_exit] {
            let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            program.push(insn(is, 0, 1, call as u32));
            program.push(insn(libc::BPF_RET | libc::BPF_K, 0, 0, ALLOW));
        }
        program.push(insn(libc::BPF_RET | libc::BPF_K, 0, 0, kill));
        same!("install", install(&program, 0), Ok(0));
        line.serve(2);
        tried(GETTID);
        end(0)
    })?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    guest.hold()?;
    same!("mode", mode_of(kid.pid)?, "2");
    line.ask()?;
    line.ask()?;
    same!("forbidden", reap(kid.pid)? & 0x7f, libc::SIGSYS);
    Ok(())
}

fn long(guest: &Guest) -> Check {
    for (call, errno) in [(GETTID, 101), (GETPGRP, 102), (GETUID, 103)] {
        let mut program = verdict(call, fails(errno), ALLOW);
        let rest = program.split_off(1);
        let idle = insn(libc::BPF_JMP | libc::BPF_JA, 0, 0, 0);
        program.resize(4096 - rest.len(), idle);
        program.extend(rest);
        same!("install", install(&program, 0), Ok(0));
    }
    guest.hold()?;
    let found = [GETTID, GETPGRP, GETUID, GETGID].map(tried);
    same!("verdicts", found, [101, 102, 103, 0]);
    Ok(())
}

fn supervised(guest: &Guest) -> Check {
    let kid = guest.fork("supervised", |guest| {
        let program = verdict(GETTID, libc::SECCOMP_RET_USER_NOTIF, ALLOW);
        let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = install(&program, listener).map_err(|errno| format!("install: {errno}"))?;
        os!(libc::close(listener as i32))?;
        fs::write(guest.path("supervised"), "")?;
        guest.wait();
        same!("gettid", tried(GETTID), libc::ENOSYS);
        Ok(())
    })?;
    until("the filter", || Ok(guest.path("supervised").exists()))?;
    guest.hold()?;
    kid.join(guest)
}
