//! Threads that stand still, what `ptrace(2)` alone tells of them, and how they play scripts.

use std::ops::Range;

use gelid_sys::arch::{NT_X86_XSTATE, SYSCALL_INSN, UserRegs, XLayout};
use gelid_sys::proc::TaskDir;
use gelid_sys::ptrace::{self, Options, Running, Stopped};
use gelid_sys::syscall::nr;
use gelid_sys::wait::{Status, Whom, wait};
use gelid_sys::{Errno, PAGE_SIZE, Pid, vm};

use crate::Failure;
use crate::asked;
use crate::dump::Process;
use crate::opened::{self, Numbers};
use crate::outside;
use crate::script::{Script, Sheet};

const PROT_ALL: u64 = 7;
/// `MAP_PRIVATE`, `MAP_ANONYMOUS`, `MAP_POPULATE`: all of it is used.
const FRESH: u64 = 0x8022;
const SIGTRAP: i32 = 5;
/// Begins on such a multiple.
const ALIGN: u64 = 64;
/// The first component of extended state that is large and hardly ever there, of matrices, and its bit.
const TILES: u32 = 18;
/// Where an area says which components are there.
const PRESENT: Range<usize> = 512..520;

/// A process whose threads stand still.
pub(crate) struct Actor {
    pid: Pid,
    /// The first one leads.
    threads: Vec<Option<Stopped>>,
    regs: Vec<UserRegs>,
    pub(crate) numbers: Numbers,
    first: Script,
    others: Script,
    room: Range<u64>,
}

/// Stops all threads. A request to seize says at once that filters are to be suspended; a request to stop is one more,
/// as `PTRACE_ATTACH` sends a signal that cannot be told from somebody else's. Each stop is waited for: it may be another
/// one, of a signal on its way.
pub(crate) fn stop(all: &[Process]) -> Result<Vec<Vec<Stopped>>, Failure> {
    let seized = all.iter().map(|(_, threads)| {
        let seized = threads.iter().map(|tid| {
            let running = ptrace::seize(*tid, Options::TRACESYSGOOD | Options::SUSPEND_SECCOMP)?;
            running.interrupt()?;
            Ok(running)
        });
        seized.collect::<Result<Vec<_>, Errno>>()
    });
    let seized: Vec<_> = seized.collect::<Result<_, _>>()?;
    let stopped = seized.into_iter().map(|threads| {
        let threads = threads.into_iter().map(|running| {
            wait(Whom::Task(running.pid()), true)?;
            Ok(running.stopped())
        });
        threads.collect::<Result<Vec<_>, Failure>>()
    });
    stopped.collect()
}

/// What nobody but `ptrace(2)` tells: registers, extended state, restartable sequences, diverted calls.
pub(crate) struct Reader {
    area: Vec<u8>,
    short: usize,
    whole: usize,
}

impl Reader {
    pub(crate) fn new() -> Self {
        let layout = XLayout::look();
        let whole = layout.end();
        let short = layout.component(TILES).map_or(whole, |tiles| tiles.offset);
        let area = Vec::with_capacity(short);
        Self { area, short, whole }
    }

    fn look(&mut self, task: &Stopped) -> Result<UserRegs, Failure> {
        task.regset(NT_X86_XSTATE, &mut self.area)?;
        let present = self.area.get(PRESENT).and_then(<[u8]>::first_chunk);
        let present = present.map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        if present >> TILES & 1 != 0 && self.short < self.whole {
            let mut area = Vec::with_capacity(self.whole);
            task.regset(NT_X86_XSTATE, &mut area)?;
        }
        task.rseq()?;
        task.dispatch()?;
        Ok(task.regs()?)
    }
}

