//! Tasks that were born for a restore: all of their memory goes, threads and children are born on tapes.

use gelid_sys::arch::SYSCALL_INSN;
use gelid_sys::clone::{CloneArgs, flags, fork_sleeper};
use gelid_sys::ptrace::{self, Options, Running, Stopped};
use gelid_sys::signal::SigSet;
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_sys::wait::{Status, wait_task};
use gelid_sys::{Pid, proc};
use gelid_tape::{Arg, Carrier, Host, Identity, Op, Saved, Tape, play_all};
use std::ops::Range;

const ZONE: Range<u64> = 0x1234_0000_0000..0x1234_0000_8000;
/// Where the vDSO and its data go.
const PARKED: u64 = 0x1234_0010_0000;
/// Where the new program is.
const CODE: u64 = 0x4000_0000;
const END: u64 = 0x7fff_ffff_f000;
const ROOM: usize = 2048;

const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const PRIVATE_FIXED: u64 = 0x32;
const MOVE_FIXED: u64 = 3;

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// A child that sleeps, stopped by us; it dies with its tracer.
fn born() -> Stopped {
    let pid = fork_sleeper(None, false).unwrap();
    let running = ptrace::seize(pid, Options::TRACESYSGOOD | Options::EXITKILL).unwrap();
    running.interrupt().unwrap();
    assert!(matches!(wait_task(pid), Ok(Status::EventStop(_))));
    running.stopped()
}

fn lone(pid: Pid) -> Identity {
    let id = number(pid);
    Identity {
        tgid: id,
        tid: id,
        signal: 23,
    }
}

/// vDSO and data of the kernel, from the first to the last, and a system call instruction in it.
fn vdso(pid: Pid) -> (Range<u64>, u64) {
    let maps = proc::maps::read(&proc::task_dir(pid).unwrap()).unwrap();
    let mut parts = maps.iter().filter(|map| map.path.starts_with(b"[v"));
    let whole =
        parts.next().unwrap().start..maps.iter().find(|map| map.path == b"[vdso]").unwrap().end;
    let vdso = maps.iter().find(|map| map.path == b"[vdso]").unwrap();
    let mut bytes = vec![0; vdso.size() as usize];
    Mem::open(pid)
        .unwrap()
        .read(vdso.start, &mut bytes)
        .unwrap();
    let at = bytes
        .windows(2)
        .position(|pair| pair == SYSCALL_INSN)
        .unwrap();
    (whole, vdso.start + at as u64)
}

/// The names of all mappings.
fn mapped(pid: Pid) -> Vec<String> {
    let maps = proc::maps::read(&proc::task_dir(pid).unwrap()).unwrap();
    let lines = maps
        .iter()
        .map(|map| format!("{:x} {}", map.start, String::from_utf8_lossy(&map.path)));
    lines.filter(|line| !line.contains("[vsyscall]")).collect()
}

/// A host in a task whose memory is gone but for the zone, the parked vDSO and one page of code.
fn emptied() -> (Host, Carrier) {
    let task = born();
    let pid = task.pid();
    let rseq = task.rseq().unwrap();
    let (kernel, syscall_at) = vdso(pid);
    let (mut host, mut carrier) = Host::fresh(task, lone(pid), ZONE, syscall_at, ROOM).unwrap();
    let mut tape = Tape::new();
    if rseq.rseq_abi_pointer != 0 {
        let (size, signature) = (rseq.rseq_abi_size, rseq.signature);
        let words = [rseq.rseq_abi_pointer, size.into(), 1, signature.into()];
        tape.must(nr::rseq, words.map(Arg::Value));
    }
    // Each part by itself: a move of several mappings at once is not possible.
    let maps = proc::maps::read(&proc::task_dir(pid).unwrap()).unwrap();
    for map in maps.iter().filter(|map| kernel.contains(&map.start)) {
        let to = PARKED + (map.start - kernel.start);
        let words = [map.start, map.size(), map.size(), MOVE_FIXED, to];
        tape.must(nr::mremap, words.map(Arg::Value));
    }
    let parked = PARKED..PARKED + (kernel.end - kernel.start);
    for hole in [0..ZONE.start, ZONE.end..parked.start, parked.end..END] {
        tape.must(
            nr::munmap,
            [hole.start, hole.end - hole.start].map(Arg::Value),
        );
    }
    let prot = PROT_READ | PROT_WRITE | PROT_EXEC;
    let words = [CODE, 4096, prot, PRIVATE_FIXED, u64::MAX, 0];
    tape.must(nr::mmap, words.map(Arg::Value));
    let outcome = carrier.play(&tape).unwrap();
    assert_eq!(
        outcome.failure(),
        None,
        "{} of {}",
        outcome.played(),
        tape.len()
    );
    host.set_syscall_at(syscall_at - kernel.start + PARKED);
    (host, carrier)
}

