//! What a guest and the harness say to each other, and how a guest reports what is wrong.
//!
//! Everything goes through files in the guest's directory, by `open`, `write` and `rename` alone:
//!
//! | file | written by | content |
//! | --- | --- | --- |
//! | `ready` | guest | `PID HASH`: state is set up; the hash is of a nonce that lives only in memory. Or `skip REASON` |
//! | `go` | harness | nothing: its existence lets the guest check itself |
//! | `fail.LABEL` | a child of the guest | what that child found wrong |
//! | `result` | guest | `ok` or the failure, and on the last line the nonce |
//!
//! Waiting for `go` is `access(2)` and `nanosleep(2)` in turns, with results ignored, so that it
//! works even where restarting of system calls does not.

use crate::os::os;
use std::ffi::CString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Result of a guest, or of a part of one.
pub(crate) type Check<T = ()> = Result<T, Failure>;

/// What was found wrong, with the place that found it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A check did not hold.
    Wrong(String),
    /// This machine cannot run the guest at all.
    Skip(String),
}

impl Failure {
    /// A failure found at the caller's place.
    #[track_caller]
    pub(crate) fn new(what: impl Display) -> Self {
        let at = Location::caller();
        Self::Wrong(format!("{}:{}: {what}", at.file(), at.line()))
    }

    /// A reason why the guest cannot run on this machine.
    pub(crate) fn skip(reason: impl Display) -> Self {
        Self::Skip(reason.to_string())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wrong(text) => f.write_str(text),
            Self::Skip(reason) => write!(f, "skip {reason}"),
        }
    }
}

/// `?` on these records the line of the `?`.
macro_rules! failure_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            #[track_caller]
            fn from(error: $error) -> Self {
                Self::new(error)
            }
        }
    )*};
}
failure_from!(
    String,
    &str,
    io::Error,
    rustix::io::Errno,
    std::num::ParseIntError,
    std::ffi::NulError,
    std::time::SystemTimeError
);

/// Returns a failure unless the condition holds.
macro_rules! ensure {
    ($cond:expr, $($text:tt)+) => {
        let holds: bool = $cond;
        if !holds {
            return Err($crate::protocol::Failure::new(format!($($text)+)));
        }
    };
}
pub(crate) use ensure;

/// Returns a failure unless both values are equal: `same!(what, got, want)`.
macro_rules! same {
    ($what:expr, $got:expr, $want:expr) => {{
        let (got, want) = (&$got, &$want);
        if got != want {
            return Err($crate::protocol::Failure::new(format!(
                "{}: {got:?}, expected {want:?}",
                $what
            )));
        }
    }};
}
pub(crate) use same;

/// One guest process: its directory, its nonce, its arguments.
pub(crate) struct Guest {
    /// Directory shared with the harness.
    pub(crate) dir: PathBuf,
    /// Words after the directory on the command line.
    pub(crate) args: Vec<String>,
    nonce: String,
    go: CString,
    /// Who is ready, if that is not the process itself.
    first: Option<u32>,
}

