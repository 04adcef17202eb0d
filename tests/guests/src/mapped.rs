//! Memory mapped from files, and memory shared between processes.
//!
//! `file-private`: some pages copied on write. `file-shared`: writes reach the file. `file-past-end`: mapped beyond the
//! end of the file. `file-deleted`, `file-replaced`: the name is gone or means another file. `shared-anon`: between
//! parent and children, also unmapped in some of them. `shared-anon-forked`: mapped at other addresses.
//! `memfd-shared`, `memfd-private`, `memfd-sealed`. `vdso`: the clock, by the kernel's own code in user memory.

use crate::Entry;
use crate::os::{Map, PAGE, os};
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("file-private", file_private),
    Entry("file-shared", file_shared),
    Entry("file-past-end", file_past_end),
    Entry("file-deleted", file_deleted),
    Entry("file-replaced", file_replaced),
    Entry("shared-anon", shared_anon),
    Entry("shared-anon-moved", shared_anon_moved),
    Entry("memfd-shared", memfd_shared),
    Entry("memfd-private", memfd_private),
    Entry("memfd-sealed", memfd_sealed),
    Entry("memfd-unmapped", memfd_unmapped),
    Entry("vdso", vdso),
];

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A file of so many pages, filled like a mapping with this seed.
fn file(guest: &Guest, name: &str, pages: usize, seed: u64) -> Check<File> {
    let bytes: Vec<u8> = (0..pages * PAGE)
        .step_by(8)
        .flat_map(|offset| crate::os::word(seed, offset).to_le_bytes())
        .collect();
    fs::write(guest.path(name), bytes)?;
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .open(guest.path(name))?)
}

fn file_private(guest: &Guest) -> Check {
    const PAGES: usize = 256;
    let file = file(guest, "data", PAGES, 61)?;
    let map = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_PRIVATE,
        file.as_raw_fd(),
        0,
    )?;
    let part = Map::new(
        8 * PAGE,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
        file.as_raw_fd(),
        64 * 4096,
    )?;
    drop(file);
    map.fill(10, 20, 62);
    map.fill(200, 201, 62);
    // Copied, then written back to what the file has: still the process's own.
    map.fill(30, 31, 61);
    map.protect(100 * PAGE, 50 * PAGE, libc::PROT_READ)?;
    guest.hold()?;
    for (from, to, seed) in [
        (0, 10, 61),
        (10, 20, 62),
        (20, 200, 61),
        (200, 201, 62),
        (201, PAGES, 61),
    ] {
        map.check("private file mapping", from, to, seed)?;
    }
    for page in 0..8 {
        same!(
            "part of the file",
            part.get(page * PAGE),
            crate::os::word(61, (64 + page) * PAGE)
        );
    }
    // A change of the file shows through where nothing was copied, and only there.
    let file = OpenOptions::new().write(true).open(guest.path("data"))?;
    for page in [5_usize, 15, 30] {
        file.write_all_at(&7_u64.to_le_bytes(), (page * PAGE) as u64)?;
    }
    same!(
        "clean page after a change of the file",
        map.get(5 * PAGE),
        7
    );
    map.check("copied page after a change of the file", 15, 16, 62)?;
    map.check("page copied without a change", 30, 31, 61)
}

fn file_shared(guest: &Guest) -> Check {
    const PAGES: usize = 64;
    let file = file(guest, "data", PAGES, 63)?;
    let map = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0,
    )?;
    let read_only = Map::new(
        PAGES * PAGE,
        libc::PROT_READ,
        libc::MAP_SHARED,
        File::open(guest.path("data"))?.as_raw_fd(),
        0,
    )?;
    map.fill(8, 16, 64);
    guest.hold()?;
    map.check("page written before", 8, 16, 64)?;
    map.fill(20, 21, 65);
    read_only.check("page written through another mapping", 20, 21, 65)?;
    let mut bytes = [0_u8; 8];
    file.read_exact_at(&mut bytes, 20 * PAGE as u64)?;
    same!(
        "word in the file",
        u64::from_le_bytes(bytes),
        crate::os::word(65, 20 * PAGE)
    );
    let promoted = os!(libc::mprotect(read_only.at(0), PAGE, READ_WRITE));
    ensure!(
        promoted.is_err(),
        "a read-only file may be written through its mapping"
    );
    Ok(())
}

fn file_past_end(guest: &Guest) -> Check {
    const PAGES: usize = 4;
    let file = file(guest, "data", PAGES, 66)?;
    let map = Map::new(
        16 * PAGE,
        READ_WRITE,
        libc::MAP_PRIVATE,
        file.as_raw_fd(),
        0,
    )?;
    map.fill(1, 2, 67);
    guest.hold()?;
    map.check("copied page", 1, 2, 67)?;
    map.check("clean pages", 2, 4, 66)?;
    same!("page behind the end of the file", map.resident()?[8], false);
    Ok(())
}

