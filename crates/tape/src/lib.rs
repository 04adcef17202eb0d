//! Batches of system calls, run inside another task.
//!
//! **Model.** What only a task itself can do is written on a [`Tape`]: an array of system calls and the
//! bytes they read and write. A stub of some 400 bytes plays it from start to end inside the task, at
//! the price of one ptrace stop, whatever its length. A [`Host`] is the place of stub and tapes in an
//! address space; a [`Carrier`] is a stopped thread that plays. Tapes of many threads run at once:
//! [`Carrier::start`] them all, then [`Carrier::finish`] them all ([`play_all`]).
//!
//! **If the tracer dies** at any instant the thread finishes the tape, puts its own registers and mask
//! back and goes on with what it was doing; only the room for tapes stays mapped, and the stub, which the
//! next host finds and uses. No signal disposition is touched and no trap instruction is used: a tape ends
//! by a signal that is ignored by default.
//!
//! **Limitations.** x86-64, 64-bit tasks. A tape must not contain a call that uses the kernel's restart
//! block (`nanosleep`, `poll`, `futex` with a timeout), for the interrupted call of the program may need
//! it, and none that changes the signal mask. Tasks with a shadow stack cannot recover from the death of
//! the tracer. A tape under a seccomp filter needs the filter suspended by the tracer, and the filter has to
//! allow `rt_sigpending` and `rt_sigprocmask` if the thread is to survive the tracer's death. A thread whose
//! stack pointer has no 160 writable bytes below it survives that no more than it does a signal.
//!
//! ```no_run
//! use gelid_sys::{ptrace, wait};
//! use gelid_tape::{Arg, Ground, Host, Identity, Tape};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pid = rustix::process::Pid::from_raw(4242).ok_or("pid")?;
//! let running = ptrace::seize(pid, ptrace::Options::TRACESYSGOOD)?;
//! running.interrupt()?;
//! wait::wait_task(pid)?;
//! let identity = Identity { tgid: 4242, tid: 4242, signal: 23 };
//! let ground = Ground { code: vec![0x7fff_f7fc_1000..0x7fff_f7fc_3000], spare: None };
//! let (host, mut carrier) = Host::seized(running.stopped(), identity, &ground, 4096, 2048)
//!     .map_err(|(error, _task)| error)?;
//! let mut tape = Tape::new();
//! let op = tape.call(gelid_sys::syscall::nr::umask, [Arg::Value(0o22)]);
//! println!("the old umask: {:o}", carrier.play(&tape)?.ok(op)?);
//! host.leave(carrier).map_err(|(error, _task)| error)?.detach(0)?;
//! # Ok(())
//! # }
//! ```

mod arch;
mod carrier;
mod cave;
mod diverted;
mod error;
mod host;
mod rseq;
mod tape;
mod wait;

pub use carrier::{Carrier, Identity, Saved, closing_signal};
pub use error::Error;
pub use host::{Failed, Ground, Host, LoneCall, call_all, play_all};
pub use tape::{Arg, Data, Op, Outcome, Tape};