impl Guest {
    /// Takes the directory and draws the nonce.
    pub(crate) fn new(dir: &Path, args: Vec<String>) -> Check<Self> {
        let mut bytes = [0_u8; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let nonce = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let go = CString::new(dir.join("go").as_os_str().as_bytes())?;
        Ok(Self {
            dir: dir.to_owned(),
            args,
            nonce,
            go,
            first: None,
        })
    }

    /// The same one, with other arguments; ready is the process `first`.
    pub(crate) fn for_another(&self, first: u32, args: Vec<String>) -> Self {
        Self {
            dir: self.dir.clone(),
            args,
            nonce: self.nonce.clone(),
            go: self.go.clone(),
            first: Some(first),
        }
    }

    /// The number given as argument `index`, or a default.
    pub(crate) fn number(&self, index: usize, default: usize) -> Check<usize> {
        self.args
            .get(index)
            .map_or(Ok(default), |word| Ok(word.parse()?))
    }

    /// A path in the guest's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Lets every user wait and report in the directory, for tasks that become someone else.
    pub(crate) fn open_to_all(&self) -> Check {
        use std::os::unix::fs::PermissionsExt;
        Ok(fs::set_permissions(
            &self.dir,
            fs::Permissions::from_mode(0o777),
        )?)
    }

    /// Tells the harness that the state is set up.
    pub(crate) fn ready(&self) -> Check {
        self.ready_as(self.first.unwrap_or_else(std::process::id))
    }

    /// The same, said by another process than the guest's first.
    pub(crate) fn ready_as(&self, pid: u32) -> Check {
        self.say(
            "ready",
            &format!("{pid} {:016x}\n", fnv1a(self.nonce.as_bytes())),
        )
    }

    /// Whether the harness has not said go yet.
    pub(crate) fn waiting(&self) -> bool {
        rustix::fs::access(self.go.as_c_str(), rustix::fs::Access::EXISTS).is_err()
    }

    /// Blocks until the harness says go; see [`wait_for`].
    pub(crate) fn wait(&self) -> Duration {
        wait_for(&self.go)
    }

    /// [`ready`](Self::ready), then [`wait`](Self::wait).
    pub(crate) fn hold(&self) -> Check<Duration> {
        self.ready()?;
        Ok(self.wait())
    }

    /// Writes the result; the exit code for it.
    pub(crate) fn finish(&self, result: &Check) -> i32 {
        let (text, code) = match result {
            Ok(()) => ("ok".to_owned(), 0),
            Err(failure @ Failure::Skip(_)) => {
                let _ = self.say("ready", &format!("{failure}\n"));
                (failure.to_string(), 0)
            }
            Err(failure) => (failure.to_string(), 1),
        };
        let said = self.say("result", &format!("{text}\n{}\n", self.nonce));
        if said.is_err() { 2 } else { code }
    }

    /// Writes a file of the directory in one step.
    fn say(&self, name: &str, text: &str) -> Check {
        let draft = self.path(&format!(".{name}.{}", std::process::id()));
        fs::write(&draft, text)?;
        fs::rename(&draft, self.path(name))?;
        Ok(())
    }

    /// Leaves a child's failure where [`Kid::join`] finds it; the exit code for the child.
    pub(crate) fn child_result(&self, label: &str, result: &Check) -> i32 {
        let Err(failure) = result else { return 0 };
        let _ = self.say(&format!("fail.{label}"), &failure.to_string());
        1
    }

    /// What a child with this label reported, if anything.
    pub(crate) fn complaint(&self, label: &str) -> String {
        fs::read_to_string(self.path(&format!("fail.{label}")))
            .unwrap_or_else(|_| "said nothing".into())
    }

    /// Forks a child that runs `body` and exits 0, or 1 with its failure recorded.
    pub(crate) fn fork(&self, label: &str, body: impl FnOnce(&Self) -> Check) -> Check<Kid> {
        // SAFETY: the child runs ordinary code of a process that has no other threads at this
        // point, or touches nothing another thread could have locked.
        let pid = unsafe { libc::fork() };
        match pid {
            0 => {
                let code = self.child_result(label, &body(self));
                // SAFETY: ends the process without running the parent's exit handlers.
                unsafe { libc::_exit(code) }
            }
            1.. => Ok(Kid {
                pid,
                label: label.to_owned(),
            }),
            _ => Err(io::Error::last_os_error().into()),
        }
    }
}

/// A child made by [`Guest::fork`].
pub(crate) struct Kid {
    /// Its process id.
    pub(crate) pid: i32,
    label: String,
}

impl Kid {
    /// Waits for the child, which must exit with 0.
    pub(crate) fn join(&self, guest: &Guest) -> Check {
        let status = reap(self.pid)?;
        ensure!(
            status == 0,
            "child {} ({}) status {status:#x}: {}",
            self.label,
            self.pid,
            guest.complaint(&self.label)
        );
        Ok(())
    }
}

/// Waits for a child of any kind; its wait status.
pub(crate) fn reap(pid: i32) -> Check<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live local.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        if got == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Failure::new(format!("waitpid({pid}): {error}")));
        }
    }
}

