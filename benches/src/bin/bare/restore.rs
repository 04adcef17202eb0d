//! The calls that no restore of a tree can do without.
//!
//! The files of the dump are read; the root is forked and gives up what it has from its creator, all others and all
//! threads are born on tapes of their parents; each process maps every area as it is to be in the end; pages are filled by
//! two threads while descriptors and threads are made; every thread does on a tape of its own what nobody can do for it,
//! and gets its registers by ptrace.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};

use gelid_sys::arch::NT_X86_XSTATE;
use gelid_sys::clone::{CloneArgs, flags, fork_sleeper};
use gelid_sys::prctl::PR_SET_PDEATHSIG;
use gelid_sys::ptrace::{self, Options, Running, Stopped};
use gelid_sys::signal::{SIGCHLD, SigSet};
use gelid_sys::syscall::{name, nr};
use gelid_sys::wait::{Whom, wait};
use gelid_sys::{Pid, nofile};
use gelid_tape::{Carrier, Host, Identity, Outcome, Saved, Tape};
use rustix::process::{Signal, kill_process};

use crate::filling::{Job, Stock, queue, work};
use crate::kernel::Kernel;
use crate::shape::{BIRTH, Call, Process, Shape};
use crate::{Failure, SHAPE, SPACE, WORKERS, image};

/// Ends tapes.
const SIGURG: i32 = 23;
/// So many bytes are filled before another thread has begun.
const FEW: u64 = 1 << 20;
/// So many files are read before another thread has begun.
const FEW_FILES: u64 = 64;
/// With what threads are born.
const SHARED: u64 = flags::SHARED_BY_THREADS | flags::PTRACE;

