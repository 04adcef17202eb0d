//! Batches of system calls run inside another task.
