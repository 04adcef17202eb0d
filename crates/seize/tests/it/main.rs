//! Freezing of real processes on the running kernel. Needs the right to trace them.

mod guard;
mod guest;
mod refuse;
mod stopped;
mod storm;
mod whole;
mod zombie;
