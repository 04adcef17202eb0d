//! A stopped thread that plays tapes, and its way back.

use crate::arch::{self, BLOCK_SIZE, Block, OP_SIZE};
use crate::error::Error;
use crate::tape::{Op, Outcome, Tape};
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::signal::{SIGCHLD, SigInfo, SigSet};
use gelid_sys::wait::{Status, wait_task};
use gelid_sys::{Errno, Pid, vm};

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
    /// Block, then the tape's room.
    region: u64,
    room: usize,
    playing: Option<(usize, usize)>,
    foreign: Vec<SigInfo>,
}

impl Carrier {
    /// Takes over a stopped thread whose stub and region are in place already.
    pub(crate) fn board(
        task: Stopped,
        identity: Identity,
        stub: u64,
        region: u64,
        room: usize,
    ) -> Result<Self, (Error, Stopped)> {
        let tid = task.pid();
        let fail = |operation| move |errno| of(tid, operation, errno);
        let saved = match task.regs().map_err(fail("reading the registers")) {
            Ok(regs) => match task.sigmask().map_err(fail("reading the signal mask")) {
                Ok(mask) => Saved { regs, mask },
                Err(error) => return Err((error, task)),
            },
            Err(error) => return Err((error, task)),
        };
        let mask = SigSet::ALL.without(identity.signal);
        if let Err(errno) = task.set_sigmask(mask) {
            return Err((of(tid, "setting the signal mask", errno), task));
        }
        let place = Place::Still(task);
        Ok(Self {
            tid,
            place,
            saved,
            identity,
            stub,
            region,
            room,
            playing: None,
            foreign: Vec::new(),
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

    /// What the thread goes back to.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Changes what the thread goes back to, as a restore does.
    pub fn set_saved(&mut self, saved: Saved) {
        self.saved = saved;
    }

    /// Bytes of tape that fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Signals of others that have arrived while a tape was played (at most the closing one and
    /// `SIGSTOP`); they were kept from the task and are the caller's to send again.
    pub fn take_foreign(&mut self) -> Vec<SigInfo> {
        std::mem::take(&mut self.foreign)
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

    pub(crate) fn block(&self) -> Block {
        Block {
            tgid: self.identity.tgid as u64,
            tid: self.identity.tid as u64,
            signal: self.identity.signal as u64,
            mask: self.saved.mask.0,
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
        let image = tape.lay_out(ops);
        let mut bytes = Vec::with_capacity(BLOCK_SIZE + image.bytes.len());
        bytes.extend_from_slice(&self.block().to_bytes());
        bytes.extend_from_slice(&image.bytes);
        let to = self.region..self.region + bytes.len() as u64;
        match vm::write_ranges(self.tid, &bytes, &[to]) {
            Ok(done) if done == bytes.len() => {}
            Ok(_) => return Err(of(self.tid, "writing a tape", Errno::FAULT)),
            Err(errno) => return Err(of(self.tid, "writing a tape", errno)),
        }
        let end = ops + image.ops_len as u64;
        let regs = arch::play_regs(&self.saved.regs, self.stub, self.region, ops, end);
        self.task()?
            .set_regs(&regs)
            .map_err(|errno| of(self.tid, "setting registers", errno))?;
        self.playing = Some((image.ops_len, image.bytes.len()));
        self.resume(|task| task.cont(0))
    }

    /// Waits until the tape has ended and collects what it has left.
    ///
    /// # Errors
    ///
    /// `Gone` if the task was killed; `Task` if nothing was started or its memory cannot be read.
    pub fn finish(&mut self) -> Result<Outcome, Error> {
        let Some((ops_len, len)) = self.playing.take() else {
            return Err(of(self.tid, "waiting for a tape", Errno::INVAL));
        };
        let end = self.stub + arch::end_offset();
        let regs = loop {
            let status = self.wait()?;
            let regs = self
                .task()?
                .regs()
                .map_err(|errno| of(self.tid, "reading registers", errno))?;
            if matches!(status, Status::SignalStop(signal) if signal == self.identity.signal)
                && regs.rip == end
            {
                self.note_if_foreign()?;
                break regs;
            }
            self.note(status)?;
            self.resume(|task| task.cont(0))?;
        };
        let ops = self.region + BLOCK_SIZE as u64;
        let mut bytes = vec![0; len];
        match vm::read_ranges(self.tid, &[ops..ops + len as u64], &mut bytes) {
            Ok(done) if done == len => {}
            Ok(_) => return Err(of(self.tid, "reading a tape", Errno::FAULT)),
            Err(errno) => return Err(of(self.tid, "reading a tape", errno)),
        }
        let played =
            ((arch::ended_at(&regs).saturating_sub(ops)) as usize / OP_SIZE).min(ops_len / OP_SIZE);
        let failed = (played < ops_len / OP_SIZE).then_some(Op(played));
        Ok(Outcome {
            bytes,
            ops_len,
            played,
            failed,
        })
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

    /// Issues one system call at the instruction `at` by two system call stops. `block` is where the
    /// thread's block lies for a stub that has to recover.
    pub(crate) fn lone_call(
        &mut self,
        at: u64,
        block: u64,
        nr: usize,
        args: [u64; 6],
    ) -> Result<u64, Error> {
        let regs = arch::single_regs(&self.saved.regs, at, block, nr, args);
        self.task()?
            .set_regs(&regs)
            .map_err(|errno| of(self.tid, "setting registers", errno))?;
        for _entry_then_exit in 0..2 {
            self.resume(|task| task.cont_to_syscall())?;
            loop {
                match self.wait()? {
                    Status::SyscallStop => break,
                    other => self.note(other)?,
                }
                self.resume(|task| task.cont_to_syscall())?;
            }
        }
        let regs = self
            .task()?
            .regs()
            .map_err(|errno| of(self.tid, "reading registers", errno))?;
        match regs.syscall_result() {
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
        let saved = self.saved;
        let back = self.task().and_then(|task| {
            task.set_regs(&saved.regs)
                .map_err(|errno| of(tid, "putting the registers back", errno))?;
            task.set_sigmask(saved.mask)
                .map_err(|errno| of(tid, "putting the signal mask back", errno))
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
        let status = wait_task(self.tid).map_err(|errno| of(self.tid, "waiting", errno))?;
        if status.is_dead() {
            return Err(Error::Gone { tid: self.tid });
        }
        if let Place::Playing(running) = std::mem::replace(&mut self.place, Place::Moving) {
            self.place = Place::Still(running.stopped());
        }
        Ok(status)
    }

    /// Remembers a signal that somebody else has sent and that stopped the thread on its way.
    fn note(&mut self, status: Status) -> Result<(), Error> {
        if matches!(status, Status::SignalStop(_)) {
            let info = self
                .task()?
                .siginfo()
                .map_err(|errno| of(self.tid, "reading a siginfo", errno))?;
            self.foreign.push(info);
        }
        Ok(())
    }

    /// The closing signal may have been sent by another at the same time; the two are then one.
    fn note_if_foreign(&mut self) -> Result<(), Error> {
        const SI_TKILL: i32 = -6;
        let info = self
            .task()?
            .siginfo()
            .map_err(|errno| of(self.tid, "reading a siginfo", errno))?;
        if info.code() != SI_TKILL {
            self.foreign.push(info);
        }
        Ok(())
    }
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
