//! The main thread of a process that lives on without it.
//!
//! Nothing is left of it but its credentials, its name and the status it has ended with. Images have it like any other
//! thread: one that is about to call `exit(2)`, which it does as soon as it is let go, and that no signal reaches before.

use gelid_image::messages::{CoreEntry, SignalQueueEntry, ThreadSasEntry};
use gelid_seize::Process;
use gelid_sys::Pid;
use gelid_sys::arch::SYSCALL_INSN;
use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::Area;
use gelid_sys::proc::{TaskDir, status};
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;

use super::attributes::OfThread;
use super::recording::Recorded;
use super::seccomp::Restraint;
use super::{Cores, Error, creds};
use crate::namespace::Users;
use crate::survey::Task;
use crate::vma::{self, Kind};

/// Blocks all signals.
pub(super) const ALL: u64 = u64::MAX;
/// `SS_DISABLE`
const NO_STACK: u32 = 2;
/// Bytes of code that are looked through at a time.
const CHUNK: usize = 64 << 10;

/// The record of the leader of `process`, which has ended with the status `ended`, after that of a thread that lives.
pub(super) fn leader(
    process: &Process,
    ended: i32,
    (areas, threads): (&[Area], &[Recorded]),
    (name, users): (&[u8], &Users),
) -> Result<Recorded, Error> {
    let tid = process.pid;
    let unsupported = |what, remedy| Error::Unsupported { tid, what, remedy };
    if ended & 0x7f != 0 {
        return Err(unsupported(
            "a main thread that was killed alone (SECCOMP_RET_KILL_THREAD)",
            "end the process",
        ));
    }
    let at = way_out(process.living(), areas, threads).ok_or_else(|| {
        unsupported(
            "code without a system call, after the end of its main thread",
            "end the process",
        )
    })?;
    let other = threads.first().ok_or(Error::Gone { tid })?;
    let mut core = other.core.clone();
    if let Some(info) = &mut core.thread_info {
        info.clear_tid_addr = 0;
        let regs = &mut info.gpregs;
        (regs.ip, regs.ax, regs.orig_ax) = (at, nr::exit as u64, u64::MAX);
        regs.di = u64::from(ended.cast_unsigned() >> 8 & 0xff);
    }
    if let Some(thread) = &mut core.thread_core {
        let bits = thread.creds.as_ref().map_or(0, |creds| creds.secbits);
        let mut status = status::read(&TaskDir::open(tid)?)?;
        users.translate(&mut status)?;
        thread.creds = Some(creds::of_status(&status, bits));
        (thread.futex_rla, thread.futex_rla_len) = (0, 0);
        thread.sas = Some(ThreadSasEntry {
            ss_flags: NO_STACK,
            ..ThreadSasEntry::default()
        });
        thread.blk_sigset = None;
        thread.pdeath_sig = None;
        thread.signals_p = Some(SignalQueueEntry::default());
        thread.rseq_entry = None;
        thread.comm = Some(name.to_vec());
        if let Some(gelid) = &mut thread.gelid {
            (gelid.restart, gelid.dispatch) = (None, None);
        }
    }
    Ok(Recorded {
        tid,
        core,
        rest: OfThread {
            name: name.to_vec(),
            ..other.rest.clone()
        },
        // No filter is to keep it from its end.
        restraint: Restraint::None,
        regs: other.regs,
    })
}

/// Where a system call is made: rather by a library, which is the same on another kernel, than by the kernel's code.
fn way_out(living: Pid, areas: &[Area], threads: &[Recorded]) -> Option<u64> {
    let memory = Mem::open(living).ok()?;
    let is_code =
        |area: &&Area| area.map.perms.contains(Perms::EXEC) && vma::kind(area) != Kind::Vsyscall;
    let (kernels, others): (Vec<&Area>, Vec<&Area>) =
        (areas.iter().filter(is_code)).partition(|area| vma::kind(area) == Kind::Vdso);
    let is_call = |at: u64| {
        let mut found = SYSCALL_INSN;
        found.fill(0);
        let known = others.iter().any(|area| area.map.range().contains(&at));
        known && memory.read(at, &mut found).is_ok() && found == SYSCALL_INSN
    };
    let waiting = threads.iter().filter_map(|thread| {
        thread.regs.syscall_nr()?;
        thread.regs.rip.checked_sub(SYSCALL_INSN.len() as u64)
    });
    let mut waiting = waiting.filter(|at| is_call(*at));
    waiting.next().or_else(|| {
        let mut code = others.iter().chain(&kernels);
        code.find_map(|area| search(&memory, area))
    })
}

/// The first system call in a mapping.
fn search(memory: &Mem, area: &Area) -> Option<u64> {
    let mut chunk = vec![0; CHUNK];
    let overlap = SYSCALL_INSN.len() as u64 - 1;
    let range = area.map.range();
    let starts = range.clone().step_by(CHUNK - overlap as usize);
    starts.into_iter().find_map(|start| {
        let len = (range.end - start).min(CHUNK as u64) as usize;
        let chunk = chunk.get_mut(..len)?;
        // Behind the end of a file there is nothing.
        memory.read(start, chunk).ok()?;
        let found = chunk
            .windows(SYSCALL_INSN.len())
            .position(|bytes| bytes == SYSCALL_INSN)?;
        Some(start + found as u64)
    })
}

/// Refuses children that would be told of the end of a leader once more, and those that have its signal to come.
pub(super) fn refuse_children(tasks: &[Task], cores: &[Cores]) -> Result<(), Error> {
    let headless = |pid: i32| {
        let mut tasks = tasks.iter();
        tasks.any(|task| !task.has_leader() && task.pid.as_raw_pid() == pid)
    };
    for task in tasks.iter().filter(|task| headless(task.ppid)) {
        let Some(cores) = cores.iter().find(|cores| cores.pid == task.pid) else {
            continue;
        };
        let threads = cores.threads.iter().map(|(_, core)| &**core);
        let mut threads = threads.chain([&cores.leader]);
        let dies = |core: &CoreEntry| {
            let thread = core.thread_core.as_ref();
            thread.is_some_and(|thread| thread.pdeath_sig.is_some())
        };
        if threads.any(dies) {
            return Err(Error::Unsupported {
                tid: task.pid,
                what: "a signal at the end of its parent (PR_SET_PDEATHSIG), whose main thread has ended",
                remedy: "choose it as the root",
            });
        }
    }
    Ok(())
}
