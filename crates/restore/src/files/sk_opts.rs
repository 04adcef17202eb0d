//! Options of the socket layer. Section 14.1 of the format.

use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use gelid_image::messages::SkOptsEntry;
use gelid_sys::sockopt::{self, Instruction, IntOption};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout, socket_timeout};

use super::Error;

/// Instructions that a filter may have.
const LONGEST_FILTER: usize = 4096;

/// Options as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// Sizes of the buffers for sending and receiving, as the kernel shows them: twice what was set.
    buffers: (i32, i32),
    /// Which of them the program has set; bits.
    buffer_lock: Option<i32>,
    /// How long sending and receiving wait.
    timeouts: (Option<Duration>, Option<Duration>),
    /// What is an `int` to the kernel.
    numbers: Vec<(IntOption, i32)>,
    linger: Option<Duration>,
    filter: Vec<Instruction>,
    /// Network interface it is bound to.
    device: Option<String>,
}

/// The options of new sockets of one kind, as far as they are numbers.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    /// Sizes for sending and receiving.
    pub(super) buffers: (i32, i32),
    numbers: Vec<(IntOption, i32)>,
}

impl Fresh {
    /// Asks one that has just been made.
    pub(super) fn look(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut told = Vec::with_capacity(NUMBERS.len());
        for option in NUMBERS {
            match sockopt::int(socket, option) {
                Ok(value) => told.push((option, value)),
                // What a kind of sockets does not have is off.
                Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) => told.push((option, 0)),
                Err(errno) => return Err(errno),
            }
        }
        let size = |option| sockopt::int(socket, option);
        Ok(Self {
            buffers: (size(IntOption::SNDBUF)?, size(IntOption::RCVBUF)?),
            numbers: told,
        })
    }
}

/// Checks a record.
pub(super) fn plan(
    object: impl Display + Copy,
    entry: &SkOptsEntry,
) -> Result<SocketOptions, Error> {
    /// Bytes of the name of an interface.
    const LONGEST_NAME: usize = 15;
    let device = entry.so_bound_dev.clone().filter(|name| !name.is_empty());
    if let Some(name) = device.as_ref().filter(|name| name.len() > LONGEST_NAME) {
        let rule = "the name of an interface has up to 15 bytes";
        return Err(Error::invalid(object, "so_bound_dev", name, rule));
    }
    if entry.so_filter.len() > LONGEST_FILTER {
        let (found, rule) = (
            entry.so_filter.len(),
            "a filter has up to 4096 instructions",
        );
        return Err(Error::invalid(object, "so_filter", found, rule));
    }
    let size = |field, size: u32| {
        let rule = "no buffer has such a size";
        i32::try_from(size).map_err(|_| Error::invalid(object, field, size, rule))
    };
    let timeout = |field, seconds: u64, micros: u64| {
        let micros = u32::try_from(micros).ok().filter(|it| *it < 1_000_000);
        match (i64::try_from(seconds), micros) {
            (Ok(0), Some(0)) => Ok(None),
            (Ok(_), Some(micros)) => Ok(Some(Duration::new(seconds, micros * 1000))),
            _ => {
                let rule = "no timeout is that long, and a second has a million microseconds";
                Err(Error::invalid(object, field, seconds, rule))
            }
        }
    };
    let (sent, received) = (
        timeout(
            "so_snd_tmo_sec",
            entry.so_snd_tmo_sec,
            entry.so_snd_tmo_usec,
        )?,
        timeout(
            "so_rcv_tmo_sec",
            entry.so_rcv_tmo_sec,
            entry.so_rcv_tmo_usec,
        )?,
    );
    Ok(SocketOptions {
        buffers: (
            size("so_sndbuf", entry.so_sndbuf)?,
            size("so_rcvbuf", entry.so_rcvbuf)?,
        ),
        buffer_lock: entry.so_buf_lock.map(u32::cast_signed),
        timeouts: (sent, received),
        numbers: numbers(entry),
        linger: entry
            .so_linger
            .map(|seconds| Duration::from_secs(seconds.into())),
        filter: entry.so_filter.iter().copied().map(instruction).collect(),
        device,
    })
}

/// Options that are an `int`.
const NUMBERS: [IntOption; 12] = [
    IntOption::REUSEADDR,
    IntOption::PRIORITY,
    IntOption::RCVLOWAT,
    IntOption::MARK,
    IntOption::PASSCRED,
    IntOption::PASSSEC,
    IntOption::DONTROUTE,
    IntOption::NO_CHECK,
    IntOption::REUSEPORT,
    IntOption::BROADCAST,
    IntOption::KEEPALIVE,
    IntOption::OOBINLINE,
];

