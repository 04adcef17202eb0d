//! Observe a frozen process tree and write its records.
#![forbid(unsafe_code)]