/// Code that ends the process with a status.
fn ending(status: u8) -> Vec<u8> {
    vec![
        0xb8, 231, 0, 0, 0, // mov eax, exit_group
        0xbf, status, 0, 0, 0, // mov edi, status
        0x0f, 0x05, // syscall
    ]
}

fn at(carrier: &Carrier, rip: u64) -> Saved {
    let mut regs = carrier.saved().regs;
    regs.rip = rip;
    regs.orig_rax = u64::MAX;
    Saved {
        regs,
        mask: SigSet::EMPTY,
    }
}

#[test]
fn all_memory_goes_and_something_else_comes() {
    let (host, mut carrier) = emptied();
    let pid = carrier.tid();
    let mut names = mapped(pid);
    let own = names
        .iter()
        .position(|name| *name == format!("{:x} ", ZONE.start));
    names.remove(own.unwrap());
    assert!(names.contains(&format!("{CODE:x} ")), "{names:?}");
    names.retain(|name| !name.contains("[v") && *name != format!("{CODE:x} "));
    assert_eq!(names, [format!("{:x} ", ZONE.start + 4096)]);

    Mem::open(pid).unwrap().write(CODE, &ending(42)).unwrap();
    carrier.set_saved(at(&carrier, CODE));
    let words = [ZONE.start, ZONE.end - ZONE.start, 0, 0, 0, 0];
    host.call(&mut carrier, nr::munmap, words).unwrap();
    assert!(!mapped(pid).iter().any(|name| name.starts_with("12340000")));
    let task = carrier.release().unwrap();
    assert_eq!(task.sigmask().unwrap(), SigSet::EMPTY);
    task.detach(0).unwrap();
    assert_eq!(wait_task(pid), Ok(Status::Exited(42)));
}

#[test]
fn a_taken_zone_is_refused_and_the_task_left() {
    let task = born();
    let pid = task.pid();
    let (kernel, syscall_at) = vdso(pid);
    let before = (task.regs().unwrap(), task.sigmask().unwrap());
    let zone = kernel.start..kernel.start + 8192;
    let failed = Host::fresh(task, lone(pid), zone, syscall_at, ROOM);
    let (error, task) = failed.unwrap_err();
    assert!(error.to_string().contains("File exists"), "{error}");
    let task = task.unwrap();
    assert_eq!((task.regs().unwrap(), task.sigmask().unwrap()), before);
    end(pid);
}

fn end(pid: Pid) {
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while !wait_task(pid).unwrap().is_dead() {}
}

/// Puts the birth of a task that we trace from its first instant on a tape.
fn birth(tape: &mut Tape, args: CloneArgs) -> Op {
    let args = CloneArgs {
        flags: args.flags | flags::PTRACE,
        ..args
    };
    let data = tape.bytes(&args.to_bytes());
    tape.must(nr::clone3, [data.into(), Arg::Value(88)])
}

/// The newborn in its first stop.
fn newborn(result: i64) -> (Stopped, Pid) {
    let pid = Pid::from_raw(result as i32).unwrap();
    let running = Running::attached(pid);
    assert!(matches!(wait_task(pid), Ok(Status::EventStop(_))));
    (running.stopped(), pid)
}

