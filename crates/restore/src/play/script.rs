//! Tapes with labels, so that a failed call can be told by what it was for.

use std::fmt;

use gelid_sys::Errno;
use gelid_tape::{Arg, Data, Op, Outcome, Tape};

/// What a system call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// The mapping at an address.
    Area(u64),
    /// A descriptor.
    Descriptor(i32),
    /// The lock taken by a descriptor.
    Lock(i32),
    /// A file of the image, by its id.
    File(u32),
    /// Another task or thread.
    Task(i32),
    /// The terminal of a session or of a group in its foreground, by the number of that.
    Terminal(i32),
    /// A set of semaphores.
    Semaphores(i32),
    /// Nothing but the task itself.
    Itself,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(start) => write!(f, "the mapping at {start:#x}"),
            Self::Descriptor(fd) => write!(f, "descriptor {fd}"),
            Self::Lock(fd) => {
                write!(
                    f,
                    "the lock of descriptor {fd}, which may be another's now,"
                )
            }
            Self::File(id) => write!(f, "file {id} of the image"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Terminal(id) => write!(f, "the terminal of {id}"),
            Self::Semaphores(id) => {
                write!(
                    f,
                    "the set {id} of semaphores, which others may have changed,"
                )
            }
            Self::Itself => write!(f, "the task itself"),
        }
    }
}

/// A tape and what its calls are about.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) tape: Tape,
    objects: Vec<(usize, Object)>,
}

impl Script {
    /// A tape whose calls are about the task itself.
    pub(crate) fn of(tape: Tape) -> Self {
        Self {
            tape,
            ..Self::default()
        }
    }

    /// Appends a call that must succeed.
    pub(crate) fn must<const N: usize>(&mut self, object: Object, nr: usize, args: [Arg; N]) -> Op {
        self.objects.push((self.tape.len(), object));
        self.tape.must(nr, args)
    }

    /// Appends a call that may fail.
    pub(crate) fn call<const N: usize>(&mut self, nr: usize, args: [Arg; N]) -> Op {
        self.tape.call(nr, args)
    }

    /// Data for the calls.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Data {
        self.tape.bytes(bytes)
    }

    /// The call that failed: its number, what it was about, and why.
    pub(crate) fn failure(&self, outcome: &Outcome) -> Option<(usize, Object, Errno)> {
        let (op, errno) = outcome.failure()?;
        let at = outcome.played();
        let found = self.objects.binary_search_by_key(&at, |(index, _)| *index);
        let object = found.map_or(Object::Itself, |index| self.objects[index].1);
        Some((self.tape.nr(op), object, errno))
    }
}

/// Scripts played one after the other, each small enough for the room a task has.
#[derive(Debug)]
pub(crate) struct Reel {
    done: Vec<Script>,
    last: Script,
    room: usize,
}

impl Reel {
    /// An empty reel for a room of so many bytes.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            done: Vec::new(),
            last: Script::default(),
            room,
        }
    }

    /// The script to go on with: a new one if less than `bytes` fit into the last.
    pub(crate) fn script(&mut self, bytes: usize) -> &mut Script {
        if self.last.tape.size() + bytes > self.room {
            self.done.push(std::mem::take(&mut self.last));
        }
        &mut self.last
    }

    /// Appends a call that must succeed and needs no data.
    pub(crate) fn must<const N: usize>(&mut self, object: Object, nr: usize, args: [Arg; N]) {
        const OP: usize = 128;
        self.script(OP).must(object, nr, args);
    }

    /// The scripts, in order.
    pub(crate) fn into_scripts(mut self) -> Vec<Script> {
        if !self.last.tape.is_empty() {
            self.done.push(self.last);
        }
        self.done
    }
}
