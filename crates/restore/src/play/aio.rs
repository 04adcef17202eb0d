//! Contexts of kernel AIO: made anew where they were, and brought to the state they were in.
//!
//! The kernel chooses the place of a ring, which moves then. It counts by itself where the next event goes, so as many
//! requests as needed are made that do nothing. What they leave in the ring is overwritten by what was there.

use std::collections::HashMap;

use gelid_sys::aio::{HEADER, Header, idle};
use gelid_sys::sched::{self, CpuSet};
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_sys::{Errno, Pid};
use gelid_tape::Outcome;

use super::crew::Crew;
use super::script::{Object, Script};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::space::Ring;
use crate::plan::{Life, Plan};
use crate::state::Machine;

/// Requests that are made by one call.
const BATCH: usize = 512;
/// Calls on one tape.
const CALLS: usize = 64;

/// The kernel's numbers of contexts, by the process and the place of the ring.
#[derive(Debug, Default)]
pub(crate) struct Contexts(HashMap<(usize, u64), u32>);

/// Makes all contexts, in address spaces that are built but for them.
pub(crate) fn make(plan: &Plan, crew: &mut Crew) -> Result<Contexts, Error> {
    let mut contexts = Contexts::default();
    for (index, rings) in rings(plan) {
        let who = Who::Task(index);
        let pid = crew.body(who)?.pid;
        let mut script = Script::default();
        for ring in rings {
            reserve(&mut script, ring);
        }
        let mut places = Vec::with_capacity(rings.len());
        for ring in rings {
            let place = script.tape.space(8);
            let args = [u64::from(ring.requests).into(), place.into()];
            script.must(Object::Area(ring.range.start), nr::io_setup, args);
            places.push(place);
        }
        let work = [(who, script)];
        let outcome = crew.play(&work)?.pop();
        let mut script = Script::default();
        for (ring, place) in rings.iter().zip(places) {
            let address = outcome.as_ref().and_then(|outcome| word(outcome, place));
            let address =
                address.ok_or_else(|| failed(pid, "making an AIO context")(Errno::SRCH))?;
            let header = header(pid, address)?;
            if header.size() != ring.range.end - ring.range.start {
                return Err(failed(pid, "making an AIO context of the same size")(
                    Errno::INVAL,
                ));
            }
            relocate(&mut script, address, ring);
            contexts.0.insert((index, ring.range.start), header.id);
        }
        crew.play(&[(who, script)])?;
    }
    Ok(contexts)
}

/// Address spaces with rings, by the process that builds them.
fn rings(plan: &Plan) -> impl Iterator<Item = (usize, &[Ring])> {
    let lives = plan.lives.iter().enumerate();
    let builders = lives.filter_map(|(index, life)| match life {
        Life::Alive(alive) if alive.builds => Some((index, &*plan.spaces[alive.space].rings)),
        _ => None,
    });
    builders.filter(|(_, rings)| !rings.is_empty())
}

/// Keeps the kernel from putting another ring there.
fn reserve(script: &mut Script, ring: &Ring) {
    /// `MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE`
    const FLAGS: u64 = 0x2 | 0x10 | 0x20 | 0x4000;
    let len = ring.range.end - ring.range.start;
    let args = [
        ring.range.start.into(),
        len.into(),
        0.into(),
        FLAGS.into(),
        (-1).into(),
        0.into(),
    ];
    script.must(Object::Area(ring.range.start), nr::mmap, args);
}

fn relocate(script: &mut Script, from: u64, ring: &Ring) {
    /// `MREMAP_MAYMOVE | MREMAP_FIXED`
    const HOW: u64 = 1 | 2;
    let len = ring.range.end - ring.range.start;
    let to = ring.range.start;
    let args = [from.into(), len.into(), len.into(), HOW.into(), to.into()];
    script.must(Object::Area(to), nr::mremap, args);
}

