//! An address space that holds the stub and the room for tapes.

use crate::arch::{self, BLOCK_SIZE, Way};
use crate::carrier::{Carrier, Identity, of};
use crate::cave::Cave;
use crate::error::Error;
use crate::tape::Tape;
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::Stopped;
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_sys::{Errno, PAGE_SIZE, Pid, pkey};
use std::ops::Range;

const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

/// What a host is made from, as seen from outside before anything is touched.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// Private executable mappings whose last page may have unused bytes, the vDSO first.
    pub code: Vec<Range<u64>>,
    /// Memory of the task that nobody will miss, used if no mapping can be made: a part of the stack's
    /// mapping far below the stack pointer.
    pub spare: Option<Range<u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Room {
    Mapped,
    /// With the contents to put back.
    Borrowed(Vec<u8>),
}

/// Where the stub and the tapes of one address space lie.
///
/// In a task that was seized the stub sits in the unused bytes behind the vDSO, which the task cannot
/// lose: even its last act, giving the room for tapes back, can be recovered from if the tracer dies.
/// In a task being restored it lies in a zone of its own, which is unmapped at the end.
#[derive(Debug)]
pub struct Host {
    stub: u64,
    /// There are protection keys.
    keys: bool,
    single: u64,
    /// Block used by lone calls: beside the stub, so that it outlives the room.
    block: u64,
    data: Range<u64>,
    next: u64,
    room: Room,
    cave: Option<Cave>,
}

/// A failed step of setting up, with the task as it was, unless it is gone.
pub type Failed = (Error, Option<Stopped>);

impl Host {
    /// Puts a stub into the seized process of `task`, with room for tapes of `room` bytes in all, and
    /// makes `task` its first carrier, with `first` bytes of that room.
    ///
    /// # Errors
    ///
    /// `NoCave`, `NoRoom`, or what the task refused; it is as it was then.
    pub fn seized(
        task: Stopped,
        identity: Identity,
        ground: &Ground,
        room: usize,
        first: usize,
    ) -> Result<(Self, Carrier), Failed> {
        let tid = task.pid();
        let (mem, cave) = match Cave::dig(tid, &ground.code) {
            Ok(found) => found,
            Err(error) => return Err((error, Some(task))),
        };
        let (stub, block) = (cave.stub(), cave.block());
        let keys = pkey::are_there();
        let way = Way { stub, block, keys };
        let mut carrier =
            Carrier::board(task, identity, way, 0).map_err(|(error, task)| (error, Some(task)))?;
        let mut host = Self {
            stub,
            keys,
            single: stub + arch::single_offset(),
            block,
            data: 0..0,
            next: 0,
            room: Room::Mapped,
            cave: Some(cave),
        };
        let room = room.max(Self::region_size(first));
        match host.move_in(&mem, &mut carrier, ground, room, first) {
            Ok(()) => {
                let region = host.take(first);
                carrier.settle(region, first);
                Ok((host, carrier))
            }
            Err(error) => {
                let task = match carrier.release() {
                    Ok(task) => Some(task),
                    Err((_, task)) => task,
                };
                // That the stub is gone is all there is to undo.
                let _ = host.clear(&mem, tid);
                Err((error, task))
            }
        }
    }

    fn move_in(
        &mut self,
        mem: &Mem,
        carrier: &mut Carrier,
        ground: &Ground,
        room: usize,
        first: usize,
    ) -> Result<(), Error> {
        let tid = carrier.tid();
        if let Some(cave) = &self.cave {
            cave.furnish(mem, &carrier.block())
                .map_err(|errno| of(tid, "writing the stub", errno))?;
        }
        let room = room.next_multiple_of(PAGE_SIZE);
        let args = [
            0,
            room as u64,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            u64::MAX,
            0,
        ];
        match carrier.single_call(self.block, nr::mmap, args) {
            Ok(at) => self.data = at..at + room as u64,
            Err(Error::Call { errno, .. }) => self.borrow(mem, tid, ground, first, errno)?,
            Err(error) => return Err(error),
        }
        self.next = self.data.start;
        Ok(())
    }

    /// Takes the spare range for a room, if it has place for one tape at least.
    fn borrow(
        &mut self,
        mem: &Mem,
        tid: Pid,
        ground: &Ground,
        first: usize,
        errno: Errno,
    ) -> Result<(), Error> {
        let need = Self::region_size(first);
        let spare = ground.spare.clone().unwrap_or(0..0);
        let start = spare.start.next_multiple_of(16);
        if spare.end.saturating_sub(start) < need as u64 {
            return Err(Error::NoRoom { tid, need, errno });
        }
        let mut contents = vec![0; (spare.end - start) as usize];
        mem.read(start, &mut contents)
            .map_err(|errno| of(tid, "reading the spare memory", errno))?;
        self.data = start..spare.end;
        self.room = Room::Borrowed(contents);
        Ok(())
    }