impl Actor {
    /// Looks at a process, and plans what it is asked.
    pub(crate) fn look(
        dir: &TaskDir,
        threads: Vec<Stopped>,
        reader: &mut Reader,
    ) -> Result<Self, Failure> {
        let regs = threads.iter().map(|task| reader.look(task));
        let regs = regs.collect::<Result<Vec<_>, _>>()?;
        let mut record = [0; 4096];
        let status = outside::read(dir, "status", &mut record)?;
        let size = field(status, b"FDSize:", 10);
        let changed = field(status, b"SigCgt:", 16) | field(status, b"SigIgn:", 16);
        let numbers = Numbers::of(dir, size)?;
        let (mut first, mut others) = (Script::default(), Script::default());
        asked::thread(&mut first);
        asked::thread(&mut others);
        asked::process(&mut first, changed);
        if let Numbers::Few(numbers) = &numbers {
            for number in numbers {
                asked::descriptor(&mut first, (*number as u64).into());
            }
        }
        Ok(Self {
            pid: dir.pid(),
            threads: threads.into_iter().map(Some).collect(),
            regs,
            numbers,
            first,
            others,
            room: 0..0,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    fn sheet_size(&self) -> u64 {
        let size = Sheet::size(&[(&self.first, 1), (&self.others, 1)]);
        size.next_multiple_of(ALIGN)
    }

    fn answers(&self) -> u64 {
        let others = self.threads.len() as u64 - 1;
        (self.first.area() + others * self.others.area()).next_multiple_of(ALIGN)
    }

    fn wanted(&self) -> u64 {
        let bytes = self.sheet_size() + self.answers() + self.numbers.room();
        bytes.next_multiple_of(PAGE_SIZE as u64)
    }

    /// Room that is left for what a large table is asked.
    pub(crate) fn spare(&self) -> Range<u64> {
        self.room.start + self.sheet_size() + self.answers()..self.room.end
    }

    /// Its first thread, alone on the stage.
    pub(crate) fn leader(&mut self) -> Result<Leader<'_>, Failure> {
        let regs = *self.regs.first().ok_or("it has no threads")?;
        let (pid, task) = (self.pid, self.threads.first_mut());
        let task = task.ok_or("it has no threads")?;
        Ok(Leader { pid, task, regs })
    }
}

/// A number in `status`.
fn field(status: &[u8], name: &[u8], radix: u32) -> u64 {
    let mut lines = status.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| std::str::from_utf8(value).ok());
    value.map_or(0, |value| {
        u64::from_str_radix(value.trim(), radix).unwrap_or(0)
    })
}

/// Has all processes map room for their scripts, at the same time. A process has none that is sure not to be missed, but
/// below its stack, where there is not enough for many threads. The call is made where the thread has just made one, or makes
/// its next one.
pub(crate) fn make_room(actors: &mut [Actor]) -> Result<(), Failure> {
    let mut running = Vec::with_capacity(actors.len());
    for actor in &mut *actors {
        let mut task = actor.threads[0].take().ok_or("it plays")?;
        let mut at = call_of(&actor.regs[0]);
        let mut code = [0; 2];
        vm::read_ranges(actor.pid, &[at..at + 2], &mut code)?;
        if code != SYSCALL_INSN {
            task = at_its_next_call(task)?;
            actor.regs[0] = task.regs()?;
            at = call_of(&actor.regs[0]);
        }
        let args = [0, actor.wanted(), PROT_ALL, FRESH, u64::MAX, 0];
        task.set_regs(&actor.regs[0].for_syscall(at, nr::mmap, args))?;
        running.push(task.cont_to_syscall()?);
    }
    for (actor, running) in actors.iter_mut().zip(running) {
        let entered = arrived(running, Status::SyscallStop)?;
        let task = arrived(entered.cont_to_syscall()?, Status::SyscallStop)?;
        let start = match task.regs()?.syscall_result() {
            errno @ -4095..=-1 => return Err(format!("no room: errno {errno}").into()),
            start => start as u64,
        };
        actor.room = start..start + actor.wanted();
        actor.threads[0] = Some(task);
    }
    Ok(())
}

/// Where the instruction is that a thread has just executed, if that was a system call.
fn call_of(regs: &UserRegs) -> u64 {
    regs.rip.wrapping_sub(SYSCALL_INSN.len() as u64)
}

/// Lets a thread that runs code of its own come to its next call, which is not made.
fn at_its_next_call(task: Stopped) -> Result<Stopped, Failure> {
    let entered = arrived(task.cont_to_syscall()?, Status::SyscallStop)?;
    let mut regs = entered.regs()?;
    regs.orig_rax = u64::MAX;
    entered.set_regs(&regs)?;
    arrived(entered.cont_to_syscall()?, Status::SyscallStop)
}

fn arrived(running: Running, at: Status) -> Result<Stopped, Failure> {
    match wait(Whom::Task(running.pid()), true)? {
        Some((_, status)) if status == at => Ok(running.stopped()),
        other => Err(format!("it comes to {other:?} instead of {at:?}").into()),
    }
}

/// The first thread of a process, which plays while the others stand still.
pub(crate) struct Leader<'a> {
    pid: Pid,
    task: &'a mut Option<Stopped>,
    regs: UserRegs,
}

