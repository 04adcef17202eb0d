//! Tapes in real tasks on the running kernel. Needs the right to trace them.
#![expect(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

mod birth;
mod death;
mod every;
mod guest;
mod limits;
mod ops;
mod signals;
mod stage;
