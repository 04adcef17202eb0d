//! What a tree is made of, noted down for a restore of the same shape.

use std::ops::Range;
use std::path::Path;

use gelid_sys::mm::{MmMap, PR_SET_MM, PR_SET_MM_MAP};
use gelid_sys::proc::maps::{self, Mapping, Perms};
use gelid_sys::proc::{TaskDir, auxv, scalar, stat, status, task_dir};
use gelid_sys::signal::KernelSigAction;
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_sys::{PAGE_SIZE, Pid};
use rustix::fs::OFlags;

use crate::descriptors::{self, Table};
use crate::shape::{Call, Pages, Process, Shape, Thread};
use crate::{Failure, SHAPE, SPACE, dump, in_chunks, kernel};

const PR_SET_NAME: u64 = 15;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_GROWSDOWN: u64 = 0x100;
const MAP_NORESERVE: u64 = 0x4000;
/// So many pages of an area are worth its registration.
const MANY: u64 = 64;
const STACK: &[u8] = b"[stack]";
const PAGE: u64 = PAGE_SIZE as u64;

/// Notes down the tree of a process, which runs on.
pub(crate) fn look(pid: &str, dir: &Path) -> Result<(), Failure> {
    let root = Pid::from_raw(pid.parse()?).ok_or("no pid")?;
    let all = dump::tree(root)?;
    let mut seen: Vec<Seen> = Vec::new();
    let mut shape = Shape {
        zone: 0..0,
        files: dump::files(&all) as u64,
        processes: Vec::new(),
    };
    for (pid, threads) in &all {
        let task = task_dir(*pid)?;
        let parent = stat::read(&task)?.ppid;
        let parent = seen.iter().position(|seen| seen.pid.as_raw_pid() == parent);
        let now = Seen {
            pid: *pid,
            maps: maps::read(&task)?,
            table: descriptors::read(&task)?,
        };
        let above = parent.map(|parent| &seen[parent]);
        let mut process = process(&task, &now, threads, above)?;
        process.parent = parent.unwrap_or(0) as u64;
        shape.processes.push(process);
        seen.push(now);
    }
    let rooms = shape.processes.iter().map(Process::rooms).max();
    let len = PAGE + (rooms.unwrap_or(0) as u64).next_multiple_of(PAGE) + PAGE;
    let maps = seen.iter().flat_map(|seen| &seen.maps);
    shape.zone = zone(maps.map(Mapping::range).collect(), len)?;
    Ok(std::fs::write(dir.join(SHAPE), shape.to_bytes())?)
}

/// What is compared with what children have.
struct Seen {
    pid: Pid,
    maps: Vec<Mapping>,
    table: Table,
}

/// The first room that nothing of the tree is in, above what programs like to have and below where this one is.
fn zone(mut used: Vec<Range<u64>>, len: u64) -> Result<Range<u64>, Failure> {
    const LOWEST: u64 = 1 << 32;
    used.sort_by_key(|range| range.start);
    let mut start = LOWEST;
    for range in used {
        if range.start >= start + len {
            break;
        }
        start = start.max(range.end);
    }
    match start + len < SPACE {
        true => Ok(start..start + len),
        false => Err("there is no room for tapes".into()),
    }
}

fn process(
    task: &TaskDir,
    seen: &Seen,
    threads: &[Pid],
    parent: Option<&Seen>,
) -> Result<Process, Failure> {
    let own = kernel::parts(&seen.maps);
    let vdso = match own[..] {
        [ref first, .., ref last] => first.start..last.end,
        _ => return Err("it has no vDSO".into()),
    };
    let mut state = Vec::new();
    if parent.is_none() {
        handlers(task, &mut state)?;
    }
    descriptors::write(&seen.table, parent.map(|parent| &parent.table), &mut state);
    let name = scalar::comm(task)?;
    let above = match parent {
        Some(parent) => scalar::comm(&task_dir(parent.pid)?)?,
        None => Vec::new(),
    };
    let inherits = parent.is_some();
    state.extend(of_thread(&name, &above, seen, inherits));
    let threads = threads.iter().filter(|tid| **tid != seen.pid);
    let threads = threads.map(|tid| {
        Ok(Thread {
            tid: tid.as_raw_pid(),
            calls: of_thread(&scalar::comm(&task.thread(*tid)?)?, &name, seen, false),
        })
    });
    Ok(Process {
        pid: seen.pid.as_raw_pid(),
        parent: 0,
        vdso,
        space: space(task, seen, parent)?,
        state,
        threads: threads.collect::<Result<_, Failure>>()?,
        pages: pages(task, seen, parent)?,
    })
}

