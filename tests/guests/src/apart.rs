//! Threads with descriptors, or directories, of their own (`unshare(2)` in a thread).
//!
//! `thread-apart [COUNT]`: one thread with each, and one with both, beside one that shares what the process has, and
//! so many more.
//! `refused-thread-files`: two threads that share a table which the process has not.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use rustix::io::fcntl_getfd;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Barrier, Mutex};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("thread-apart", apart),
    Entry("refused-thread-files", shared),
];

/// What the calling thread has: descriptors with what is behind them, directory and mask.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    files: BTreeMap<String, PathBuf>,
    cwd: PathBuf,
    mask: String,
}

impl Own {
    fn look() -> Check<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir("/proc/thread-self/fd")? {
            let entry = entry?;
            // The directory itself is gone by then.
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let text = link.to_string_lossy().into_owned();
            if text.contains("/task/") {
                continue;
            }
            // Numbers of pipes and sockets are others after a restore.
            let name = text.split('[').next().unwrap_or_default();
            files.insert(
                entry.file_name().to_string_lossy().into_owned(),
                name.into(),
            );
        }
        Ok(Self {
            files,
            cwd: fs::read_link("/proc/thread-self/cwd")?,
            mask: crate::protocol::status_field("Umask")?,
        })
    }
}

/// Whether the calling thread shares this with the main thread, by `kcmp(2)`.
fn shares(kind: i32) -> Check<bool> {
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    let main = i32::try_from(std::process::id()).map_err(Failure::new)?;
    Ok(os!(libc::syscall(libc::SYS_kcmp, main, own, kind, 0, 0))? == 0)
}

/// `KCMP_FILES` and `KCMP_FS`.
const KINDS: [(i32, i32); 2] = [(2, libc::CLONE_FILES), (3, libc::CLONE_FS)];

/// The ends of a pipe, of which the main thread keeps one and another thread the other.
type Pipe = (RawFd, RawFd);

fn pipe() -> Check<Pipe> {
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    Ok((ends[0], ends[1]))
}

fn close(fd: RawFd) -> Check {
    os!(libc::close(fd)).map(drop)
}

/// One thread: leaves what `flags` say, changes it, and finds it so afterwards.
fn thread(guest: &Guest, flags: i32, (read, pipes): (RawFd, &[Pipe]), barrier: &Barrier) -> Check {
    /// A copy of a table is not to have what another thread is just looking at.
    static TURN: Mutex<()> = Mutex::new(());
    let set_up = || -> Check<_> {
        let _turn = TURN.lock().map_err(|_| Failure::new("a thread panicked"))?;
        os!(libc::unshare(flags))?;
        let mut kept = None;
        if flags & libc::CLONE_FILES != 0 {
            for (_, write) in pipes {
                close(*write)?;
            }
            let path = guest.path(&format!("own-{flags}"));
            let mut file = File::options()
                .create(true)
                .read(true)
                .append(true)
                .open(path)?;
            file.write_all(b"before ")?;
            os!(libc::dup2(read, 300))?;
            let set = os!(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            let mut event = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: 4711,
            };
            os!(libc::epoll_ctl(
                set,
                libc::EPOLL_CTL_ADD,
                read,
                &raw mut event
            ))?;
            // SAFETY: the kernel has just given this number to nobody else.
            kept = Some((file, unsafe { OwnedFd::from_raw_fd(set) }));
        }
        if flags & libc::CLONE_FS != 0 {
            let path = guest.path(&format!("directory-{flags}"));
            fs::create_dir(&path)?;
            os!(libc::chdir(
                std::ffi::CString::new(path.into_os_string().into_encoded_bytes())?.as_ptr()
            ))?;
            // SAFETY: sets a number.
            unsafe { libc::umask(0o31) };
        }
        Ok((kept, Own::look()?))
    };
    let is_set_up = set_up();
    barrier.wait();
    barrier.wait();
    let (kept, before) = is_set_up?;
    let mut now = Own::look()?;
    if flags & libc::CLONE_FILES == 0 {
        // The main thread has closed some.
        now.files.clone_from(&before.files);
    }
    same!("what the thread has", now, before);
    for (kind, flag) in KINDS {
        same!(
            format!("{kind} is shared"),
            shares(kind)?,
            flags & flag == 0
        );
    }
    let Some((mut file, set)) = kept else {
        return Ok(());
    };
    file.write_all(b"after")?;
    same!(
        "file",
        fs::read(guest.path(&format!("own-{flags}")))?,
        b"before after"
    );
    // The main thread writes one byte, and then has no end any more.
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let woken = os!(libc::epoll_wait(set.as_raw_fd(), &raw mut event, 1, 10_000))?;
    let data = event.u64;
    same!("watch", (woken, data), (1, 4711));
    // SAFETY: a descriptor of this thread's own table, of which nobody else knows.
    let mut reader = File::from(unsafe { OwnedFd::from_raw_fd(300) });
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    same!("pipe", text, b"!");
    Ok(())
}

fn apart(guest: &Guest) -> Check {
    const BOTH: i32 = libc::CLONE_FILES | libc::CLONE_FS;
    let mut sets = vec![libc::CLONE_FILES, libc::CLONE_FS, BOTH, 0];
    sets.resize(sets.len() + guest.number(0, 0)?, 0);
    let pipes: Vec<Pipe> = sets.iter().map(|_| pipe()).collect::<Check<_>>()?;
    let before_threads = Own::look()?;
    let barrier = Barrier::new(sets.len() + 1);
    let barrier = &barrier;
    std::thread::scope(|scope| {
        let threads: Vec<_> = sets
            .iter()
            .zip(&pipes)
            .map(|(flags, (read, _))| {
                let pipes = (*read, &pipes[..]);
                scope.spawn(move || thread(guest, *flags, pipes, barrier))
            })
            .collect();
        barrier.wait();
        let changed = Own::look();
        for (flags, (read, _)) in sets.iter().zip(&pipes) {
            if flags & libc::CLONE_FILES != 0 {
                close(*read)?;
            }
        }
        let before = Own::look();
        let held = guest.hold();
        let after = Own::look();
        for (_, write) in &pipes {
            os!(libc::write(*write, c"!".as_ptr().cast(), 1))?;
            close(*write)?;
        }
        barrier.wait();
        held?;
        same!("before the threads", changed?, before_threads);
        same!("what the process has", after?, before?);
        // SAFETY: the descriptor is only asked about.
        let gone = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(300) }).is_err();
        ensure!(gone, "the process has what a thread has alone");
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })
    })
}

fn shared(guest: &Guest) -> Check {
    let barrier = &Barrier::new(3);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let unshared = os!(libc::unshare(libc::CLONE_FILES));
            // Born with the same table.
            let another = scope.spawn(move || {
                barrier.wait();
                barrier.wait();
                shares(KINDS[0].0)
            });
            let own = File::open("/dev/null");
            barrier.wait();
            barrier.wait();
            unshared?;
            own?.metadata()?;
            let shares = another.join();
            let shares = shares.map_err(|_| Failure::new("a thread panicked"))??;
            ensure!(!shares, "it has the table of the process");
            Ok::<_, Failure>(())
        });
        barrier.wait();
        let held = guest.hold();
        barrier.wait();
        held?;
        thread
            .join()
            .map_err(|_| Failure::new("the thread panicked"))?
    })
}
