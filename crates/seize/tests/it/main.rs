//! Freezing of real processes on the running kernel. Needs the right to trace them.
#![expect(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

mod cgroup;
mod cost;
mod guard;
mod guest;
mod refuse;
mod stopped;
mod storm;
mod whole;
mod zombie;