/// One call for each signal that is not as it is by default.
fn handlers(task: &TaskDir, calls: &mut Vec<Call>) -> Result<(), Failure> {
    let stat = status::read(task)?;
    let ignore = KernelSigAction {
        handler: 1,
        ..KernelSigAction::default()
    };
    let changed = stat.sig_caught | stat.sig_ignored;
    for signal in (1..=64).filter(|signal| changed >> (signal - 1) & 1 != 0) {
        let call = Call::new(nr::rt_sigaction, [signal, 0, 0, 8]);
        calls.push(call.with(1, &ignore.to_bytes()));
    }
    Ok(())
}

/// What a thread has to tell the kernel itself: where its number, its list of futexes, its stack for signals and its
/// restartable sequences are. Any place of its own does, as it is never to run.
fn of_thread(name: &[u8], above: &[u8], seen: &Seen, inherits: bool) -> Vec<Call> {
    const RSEQ_SIZE: u64 = 32;
    const SIGNATURE: u64 = 0x5305_3053;
    // The kernel writes to it before pages are there.
    let stack = seen.maps.iter().find(|map| map.path == STACK);
    let place = stack.map_or(0, |map| map.start);
    let mut stack = [0; 24];
    stack[..8].copy_from_slice(&place.to_ne_bytes());
    stack[16..].copy_from_slice(&(64_u64 << 10).to_ne_bytes());
    let mut calls = vec![
        Call::new(nr::set_tid_address, [place]),
        Call::new(nr::set_robust_list, [place, 24]),
        Call::new(nr::sigaltstack, [0, 0]).with(0, &stack),
    ];
    if !inherits {
        calls.push(Call::new(nr::rseq, [place, RSEQ_SIZE, 0, SIGNATURE]));
    }
    if name != above {
        let call = Call::new(nr::prctl, [PR_SET_NAME, 0]);
        calls.push(call.with(1, &[name, b"\0"].concat()));
    }
    calls
}

/// What makes an address space out of nothing, or out of the parent's.
fn space(task: &TaskDir, seen: &Seen, parent: Option<&Seen>) -> Result<Vec<Call>, Failure> {
    let mut calls = Vec::new();
    if parent.is_none() {
        // While nothing is mapped the executable may be changed.
        boundaries(task, seen, &mut calls)?;
    }
    let above = parent.map_or(&[][..], |parent| &parent.maps);
    for map in above.iter().filter(|map| !kernel::is_own(map)) {
        if !is_among(map, &seen.maps) {
            calls.push(Call::new(nr::munmap, [map.start, map.size()]));
        }
    }
    let wanted = |map: &&Mapping| !kernel::is_own(map) && !is_among(map, above);
    // From above, as that is a little cheaper.
    let wanted = seen.maps.iter().rev().filter(wanted);
    let (files, others): (Vec<_>, Vec<_>) = wanted.partition(|map| is_file(map));
    calls.extend(others.into_iter().map(mmap));
    for same in files.chunk_by(|one, next| source(one) == source(next)) {
        let (path, flags) = source(same[0]);
        calls.push(descriptors::open(path, flags));
        // Nothing else is open.
        calls.extend(same.iter().copied().map(mmap));
        calls.push(Call::new(nr::close, [0]));
    }
    Ok(calls)
}

fn is_among(map: &Mapping, maps: &[Mapping]) -> bool {
    let found = maps.binary_search_by_key(&map.start, |other| other.start);
    found.is_ok_and(|at| maps[at] == *map)
}

/// Memory that several have in common is made anew for each, without a file.
fn is_file(map: &Mapping) -> bool {
    map.path.starts_with(b"/") && !map.path.ends_with(b" (deleted)")
}

fn is_shared(map: &Mapping) -> bool {
    map.perms.contains(Perms::SHARED)
}

/// The path of a mapping, and how it is to be opened.
fn source(map: &Mapping) -> (&[u8], u64) {
    let writes = is_shared(map) && map.perms.contains(Perms::WRITE);
    let flags = if writes { OFlags::RDWR } else { OFlags::RDONLY };
    (&map.path, flags.bits().into())
}

fn mmap(map: &Mapping) -> Call {
    let shared = match is_shared(map) {
        true => MAP_SHARED,
        false => MAP_PRIVATE | MAP_NORESERVE,
    };
    let down = if map.path == STACK { MAP_GROWSDOWN } else { 0 };
    let (more, fd, offset) = match is_file(map) {
        true => (0, 0, map.offset),
        false => (MAP_ANONYMOUS | down, u64::MAX, 0),
    };
    let prot = u64::from((map.perms - Perms::SHARED).bits());
    let flags = MAP_FIXED | shared | more;
    Call::new(nr::mmap, [map.start, map.size(), prot, flags, fd, offset])
}

