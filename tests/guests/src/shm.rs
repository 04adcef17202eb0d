//! System V shared memory.
//!
//! `shm`: segments that two processes are attached to, in all ways there are. `shm-huge`: one of huge pages.
//! `shm-outside`: a process outside of the tree is attached too.

use crate::Entry;
use crate::os::{PAGE, os, word};
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same, until};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("shm", segments),
    Entry("shm-huge", huge),
    Entry("shm-outside", outside),
];

/// A segment of this guest's, removed at the end.
pub(crate) struct Segment {
    id: i32,
    owner: u32,
}

impl Segment {
    pub(crate) fn new(key: i32, size: usize, mode: i32) -> Check<Self> {
        let id = os!(libc::shmget(
            key,
            size,
            mode | libc::IPC_CREAT | libc::IPC_EXCL
        ))?;
        let owner = std::process::id();
        Ok(Self { id, owner })
    }

    pub(crate) fn attach(&self, at: usize, flags: i32) -> Check<Attached> {
        let base = os!(libc::shmat(self.id, at as *const _, flags))?;
        Ok(Attached(base.cast()))
    }

    fn stat(&self) -> Check<libc::shmid_ds> {
        // SAFETY: a structure of numbers.
        let mut found: libc::shmid_ds = unsafe { std::mem::zeroed() };
        os!(libc::shmctl(self.id, libc::IPC_STAT, &raw mut found))?;
        Ok(found)
    }

    /// What has to stay: owners, mode, size, attachments.
    fn facts(&self) -> Check<(i32, [u32; 4], u16, usize, u64)> {
        let found = self.stat()?;
        let perm = &found.shm_perm;
        let owners = [perm.uid, perm.gid, perm.cuid, perm.cgid];
        Ok((
            perm.__key,
            owners,
            perm.mode,
            found.shm_segsz,
            found.shm_nattch,
        ))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // SAFETY: a number is passed.
            unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

/// Where a segment is attached.
pub(crate) struct Attached(*mut u64);

impl Attached {
    /// First address.
    pub(crate) fn start(&self) -> *const libc::c_void {
        self.0.cast()
    }

    pub(crate) fn fill(&self, from: usize, to: usize, seed: u64) {
        for offset in (from..to).step_by(8) {
            // SAFETY: the guest writes only inside what it is attached to.
            unsafe { self.0.add(offset / 8).write_volatile(word(seed, offset)) };
        }
    }

    pub(crate) fn check(&self, what: &str, (from, to): (usize, usize), seed: Option<u64>) -> Check {
        for offset in (from..to).step_by(8) {
            // SAFETY: the guest reads only inside what it is attached to.
            let got = unsafe { self.0.add(offset / 8).read_volatile() };
            let want = seed.map_or(0, |seed| word(seed, offset));
            same!(format!("{what} at {offset:#x}"), got, want);
        }
        Ok(())
    }
}

pub(crate) fn segments(guest: &Guest) -> Check {
    const KEY: i32 = 0x6e1d_0000;
    let key = KEY | (std::process::id() & 0xffff).cast_signed();
    let size = 8 * PAGE;
    let shared = Segment::new(key, size - 100, 0o640)?;
    let all = shared.attach(0, 0)?;
    all.fill(0, 2 * PAGE, 1);
    all.fill(5 * PAGE, 6 * PAGE, 1);
    let reader = shared.attach(0, libc::SHM_RDONLY)?;
    // Some of it is left, and cannot be written.
    let part = Segment::new(libc::IPC_PRIVATE, size, 0o600)?;
    let middle = part.attach(0, 0)?;
    middle.fill(0, size, 2);
    let base = middle.0.cast::<u8>();
    os!(libc::munmap(base.cast(), 2 * PAGE))?;
    os!(libc::munmap(base.wrapping_add(6 * PAGE).cast(), 2 * PAGE))?;
    os!(libc::mprotect(
        base.wrapping_add(3 * PAGE).cast(),
        PAGE,
        libc::PROT_READ
    ))?;
    // It is gone once nobody uses it.
    let going = Segment::new(libc::IPC_PRIVATE, PAGE, 0o600)?;
    let last = going.attach(0, 0)?;
    last.fill(0, PAGE, 3);
    os!(libc::shmctl(going.id, libc::IPC_RMID, std::ptr::null_mut()))?;
    let locked = Segment::new(libc::IPC_PRIVATE, PAGE, 0o600)?;
    let kept = locked.attach(0, 0)?;
    os!(libc::shmctl(
        locked.id,
        libc::SHM_LOCK,
        std::ptr::null_mut()
    ))?;
    let mut owned = locked.stat()?;
    (owned.shm_perm.uid, owned.shm_perm.gid) = (1234, 4321);
    os!(libc::shmctl(locked.id, libc::IPC_SET, &raw mut owned))?;

    let gate = Gate::new()?;
    let kid = guest.fork("kid", |guest| {
        gate.arrive()?;
        guest.wait();
        until("a word of the parent", || {
            // SAFETY: inside what is attached.
            Ok(unsafe { all.0.add(6 * PAGE / 8).read_volatile() } == 4711)
        })?;
        all.check("of the child", (0, PAGE), Some(1))
    })?;
    gate.wait(1)?;
    let every = [&shared, &part, &going, &locked];
    let before: Vec<_> = every.iter().map(|one| one.facts()).collect::<Check<_>>()?;
    guest.hold()?;
    for (segment, before) in every.iter().zip(before) {
        same!(format!("segment {}", segment.id), segment.facts()?, before);
    }
    all.check("all", (0, 2 * PAGE), Some(1))?;
    all.check("never touched", (2 * PAGE, 5 * PAGE), None)?;
    reader.check("for reading", (5 * PAGE, 6 * PAGE), Some(1))?;
    middle.check("the middle", (2 * PAGE, 6 * PAGE), Some(2))?;
    last.check("the last", (0, PAGE), Some(3))?;
    kept.check("the locked one", (0, PAGE), None)?;
    same!("by key", os!(libc::shmget(key, 0, 0))?, shared.id);
    // SAFETY: inside what is attached.
    unsafe { all.0.add(6 * PAGE / 8).write_volatile(4711) };
    kid.join(guest)?;
    for attached in [&all, &reader, &middle, &last, &kept] {
        os!(libc::shmdt(attached.0.cast()))?;
    }
    ensure!(going.stat().is_err(), "a segment marked for removal stays");
    Ok(())
}

fn huge(guest: &Guest) -> Check {
    const SIZE: usize = 2 << 20;
    let segment = Segment::new(libc::IPC_PRIVATE, SIZE, 0o600 | libc::SHM_HUGETLB);
    let segment = segment.map_err(|_| Failure::skip("no huge pages are set aside"))?;
    let attached = segment.attach(0, 0)?;
    attached.fill(PAGE, 3 * PAGE, 5);
    let before = segment.facts()?;
    guest.hold()?;
    same!("segment", segment.facts()?, before);
    attached.check("huge", (0, PAGE), None)?;
    attached.check("huge", (PAGE, 3 * PAGE), Some(5))
}

fn outside(guest: &Guest) -> Check {
    let segment = Segment::new(libc::IPC_PRIVATE, PAGE, 0o600)?;
    let attached = segment.attach(0, 0)?;
    attached.fill(0, PAGE, 1);
    let ready = guest.path("attached");
    crate::locks::stranger(guest, || Ok(fs::write(&ready, "")?))?;
    until("the stranger", || Ok(ready.exists()))?;
    guest.hold()?;
    attached.check("after all", (0, PAGE), Some(1))
}