fn file_deleted(guest: &Guest) -> Check {
    const PAGES: usize = 64;
    let deleted = file(guest, "data", PAGES, 68)?;
    let private = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_PRIVATE,
        deleted.as_raw_fd(),
        0,
    )?;
    let shared = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_SHARED,
        deleted.as_raw_fd(),
        0,
    )?;
    drop(deleted);
    fs::remove_file(guest.path("data"))?;
    private.fill(3, 5, 69);
    shared.fill(20, 22, 70);
    guest.hold()?;
    private.check("copied pages", 3, 5, 69)?;
    private.check("clean pages", 5, 20, 68)?;
    private.check("pages written through the shared mapping", 20, 22, 70)?;
    shared.check("shared pages", 20, 22, 70)?;
    shared.fill(40, 41, 71);
    private.check("page written now", 40, 41, 71)?;
    ensure!(!guest.path("data").exists(), "the deleted file is back");
    Ok(())
}

fn file_replaced(guest: &Guest) -> Check {
    const PAGES: usize = 16;
    let old = file(guest, "data", PAGES, 72)?;
    let map = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_PRIVATE,
        old.as_raw_fd(),
        0,
    )?;
    drop(old);
    // As package managers do: a new file under the old name.
    drop(file(guest, "new", PAGES, 73)?);
    fs::rename(guest.path("new"), guest.path("data"))?;
    map.fill(2, 3, 74);
    guest.hold()?;
    map.check("copied page", 2, 3, 74)?;
    map.check("clean pages of the old file", 3, PAGES, 72)?;
    let bytes = fs::read(guest.path("data"))?;
    same!(
        "first word of the new file",
        bytes[..8],
        crate::os::word(73, 0).to_le_bytes()
    );
    Ok(())
}

fn shared_anon(guest: &Guest) -> Check {
    const PAGES: usize = 256;
    let map = Map::shared(PAGES * PAGE)?;
    map.fill(0, 100, 75);
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    for index in 0..4_usize {
        kids.push(guest.fork(&format!("sharer-{index}"), |guest| {
            map.fill(100 + index, 101 + index, index as u64);
            // One has dropped a part, one may only read.
            if index == 2 {
                os!(libc::munmap(map.at(0), 50 * PAGE))?;
            }
            if index == 3 {
                map.protect(0, PAGES * PAGE, libc::PROT_READ)?;
            }
            gate.arrive()?;
            guest.wait();
            map.check("shared pages", 50, 100, 75)?;
            if index < 3 {
                map.fill(200 + index, 201 + index, 76);
            }
            Ok(())
        })?);
    }
    gate.wait(4)?;
    guest.hold()?;
    kids.iter().try_for_each(|kid| kid.join(guest))?;
    map.check("shared pages", 0, 100, 75)?;
    (0..4).try_for_each(|index| {
        map.check("page of a child", 100 + index, 101 + index, index as u64)
    })?;
    map.check("pages written by children after go", 200, 203, 76)?;
    map.check_zero("pages never written", 203, PAGES)
}

