//! General registers of a thread, with an interrupted system call resolved.

use std::mem::size_of;

use gelid_image::messages::{
    GelidRestartEntry, ThreadInfoX86, UserDescT, UserX86RegsEntry, UserX86RegsMode,
};
use gelid_sys::Pid;
use gelid_sys::arch::{SYSCALL_INSN, UserRegs};
use gelid_sys::syscall::nr;
use gelid_sys::vm;

use super::before::Known;

const EINTR: i64 = -4;
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;

/// `FUTEX_WAIT` among the commands of `futex(2)`, which fill the lower bits.
const FUTEX_WAIT: u64 = 0;
const FUTEX_COMMAND: u64 = 0x7f;

/// What becomes of a system call that the stop has interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) regs: UserRegs,
    /// The call goes on with the time that was left, where a reader knows how to do that.
    pub(super) restart: Option<GelidRestartEntry>,
}

/// Resolves an interrupted system call. `handler` tells, if a signal waits that the thread will handle first,
/// whether calls are issued again after that. `known` is the call that the kernel was restarting, and the time
/// left, if somebody has looked. `left` reads a remaining time from the thread's memory.
pub(super) fn resolve(
    regs: &UserRegs,
    handler: Option<bool>,
    known: Option<Known>,
    left: impl Fn(u64) -> Option<u64>,
) -> Resolved {
    let mut resolved = Resolved {
        regs: *regs,
        restart: None,
    };
    let Some(entered) = regs.syscall_nr() else {
        return resolved;
    };
    let number = known.map_or(entered, |known| known.call);
    let anew = |regs: &mut UserRegs| {
        regs.rax = number;
        regs.rip = regs.rip.wrapping_sub(SYSCALL_INSN.len() as u64);
    };
    let regs = &mut resolved.regs;
    match regs.syscall_result() {
        ERESTARTNOINTR => anew(regs),
        ERESTARTSYS if handler.unwrap_or(true) => anew(regs),
        ERESTARTNOHAND if handler.is_none() => anew(regs),
        // Ended only because the thread was stopped.
        EINTR if handler.is_none() && regs.is_ended_by_stops(number) => anew(regs),
        ERESTARTSYS | ERESTARTNOHAND => regs.rax = EINTR as u64,
        ERESTART_RESTARTBLOCK => {
            regs.rax = EINTR as u64;
            if handler.is_none() {
                let time = told(regs, number, left).or(known.and_then(|known| known.left));
                resolved.restart = time.map(|remaining| GelidRestartEntry {
                    nr: number as u32,
                    remaining,
                });
                if may_start_over(regs, number) {
                    anew(regs);
                }
            }
        }
        _ => {}
    }
    resolved
}

/// The time left of a call that has told the program.
fn told(regs: &UserRegs, number: u64, left: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    match number as usize {
        nr::nanosleep if regs.rsi != 0 => left(regs.rsi),
        nr::clock_nanosleep if regs.r10 != 0 => left(regs.r10),
        _ => None,
    }
}

/// Whether a call may be issued again by a reader that does not know the time left: one with a deadline, and
/// one that promises no more than to take at least so long. What waits for a relative time on a futex expects
/// to be woken for nothing, and looks at the clock.
fn may_start_over(regs: &UserRegs, number: u64) -> bool {
    match number as usize {
        nr::nanosleep => regs.rsi == 0,
        nr::clock_nanosleep => regs.r10 == 0,
        nr::poll => true,
        nr::futex => regs.rsi & FUTEX_COMMAND != FUTEX_WAIT,
        _ => false,
    }
}

/// Nanoseconds in the `timespec` at an address of a thread's memory.
pub(super) fn nanoseconds(tid: Pid, at: u64) -> Option<u64> {
    let mut bytes = [0; 16];
    let range = at..at.checked_add(size_of::<[u64; 2]>() as u64)?;
    let read = vm::read_ranges(tid, &[range], &mut bytes).ok()?;
    let [seconds, nanoseconds] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    });
    let sane = read == bytes.len() && nanoseconds < 1_000_000_000;
    let whole = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds);
    whole.filter(|_| sane)
}