/// Boundaries, auxiliary vector and executable.
fn boundaries(task: &TaskDir, seen: &Seen, calls: &mut Vec<Call>) -> Result<(), Failure> {
    let stat = stat::read(task)?;
    let heap = seen.maps.iter().find(|map| map.path == b"[heap]");
    let words = auxv::read(task)?;
    let auxv: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let map = MmMap {
        auxv_size: auxv.len() as u32,
        // The only one that is open.
        exe_fd: 0,
        ..MmMap::from_stat(&stat, heap.map_or(stat.start_brk, |heap| heap.end))
    };
    calls.push(descriptors::open(task.link("exe")?.as_bytes(), 0));
    let args = [PR_SET_MM, PR_SET_MM_MAP, 0, MmMap::SIZE as u64, 0];
    let call = Call::new(nr::prctl, args).with(2, &map.as_bytes());
    calls.push(call.linked(std::mem::offset_of!(MmMap, auxv), &auxv));
    calls.push(Call::new(nr::close, [0]));
    Ok(())
}

/// Pages that are in no file, and by which calls they are filled best. Those that a child has as its parent has them,
/// need none.
fn pages(task: &TaskDir, seen: &Seen, parent: Option<&Seen>) -> Result<Pages, Failure> {
    let found = dump::pages(task)?;
    let found = match parent {
        Some(parent) => differing(&found, seen.pid, parent.pid)?,
        None => found,
    };
    let mut pages = Pages::default();
    let mut others: Vec<(Range<u64>, bool)> = Vec::new();
    let mut next = 0;
    for map in seen.maps.iter().filter(|map| !kernel::is_own(map)) {
        while found.get(next).is_some_and(|range| range.end <= map.start) {
            next += 1;
        }
        let within = found[next..].iter();
        let within = within.take_while(|range| range.start < map.end);
        let within = within.map(|range| range.start.max(map.start)..range.end.min(map.end));
        let within: Vec<_> = within.collect();
        let count: u64 = within.iter().map(|range| range.end - range.start).sum();
        if count >= MANY * PAGE && parent.is_none() && can_be_registered(map) {
            pages.areas.push(map.range());
            pages.holes.extend(within);
        } else {
            let writable = map.perms.contains(Perms::WRITE);
            others.extend(within.into_iter().map(|range| (range, writable)));
        }
    }
    for run in others.chunk_by(|(one, _), (next, _)| one.end == next.start) {
        let whole = run[0].0.start..run[run.len() - 1].0.end;
        match run.iter().all(|(_, writable)| *writable) {
            true => pages.plain.push(whole),
            false => pages.forced.push(whole),
        }
    }
    Ok(pages)
}

fn can_be_registered(map: &Mapping) -> bool {
    !is_shared(map) && !is_file(map) && map.path != STACK
}

/// What of ranges is not the same in the memory of two processes. They may share pages since a `fork(2)`, and are to go on
/// with that: they are read without being pinned.
fn differing(ranges: &[Range<u64>], one: Pid, other: Pid) -> Result<Vec<Range<u64>>, Failure> {
    let (one, other) = (Mem::open(one)?, Mem::open(other)?);
    let mut all: Vec<Range<u64>> = Vec::new();
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for range in ranges {
        in_chunks(std::slice::from_ref(range), |chunk| {
            let [range] = &chunk[..] else { return Ok(()) };
            let len = (range.end - range.start) as usize;
            own.resize(len, 0);
            others.resize(len, 0);
            let read = read_pages(&one, range.start, &mut own);
            let read = read.min(read_pages(&other, range.start, &mut others));
            let same = |at: usize| {
                let page = at..at + PAGE_SIZE;
                page.end <= read && own[page.clone()] == others[page]
            };
            for at in (0..len).step_by(PAGE_SIZE).filter(|at| !same(*at)) {
                let start = range.start + at as u64;
                match all.last_mut() {
                    Some(last) if last.end == start => last.end += PAGE,
                    _ => all.push(start..start + PAGE),
                }
            }
            Ok(())
        })?;
    }
    Ok(all)
}

/// Reads pages as far as they are there; how many bytes that is.
fn read_pages(mem: &Mem, start: u64, buffer: &mut [u8]) -> usize {
    if mem.read(start, buffer).is_ok() {
        return buffer.len();
    }
    let pages = (0..).step_by(PAGE_SIZE).zip(buffer.chunks_mut(PAGE_SIZE));
    let read = pages.map(|(at, page)| mem.read(start + at, page));
    let there = read.take_while(Result::is_ok);
    there.count() * PAGE_SIZE
}
