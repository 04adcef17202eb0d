//! Private anonymous memory.
//!
//! `anon-dense [MIB]`, `anon-sparse`, `anon-zero`: every page checked by content. `anon-mixed`: pages of zeros,
//! of one byte and of noise. `prot-none`, `write-only`, `read-only`: ranges that cannot be read or written
//! still hold their bytes. `cow-tree`: pages that parent and children have in common. `reservation`: 1 TiB, mostly
//! empty. `many-mappings`: thousands. `brk`: grown and shrunk. `grows-down`: a mapping that grows by faults.
//! `beyond-memory`: one that has become larger than the machine's memory.

use crate::Entry;
use crate::os::{Map, PAGE, os, word};
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("anon-dense", dense),
    Entry("anon-sparse", sparse),
    Entry("anon-mixed", mixed),
    Entry("anon-changing", changing),
    Entry("prot-none", prot_none),
    Entry("write-only", write_only),
    Entry("read-only", read_only),
    Entry("cow-tree", cow_tree),
    Entry("reservation", reservation),
    Entry("many-mappings", many_mappings),
    Entry("brk", brk),
    Entry("grows-down", grows_down),
    Entry("beyond-memory", beyond_memory),
];

const MIB: usize = 1 << 20;

fn dense(guest: &Guest) -> Check {
    let pages = guest.number(0, 64)? * MIB / PAGE;
    let map = Map::anon(pages * PAGE)?;
    map.fill(0, pages, 21);
    guest.hold()?;
    map.check("dense memory", 0, pages, 21)
}

fn sparse(guest: &Guest) -> Check {
    const PAGES: usize = 4096 * MIB / PAGE;
    let map = Map::anon(PAGES * PAGE)?;
    // Page numbers far from each other, in no regular steps, and a few neighbours.
    let used: std::collections::BTreeSet<usize> = (0..3000)
        .flat_map(|index| {
            [
                usize::try_from(word(5, index) % PAGES as u64).unwrap_or(0),
                index,
            ]
        })
        .collect();
    used.iter().for_each(|page| map.fill(*page, page + 1, 22));
    guest.hold()?;
    let resident = map.resident()?;
    for (page, present) in resident.iter().enumerate() {
        if used.contains(&page) {
            map.check("sparse memory", page, page + 1, 22)?;
        } else {
            ensure!(!present, "page {page} was empty and is now present");
        }
    }
    // Empty pages read as zeros.
    (0..PAGES)
        .step_by(1001)
        .filter(|page| !used.contains(page))
        .try_for_each(|page| map.check_zero("empty page", page, page + 1))
}

fn mixed(guest: &Guest) -> Check {
    const PAGES: usize = 4096;
    let map = Map::anon(PAGES * PAGE)?;
    let one_byte = |page: usize| page * PAGE + (page % 512) * 8;
    for page in 0..PAGES {
        match page % 4 {
            0 => map.set(page * PAGE, 0), // present, and all zeros
            1 => map.set(one_byte(page), 1 << (page % 64)),
            2 => map.fill(page, page + 1, 23),
            _ => {}
        }
    }
    guest.hold()?;
    for page in 0..PAGES {
        match page % 4 {
            1 => {
                same!(
                    format!("the one byte of page {page}"),
                    map.get(one_byte(page)),
                    1 << (page % 64)
                );
                map.set(one_byte(page), 0);
                map.check_zero("page of one byte", page, page + 1)?;
            }
            2 => map.check("page of noise", page, page + 1, 23)?,
            _ => map.check_zero("page of zeros", page, page + 1)?,
        }
    }
    Ok(())
}

fn changing(guest: &Guest) -> Check {
    // A writer that never stops: each page holds one round's pattern or, at one place, the next one's.
    const PAGES: usize = 512;
    let map = Map::anon(PAGES * PAGE)?;
    let (stop, started) = (
        std::sync::atomic::AtomicBool::new(false),
        std::sync::Barrier::new(2),
    );
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Check {
            map.fill(0, PAGES, 0);
            started.wait();
            let mut round = 0;
            while !stop.load(order) {
                for page in 0..PAGES {
                    map.check("page before its change", page, page + 1, round)?;
                    map.fill(page, page + 1, round + 1);
                }
                round += 1;
            }
            Ok(())
        });
        started.wait();
        let held = guest.hold();
        stop.store(true, order);
        writer
            .join()
            .map_err(|_| Failure::new("writer panicked"))??;
        held.map(|_| ())
    })
}

