//! Tests against the running kernel, and of parsers against arbitrary text.

#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

mod memory;
mod no_panic;
mod probe;
mod proc;
