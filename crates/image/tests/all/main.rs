//! Tests of the crate from outside, in one binary.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod golden;
mod hostile;
mod naming;
mod schemas;
mod staging;