fn shared_anon_moved(guest: &Guest) -> Check {
    const PAGES: usize = 64;
    let map = Map::shared(PAGES * PAGE)?;
    map.fill(0, 32, 77);
    let gate = Gate::new()?;
    let kid = guest.fork("mover", |guest| {
        let room = Map::anon(PAGES * PAGE)?;
        let (to, from) = (room.at(0), map.at(16 * PAGE));
        // The upper part moves elsewhere: another address, an offset that is not 0.
        os!(libc::mremap(
            from,
            16 * PAGE,
            16 * PAGE,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            to
        ))?;
        gate.arrive()?;
        guest.wait();
        for page in 0..16 {
            same!(
                "moved page",
                room.get(page * PAGE),
                crate::os::word(77, (16 + page) * PAGE)
            );
        }
        room.set(15 * PAGE, 4711);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    kid.join(guest)?;
    same!("word written by the child", map.get(31 * PAGE), 4711);
    map.check("other pages", 0, 31, 77)
}

/// A memfd of so many pages.
fn memfd(pages: usize, flags: u32) -> Check<File> {
    use std::os::fd::FromRawFd;
    let fd = os!(libc::memfd_create(c"gelid guest".as_ptr(), flags))?;
    // SAFETY: just made, and owned by nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len((pages * PAGE) as u64)?;
    Ok(file)
}

fn memfd_shared(guest: &Guest) -> Check {
    const PAGES: usize = 64;
    let file = memfd(PAGES, libc::MFD_CLOEXEC)?;
    let map = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0,
    )?;
    map.fill(0, 20, 78);
    let gate = Gate::new()?;
    let kid = guest.fork("sharer", |guest| {
        gate.arrive()?;
        guest.wait();
        map.check("memfd in a child", 0, 20, 78)?;
        map.fill(30, 31, 79);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    kid.join(guest)?;
    map.check("memfd", 0, 20, 78)?;
    map.check("page written by the child", 30, 31, 79)?;
    map.check_zero("rest", 31, PAGES)?;
    let mut bytes = [0_u8; 8];
    file.read_exact_at(&mut bytes, 30 * PAGE as u64)?;
    same!(
        "word read from the descriptor",
        u64::from_le_bytes(bytes),
        crate::os::word(79, 30 * PAGE)
    );
    same!("length", file.metadata()?.len(), (PAGES * PAGE) as u64);
    Ok(())
}

fn memfd_private(guest: &Guest) -> Check {
    const PAGES: usize = 32;
    let file = memfd(PAGES, 0)?;
    let shared = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0,
    )?;
    shared.fill(0, PAGES, 80);
    let private = Map::new(
        PAGES * PAGE,
        READ_WRITE,
        libc::MAP_PRIVATE,
        file.as_raw_fd(),
        0,
    )?;
    drop(file);
    private.fill(4, 6, 81);
    guest.hold()?;
    private.check("copied pages", 4, 6, 81)?;
    private.check("clean pages", 6, PAGES, 80)?;
    shared.check("shared pages", 0, PAGES, 80)?;
    shared.fill(10, 11, 82);
    private.check("page written through the other mapping", 10, 11, 82)
}

fn memfd_sealed(guest: &Guest) -> Check {
    const PAGES: usize = 16;
    const SEALS: i32 =
        libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    let file = memfd(PAGES, libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC)?;
    {
        let map = Map::new(
            PAGES * PAGE,
            READ_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )?;
        map.fill(0, PAGES, 83);
    }
    os!(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS))?;
    let map = Map::new(
        PAGES * PAGE,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
        file.as_raw_fd(),
        0,
    )?;
    let loose = memfd(1, libc::MFD_ALLOW_SEALING)?;
    os!(libc::fcntl(
        loose.as_raw_fd(),
        libc::F_ADD_SEALS,
        libc::F_SEAL_SHRINK
    ))?;
    guest.hold()?;
    map.check("sealed memfd", 0, PAGES, 83)?;
    same!(
        "seals",
        os!(libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS))?,
        SEALS
    );
    same!(
        "other seals",
        os!(libc::fcntl(loose.as_raw_fd(), libc::F_GET_SEALS))?,
        libc::F_SEAL_SHRINK
    );
    ensure!(
        file.write_at(b"x", 0).is_err(),
        "a sealed memfd can be written"
    );
    ensure!(
        loose.set_len(0).is_err(),
        "a memfd sealed against it can shrink"
    );
    loose.set_len(2 * PAGE as u64)?;
    Ok(())
}

fn memfd_unmapped(guest: &Guest) -> Check {
    let file = memfd(1000, 0)?;
    file.write_all_at(b"hello", 999 * PAGE as u64)?;
    std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(4711))?;
    let other = memfd(0, libc::MFD_CLOEXEC)?;
    guest.hold()?;
    let mut bytes = [0_u8; 5];
    file.read_exact_at(&mut bytes, 999 * PAGE as u64)?;
    same!("bytes", bytes, *b"hello");
    same!(
        "position",
        std::io::Seek::stream_position(&mut &file)?,
        4711
    );
    same!("length of the empty one", other.metadata()?.len(), 0);
    let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    same!(
        "name",
        name.display().to_string(),
        "/memfd:gelid guest (deleted)"
    );
    let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata()?);
    ensure!(
        blocks <= 64,
        "a memfd with one page used takes {blocks} blocks"
    );
    Ok(())
}

fn vdso(guest: &Guest) -> Check {
    const CLOCKS: [i32; 4] = [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_MONOTONIC_COARSE,
    ];
    let now = |clock: i32| -> Check<i64> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        os!(libc::clock_gettime(clock, &raw mut time))?;
        Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec)
    };
    let kernel = |clock: i32| -> Check<i64> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        os!(libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time))?;
        Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec)
    };
    // One thread never leaves the vdso for long, so it is dumped in there.
    let stop = std::sync::atomic::AtomicBool::new(false);
    // Its stack and all that belongs to a thread are there before anybody looks.
    let begun = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let spinner = scope.spawn(|| -> Check {
            begun.wait();
            let mut before = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let time = now(libc::CLOCK_MONOTONIC)?;
                ensure!(
                    time >= before,
                    "the clock went back by {} ns",
                    before - time
                );
                before = time;
            }
            Ok(())
        });
        begun.wait();
        guest.hold()?;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        spinner
            .join()
            .map_err(|_| Failure::new("spinner panicked"))??;
        for _ in 0..1000 {
            for clock in CLOCKS {
                let (low, vdso, high) = (kernel(clock)?, now(clock)?, kernel(clock)?);
                ensure!(
                    vdso >= low - 10_000_000 && vdso <= high + 10_000_000,
                    "clock {clock}: {vdso}, the kernel says {low} to {high}"
                );
            }
        }
        Ok(())
    })
}
