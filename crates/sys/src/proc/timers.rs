//! `/proc/PID/timers`: the POSIX timers of a process, `timer_create(2)`.

use super::text::{Malformed, Result, decimal, hex, lines, signed, split_once};
use super::{Error, TaskDir};

/// How a timer tells of its expiry, `sigev_notify` without `SIGEV_THREAD_ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Notify {
    /// By a signal.
    Signal = 0,
    /// Not at all.
    None = 1,
    /// By a thread of the C library.
    Thread = 2,
}

/// One POSIX timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timer {
    /// Id within the process.
    pub id: i32,
    /// Signal sent.
    pub signal: i32,
    /// `sival_ptr` sent with it.
    pub value: u64,
    /// How expiry is told.
    pub notify: Notify,
    /// Whether the signal goes to the one thread `target` (`SIGEV_THREAD_ID`).
    pub to_thread: bool,
    /// Process, or thread, that gets the signal, in the pid namespace of the procfs mount.
    pub target: i32,
    /// Clock; negative for the CPU time of a task.
    pub clock: i32,
}

impl Timer {
    /// `sigev_notify` as given to `timer_create`.
    pub fn sigev_notify(&self) -> i32 {
        self.notify as i32
            | if self.to_thread {
                libc::SIGEV_THREAD_ID
            } else {
                0
            }
    }
}

/// Reads and parses `timers`, in the kernel's order (newest first).
///
/// # Errors
///
/// `ENOENT` on a kernel without `CONFIG_POSIX_TIMERS` or `CONFIG_CHECKPOINT_RESTORE`.
pub fn read(task: &TaskDir) -> std::result::Result<Vec<Timer>, Error> {
    task.parsed("timers", 1024, parse)
}

/// Parses the text of `timers`.
pub fn parse(text: &[u8]) -> Result<Vec<Timer>> {
    let mut timers = Vec::new();
    let mut lines = lines(text);
    while let Some(line) = lines.next() {
        let id = signed(line.strip_prefix(b"ID: ").ok_or(Malformed("ID"))?, "ID")?;
        let mut need = |key: &[u8], what| {
            let line = lines.next().and_then(|line| line.strip_prefix(key));
            line.ok_or(Malformed(what))
        };
        let signal = need(b"signal: ", "signal")?;
        let notify = need(b"notify: ", "notify")?;
        let clock = signed(need(b"ClockID: ", "ClockID")?, "ClockID")?;
        let (signal, value) = split_once(signal, b'/').ok_or(Malformed("signal"))?;
        let (notify, to_thread, target) = target(notify)?;
        let (signal, value) = (signed(signal, "signal")?, hex(value, "signal")?);
        timers.push(Timer {
            id,
            signal,
            value,
            notify,
            to_thread,
            target,
            clock,
        });
    }
    Ok(timers)
}

/// Takes `signal/tid.123` apart.
fn target(text: &[u8]) -> Result<(Notify, bool, i32)> {
    let (how, whom) = split_once(text, b'/').ok_or(Malformed("notify"))?;
    let (kind, id) = split_once(whom, b'.').ok_or(Malformed("notify"))?;
    let notify = match how {
        b"signal" => Notify::Signal,
        b"none" => Notify::None,
        b"thread" => Notify::Thread,
        _ => return Err(Malformed("notify")),
    };
    let to_thread = match kind {
        b"tid" => true,
        b"pid" => false,
        _ => return Err(Malformed("notify")),
    };
    Ok((
        notify,
        to_thread,
        decimal::<u32>(id, "notify")?
            .try_into()
            .map_err(|_| Malformed("notify"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_understood() {
        let text = b"ID: 3\nsignal: 14/0000000000000003\nnotify: signal/pid.7858\nClockID: 1\n\
            ID: 2\nsignal: 34/00007ffe00001234\nnotify: thread/tid.7859\nClockID: -6\n";
        let timers = parse(text).unwrap();
        let first = Timer {
            id: 3,
            signal: 14,
            value: 3,
            notify: Notify::Signal,
            to_thread: false,
            target: 7858,
            clock: 1,
        };
        assert_eq!(timers[0], first);
        assert_eq!((timers[1].value, timers[1].clock), (0x7ffe00001234, -6));
        assert_eq!((timers[1].sigev_notify(), timers[1].target), (6, 7859));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn wrong_texts_are_refused() {
        let good = "ID: 3\nsignal: 14/3\nnotify: signal/pid.7\nClockID: 1";
        assert!(parse(good.as_bytes()).is_ok());
        for (from, to, what) in [
            ("ID: ", "Id: ", "ID"),
            ("14/", "14", "signal"),
            ("signal/", "sign/", "notify"),
            ("pid.", "qid.", "notify"),
            ("\nClockID: 1", "", "ClockID"),
        ] {
            assert_eq!(
                parse(good.replace(from, to).as_bytes()),
                Err(Malformed(what))
            );
        }
    }
}