/// What is recorded of them.
fn numbers(entry: &SkOptsEntry) -> Vec<(IntOption, i32)> {
    let on = |value: Option<bool>| value.map(u32::from);
    let recorded = [
        on(entry.reuseaddr),
        entry.so_priority,
        entry.so_rcvlowat,
        entry.so_mark,
        on(entry.so_passcred),
        on(entry.so_passsec),
        on(entry.so_dontroute),
        on(entry.so_no_check),
        on(entry.so_reuseport),
        on(entry.so_broadcast),
        on(entry.so_keepalive),
        entry.so_oobinline,
    ];
    let all = NUMBERS.into_iter().zip(recorded);
    all.filter_map(|(option, value)| Some((option, value?.cast_signed())))
        .collect()
}

fn instruction(word: u64) -> Instruction {
    Instruction {
        code: (word >> 48) as u16,
        jt: (word >> 40) as u8,
        jf: (word >> 32) as u8,
        k: word as u32,
    }
}

impl SocketOptions {
    /// Lets others have the same address, or not, as recorded.
    pub(super) fn reuse(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        for option in [IntOption::REUSEADDR, IntOption::REUSEPORT] {
            set(socket, option, self.number(option).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Sets the priority as recorded; other options change it.
    pub(super) fn priority(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        match self.number(IntOption::PRIORITY) {
            Some(priority) => set(socket, IntOption::PRIORITY, priority),
            None => Ok(()),
        }
    }

    fn number(&self, wanted: IntOption) -> Option<i32> {
        let mut numbers = self.numbers.iter();
        let found = numbers.find(|(option, _)| *option == wanted);
        found.map(|(_, value)| *value)
    }

    /// Sets what is not as recorded.
    pub(super) fn apply(&self, socket: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        self.set(socket)
            .map_err(Error::system("set the options of", object))
    }

    /// The same of a socket on which nothing has been set yet but, if `widened`, the sizes of its buffers.
    pub(super) fn apply_fresh(
        &self,
        socket: BorrowedFd<'_>,
        fresh: &Fresh,
        widened: bool,
    ) -> Result<(), Errno> {
        if !widened && self.is_as(fresh) {
            return Ok(());
        }
        self.set(socket)
    }

    /// Whether a new socket has all of these options.
    fn is_as(&self, fresh: &Fresh) -> bool {
        let is = |(option, value): &(IntOption, i32)| {
            let found = fresh.numbers.iter().find(|(other, _)| option == other);
            found.is_some_and(|(_, found)| found == value)
        };
        self.device.is_none()
            && self.filter.is_empty()
            && self.linger.is_none()
            && self.timeouts == (None, None)
            && self.buffers == fresh.buffers
            && self.buffer_lock.is_none_or(|lock| lock == 0)
            && self.numbers.iter().all(is)
    }

    /// Sets the size of the buffer for receiving.
    pub(super) fn set_receive_buffer(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        let received = self.buffers.1;
        set_buffer(socket, IntOption::RCVBUF, IntOption::RCVBUFFORCE, received)
    }

    /// Sets the sizes of both buffers.
    pub(super) fn set_buffers(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        let sent = self.buffers.0;
        set_buffer(socket, IntOption::SNDBUF, IntOption::SNDBUFFORCE, sent)?;
        self.set_receive_buffer(socket)?;
        match self.buffer_lock {
            Some(lock) => set(socket, IntOption::BUF_LOCK, lock),
            None => Ok(()),
        }
    }

    fn set(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        if let Some(name) = &self.device {
            sockopt::bind_to_device(socket, name.as_bytes())?;
        }
        self.set_buffers(socket)?;
        for (option, value) in &self.numbers {
            set(socket, *option, *value)?;
        }
        let (sent, received) = self.timeouts;
        for (which, time) in [(Timeout::Send, sent), (Timeout::Recv, received)] {
            if socket_timeout(socket, which)? != time {
                set_socket_timeout(socket, which, time)?;
            }
        }
        if self.linger.is_some() {
            set_socket_linger(socket, self.linger)?;
        }
        match self.filter.is_empty() {
            true => Ok(()),
            false => sockopt::attach_filter(socket, &self.filter),
        }
    }
}

/// Sets an option unless it is as wanted.
pub(super) fn set(socket: BorrowedFd<'_>, option: IntOption, value: i32) -> Result<(), Errno> {
    match sockopt::int(socket, option) {
        // What a kind of sockets does not have is off.
        Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) if value == 0 => Ok(()),
        Ok(found) if found == value => Ok(()),
        _ => sockopt::set_int(socket, option, value),
    }
}

/// Sets the size of a buffer, beyond the limits of the machine if that is allowed.
fn set_buffer(
    socket: BorrowedFd<'_>,
    option: IntOption,
    force: IntOption,
    size: i32,
) -> Result<(), Errno> {
    if sockopt::int(socket, option)? == size {
        return Ok(());
    }
    // The kernel doubles what it is given.
    match sockopt::set_int(socket, force, size / 2) {
        Err(Errno::PERM) => sockopt::set_int(socket, option, size / 2),
        set => set,
    }
}
