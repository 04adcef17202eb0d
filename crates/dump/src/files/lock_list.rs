//! `/proc/locks`: which files have no lock and no lease, so that nobody has to ask at each descriptor.
//!
//! To list them, the kernel first waits for a grace period of RCU, 5 to 25 ms, unless it has just done so. So somebody
//! who will want the list has it read again and again while the tree still runs, which costs little.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

/// A grace period is at least as long.
const SOON: Duration = Duration::from_millis(4);
/// Bytes that the kernel gathers without letting anybody lock or unlock meanwhile.
const AT_ONCE: usize = gelid_sys::PAGE_SIZE;
/// Bytes that are left over if nothing was left out.
const SPARE: usize = 512;
/// Number of the first pid namespace: others are not shown all locks.
const FIRST_PID_NS: u64 = 0xefff_fffc;

/// Inodes with locks, read by a thread of its own: nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct LockList {
    inodes: Arc<OnceLock<Option<HashSet<u64>>>>,
    standing: Option<Sender<()>>,
}

impl LockList {
    /// Gets ready, while the tree still runs.
    pub(super) fn prepare(&mut self) {
        let (sender, standing) = mpsc::channel();
        self.standing = Some(sender);
        let inodes = Arc::clone(&self.inodes);
        let reader = std::thread::Builder::new().name("locks".into());
        // Without one there is no list.
        let _ = reader.spawn(move || await_tree(&standing, &inodes));
    }

    /// Has the list read, as the tree stands still.
    pub(super) fn read(&mut self) {
        if self.standing.is_none() {
            self.prepare();
        }
        self.tree_stands();
    }

    /// The same if somebody has got ready.
    pub(super) fn tree_stands(&self) {
        if let Some(standing) = &self.standing {
            // If nobody is there, there will be no list.
            let _ = standing.send(());
        }
    }

    /// Whether a file has neither lock nor lease; false if that is not known yet. Numbers of devices are other ones there, so
    /// one on another file system may have it instead.
    pub(super) fn is_free(&self, inode: u64) -> bool {
        let inodes = self.inodes.get().and_then(Option::as_ref);
        inodes.is_some_and(|inodes| !inodes.contains(&inode))
    }

    /// Whether the list is there.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.inodes.get(), Some(Some(_)))
    }
}

fn await_tree(standing: &Receiver<()>, inodes: &OnceLock<Option<HashSet<u64>>>) {
    if !is_all_shown() {
        return;
    }
    loop {
        match standing.try_recv() {
            Ok(()) => break,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {}
        }
        let _ = look();
        match standing.recv_timeout(SOON) {
            Ok(()) => break,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    // It is set here alone.
    let _ = inodes.set(read());
}

/// Whether the list has the locks of everybody.
fn is_all_shown() -> bool {
    // The procfs of another namespace has no name for a process of the first one.
    let own = rustix::fs::stat("/proc/self/ns/pid");
    own.is_ok_and(|own| own.st_ino == FIRST_PID_NS)
}

/// The inodes; `None` unless the list is complete. Two looks have to show the same: between pieces of it, what has been
/// there all the time may be passed over.
fn read() -> Option<HashSet<u64>> {
    let text = look().filter(|text| Some(text) == look().as_ref())?;
    parse(&text)
}

/// The text of the list if it is that of a single piece.
fn look() -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/locks", flags, Mode::empty()).ok()?;
    let mut text = vec![0; AT_ONCE];
    let len = rustix::io::read(file.as_fd(), &mut text).ok()?;
    text.truncate(len);
    // A lock for which many wait may be too long for the rest of a piece.
    let more = rustix::io::read(file.as_fd(), &mut [0; 1]).ok()?;
    (len <= AT_ONCE - SPARE && more == 0).then_some(text)
}

/// The inodes of a list such as `1: FLOCK  ADVISORY  WRITE 71 fe:00:1207 0 EOF`.
fn parse(text: &[u8]) -> Option<HashSet<u64>> {
    let text = std::str::from_utf8(text).ok()?;
    let inode = |line: &str| {
        let file = line.split_ascii_whitespace().rev().nth(2)?;
        let mut parts = file.splitn(3, ':');
        let (_major, _minor) = (parts.next()?, parts.next()?);
        parts.next()?.parse().ok()
    };
    text.lines().map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn inodes_are_taken_from_the_list() {
        let text = b"1: FLOCK  ADVISORY  WRITE 71 fe:00:1207 0 EOF\n\
            1: -> FLOCK  ADVISORY  WRITE 72 fe:00:1207 0 EOF\n\
            2: OFDLCK ADVISORY  READ -1 00:1a:18446744073709551615 5 9\n\
            3: LEASE  ACTIVE    READ 73 fd:00:9 0 EOF\n";
        assert_eq!(parse(text), Some(HashSet::from([1207, u64::MAX, 9])));
        assert_eq!(parse(b""), Some(HashSet::new()));
        // Of a file system that is gone.
        assert_eq!(
            parse(b"4: POSIX  ADVISORY  WRITE 71 <none>:0 0 EOF\n"),
            None
        );
        assert_eq!(parse(b"5: FLOCK\n"), None);
    }

    #[test]
    fn a_lock_is_found() {
        let file = tempfile::tempfile().unwrap();
        let other = tempfile::tempfile().unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut list = LockList::default();
        list.prepare();
        list.read();
        let end = Instant::now() + Duration::from_millis(500);
        while !list.is_known() && Instant::now() < end {
            std::thread::sleep(SOON);
        }
        let inode = |file| rustix::fs::fstat(file).unwrap().st_ino;
        assert!(!list.is_free(inode(&file)));
        assert_eq!(list.is_free(inode(&other)), list.is_known());
    }
}