fn word(outcome: &Outcome, data: gelid_tape::Data) -> Option<u64> {
    let bytes = outcome.data(data).first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Brings all contexts to where they were. Memory is filled by now.
pub(crate) fn complete(
    plan: &Plan,
    machine: &Machine,
    contexts: &Contexts,
    crew: &mut Crew,
) -> Result<(), Error> {
    for (index, rings) in rings(plan) {
        let pid = crew.body(Who::Task(index))?.pid;
        // Each processor sets some of the room aside for itself.
        let all = &machine.affinity;
        let mut one = CpuSet::new();
        if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)) {
            one.set(first);
            sched::set_affinity(Some(pid), &one).map_err(failed(pid, "choosing a processor"))?;
        }
        for ring in rings {
            let (address, id) = (ring.range.start, contexts.0.get(&(index, ring.range.start)));
            let id = *id.ok_or_else(|| failed(pid, "finding an AIO context")(Errno::NOENT))?;
            let mut bytes = vec![0; (ring.range.end - ring.range.start) as usize];
            let mem = Mem::open(pid).map_err(failed(pid, "opening the memory"))?;
            let broken = || failed(pid, "reading the ring of an AIO context")(Errno::INVAL);
            mem.read(address, &mut bytes).map_err(|_| broken())?;
            let was = Header::read(&bytes).ok_or_else(broken)?;
            if was.size() != bytes.len() as u64 {
                return Err(broken());
            }
            // What the kernel goes by: its own number, and what a fresh ring has.
            bytes[..4].copy_from_slice(&id.to_ne_bytes());
            let write = |head: u32, tail: u32| {
                let mut header = bytes[..HEADER].to_vec();
                header[8..12].copy_from_slice(&head.to_ne_bytes());
                header[12..16].copy_from_slice(&tail.to_ne_bytes());
                let written = mem.write(address, &header);
                written.map_err(failed(pid, "writing the ring of an AIO context"))
            };
            write(0, 0)?;
            let Some(file) = (was.tail != 0 || was.head != 0).then(|| file(index, crew)) else {
                continue;
            };
            let file = file?;
            // Those that the program has taken, as many at a time as there is room for; then those that it has not.
            let step = (was.nr / 4).max(1);
            let mut taken = 0;
            while taken < was.head {
                let now = step.min(was.head - taken);
                idle_requests(index, address, file, now, crew)?;
                taken += now;
                write(taken, taken)?;
            }
            idle_requests(index, address, file, was.waiting(), crew)?;
            close(index, file, crew)?;
            let written = mem.write(address, &bytes);
            written.map_err(failed(pid, "writing the ring of an AIO context"))?;
        }
        let all = sched::set_affinity(Some(pid), &machine.affinity);
        all.map_err(failed(pid, "choosing processors"))?;
    }
    Ok(())
}

/// Opens a file in a process that is read at once: one of no bytes.
fn file(index: usize, crew: &mut Crew) -> Result<i32, Error> {
    let mut script = Script::default();
    let name = script.bytes(b"aio\0");
    let op = script.must(Object::Itself, nr::memfd_create, [name.into(), 0.into()]);
    let pid = crew.body(Who::Task(index))?.pid;
    let outcome = crew.play(&[(Who::Task(index), script)])?.pop();
    let opened = outcome.map(|outcome| outcome.ok(op));
    let fd = opened.unwrap_or(Err(Errno::SRCH));
    let fd = fd.and_then(|fd| i32::try_from(fd).map_err(|_| Errno::BADF));
    fd.map_err(failed(pid, "opening a file"))
}

fn close(index: usize, fd: i32, crew: &mut Crew) -> Result<(), Error> {
    let mut script = Script::default();
    script.must(Object::Descriptor(fd), nr::close, [fd.into()]);
    crew.play(&[(Who::Task(index), script)])?;
    Ok(())
}

/// Makes requests that end at once.
fn idle_requests(
    index: usize,
    context: u64,
    file: i32,
    count: u32,
    crew: &mut Crew,
) -> Result<(), Error> {
    let mut left = count as usize;
    while left > 0 {
        let mut script = Script::default();
        let request = script.bytes(&idle(file));
        let list = script.bytes(&[0; BATCH * 8]);
        for slot in 0..BATCH {
            script.tape.link(list, slot * 8, request);
        }
        let mut all = Vec::new();
        while left > 0 && all.len() < CALLS {
            let now = left.min(BATCH);
            let args = [context.into(), (now as u64).into(), list.into()];
            let op = script.must(Object::Area(context), nr::io_submit, args);
            all.push((op, now));
            left -= now;
        }
        let pid = crew.body(Who::Task(index))?.pid;
        let outcome = crew.play(&[(Who::Task(index), script)])?.pop();
        let done = all.iter().all(|(op, now)| {
            let outcome = outcome.as_ref();
            outcome.is_some_and(|outcome| outcome.ok(*op) == Ok(*now as u64))
        });
        if !done {
            return Err(failed(pid, "counting requests of an AIO context")(
                Errno::AGAIN,
            ));
        }
    }
    Ok(())
}

fn header(pid: Pid, address: u64) -> Result<Header, Error> {
    let mut bytes = [0; HEADER];
    let read = Mem::open(pid).and_then(|mem| mem.read(address, &mut bytes));
    read.map_err(failed(pid, "reading the ring of an AIO context"))?;
    let header = Header::read(&bytes);
    header.ok_or_else(|| failed(pid, "reading the ring of an AIO context")(Errno::INVAL))
}

fn failed(pid: Pid, operation: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Task {
        operation,
        pid: pid.as_raw_pid(),
        errno,
    }
}
