//! Sockets of the first process of a pid namespace. Nobody can stand in for it, as it lives already: it makes them.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use gelid_sys::prctl::PR_SET_DUMPABLE;
use gelid_sys::stand_in::Who;
use gelid_sys::syscall::nr;
use gelid_sys::unix::Address;
use gelid_sys::{Errno, Pid, pidfd};
use gelid_tape::{Arg, Data, Op, Outcome};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::super::crew::Crew;
use super::super::script::Script;
use crate::Error;
use crate::plan::{Plan, births};

/// The first process of the tree, which shares the descriptors of this one as long as files are opened.
#[derive(Debug)]
pub(crate) struct Hand<'a> {
    plan: &'a Plan,
    crew: RefCell<Crew>,
    /// As this process sees it; none without a pid namespace of the tree.
    root: Option<Pid>,
}

impl<'a> Hand<'a> {
    /// Of a crew, which it has until it is given back.
    pub(crate) fn of(plan: &'a Plan, mut crew: Crew) -> Result<Self, Error> {
        let root = plan.has_numbers().then(|| crew.root()).transpose()?;
        let crew = RefCell::new(crew);
        Ok(Self { plan, crew, root })
    }

    /// Gives the crew back.
    pub(crate) fn into_crew(self) -> Crew {
        self.crew.into_inner()
    }

    /// Whether it is this one.
    pub(crate) fn is(&self, who: Who) -> bool {
        self.root.is_some() && who.pid == self.plan.root()
    }

    /// Makes a pair of Unix sockets of each of these kinds; all are close-on-exec and do not wait.
    pub(crate) fn pairs(
        &self,
        who: Who,
        kinds: &[SocketType],
    ) -> Result<Vec<(OwnedFd, OwnedFd)>, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut pairs = Vec::new();
        for kind in kinds {
            let kind = u64::from(kind.as_raw() | flags.bits());
            let family = u64::from(AddressFamily::UNIX.as_raw());
            let (outcome, (_, fds)) = self.play(who, |script| {
                let fds = script.tape.space(8);
                let args = [family.into(), kind.into(), 0.into(), fds.into()];
                (script.call(nr::socketpair, args), fds)
            })?;
            pairs.push((self.take(&outcome, fds, 0)?, self.take(&outcome, fds, 4)?));
        }
        Ok(pairs)
    }

    /// Lets a bound socket listen, for those who connect from now on.
    pub(crate) fn listen(
        &self,
        who: Who,
        socket: BorrowedFd<'_>,
        backlog: i32,
    ) -> Result<(), Errno> {
        let args = [socket.as_raw_fd().into(), backlog.into()];
        let played = self.play(who, |script| (script.call(nr::listen, args), ()));
        played.map(drop)
    }

    /// Connects a socket. A name of a file must be one that means the same to the first process.
    pub(crate) fn connect(
        &self,
        who: Who,
        socket: BorrowedFd<'_>,
        address: &Address,
    ) -> Result<(), Errno> {
        let played = self.play(who, |script| {
            let bytes = script.bytes(address.as_bytes());
            let len = address.as_bytes().len() as u64;
            let args = [socket.as_raw_fd().into(), bytes.into(), len.into()];
            (script.call(nr::connect, args), ())
        });
        played.map(drop)
    }

    /// Has it make a call with these users. What it reaches it reaches with the rights of the first user all the same.
    fn play<T>(
        &self,
        who: Who,
        call: impl FnOnce(&mut Script) -> (Op, T),
    ) -> Result<(Outcome, (Op, T)), Errno> {
        let users = self.plan.namespaces.user.as_ref();
        let uid = users.map_or(Some(who.uid), |users| users.inside_uid(who.uid));
        let gid = users.map_or(Some(who.gid), |users| users.inside_gid(who.gid));
        let (uid, gid) = (uid.ok_or(Errno::INVAL)?, gid.ok_or(Errno::INVAL)?);
        let effective = |id: u32| [KEEP, Arg::Value(id.into()), KEEP];
        let is_another = (uid, gid) != (0, 0);
        let mut script = Script::default();
        let mut changes = Vec::new();
        if is_another {
            changes.push(script.call(nr::setresgid, effective(gid)));
            changes.push(script.call(nr::setresuid, effective(uid)));
            changes.push(script.call(nr::setfsuid, [0.into()]));
        }
        let (op, rest) = call(&mut script);
        if is_another {
            script.call(nr::setresuid, effective(0));
            script.call(nr::setresgid, effective(0));
            script.call(nr::prctl, [PR_SET_DUMPABLE.into(), 1.into()]);
        }
        let outcomes = self
            .crew
            .borrow_mut()
            .play(&[(births::Who::Task(0), script)]);
        let outcome = outcomes
            .ok()
            .and_then(|outcomes| outcomes.into_iter().next());
        let outcome = outcome.ok_or(Errno::SRCH)?;
        changes
            .into_iter()
            .try_for_each(|op| outcome.ok(op).map(drop))?;
        outcome.ok(op)?;
        Ok((outcome, (op, rest)))
    }

    /// Takes over a descriptor whose number is at `offset` of what the call has written.
    fn take(&self, outcome: &Outcome, fds: Data, offset: usize) -> Result<OwnedFd, Errno> {
        let number = outcome
            .data(fds)
            .get(offset..)
            .and_then(<[u8]>::first_chunk);
        let number = number
            .map(|number| i32::from_ne_bytes(*number))
            .ok_or(Errno::BADF)?;
        let root = self.root.ok_or(Errno::SRCH).and_then(pidfd::open);
        let taken = root.and_then(|root| pidfd::getfd(root, number));
        let mut script = Script::default();
        script.call(nr::close, [number.into()]);
        // What is left open is so until the restore is over.
        let _ = self
            .crew
            .borrow_mut()
            .play(&[(births::Who::Task(0), script)]);
        taken
    }
}

/// An id that stays as it is.
const KEEP: Arg = Arg::Value(u64::MAX);