/// Restores the tree whose shape is in a folder, and leaves it waiting for a signal.
pub(crate) fn restore(dir: &Path) -> Result<(), Failure> {
    let shape = Shape::from_bytes(&std::fs::read(dir.join(SHAPE))?)?;
    let stock = Stock::open(dir)?;
    // The tree has the same limit.
    let _limit = nofile::Raised::fully();
    let mut born = Vec::new();
    let made = std::thread::scope(|scope| {
        let read = || read_images(dir, shape.files);
        let beside = (shape.files > FEW_FILES).then(|| scope.spawn(read));
        if beside.is_none() {
            read()?;
        }
        make(&shape, &stock, &mut born)?;
        match beside {
            Some(beside) => beside.join().map_err(|_| "it has panicked")?,
            None => Ok(()),
        }
    });
    if made.is_err() {
        for pid in born {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    made
}

/// Reads all files of the dump but that of pages.
fn read_images(dir: &Path, files: u64) -> Result<(), Failure> {
    let mut bytes = vec![0; 64 << 10];
    for number in 0..files {
        let mut file = File::open(dir.join(image(number as usize)))?;
        while file.read(&mut bytes)? > 0 {}
    }
    Ok(())
}

/// A process with the thread that plays its tapes, and its other threads.
struct Body {
    host: Host,
    carrier: Carrier,
    threads: Vec<Carrier>,
}

/// All processes, parents before their children.
fn make(shape: &Shape, stock: &Stock, born: &mut Vec<Pid>) -> Result<(), Failure> {
    let kernel = Kernel::look()?;
    let mut bodies: Vec<Body> = Vec::new();
    let mut first = 0;
    let mut xstate = Vec::new();
    while first < shape.processes.len() {
        let all = &shape.processes[first..];
        // Those whose parents are there.
        let can_be = |process: &&Process| (process.parent as usize) < first;
        let wave = &all[..all.iter().take_while(can_be).count().max(1)];
        match first {
            0 => bodies.push(root(shape, &kernel, &mut xstate, born)?),
            _ => bear(shape, wave, &mut bodies, born)?,
        }
        fill_wave(wave, &mut bodies[first..], stock)?;
        first += wave.len();
    }
    for (body, process) in bodies.into_iter().zip(&shape.processes) {
        release(body, (process, &shape.zone), &kernel, &xstate)?;
    }
    Ok(())
}

/// The process that is forked from this one, without anything of it.
fn root(
    shape: &Shape,
    kernel: &Kernel,
    xstate: &mut Vec<u8>,
    born: &mut Vec<Pid>,
) -> Result<Body, Failure> {
    let process = shape.processes.first().ok_or("there is no process")?;
    let pid = fork_sleeper(Pid::from_raw(process.pid), false)?;
    born.push(pid);
    let running = ptrace::seize(pid, Options::TRACESYSGOOD | Options::EXITKILL)?;
    running.interrupt()?;
    let task = stopped(running)?;
    task.regset(NT_X86_XSTATE, xstate)?;
    let rseq = task.rseq()?;
    let room = process.room();
    let zone = shape.zone.clone();
    let made = Host::fresh(
        task,
        identity(process.pid, process.pid),
        zone,
        kernel.syscall,
        room,
    );
    let (mut host, mut carrier) = made.map_err(|(error, _)| error)?;
    let mut tape = Tape::new();
    if rseq.rseq_abi_pointer != 0 {
        const UNREGISTER: u64 = 1;
        let size = rseq.rseq_abi_size.into();
        let args = [
            rseq.rseq_abi_pointer,
            size,
            UNREGISTER,
            rseq.signature.into(),
        ];
        Call::new(nr::rseq, args).write(&mut tape);
    }
    // It goes on when this process has ended.
    Call::new(nr::prctl, [PR_SET_PDEATHSIG, 0]).write(&mut tape);
    Call::new(nr::close_range, [0, u32::MAX.into(), 0]).write(&mut tape);
    kernel.place(&process.vdso, &mut tape);
    let mut kept = [shape.zone.clone(), process.vdso.clone()];
    kept.sort_by_key(|range| range.start);
    let [low, high] = &kept;
    let around = [0..low.start, low.end..high.start, high.end..SPACE];
    for range in around.into_iter().filter(|range| !range.is_empty()) {
        Call::new(nr::munmap, [range.start, range.end - range.start]).write(&mut tape);
    }
    play(&mut carrier, &tape)?;
    host.set_syscall_at(kernel.syscall_in(&process.vdso));
    let threads = Vec::new();
    Ok(Body {
        host,
        carrier,
        threads,
    })
}

/// Bears all of a wave, by tapes of their parents.
fn bear(
    shape: &Shape,
    wave: &[Process],
    bodies: &mut Vec<Body>,
    born: &mut Vec<Pid>,
) -> Result<(), Failure> {
    for siblings in wave.chunk_by(|one, next| one.parent == next.parent) {
        let parent = siblings[0].parent as usize;
        let (space, body) = (&shape.processes[parent], &mut bodies[parent]);
        for some in siblings.chunks((space.room() / BIRTH).max(1)) {
            let mut tape = Tape::new();
            for process in some {
                birth(&mut tape, flags::PTRACE, SIGCHLD as u64, process.pid);
            }
            play(&mut body.carrier, &tape)?;
        }
    }
    for process in wave {
        let mut host = bodies[process.parent as usize].host.forked();
        let task = newborn(process.pid)?;
        born.push(task.pid());
        let boarded = host.board(task, identity(process.pid, process.pid), process.room());
        let carrier = boarded.map_err(|(error, _)| error)?;
        let threads = Vec::new();
        bodies.push(Body {
            host,
            carrier,
            threads,
        });
    }
    Ok(())
}

/// Makes the memory of a wave and lets others fill it, while descriptors and threads are made.
fn fill_wave(wave: &[Process], bodies: &mut [Body], stock: &Stock) -> Result<(), Failure> {
    let bytes: u64 = wave.iter().map(|process| process.pages.bytes()).sum();
    let (jobs, queued) = mpsc::channel();
    let queued = Mutex::new(queued);
    std::thread::scope(|scope| {
        let crew: Vec<_> = match bytes > FEW {
            true => (0..WORKERS)
                .map(|_| scope.spawn(|| work(&queued, stock)))
                .collect(),
            false => Vec::new(),
        };
        let made = make_wave(wave, bodies, &jobs);
        drop(jobs);
        made?;
        if crew.is_empty() {
            work(&queued, stock)?;
        }
        for worker in crew {
            worker.join().map_err(|_| "it has panicked")??;
        }
        Ok(())
    })
}

fn make_wave(wave: &[Process], bodies: &mut [Body], jobs: &Sender<Job>) -> Result<(), Failure> {
    let has_holes = |process: &Process| !process.pages.areas.is_empty();
    play_all(wave, bodies, |process, tape| {
        process.space.iter().for_each(|call| call.write(tape));
        if has_holes(process) {
            // The first descriptor that it has, 0.
            Call::new(nr::userfaultfd, [gelid_sys::userfaultfd::FLAGS]).write(tape);
        }
    })?;
    for (process, body) in wave.iter().zip(&mut *bodies) {
        queue(&process.pages, body.carrier.tid(), jobs)?;
    }
    play_all(wave, bodies, |process, tape| {
        if has_holes(process) {
            Call::new(nr::close, [0]).write(tape);
        }
        process.state.iter().for_each(|call| call.write(tape));
        for thread in &process.threads {
            birth(tape, SHARED, 0, thread.tid);
        }
    })?;
    for (process, body) in wave.iter().zip(bodies) {
        threads(process, body)?;
    }
    Ok(())
}

/// Threads do what nobody can do for them, all at the same time.
fn threads(process: &Process, body: &mut Body) -> Result<(), Failure> {
    let mut tapes = Vec::with_capacity(process.threads.len());
    for thread in &process.threads {
        let task = newborn(thread.tid)?;
        let identity = identity(process.pid, thread.tid);
        let boarded = body.host.board(task, identity, thread.room());
        let mut carrier = boarded.map_err(|(error, _)| error)?;
        let mut tape = Tape::new();
        thread.calls.iter().for_each(|call| call.write(&mut tape));
        carrier.start(&tape)?;
        body.threads.push(carrier);
        tapes.push(tape);
    }
    for (tape, carrier) in tapes.iter().zip(&mut body.threads) {
        check(tape, &carrier.finish()?)?;
    }
    Ok(())
}

/// Gives all threads of a process their registers and lets them go.
fn release(
    body: Body,
    (process, zone): (&Process, &Range<u64>),
    kernel: &Kernel,
    xstate: &[u8],
) -> Result<(), Failure> {
    let at = kernel.syscall_in(&process.vdso);
    let mut ready = Vec::with_capacity(body.threads.len() + 1);
    for carrier in body.threads {
        ready.push(dress(carrier, at, xstate)?);
    }
    let mut last = body.carrier;
    let args = [zone.start, zone.end - zone.start, 0, 0, 0, 0];
    body.host.call(&mut last, nr::munmap, args)?;
    ready.push(dress(last, at, xstate)?);
    for task in ready {
        task.detach(0)?;
    }
    Ok(())
}

/// Gives a thread registers with which it waits for a signal.
fn dress(mut carrier: Carrier, at: u64, xstate: &[u8]) -> Result<Stopped, Failure> {
    let mut regs = carrier.saved().regs;
    (regs.rip, regs.rax, regs.orig_rax) = (at, nr::pause as u64, u64::MAX);
    let mask = SigSet::EMPTY;
    carrier.set_saved(Saved { regs, mask });
    let task = carrier.release().map_err(|(error, _)| error)?;
    task.set_regset(NT_X86_XSTATE, xstate)?;
    Ok(task)
}

fn identity(tgid: i32, tid: i32) -> Identity {
    let signal = SIGURG;
    Identity { tgid, tid, signal }
}

/// Appends a birth.
fn birth(tape: &mut Tape, flags: u64, signal: u64, number: i32) {
    let args = CloneArgs {
        flags,
        exit_signal: signal,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    let bytes = args.to_bytes();
    let call = Call::new(nr::clone3, [0, bytes.len() as u64]).with(0, &bytes);
    let number = number.to_ne_bytes();
    call.linked(CloneArgs::SET_TID, &number).write(tape);
}

/// One that was born on a tape, in its first stop.
fn newborn(number: i32) -> Result<Stopped, Failure> {
    let pid = Pid::from_raw(number).ok_or("no pid")?;
    stopped(Running::attached(pid))
}

fn stopped(running: Running) -> Result<Stopped, Failure> {
    match wait(Whom::Task(running.pid()), true)? {
        Some((_, status)) if !status.is_dead() => Ok(running.stopped()),
        _ => Err("it has ended".into()),
    }
}

fn play(carrier: &mut Carrier, tape: &Tape) -> Result<(), Failure> {
    carrier.start(tape)?;
    check(tape, &carrier.finish()?)
}

/// Has all processes play what `write` appends for them, at the same time.
fn play_all(
    wave: &[Process],
    bodies: &mut [Body],
    write: impl Fn(&Process, &mut Tape),
) -> Result<(), Failure> {
    let mut tapes = Vec::with_capacity(wave.len());
    for (process, body) in wave.iter().zip(&mut *bodies) {
        let mut tape = Tape::new();
        write(process, &mut tape);
        if !tape.is_empty() {
            body.carrier.start(&tape)?;
        }
        tapes.push(tape);
    }
    let played = tapes.iter().zip(bodies);
    for (tape, body) in played.filter(|(tape, _)| !tape.is_empty()) {
        check(tape, &body.carrier.finish()?)?;
    }
    Ok(())
}

fn check(tape: &Tape, outcome: &Outcome) -> Result<(), Failure> {
    match outcome.failure() {
        None => Ok(()),
        Some((op, errno)) => {
            let (nr, at) = (tape.nr(op), outcome.played());
            Err(format!("call {at}, {}: {errno}", name(nr).unwrap_or("?")).into())
        }
    }
}
