//! POSIX message queues.
//!
//! `mqueue`: descriptors of all kinds, and messages, which stay where they are. `mqueue-blocked`: a reader, to be woken by a
//! message. `mqueue-notify`: a process that is to be told. `mqueue-unlinked`: a queue without a name.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, nap, same, wait_blocked};
use std::ffi::CString;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("mqueue", messages),
    Entry("mqueue-blocked", blocked),
    Entry("mqueue-notify", notify),
    Entry("mqueue-unlinked", unlinked),
];

/// A queue with a name of its own, unlinked at the end.
struct Queue(CString);

impl Queue {
    fn new() -> Check<Self> {
        let name = CString::new(format!("/gelid-guest.{}", std::process::id()))?;
        let queue = Self(name);
        match queue.open(libc::O_RDWR | libc::O_CREAT) {
            Ok(fd) => os!(libc::close(fd))?,
            Err(_) if errno() == libc::ENOSYS => return Err(Failure::skip("no message queues")),
            Err(failure) => return Err(failure),
        };
        Ok(queue)
    }

    fn open(&self, flags: i32) -> Check<i32> {
        let none = std::ptr::null::<libc::mq_attr>();
        os!(libc::mq_open(self.0.as_ptr(), flags, 0o600, none))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the name is a string.
        unsafe { libc::mq_unlink(self.0.as_ptr()) };
    }
}

fn send(fd: i32, text: &str, priority: u32) -> Check {
    os!(libc::mq_send(
        fd,
        text.as_ptr().cast(),
        text.len(),
        priority
    ))?;
    Ok(())
}

fn receive(fd: i32) -> Result<(String, u32), i32> {
    let mut bytes = [0_u8; 8192];
    let mut priority = 0;
    // SAFETY: both are live locals.
    let got = unsafe {
        libc::mq_receive(
            fd,
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            &raw mut priority,
        )
    };
    match usize::try_from(got) {
        Ok(len) => Ok((
            String::from_utf8_lossy(&bytes[..len]).into_owned(),
            priority,
        )),
        Err(_) => Err(errno()),
    }
}

fn messages(guest: &Guest) -> Check {
    let queue = Queue::new()?;
    let both = queue.open(libc::O_RDWR | libc::O_NONBLOCK)?;
    let (read, write) = (queue.open(libc::O_RDONLY)?, queue.open(libc::O_WRONLY)?);
    send(both, "low", 1)?;
    send(both, "high", 9)?;
    guest.hold()?;
    same!("first", receive(read), Ok(("high".to_owned(), 9)));
    same!("second", receive(both), Ok(("low".to_owned(), 1)));
    same!("empty", receive(both), Err(libc::EAGAIN));
    same!("for writing", receive(write), Err(libc::EBADF));
    send(write, "more", 2)?;
    same!("last", receive(read), Ok(("more".to_owned(), 2)));
    let flags = [both, read].map(|fd| {
        // SAFETY: numbers only.
        unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK }
    });
    same!("flags", flags, [libc::O_NONBLOCK, 0]);
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    let queue = Queue::new()?;
    let fd = queue.open(libc::O_RDWR)?;
    let kid = guest.fork("reader", |_| {
        same!("message", receive(fd), Ok(("hello".to_owned(), 3)));
        Ok(())
    })?;
    wait_blocked(kid.pid, libc::SYS_mq_timedreceive)?;
    guest.hold()?;
    wait_blocked(kid.pid, libc::SYS_mq_timedreceive)?;
    nap(Duration::from_millis(20)); // it stays so
    wait_blocked(kid.pid, libc::SYS_mq_timedreceive)?;
    send(fd, "hello", 3)?;
    kid.join(guest)
}

fn notify(guest: &Guest) -> Check {
    let queue = Queue::new()?;
    let fd = queue.open(libc::O_RDWR)?;
    // SAFETY: all-zero is a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGWINCH;
    os!(libc::mq_notify(fd, &raw const event))?;
    guest.hold()?;
    same!(
        "once more",
        os!(libc::mq_notify(fd, &raw const event)).is_err(),
        true
    );
    Ok(())
}

fn unlinked(guest: &Guest) -> Check {
    let queue = Queue::new()?;
    let fd = queue.open(libc::O_RDWR)?;
    send(fd, "kept", 3)?;
    drop(queue);
    guest.hold()?;
    same!("message", receive(fd), Ok(("kept".to_owned(), 3)));
    Ok(())
}
