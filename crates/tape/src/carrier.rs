//! A stopped thread that plays tapes, and its way back.

mod ending;
mod newborn;

use crate::arch::{self, BLOCK_SIZE, Block, Way};
use crate::diverted::Diverted;
use crate::error::Error;
use crate::tape::{Outcome, Tape};
use crate::{rseq, wait};
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::{Dispatch, Running, Stopped};
use gelid_sys::signal::{SIGCHLD, SIGSTOP, SigInfo, SigSet};
use gelid_sys::wait::Status;
use gelid_sys::{Errno, Pid, vm};
use rustix::process::{Signal, getpid, kill_process};

const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// Picks the signal that ends a tape: one whose default is to be ignored, that is not pending and, if
/// there is one, not caught. The tracer keeps it from the program; were the tracer dead, a program that
/// catches all of them would see one it must expect at any time.
#[must_use]
pub fn closing_signal(caught: SigSet, pending: SigSet) -> i32 {
    let candidates = [SIGURG, SIGWINCH, SIGCHLD];
    let free = |signal: &i32| !pending.contains(*signal);
    let quiet = candidates
        .iter()
        .find(|signal| free(signal) && !caught.contains(**signal));
    *quiet
        .or_else(|| candidates.iter().find(|signal| free(signal)))
        .unwrap_or(&SIGURG)
}

/// How a thread knows itself, in its own pid namespace, and which signal ends its tapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Thread group id.
    pub tgid: i32,
    /// Thread id.
    pub tid: i32,
    /// See [`closing_signal`].
    pub signal: i32,
}

#[derive(Debug)]
enum Place {
    Still(Stopped),
    Playing(Running),
    /// Only between two lines of one function.
    Moving,
}

/// Registers and mask a thread had before it carried anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// General registers.
    pub regs: UserRegs,
    /// Blocked signals.
    pub mask: SigSet,
}

/// A stopped thread that has room for a tape. It must be brought back with [`release`](Self::release);
/// should its tracer die instead, it brings itself back.
#[derive(Debug)]
pub struct Carrier {
    tid: Pid,
    place: Place,
    saved: Saved,
    identity: Identity,
    /// Address of the stub.
    stub: u64,
    /// There are protection keys.
    keys: bool,
    /// Block, then the tape's room.
    region: u64,
    room: usize,
    diverted: Option<Diverted>,
    /// Whether the signals of others are kept away: from the first tape on, when the thread stands where
    /// it brings itself back.
    masked: bool,
    playing: Option<(usize, usize)>,
}

impl Carrier {
    /// Takes over a stopped thread; nothing of it is changed yet.
    pub(crate) fn board(
        task: Stopped,
        identity: Identity,
        way: Way,
        room: usize,
    ) -> Result<Self, (Error, Stopped)> {
        let tid = task.pid();
        let (saved, diverted) = match save(&task, way.stub) {
            Ok(saved) => saved,
            Err(error) => return Err((error, task)),
        };
        Ok(Self {
            tid,
            place: Place::Still(task),
            saved,
            identity,
            stub: way.stub,
            keys: way.keys,
            region: way.block,
            room,
            diverted,
            masked: false,
            playing: None,
        })
    }

    /// Gives the thread another region; it must not be playing.
    pub(crate) fn settle(&mut self, region: u64, room: usize) {
        self.region = region;
        self.room = room;
    }

    /// The thread's id as the tracer sees it.
    #[must_use]
    pub fn tid(&self) -> Pid {
        self.tid
    }

    /// How the thread knows itself.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What the thread goes back to.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Changes what the thread goes back to, as a restore does.
    pub fn set_saved(&mut self, saved: Saved) {
        self.saved = saved;
    }

    /// How the program diverts the thread's system calls, if it does.
    #[must_use]
    pub fn dispatch(&self) -> Option<Dispatch> {
        self.diverted.map(|diverted| diverted.own)
    }

