//! Processes that live on when their first thread has ended.
//!
//! `thread-leader-gone`: with a child, a locked file, a signal that waits for the process, and a name and a status of the thread
//! that has ended. `thread-leader-gone-status`: the parent of such a process is told the status of its last thread.
//! `refused-leader-death`: a child that asked to be told of its parent's end.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, reap, same, until};
use crate::signals::{bit, mask};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("thread-leader-gone", leader_gone),
    Entry("thread-leader-gone-status", told),
    Entry("refused-leader-death", death),
];

/// What the first thread ends with.
const CODE: i32 = 7;

/// Goes on in another thread, and ends the first one by the system call. The process ends with what `body` returns.
fn without_leader(body: impl FnOnce() -> i32 + Send + 'static) -> Check {
    // The process ends by the last of two threads.
    let second = std::thread::spawn(body);
    std::thread::spawn(move || std::process::exit(second.join().unwrap_or(2)));
    end(CODE)
}

/// Ends this thread alone.
fn end(code: i32) -> Check {
    // SAFETY: what its stack holds is not used by the others.
    unsafe { libc::syscall(libc::SYS_exit, code) };
    Err(Failure::new("a thread survived exit(2)"))
}

/// State, name and status of the first thread.
fn leader() -> Check<(String, String, String)> {
    // As the procfs has it that is mounted.
    let pid = std::fs::read_link("/proc/self")?;
    let pid = pid.display();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat"))?;
    let parts = stat
        .split_once(" (")
        .and_then(|(_, rest)| rest.rsplit_once(") "));
    let (name, rest) = parts.ok_or("stat")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let word = |index: usize| {
        words
            .get(index)
            .map_or(String::new(), |word| (*word).to_owned())
    };
    Ok((word(0), name.to_owned(), word(49)))
}

/// Waits until the first thread has ended.
fn ended() -> Check {
    until("the leader is a zombie", || Ok(leader()?.0 == "Z"))
}

/// Runs a guest in a process without its leader.
fn in_process(guest: &Guest, body: fn(&Guest) -> Check) -> Check {
    let dir = guest.dir.clone();
    rustix::thread::set_name(c"gone")?;
    // All threads block it.
    mask(Some(bit(libc::SIGUSR1)))?;
    without_leader(move || match Guest::new(&dir, Vec::new()) {
        Ok(guest) => guest.finish(&ended().and_then(|()| body(&guest))),
        Err(_) => 2,
    })
}

fn leader_gone(guest: &Guest) -> Check {
    in_process(guest, |guest| {
        let value = libc::sigval {
            sival_ptr: std::ptr::without_provenance_mut(4711),
        };
        let pid = i32::try_from(std::process::id()).map_err(Failure::new)?;
        os!(libc::sigqueue(pid, libc::SIGUSR1, value))?;
        let mut file = std::fs::File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(guest.path("file"))?;
        file.write_all(b"before ")?;
        let mut lock = whole_file();
        os!(libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut lock))?;
        let child = guest.fork("child", |guest| {
            guest.wait();
            let file = std::fs::File::options()
                .write(true)
                .open(guest.path("file"))?;
            let mut lock = whole_file();
            os!(libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock))?;
            same!("who has the lock", lock.l_pid, os!(libc::getppid())?);
            Ok(())
        })?;
        let before = leader()?;
        guest.hold()?;
        ended()?;
        same!("leader", leader()?, before);
        same!(
            "leader",
            before,
            ("Z".to_owned(), "gone".to_owned(), (CODE << 8).to_string())
        );
        child.join(guest)?;
        file.write_all(b"after")?;
        file.rewind()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        same!("file", text, "before after");
        // SAFETY: all zeros is no information.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let set = bit(libc::SIGUSR1);
        let now = [0_u64; 2];
        os!(libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            &raw mut info,
            now.as_ptr(),
            8
        ))?;
        // SAFETY: a queued signal has a value.
        let got = unsafe { info.si_value() }.sival_ptr.addr();
        same!("value of the signal", got, 4711);
        Ok(())
    })
}

/// A lock for writing.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn told(guest: &Guest) -> Check {
    let up = guest.path("up");
    let go = std::ffi::CString::new(guest.path("go").into_os_string().into_encoded_bytes())?;
    // It gets its name when the child has no descriptor of it any more.
    let (made, said) = (guest.path("made"), up.clone());
    let child = guest.fork("child", move |_| {
        std::thread::spawn(move || {
            let is_up = ended().and_then(|()| {
                std::fs::write(&made, b"")?;
                Ok(std::fs::rename(&made, &said)?)
            });
            if is_up.is_ok() {
                crate::protocol::wait_for(&go);
            }
            end(3)
        });
        end(CODE)
    })?;
    until("the child is up", || Ok(up.exists()))?;
    guest.hold()?;
    same!("status", reap(child.pid)?, 3 << 8);
    Ok(())
}

fn death(guest: &Guest) -> Check {
    in_process(guest, |guest| {
        let child = guest.fork("child", |guest| {
            os!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGURG))?;
            guest.wait();
            Ok(())
        })?;
        guest.hold()?;
        let after = leader()?;
        ensure!(after.0 == "Z", "{after:?}");
        child.join(guest)
    })
}
