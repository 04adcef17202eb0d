//! The descriptors of a process: what they stand for, and the calls that make as many of each kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gelid_sys::proc::{TaskDir, fd, fdinfo};
use gelid_sys::syscall::nr;
use gelid_sys::{kcmp, pidfd};
use rustix::fs::OFlags;

use crate::Failure;
use crate::shape::Call;

/// Of what waits in a pipe or a socket, no more is put in.
const MOST_QUEUED: u64 = 4096;
const F_DUPFD: u64 = 0;
/// `AT_FDCWD`
const NOWHERE: u64 = -100_i64 as u64;

/// All descriptors, by number.
pub(crate) type Table = BTreeMap<i32, Descriptor>;

/// A descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    link: Vec<u8>,
    flags: u32,
    position: u64,
    /// Bytes that wait to be read.
    queued: u64,
    /// A lower one of the same open file.
    twin: Option<i32>,
}

/// Reads those of a process.
pub(crate) fn read(task: &TaskDir) -> Result<Table, Failure> {
    let pidfd = pidfd::open(task.pid())?;
    let mut last: HashMap<Vec<u8>, i32> = HashMap::new();
    let mut table = Table::new();
    for number in fd::list(task)? {
        let link = fd::link(task, number)?.into_bytes();
        let info = fdinfo::read(task, number)?;
        let queued = match has_queue(&link) {
            true => rustix::io::ioctl_fionread(pidfd::getfd(&pidfd, number)?).unwrap_or(0),
            false => 0,
        };
        let twin = last.insert(link.clone(), number).filter(|twin| {
            let pid = task.pid();
            kcmp::file((pid, *twin), (pid, number)).is_ok_and(std::cmp::Ordering::is_eq)
        });
        let descriptor = Descriptor {
            link,
            flags: info.flags,
            position: info.pos.max(0) as u64,
            queued: queued.min(MOST_QUEUED),
            twin,
        };
        table.insert(number, descriptor);
    }
    Ok(table)
}

fn has_queue(link: &[u8]) -> bool {
    is_pipe(link) || is_socket(link)
}

fn is_pipe(link: &[u8]) -> bool {
    link.starts_with(b"pipe:")
}

fn is_socket(link: &[u8]) -> bool {
    link.starts_with(b"socket:")
}

/// Appends the calls that make a table out of an empty one, or out of the parent's.
pub(crate) fn write(table: &Table, parent: Option<&Table>, calls: &mut Vec<Call>) {
    let kept = |(number, own): (&i32, &Descriptor)| {
        let found = parent.and_then(|parent| parent.get(number));
        found.is_some_and(|found| found.link == own.link && found.flags == own.flags)
    };
    let kept = table.iter().filter(|one| kept(*one));
    let mut maker = Maker {
        table,
        numbers: Numbers::default(),
        done: kept.map(|(number, _)| *number).collect(),
        calls,
    };
    let above = parent.iter().flat_map(|parent| parent.keys());
    for number in above.filter(|number| !maker.done.contains(number)) {
        maker.calls.push(Call::new(nr::close, [of(*number)]));
    }
    maker.numbers.used.clone_from(&maker.done);
    for (number, descriptor) in table {
        if maker.done.insert(*number) {
            maker.make(*number, descriptor);
        }
    }
}

/// Numbers in use. The kernel gives out the lowest that is not.
#[derive(Default)]
struct Numbers {
    used: BTreeSet<i32>,
    /// None below is free.
    low: i32,
}

impl Numbers {
    fn take(&mut self) -> i32 {
        while !self.used.insert(self.low) {
            self.low += 1;
        }
        self.low
    }

    fn free(&mut self, number: i32) {
        self.used.remove(&number);
        self.low = self.low.min(number);
    }
}

struct Maker<'a> {
    table: &'a Table,
    numbers: Numbers,
    done: BTreeSet<i32>,
    calls: &'a mut Vec<Call>,
}