fn prot_none(guest: &Guest) -> Check {
    const PAGES: usize = 64;
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, 24);
    map.protect(8 * PAGE, 16 * PAGE, libc::PROT_NONE)?;
    let never = Map::new(
        16 * PAGE,
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        -1,
        0,
    )?;
    guest.hold()?;
    map.protect(8 * PAGE, 16 * PAGE, libc::PROT_READ)?;
    map.check("memory with PROT_NONE", 0, PAGES, 24)?;
    never.protect(0, 16 * PAGE, libc::PROT_READ)?;
    never.check_zero("memory never used", 0, 16)
}

fn write_only(guest: &Guest) -> Check {
    const PAGES: usize = 32;
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, 25);
    map.protect(0, PAGES * PAGE, libc::PROT_WRITE)?;
    guest.hold()?;
    map.set(8, 77); // may still be written
    map.protect(0, PAGES * PAGE, libc::PROT_READ)?;
    same!("word written afterwards", map.get(8), 77);
    map.check("write-only memory", 1, PAGES, 25)
}

fn read_only(guest: &Guest) -> Check {
    const PAGES: usize = 32;
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, 26);
    map.protect(0, 16 * PAGE, libc::PROT_READ)?;
    map.protect(16 * PAGE, 16 * PAGE, libc::PROT_READ | libc::PROT_EXEC)?;
    guest.hold()?;
    map.check("read-only memory", 0, PAGES, 26)?;
    // The kernel itself must refuse to write there.
    let got = os!(libc::syscall(libc::SYS_time, map.at(0)));
    ensure!(got.is_err(), "read-only memory can be written");
    Ok(())
}

fn cow_tree(guest: &Guest) -> Check {
    const PAGES: usize = 1024;
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, 27);
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    for index in 0..8 {
        kids.push(guest.fork(&format!("cow-{index}"), |guest| {
            let (from, to) = (index * 100, index * 100 + 50);
            map.fill(from, to, index as u64);
            gate.arrive()?;
            guest.wait();
            map.check("own pages", from, to, index as u64)?;
            map.check("pages before", 0, from, 27)?;
            map.check("pages behind", to, PAGES, 27)?;
            map.fill(0, PAGES, 100 + index as u64); // must not be seen by others
            map.check("all pages", 0, PAGES, 100 + index as u64)
        })?);
    }
    gate.wait(8)?;
    guest.hold()?;
    map.check("parent's pages", 0, PAGES, 27)?;
    kids.iter().try_for_each(|kid| kid.join(guest))?;
    map.check("parent's pages after the children's writes", 0, PAGES, 27)
}

fn reservation(guest: &Guest) -> Check {
    const LEN: usize = 1 << 40;
    let map = Map::anon(LEN)?;
    let none = Map::new(
        LEN,
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        -1,
        0,
    )?;
    let pages: Vec<usize> = (0..64)
        .map(|index| (LEN / PAGE / 64) * index + index * 3)
        .collect();
    pages.iter().for_each(|page| map.fill(*page, page + 1, 28));
    none.protect(LEN / 2, 4 * PAGE, libc::PROT_READ | libc::PROT_WRITE)?;
    none.fill(LEN / 2 / PAGE, LEN / 2 / PAGE + 4, 29);
    guest.hold()?;
    pages
        .iter()
        .try_for_each(|page| map.check("reservation", *page, page + 1, 28))?;
    none.check(
        "piece of a PROT_NONE reservation",
        LEN / 2 / PAGE,
        LEN / 2 / PAGE + 4,
        29,
    )?;
    pages
        .iter()
        .try_for_each(|page| map.check_zero("hole", page + 1, page + 2))
}

fn many_mappings(guest: &Guest) -> Check {
    let count = guest.number(0, 5000)?;
    // Neighbours differ in protection, so that the kernel cannot merge them.
    let map = Map::anon(count * 2 * PAGE)?;
    for index in 0..count {
        map.fill(index * 2, index * 2 + 1, index as u64);
        let prot = [
            libc::PROT_READ,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::PROT_READ | libc::PROT_EXEC,
        ][index % 3];
        map.protect(index * 2 * PAGE, PAGE, prot)?;
        map.protect((index * 2 + 1) * PAGE, PAGE, libc::PROT_NONE)?;
    }
    guest.hold()?;
    let lines = std::fs::read_to_string("/proc/self/maps")?.lines().count();
    ensure!(
        lines >= count * 2,
        "{lines} mappings, expected at least {}",
        count * 2
    );
    (0..count)
        .try_for_each(|index| map.check("small mapping", index * 2, index * 2 + 1, index as u64))
}

/// The current break, or a new one.
fn set_brk(to: usize) -> Check<usize> {
    usize::try_from(os!(libc::syscall(libc::SYS_brk, to))?).map_err(Failure::new)
}