impl Leader<'_> {
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Plays a script for each item of a list; what it has left in the areas of all.
    pub(crate) fn play(
        &mut self,
        script: &Script,
        items: &[u64],
        room: Range<u64>,
    ) -> Result<Vec<u8>, Failure> {
        let size = Sheet::size(&[(script, items.len())]).next_multiple_of(ALIGN);
        let area = room.start + size;
        let len = script.area() * items.len() as u64;
        if area + len > room.end {
            return Err("there is no room for so many answers".into());
        }
        let mut sheet = Sheet::new(room.start, 1);
        let run = sheet.add(script, items, area);
        write(self.pid, &sheet)?;
        let task = self.task.take().ok_or("it plays")?;
        task.set_regs(&sheet.begin(&self.regs, run))?;
        *self.task = Some(arrived(task.cont(0)?, Status::SignalStop(SIGTRAP))?);
        read(self.pid, area..area + len)
    }
}

fn write(pid: Pid, sheet: &Sheet) -> Result<(), Failure> {
    let len = sheet.bytes().len() as u64;
    let to = sheet.base()..sheet.base() + len;
    match vm::write_ranges(pid, sheet.bytes(), &[to])? as u64 == len {
        true => Ok(()),
        false => Err("a script cannot be written".into()),
    }
}

fn read(pid: Pid, range: Range<u64>) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    vm::read_ranges(pid, &[range], &mut bytes)?;
    Ok(bytes)
}

/// All threads tell what they are asked, at the same time; what they say is read in one piece for each process.
pub(crate) fn ask_all(actors: &mut [Actor]) -> Result<(), Failure> {
    opened::tables(actors)?;
    for actor in &mut *actors {
        let areas = actor.room.start + actor.sheet_size();
        let mut sheet = Sheet::new(actor.room.start, actor.threads.len() as u64);
        let first = sheet.add(&actor.first, &[0], areas);
        let mut run = sheet.add(&actor.others, &[0], areas + actor.first.area());
        write(actor.pid, &sheet)?;
        let mut next = Some(first);
        for (task, regs) in actor.threads.iter_mut().zip(&actor.regs) {
            let own = next.take().unwrap_or(run);
            if own != first {
                run.area += actor.others.area();
            }
            let task = task.take().ok_or("it plays")?;
            task.set_regs(&sheet.begin(regs, own))?;
            task.cont(0)?;
        }
    }
    // Of several threads, any may be the last.
    let are_single = actors.iter().all(|actor| actor.threads.len() == 1);
    for actor in &*actors {
        let whom = match are_single {
            true => Whom::Task(actor.pid),
            false => Whom::OfThread,
        };
        match wait(whom, true)? {
            Some((_, Status::SignalStop(SIGTRAP))) => {}
            other => return Err(format!("it comes to {other:?}").into()),
        }
    }
    for actor in actors {
        let areas = actor.room.start + actor.sheet_size();
        let told = read(actor.pid, areas..areas + actor.answers())?;
        // The first answer is whether the mask could be read.
        if told.len() < 16 || told[8..16] != [0; 8] {
            return Err("a thread has not told its mask".into());
        }
    }
    Ok(())
}