    /// Bytes of tape that fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// The stopped thread, for what ptrace offers.
    ///
    /// # Errors
    ///
    /// `Task` if a tape is being played.
    pub fn task(&self) -> Result<&Stopped, Error> {
        match &self.place {
            Place::Still(task) => Ok(task),
            _ => Err(of(self.tid, "access while a tape plays", Errno::BUSY)),
        }
    }

    fn way(&self, block: u64) -> Way {
        let Self { stub, keys, .. } = *self;
        Way { stub, block, keys }
    }

    pub(crate) fn block(&self) -> Block {
        Block {
            tgid: self.identity.tgid as u64,
            tid: self.identity.tid as u64,
            signal: self.identity.signal as u64,
            mask: self.saved.mask.0,
            owner: getpid().as_raw_nonzero().get() as u64,
            regs: self.saved.regs,
        }
    }

    /// Starts a tape and returns at once; [`finish`](Self::finish) waits for it. Start many, then
    /// finish many.
    ///
    /// # Errors
    ///
    /// `TooLong`; `Gone` or `Task` if the task cannot be written or continued.
    pub fn start(&mut self, tape: &Tape) -> Result<(), Error> {
        if tape.size() > self.room {
            return Err(Error::TooLong {
                tid: self.tid,
                size: tape.size(),
                room: self.room,
            });
        }
        let ops = self.region + BLOCK_SIZE as u64;
        let mut bytes = Vec::with_capacity(BLOCK_SIZE + tape.size());
        bytes.extend_from_slice(&self.block().to_bytes());
        tape.lay_out(ops, &mut bytes);
        let to = self.region..self.region + bytes.len() as u64;
        match vm::write_ranges(self.tid, &bytes, &[to]) {
            Ok(done) if done == bytes.len() => {}
            Ok(_) => return Err(of(self.tid, "writing a tape", Errno::FAULT)),
            Err(errno) => return Err(of(self.tid, "writing a tape", errno)),
        }
        let end = ops + tape.ops_len() as u64;
        let regs = arch::play_regs(&self.saved.regs, self.way(self.region), ops, end);
        self.depart(&regs)?;
        self.playing = Some((tape.ops_len(), tape.size()));
        self.resume(|task| task.cont(0))
    }

    /// Puts the thread on the stub, from which it finds its way back alone, and only then keeps signals
    /// away from it.
    fn depart(&mut self, regs: &UserRegs) -> Result<(), Error> {
        let task = self.task()?;
        let lent = self.diverted.and_then(|diverted| diverted.lent);
        if let (Some(lent), false) = (lent, self.masked) {
            // Nothing of the program lies where the stub does: it may go on with this.
            task.set_dispatch(lent)
                .map_err(|errno| of(self.tid, "letting system calls pass", errno))?;
        }
        task.set_regs(regs)
            .map_err(|errno| of(self.tid, "setting registers", errno))?;
        if !self.masked {
            task.set_sigmask(SigSet::ALL.without(self.identity.signal))
                .map_err(|errno| of(self.tid, "setting the signal mask", errno))?;
            self.masked = true;
        }
        Ok(())
    }

    /// Plays a tape and waits for its end.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start) and [`finish`](Self::finish).
    pub fn play(&mut self, tape: &Tape) -> Result<Outcome, Error> {
        self.start(tape)?;
        self.finish()
    }

    /// Waits for the closing signal; the registers at the stub's end. What others have sent meanwhile is
    /// sent again.
    fn arrive(&mut self) -> Result<UserRegs, Error> {
        let end = self.stub + arch::end_offset();
        let mut foreign = None;
        let mut stop = false;
        let regs = loop {
            let status = self.wait()?;
            let regs = self.regs()?;
            let closing =
                matches!(status, Status::SignalStop(signal) if signal == self.identity.signal);
            if closing && regs.rip == end {
                foreign = foreign.or(self.foreign_info()?);
                break regs;
            }
            match status {
                Status::SignalStop(_) if closing => foreign = Some(self.siginfo()?),
                Status::SignalStop(SIGSTOP) => stop = true,
                // A SIGCONT undoes a SIGSTOP that came before it.
                Status::EventStop(_) => stop = false,
                _ => {}
            }
            self.resume(|task| task.cont(0))?;
        };
        if let Some(info) = foreign {
            self.requeue(&info)?;
        }
        if stop {
            kill_process(self.tid, Signal::STOP)
                .map_err(|errno| of(self.tid, "sending SIGSTOP again", errno))?;
        }
        Ok(regs)
    }