#[test]
fn threads_are_born_on_a_tape_and_carry_their_own() {
    let (mut host, mut carrier) = emptied();
    let pid = carrier.tid();
    let mut tape = Tape::new();
    let thread = CloneArgs {
        flags: flags::SHARED_BY_THREADS,
        stack: CODE + 1024,
        stack_size: 1024,
        ..CloneArgs::default()
    };
    let births: Vec<Op> = (0..5).map(|_| birth(&mut tape, thread)).collect();
    let after = tape.must(nr::getpid, []);
    let outcome = carrier.play(&tape).unwrap();
    assert_eq!(outcome.failure(), None);
    assert_eq!(outcome.result(after), i64::from(number(pid)));

    let mut crew = vec![carrier];
    for op in births {
        let (task, tid) = newborn(outcome.result(op));
        let identity = Identity {
            tid: number(tid),
            ..lone(pid)
        };
        crew.push(host.board(task, identity, 512).unwrap());
    }
    // What a thread tells of itself: its id, which only this call returns.
    let mut own = Tape::new();
    let word = own.space(8);
    let tid = own.must(nr::set_tid_address, [word.into()]);
    for _ in 0..3 {
        let work = crew.iter_mut().map(|carrier| (carrier, &own));
        let outcomes = play_all(work).unwrap();
        for (carrier, outcome) in crew.iter().zip(outcomes) {
            assert_eq!(outcome.result(tid), i64::from(number(carrier.tid())));
        }
    }

    // All count up one word, the last of them ends the process.
    let mut code = vec![
        0xf0, 0xff, 0x04, 0x25, 0x00, 0x04, 0x00, 0x40, // lock inc dword [CODE + 1024]
        0x83, 0x3c, 0x25, 0x00, 0x04, 0x00, 0x40, 6, // cmp dword [CODE + 1024], 6
        0x75, 0xf6, // jne to the comparison
    ];
    code.extend(ending(6));
    Mem::open(pid).unwrap().write(CODE, &code).unwrap();
    let mut last = crew.remove(0);
    for mut carrier in crew {
        carrier.set_saved(at(&carrier, CODE));
        carrier.release().unwrap().detach(0).unwrap();
    }
    last.set_saved(at(&last, CODE));
    let words = [ZONE.start, ZONE.end - ZONE.start, 0, 0, 0, 0];
    host.call(&mut last, nr::munmap, words).unwrap();
    last.release().unwrap().detach(0).unwrap();
    assert_eq!(wait_task(pid), Ok(Status::Exited(6)));
}

#[test]
fn children_are_born_on_a_tape_with_a_copy_of_the_host() {
    let (host, mut carrier) = emptied();
    let pid = carrier.tid();
    Mem::open(pid).unwrap().write(CODE, &ending(7)).unwrap();
    let mut tape = Tape::new();
    let child = CloneArgs {
        exit_signal: 17,
        ..CloneArgs::default()
    };
    let births: Vec<Op> = (0..3).map(|_| birth(&mut tape, child)).collect();
    let outcome = carrier.play(&tape).unwrap();
    assert_eq!(outcome.failure(), None);
    let mut children = Vec::new();
    for op in births {
        let (task, child) = newborn(outcome.result(op));
        let mut copy = host.forked();
        let mut carrier = copy.board(task, lone(child), ROOM).unwrap();
        let mut own = Tape::new();
        let parent = own.must(nr::getppid, []);
        let outcome = carrier.play(&own).unwrap();
        assert_eq!(outcome.result(parent), i64::from(number(pid)));
        carrier.set_saved(at(&carrier, CODE));
        carrier.release().unwrap().detach(0).unwrap();
        children.push(child);
    }
    // The parent reaps them on its own tape.
    let mut reap = Tape::new();
    let words: Vec<_> = children
        .iter()
        .map(|child| {
            let status = reap.space(4);
            let child = Arg::from(number(*child));
            reap.must(nr::wait4, [child, status.into(), Arg::Value(0)]);
            status
        })
        .collect();
    let outcome = carrier.play(&reap).unwrap();
    assert_eq!(outcome.failure(), None);
    for status in words {
        assert_eq!(outcome.data(status), 0x700_i32.to_ne_bytes());
    }
    end(pid);
}