/// Lets children say that their state is set up; leaves no descriptor behind.
pub(crate) struct Gate {
    read: i32,
    write: i32,
}

impl Gate {
    /// A gate, to be made before the children.
    pub(crate) fn new() -> Check<Self> {
        let mut ends = [0; 2];
        os!(libc::pipe(ends.as_mut_ptr()))?;
        Ok(Self {
            read: ends[0],
            write: ends[1],
        })
    }

    /// A child reports, and closes its copy of the gate.
    pub(crate) fn arrive(&self) -> Check {
        os!(libc::write(self.write, c"!".as_ptr().cast(), 1))?;
        self.leave()
    }

    /// A child closes its copy of the gate without a report.
    pub(crate) fn leave(&self) -> Check {
        os!(libc::close(self.read))?;
        os!(libc::close(self.write))?;
        Ok(())
    }

    /// Waits for so many reports, then closes the gate on this side.
    pub(crate) fn wait(self, count: usize) -> Check {
        os!(libc::close(self.write))?;
        let mut byte = 0_u8;
        for index in 0..count {
            let got = os!(libc::read(self.read, (&raw mut byte).cast(), 1))?;
            ensure!(got == 1, "only {index} of {count} children came up");
        }
        // For as long as it takes to close all copies, unless somebody keeps one.
        let mut ends = libc::pollfd {
            fd: self.read,
            events: 0,
            revents: 0,
        };
        os!(libc::poll(&raw mut ends, 1, 50))?;
        os!(libc::close(self.read))?;
        Ok(())
    }
}

/// Milliseconds between two looks for a file. Guests of very many processes make it longer, since
/// they would otherwise keep the machine busy with waiting.
pub(crate) static NAP: AtomicU64 = AtomicU64::new(5);

/// Blocks until a file exists; for how long this task did not run while it should have, as far as
/// that can be seen from inside. Allocates nothing, and has no use for thread-local storage.
pub(crate) fn wait_for(path: &std::ffi::CStr) -> Duration {
    let interval = Duration::from_millis(NAP.load(Ordering::Relaxed));
    let (mut lost, mut before) = (Duration::ZERO, Instant::now());
    while rustix::fs::access(path, rustix::fs::Access::EXISTS).is_err() {
        nap(interval);
        let now = Instant::now();
        lost += now.duration_since(before).saturating_sub(interval);
        before = now;
    }
    lost
}

/// Sleeps by one `nanosleep(2)`, however that ends.
pub(crate) fn nap(time: Duration) {
    let request = rustix::thread::Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = rustix::thread::nanosleep(&request);
}

/// Repeats a test every few milliseconds for at most ten seconds.
pub(crate) fn until(what: &str, test: impl FnMut() -> Check<bool>) -> Check {
    within(Duration::from_secs(10), what, test)
}

/// The same, for what comes only after a dump.
pub(crate) fn within(limit: Duration, what: &str, mut test: impl FnMut() -> Check<bool>) -> Check {
    let start = Instant::now();
    while !test()? {
        ensure!(start.elapsed() < limit, "{what}: not within {limit:?}");
        nap(Duration::from_millis(2));
    }
    Ok(())
}

/// Waits until a task is blocked in the given system call, by `/proc/PID/syscall`.
///
/// A call that was interrupted and continues counts: the kernel shows it as `restart_syscall`.
pub(crate) fn wait_blocked(tid: i32, call: libc::c_long) -> Check {
    let path = format!("/proc/{tid}/syscall");
    until(&format!("task {tid} blocked in system call {call}"), || {
        let text =
            fs::read_to_string(&path).map_err(|error| Failure::new(format!("{path}: {error}")))?;
        let number = text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<libc::c_long>().ok());
        Ok(number == Some(call) || number == Some(libc::SYS_restart_syscall))
    })
}

/// 64-bit FNV-1a; the harness computes the same.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// A field of `/proc/PID/status` of this thread, without the blanks around it.
pub(crate) fn status_field(name: &str) -> Check<String> {
    let text = fs::read_to_string("/proc/thread-self/status")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line
        .ok_or_else(|| Failure::new(format!("no field {name} in status")))?
        .trim()
        .to_owned())
}