    /// Lets the kernel put the signal that has just stopped the thread back where it came from, which it
    /// does with one that is blocked.
    fn requeue(&mut self, info: &SigInfo) -> Result<(), Error> {
        let (tid, signal) = (self.tid, self.identity.signal);
        let task = self.task()?;
        task.set_siginfo(info)
            .and_then(|()| task.set_sigmask(SigSet::ALL))
            .and_then(|()| task.interrupt())
            .map_err(|errno| of(tid, "sending a signal again", errno))?;
        self.masked = false;
        self.resume(|task| task.cont(signal))?;
        while !matches!(self.wait()?, Status::EventStop(_)) {
            self.resume(|task| task.cont(0))?;
        }
        Ok(())
    }

    /// The siginfo of the closing signal, if another has sent it: before the stub did, which then counts as
    /// the same signal.
    fn foreign_info(&self) -> Result<Option<SigInfo>, Error> {
        const SI_USER: i32 = 0;
        const SI_TKILL: i32 = -6;
        let info = self.siginfo()?;
        let own = match info.code() {
            SI_TKILL => info.pid() == self.identity.tgid,
            // Where the limit of queued signals is reached the kernel forgets who has sent it.
            SI_USER => info.pid() == 0,
            _ => false,
        };
        Ok((!own).then_some(info))
    }

    /// One system call by the stub, without a tape and with one stop. `block` is where the thread's block
    /// lies.
    pub(crate) fn single_call(
        &mut self,
        block: u64,
        nr: usize,
        args: [u64; 6],
    ) -> Result<u64, Error> {
        let at = self.stub + arch::single_offset();
        let regs = arch::single_regs(&self.saved.regs, at, self.way(block), nr, args);
        self.depart(&regs)?;
        self.resume(|task| task.cont(0))?;
        let regs = self.arrive()?;
        self.result(nr, arch::single_result(&regs))
    }

    /// Issues one system call at the instruction `at` by two system call stops, where there is no stub. If
    /// the tracer dies now, the thread is lost.
    pub(crate) fn lone_call(&mut self, at: u64, nr: usize, args: [u64; 6]) -> Result<u64, Error> {
        self.begin_lone_call(at, nr, args)?;
        self.enter_lone_call()?;
        self.end_lone_call(nr)
    }

    /// Lets the thread run into such a call.
    pub(crate) fn begin_lone_call(
        &mut self,
        at: u64,
        nr: usize,
        args: [u64; 6],
    ) -> Result<(), Error> {
        let regs = arch::single_regs(&self.saved.regs, at, self.way(0), nr, args);
        self.depart(&regs)?;
        self.resume(|task| task.cont_to_syscall())
    }

    /// Waits until it has come there, and lets it make the call.
    pub(crate) fn enter_lone_call(&mut self) -> Result<(), Error> {
        self.await_syscall_stop()?;
        self.resume(|task| task.cont_to_syscall())
    }

    /// Waits for the end of the call.
    pub(crate) fn end_lone_call(&mut self, nr: usize) -> Result<u64, Error> {
        self.await_syscall_stop()?;
        let regs = self.regs()?;
        self.result(nr, regs.syscall_result())
    }

    fn await_syscall_stop(&mut self) -> Result<(), Error> {
        while self.wait()? != Status::SyscallStop {
            self.resume(|task| task.cont_to_syscall())?;
        }
        Ok(())
    }