    /// Maps a zone at `zone` in a task being restored, where nothing may be mapped yet, and puts stub
    /// and room there. `syscall_at` is the address of a system call instruction outside the zone.
    ///
    /// # Errors
    ///
    /// What the task refused.
    pub fn fresh(
        task: Stopped,
        identity: Identity,
        zone: Range<u64>,
        syscall_at: u64,
        first: usize,
    ) -> Result<(Self, Carrier), Failed> {
        let tid = task.pid();
        let stub = zone.start;
        let data = zone.start + PAGE_SIZE as u64..zone.end;
        let keys = pkey::are_there();
        let way = Way {
            stub,
            block: data.start,
            keys,
        };
        let carrier =
            Carrier::board(task, identity, way, 0).map_err(|(error, task)| (error, Some(task)))?;
        let block = stub + arch::code().len().next_multiple_of(16) as u64;
        let next = data.start;
        let mut host = Self {
            stub,
            keys,
            single: syscall_at,
            block,
            data,
            next,
            room: Room::Mapped,
            cave: None,
        };
        let mut carrier = carrier;
        match host.map_zone(&mut carrier, &zone) {
            Ok(()) => {
                let region = host.take(first);
                carrier.settle(region, first);
                Ok((host, carrier))
            }
            Err(error) => match carrier.release() {
                Ok(task) => Err((error, Some(task))),
                Err((_, task)) => Err((error, task)),
            },
        }
        .inspect(|_| tracing::trace!(?tid, "zone mapped"))
    }

    fn map_zone(&mut self, carrier: &mut Carrier, zone: &Range<u64>) -> Result<(), Error> {
        let tid = carrier.tid();
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        let whole = [
            zone.start,
            zone.end - zone.start,
            PROT_READ | PROT_WRITE,
            flags,
            u64::MAX,
            0,
        ];
        carrier.lone_call(self.single, nr::mmap, whole)?;
        let page = PAGE_SIZE as u64;
        let code = [
            zone.start,
            page,
            PROT_READ | PROT_EXEC,
            flags & !MAP_FIXED_NOREPLACE | MAP_FIXED,
            u64::MAX,
            0,
        ];
        carrier.lone_call(self.single, nr::mmap, code)?;
        let mem = Mem::open(tid).map_err(|errno| of(tid, "opening the memory", errno))?;
        mem.write(self.stub, arch::code())
            .map_err(|errno| of(tid, "writing the stub", errno))
    }

    /// The same places in a copy of the address space, as a forked child has it; nothing in it is taken.
    #[must_use]
    pub fn forked(&self) -> Self {
        Self {
            data: self.data.clone(),
            next: self.data.start,
            room: self.room.clone(),
            cave: self.cave.clone(),
            ..*self
        }
    }

    /// Makes another thread of this address space a carrier with `room` bytes for tapes.
    ///
    /// # Errors
    ///
    /// `TooLong` if the host has no such room left, or what the task refused.
    pub fn board(
        &mut self,
        task: Stopped,
        identity: Identity,
        room: usize,
    ) -> Result<Carrier, Failed> {
        match self.way(&task, room) {
            Ok(way) => Carrier::board(task, identity, way, room)
                .map_err(|(error, task)| (error, Some(task))),
            Err(error) => Err((error, Some(task))),
        }
    }

    /// The same for a thread that was born on a tape and has played nothing but tapes: nothing is asked of it. `regs` are
    /// those of any thread born so in this address space, or of the creator of one that is born in a copy. It goes back
    /// to them with all signals blocked, unless something else is [set](Carrier::set_saved).
    ///
    /// # Errors
    ///
    /// `TooLong` if the host has no such room left.
    pub fn board_newborn(
        &mut self,
        task: Stopped,
        identity: Identity,
        regs: UserRegs,
        room: usize,
    ) -> Result<Carrier, Failed> {
        match self.way(&task, room) {
            Ok(way) => Ok(Carrier::newborn(task, identity, regs, way, room)),
            Err(error) => Err((error, Some(task))),
        }
    }

    /// Gives a thread its room.
    fn way(&mut self, task: &Stopped, room: usize) -> Result<Way, Error> {
        if self.left() < room {
            return Err(Error::TooLong {
                tid: task.pid(),
                size: room,
                room: self.left(),
            });
        }
        Ok(Way {
            stub: self.stub,
            block: self.take(room),
            keys: self.keys,
        })
    }

    /// Memory of the program's own in which bytes of ours lie until the host [leaves](Self::leave). Who reads it
    /// meanwhile does not see what the program will.
    #[must_use]
    pub fn lent(&self) -> Vec<Range<u64>> {
        let cave = self.cave.as_ref().map(Cave::range);
        let room = match self.room {
            Room::Mapped => None,
            Room::Borrowed(_) => Some(self.data.clone()),
        };
        cave.into_iter().chain(room).collect()
    }

