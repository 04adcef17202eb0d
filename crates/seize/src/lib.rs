//! Freeze a process tree, guard it, thaw it.
#![forbid(unsafe_code)]