    fn result(&self, nr: usize, raw: i64) -> Result<u64, Error> {
        match raw {
            raw @ -4095..=-1 => Err(Error::Call {
                tid: self.tid,
                nr,
                errno: Errno::from_raw_os_error(-raw as i32),
            }),
            value => Ok(value as u64),
        }
    }

    /// Puts registers and mask back and gives the thread away, stopped.
    ///
    /// # Errors
    ///
    /// The error; the thread too unless it is gone.
    pub fn release(mut self) -> Result<Stopped, (Error, Option<Stopped>)> {
        if self.playing.is_some()
            && let Err(error) = self.finish()
        {
            return Err((error, self.into_task()));
        }
        let tid = self.tid;
        let (saved, diverted) = (self.saved, self.diverted);
        let back = self.task().and_then(|task| {
            // Up to the registers the thread finds its way back alone, and behind them there is nothing to find.
            task.set_sigmask(saved.mask)
                .map_err(|errno| of(tid, "putting the signal mask back", errno))?;
            task.set_regs(&saved.regs)
                .map_err(|errno| of(tid, "putting the registers back", errno))?;
            match diverted.filter(|diverted| diverted.lent.is_some()) {
                Some(Diverted { own, .. }) => task
                    .set_dispatch(own)
                    .map_err(|errno| of(tid, "diverting system calls again", errno)),
                None => Ok(()),
            }
        });
        match (back, self.into_task()) {
            (Ok(()), Some(task)) => Ok(task),
            (Ok(()), None) => Err((Error::Gone { tid }, None)),
            (Err(error), task) => Err((error, task)),
        }
    }

    fn into_task(self) -> Option<Stopped> {
        match self.place {
            Place::Still(task) => Some(task),
            _ => None,
        }
    }

    fn resume(
        &mut self,
        how: impl FnOnce(Stopped) -> rustix::io::Result<Running>,
    ) -> Result<(), Error> {
        match std::mem::replace(&mut self.place, Place::Moving) {
            Place::Still(task) => {
                let running = how(task).map_err(|errno| of(self.tid, "continuing", errno))?;
                self.place = Place::Playing(running);
                Ok(())
            }
            other => {
                self.place = other;
                Err(of(self.tid, "continuing", Errno::BUSY))
            }
        }
    }

    fn wait(&mut self) -> Result<Status, Error> {
        let leads = self.identity.tid == self.identity.tgid;
        let status =
            wait::report(self.tid, leads).map_err(|errno| of(self.tid, "waiting", errno))?;
        if status.is_dead() {
            return Err(Error::Gone { tid: self.tid });
        }
        if let Place::Playing(running) = std::mem::replace(&mut self.place, Place::Moving) {
            self.place = Place::Still(running.stopped());
        }
        Ok(status)
    }

    fn regs(&self) -> Result<UserRegs, Error> {
        let regs = self.task()?.regs();
        regs.map_err(|errno| of(self.tid, "reading the registers", errno))
    }

    fn siginfo(&self) -> Result<SigInfo, Error> {
        let info = self.task()?.siginfo();
        info.map_err(|errno| of(self.tid, "reading a siginfo", errno))
    }
}

fn save(task: &Stopped, stub: u64) -> Result<(Saved, Option<Diverted>), Error> {
    let tid = task.pid();
    let diverted = Diverted::look(task, stub)?;
    let fail = |operation| move |errno| of(tid, operation, errno);
    let mut regs = task.regs().map_err(fail("reading the registers"))?;
    let mask = task.sigmask().map_err(fail("reading the signal mask"))?;
    rseq::abort(task, &mut regs);
    Ok((Saved { regs, mask }, diverted))
}

/// The error for a failed operation on a task; `ESRCH` means that it was killed.
pub(crate) fn of(tid: Pid, operation: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::SRCH => Error::Gone { tid },
        errno => Error::Task {
            operation,
            tid,
            errno,
        },
    }
}