fn brk(guest: &Guest) -> Check {
    // Beyond whatever the allocator of the C library has: it takes notice of a moved break.
    let start = set_brk(0)?.next_multiple_of(PAGE);
    let grown = set_brk(start + 64 * PAGE)?;
    same!("break after growing", grown, start + 64 * PAGE);
    let at = |offset: usize| -> *mut u64 { std::ptr::with_exposed_provenance_mut(start + offset) };
    for offset in (0..48 * PAGE).step_by(8) {
        // SAFETY: between the old and the new break.
        unsafe { at(offset).write_volatile(word(30, offset)) };
    }
    let shrunk = set_brk(start + 48 * PAGE - 100)?;
    guest.hold()?;
    same!("break", set_brk(0)?, shrunk);
    for offset in (0..47 * PAGE).step_by(8) {
        // SAFETY: below the break.
        let got = unsafe { at(offset).read_volatile() };
        same!(
            format!("word at break + {offset:#x}"),
            got,
            word(30, offset)
        );
    }
    same!(
        "break after growing again",
        set_brk(start + 80 * PAGE)?,
        start + 80 * PAGE
    );
    // SAFETY: below the new break, and above all that was written.
    let fresh = unsafe { at(60 * PAGE).read_volatile() };
    same!("fresh memory", fresh, 0);
    set_brk(shrunk)?;
    Ok(())
}

fn grows_down(guest: &Guest) -> Check {
    const ROOM: usize = 512;
    // Room below, taken away again, so that nothing else gets mapped there soon.
    let hole = Map::anon(ROOM * PAGE)?;
    let top = hole.addr() + (ROOM - 4) * PAGE;
    os!(libc::munmap(hole.at(0), ROOM * PAGE))?;
    hole.leak();
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN | libc::MAP_FIXED_NOREPLACE;
    let address = std::ptr::with_exposed_provenance_mut(top);
    let base: *mut u8 = os!(libc::mmap(
        address,
        4 * PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        flags,
        -1,
        0
    ))?
    .cast();
    let touch = |page: isize, value: u64| {
        // SAFETY: each page touched is next below the lowest one, so the mapping grows to it.
        unsafe {
            base.wrapping_offset(page * PAGE as isize)
                .cast::<u64>()
                .write_volatile(value)
        };
    };
    let read = |page: isize| -> u64 {
        // SAFETY: only pages that were touched.
        unsafe {
            base.wrapping_offset(page * PAGE as isize)
                .cast::<u64>()
                .read_volatile()
        }
    };
    (-20..4_isize)
        .rev()
        .for_each(|page| touch(page, page.unsigned_abs() as u64 + 1));
    guest.hold()?;
    for page in -20..4_isize {
        same!(
            format!("page {page}"),
            read(page),
            page.unsigned_abs() as u64 + 1
        );
    }
    (-60..-20_isize).rev().for_each(|page| touch(page, 5)); // it still grows
    same!("grown page", read(-60), 5);
    let lowest = base.addr() - 60 * PAGE;
    let flags = crate::os::vm_flags(lowest)?;
    ensure!(
        flags.iter().any(|flag| flag == "gd"),
        "the mapping no longer grows: {flags:?}"
    );
    // The main stack has the flag too.
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let stack = maps
        .lines()
        .find(|line| line.ends_with("[stack]"))
        .and_then(|line| line.split('-').next());
    let start = usize::from_str_radix(stack.unwrap_or_default(), 16)?;
    ensure!(
        crate::os::vm_flags(start)?.iter().any(|flag| flag == "gd"),
        "the stack no longer grows"
    );
    Ok(())
}

/// Step by step, since nobody gets that much at once; a few pages of it are there.
fn beyond_memory(guest: &Guest) -> Check {
    const STEP: usize = 1 << 30;
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory")?;
    let info = std::fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| -> usize {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let steps = (kib("MemTotal:") + kib("SwapTotal:")) * 1024 / STEP + 2;
    if mode.trim() != "0" || steps > 256 {
        return Err(Failure::skip(
            "memory is counted in another way, or there is too much",
        ));
    }
    let map = Map::anon(steps * STEP)?;
    for step in 0..steps {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        os!(libc::mmap(map.at(step * STEP), STEP, prot, flags, -1, 0))?;
    }
    let last = steps * STEP / PAGE - 1;
    let pages = [0, last / 2, last];
    pages.iter().for_each(|page| map.fill(*page, page + 1, 33));
    guest.hold()?;
    let mut pages = pages.iter();
    pages.try_for_each(|page| map.check("memory", *page, page + 1, 33))
}