impl Maker<'_> {
    fn make(&mut self, number: i32, descriptor: &Descriptor) {
        let Descriptor { link, flags, .. } = descriptor;
        let flags = u64::from(*flags);
        if let Some(twin) = descriptor.twin {
            let got = self.numbers.take();
            self.calls
                .push(Call::new(nr::fcntl, [of(twin), F_DUPFD, 0]));
            self.to(got, number);
        } else if has_queue(link) {
            self.pair(number, descriptor);
        } else if link.starts_with(b"/") && !link.ends_with(b" (deleted)") {
            let got = self.numbers.take();
            self.calls.push(open(link, flags));
            if descriptor.position > 0 {
                let args = [of(got), descriptor.position, 0];
                self.calls.push(Call::new(nr::lseek, args));
            }
            self.to(got, number);
        } else {
            let got = self.numbers.take();
            self.calls.push(Call::new(nr::eventfd2, [1, 0]));
            self.to(got, number);
        }
    }

    /// Makes a pipe or a pair of sockets, of which somebody else may have the other end.
    fn pair(&mut self, number: i32, descriptor: &Descriptor) {
        const WRITES: u32 = OFlags::WRONLY.bits();
        const AF_UNIX: u64 = 1;
        const SOCK_STREAM: u64 = 1;
        let pipe = is_pipe(&descriptor.link);
        let writes = |one: &Descriptor| one.flags & WRITES != 0;
        let fits = |other: &Descriptor| match pipe {
            true => other.link == descriptor.link && writes(other) != writes(descriptor),
            false => is_socket(&other.link),
        };
        let mut others = self.table.range(number + 1..);
        let other = others
            .find(|(other, one)| one.twin.is_none() && fits(one) && !self.done.contains(other));
        let (first, second) = (self.numbers.take(), self.numbers.take());
        let ends = [0; 8];
        self.calls.push(match pipe {
            true => Call::new(nr::pipe2, [0, 0]).with(0, &ends),
            false => Call::new(nr::socketpair, [AF_UNIX, SOCK_STREAM, 0, 0]).with(3, &ends),
        });
        let mut wanted = [Some(number), other.map(|(other, _)| *other)];
        if pipe && writes(descriptor) {
            wanted.reverse();
        }
        let ends = self.ends([first, second], wanted);
        if let Some((other, one)) = other {
            self.done.insert(*other);
            for (reader, waits) in [(number, descriptor.queued), (*other, one.queued)] {
                // A pipe tells so at both ends.
                if waits > 0 && !(pipe && Some(reader) == ends[1]) {
                    let writer = if reader == number { *other } else { number };
                    let call = Call::new(nr::write, [of(writer), 0, waits]);
                    self.calls.push(call.with(1, &vec![7; waits as usize]));
                }
            }
        }
    }

    /// Moves the ends of a pair to where they are wanted.
    fn ends(
        &mut self,
        [first, mut second]: [i32; 2],
        wanted: [Option<i32>; 2],
    ) -> [Option<i32>; 2] {
        if wanted[0] == Some(second) {
            let aside = self.numbers.take();
            self.calls
                .push(Call::new(nr::fcntl, [of(second), F_DUPFD, 0]));
            second = aside;
        }
        for (got, wanted) in [first, second].into_iter().zip(wanted) {
            match wanted {
                Some(wanted) => self.to(got, wanted),
                None => {
                    self.calls.push(Call::new(nr::close, [of(got)]));
                    self.numbers.free(got);
                }
            }
        }
        wanted
    }

    /// Moves a new descriptor to where it is wanted.
    fn to(&mut self, got: i32, wanted: i32) {
        if got != wanted {
            let close = Call::new(nr::close, [of(got)]);
            let dup = Call::new(nr::dup3, [of(got), of(wanted), 0]);
            self.calls.extend([dup, close]);
            self.numbers.used.insert(wanted);
            self.numbers.free(got);
        }
    }
}

/// Opens a file, also one that would wait for others.
pub(crate) fn open(path: &[u8], flags: u64) -> Call {
    let not = OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC;
    let more = OFlags::NOCTTY | OFlags::NONBLOCK;
    let flags = flags & !u64::from(not.bits()) | u64::from(more.bits());
    let path = [path, b"\0"].concat();
    Call::new(nr::openat, [NOWHERE, 0, flags, 0]).with(1, &path)
}

fn of(number: i32) -> u64 {
    number.cast_unsigned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(link: &str, flags: u32) -> Descriptor {
        Descriptor {
            link: link.into(),
            flags,
            position: 0,
            queued: 0,
            twin: None,
        }
    }

    fn numbers(calls: &[Call]) -> Vec<usize> {
        calls.iter().map(|call| call.nr as usize).collect()
    }

    fn made(table: &Table, parent: Option<&Table>) -> Vec<usize> {
        let mut calls = Vec::new();
        write(table, parent, &mut calls);
        numbers(&calls)
    }

    #[test]
    fn what_comes_in_order_needs_no_other_call() {
        let mut table = Table::new();
        table.insert(0, named("/dev/null", 0));
        table.insert(1, named("pipe:[7]", 0));
        table.insert(2, named("pipe:[7]", 1));
        table.insert(3, named("socket:[8]", 2));
        table.insert(4, named("socket:[9]", 2));
        table.insert(5, named("anon_inode:[eventfd]", 2));
        let twin = Some(5);
        let counter = named("anon_inode:[eventfd]", 2);
        table.insert(6, Descriptor { twin, ..counter });
        let all = [
            nr::openat,
            nr::pipe2,
            nr::socketpair,
            nr::eventfd2,
            nr::fcntl,
        ];
        assert_eq!(made(&table, None), all);
    }

    #[test]
    fn ends_the_other_way_round_are_moved() {
        let mut table = Table::new();
        table.insert(0, named("pipe:[7]", 1));
        table.insert(1, named("pipe:[7]", 0));
        let moves = [
            nr::pipe2,
            nr::fcntl,
            nr::dup3,
            nr::close,
            nr::dup3,
            nr::close,
        ];
        assert_eq!(made(&table, None), moves);
    }

    #[test]
    fn children_keep_what_they_share_and_close_the_rest() {
        let mut parent = Table::new();
        parent.insert(0, named("/dev/null", 0));
        parent.insert(1, named("pipe:[7]", 1));
        let mut table = parent.clone();
        table.remove(&1);
        table.insert(2, named("/dev/zero", 0));
        let calls = [nr::close, nr::openat, nr::dup3, nr::close];
        assert_eq!(made(&table, Some(&parent)), calls);
        assert!(made(&parent, Some(&parent)).is_empty());
    }
}