/// The record of registers.
pub(super) fn record(regs: &UserRegs) -> UserX86RegsEntry {
    UserX86RegsEntry {
        r15: regs.r15,
        r14: regs.r14,
        r13: regs.r13,
        r12: regs.r12,
        bp: regs.rbp,
        bx: regs.rbx,
        r11: regs.r11,
        r10: regs.r10,
        r9: regs.r9,
        r8: regs.r8,
        ax: regs.rax,
        cx: regs.rcx,
        dx: regs.rdx,
        si: regs.rsi,
        di: regs.rdi,
        orig_ax: regs.orig_rax,
        ip: regs.rip,
        cs: regs.cs,
        flags: regs.eflags,
        sp: regs.rsp,
        ss: regs.ss,
        fs_base: regs.fs_base,
        gs_base: regs.gs_base,
        ds: regs.ds,
        es: regs.es,
        fs: regs.fs,
        gs: regs.gs,
        mode: Some(UserX86RegsMode::Native as i32),
    }
}

/// Slots of the GDT that 64-bit code does not use.
pub(super) fn no_descriptors(info: &mut ThreadInfoX86) {
    let unused = |entry_number| UserDescT {
        entry_number,
        read_exec_only: true,
        seg_not_present: true,
        ..Default::default()
    };
    info.tls = [12, 13, 14].map(unused).to_vec();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(number: usize, result: i64) -> UserRegs {
        UserRegs {
            rip: 100,
            orig_rax: number as u64,
            rax: result as u64,
            ..UserRegs::default()
        }
    }

    fn seen(regs: &UserRegs, handler: Option<bool>) -> (u64, i64, Option<u64>) {
        let resolved = resolve(regs, handler, None, |at| (at == 8).then_some(5));
        let remaining = resolved.restart.map(|restart| restart.remaining);
        (resolved.regs.rip, resolved.regs.rax as i64, remaining)
    }

    #[test]
    fn calls_are_issued_again_or_return() {
        let read = nr::read as i64;
        for (result, handler, want) in [
            (7, None, (100, 7)),
            (ERESTARTSYS, None, (98, read)),
            (ERESTARTSYS, Some(true), (98, read)),
            (ERESTARTSYS, Some(false), (100, EINTR)),
            (ERESTARTNOINTR, Some(false), (98, read)),
            (ERESTARTNOHAND, None, (98, read)),
            (ERESTARTNOHAND, Some(true), (100, EINTR)),
            (EINTR, None, (100, EINTR)),
        ] {
            let (rip, rax, _) = seen(&stopped(nr::read, result), handler);
            assert_eq!((rip, rax), want, "{result} {handler:?}");
        }
        let outside = UserRegs {
            orig_rax: u64::MAX,
            ..stopped(nr::read, ERESTARTSYS)
        };
        assert_eq!(resolve(&outside, None, None, |_| None).regs, outside);
    }

    #[test]
    fn stops_do_not_end_waiting() {
        let wait = UserRegs {
            r10: u64::from(u32::MAX),
            ..stopped(nr::epoll_wait, EINTR)
        };
        assert_eq!(seen(&wait, None).0, 98);
        assert_eq!(seen(&wait, Some(true)).0, 100);
        let timed = UserRegs { r10: 1000, ..wait };
        assert_eq!(seen(&timed, None).0, 100);
    }

    #[test]
    fn timeouts_go_on_where_they_were() {
        let mut sleep = stopped(nr::nanosleep, ERESTART_RESTARTBLOCK);
        assert_eq!(seen(&sleep, None), (98, nr::nanosleep as i64, None));
        sleep.rsi = 8;
        assert_eq!(seen(&sleep, None), (100, EINTR, Some(5)));
        assert_eq!(seen(&sleep, Some(true)), (100, EINTR, None));
        sleep.rsi = 9;
        assert_eq!(seen(&sleep, None), (100, EINTR, None));
        let mut wait = stopped(nr::futex, ERESTART_RESTARTBLOCK);
        assert_eq!(seen(&wait, None).0, 100);
        let known = |call: usize, left| Known {
            call: call as u64,
            left,
        };
        let resolved = resolve(&wait, None, Some(known(nr::futex, Some(7))), |_| None);
        assert_eq!(resolved.restart.map(|restart| restart.remaining), Some(7));
        assert_eq!(resolved.regs.rip, 100, "others let it return");
        wait.rsi = 9 | 0x80;
        assert_eq!(seen(&wait, None).0, 98, "a deadline");
        let again = stopped(219, ERESTART_RESTARTBLOCK);
        assert_eq!(seen(&again, None), (100, EINTR, None));
        let resolved = resolve(&again, None, Some(known(nr::poll, None)), |_| None);
        assert_eq!(
            (resolved.regs.rip, resolved.regs.rax),
            (98, nr::poll as u64)
        );
    }
}