    /// How much has been given out so far, for [`reset`](Self::reset).
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.next
    }

    /// Takes back what has been given out since `mark`: for batches of threads, one after another in the
    /// same room. Carriers from then on must have been released.
    pub fn reset(&mut self, mark: u64) {
        self.next = mark;
    }

    /// Bytes of tape that another carrier can have.
    #[must_use]
    pub fn left(&self) -> usize {
        ((self.data.end - self.next) as usize).saturating_sub(BLOCK_SIZE + 16)
    }

    /// The range that tapes lie in.
    #[must_use]
    pub fn data(&self) -> &Range<u64> {
        &self.data
    }

    /// The room for tapes, if it was mapped for them.
    #[must_use]
    pub fn mapped(&self) -> Option<&Range<u64>> {
        (self.room == Room::Mapped).then_some(&self.data)
    }

    /// Where lone system calls are issued.
    #[must_use]
    pub fn syscall_at(&self) -> u64 {
        self.single
    }

    /// Tells that the instruction for lone calls has moved, with the vDSO that holds it.
    pub fn set_syscall_at(&mut self, at: u64) {
        self.single = at;
    }

    /// Bytes a region for tapes of `size` bytes takes in the room.
    #[must_use]
    pub fn region_size(size: usize) -> usize {
        (BLOCK_SIZE + size).next_multiple_of(16)
    }

    fn take(&mut self, room: usize) -> u64 {
        let region = self.next;
        self.next += Self::region_size(room) as u64;
        region
    }

    /// One system call by the carrier, without a tape. In a seized process it must be the carrier that the
    /// host was made with.
    ///
    /// # Errors
    ///
    /// `Call` with the errno, or what the task refused.
    pub fn call(&self, carrier: &mut Carrier, nr: usize, args: [u64; 6]) -> Result<u64, Error> {
        match self.cave {
            Some(_) => carrier.single_call(self.block, nr, args),
            None => carrier.lone_call(self.single, nr, args),
        }
    }

    /// Takes room and stub out of a seized process again, by its last carrier, whichever it is. Returns the
    /// task as it was.
    ///
    /// # Errors
    ///
    /// The error and the task; what could be undone is.
    pub fn leave(self, mut carrier: Carrier) -> Result<Stopped, Failed> {
        let tid = carrier.tid();
        let mem = Mem::open(tid).map_err(|errno| of(tid, "opening the memory", errno));
        let emptied = mem.as_ref().map_err(Clone::clone).and_then(|mem| {
            // The way back must not lie in the room that is given back.
            mem.write(self.block, &carrier.block().to_bytes())
                .map_err(|errno| of(tid, "writing the way back", errno))?;
            self.give_back(mem, &mut carrier)
        });
        let task = carrier.release()?;
        let cleared = mem.and_then(|mem| self.clear(&mem, tid));
        match emptied.and(cleared) {
            Ok(()) => Ok(task),
            Err(error) => Err((error, Some(task))),
        }
    }

    fn give_back(&self, mem: &Mem, carrier: &mut Carrier) -> Result<(), Error> {
        let args = [self.data.start, self.data.end - self.data.start, 0, 0, 0, 0];
        match &self.room {
            Room::Mapped => carrier.single_call(self.block, nr::munmap, args).map(drop),
            Room::Borrowed(contents) => {
                // Any call: it brings the thread to the block that stays.
                carrier.single_call(self.block, nr::getpid, [0; 6])?;
                mem.write(self.data.start, contents)
                    .map_err(|errno| of(carrier.tid(), "clearing the spare memory", errno))
            }
        }
    }

    fn clear(&self, mem: &Mem, tid: Pid) -> Result<(), Error> {
        match &self.cave {
            Some(cave) => cave
                .clear(mem)
                .map_err(|errno| of(tid, "clearing the stub", errno)),
            None => Ok(()),
        }
    }
}

/// A system call that [`call_all`] has a carrier make: number and arguments.
pub type LoneCall = (usize, [u64; 6]);

/// One system call by each of some carriers of tasks being restored, without tapes, all at the same time.
///
/// # Errors
///
/// The first error, and whose: `Call` with the errno, or what a task refused. None of the carriers is good for anything
/// then.
pub fn call_all<'a>(
    work: impl IntoIterator<Item = (&'a Host, &'a mut Carrier, LoneCall)>,
) -> Result<(), (Pid, Error)> {
    let mut begun = Vec::new();
    for (host, carrier, (nr, args)) in work {
        let tid = carrier.tid();
        let beginning = carrier.begin_lone_call(host.single, nr, args);
        beginning.map_err(|error| (tid, error))?;
        begun.push((tid, carrier, nr));
    }
    for (tid, carrier, _) in &mut begun {
        carrier.enter_lone_call().map_err(|error| (*tid, error))?;
    }
    for (tid, carrier, nr) in begun {
        carrier.end_lone_call(nr).map_err(|error| (tid, error))?;
    }
    Ok(())
}

/// Plays one tape per carrier, all at the same time. Results come in the order of the carriers.
///
/// # Errors
///
/// The first error; the other tapes are waited for all the same.
pub fn play_all<'a>(
    work: impl IntoIterator<Item = (&'a mut Carrier, &'a Tape)>,
) -> Result<Vec<crate::tape::Outcome>, Error> {
    let mut started = Vec::new();
    let mut first_error = None;
    for (carrier, tape) in work {
        match carrier.start(tape) {
            Ok(()) => started.push(carrier),
            Err(error) => {
                first_error = Some(error);
                break;
            }
        }
    }
    let mut outcomes = Vec::with_capacity(started.len());
    for carrier in started {
        match carrier.finish() {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(outcomes), Err)
}
