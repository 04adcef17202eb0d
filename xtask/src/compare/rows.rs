//! What is measured: programs of one size each, and how they are dumped.

use super::target::Program;

/// A program to be dumped, and the ways in which that is measured.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) program: Program,
    pub(super) ways: Ways,
    /// Takes long, and is only measured when a filter names it.
    pub(super) long: bool,
}

impl Row {
    /// Whether a filter asks for it.
    pub(super) fn is_wanted(&self, filter: &str) -> bool {
        self.name.contains(filter) && (!self.long || !filter.is_empty())
    }
}

/// How a row is dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    /// As it is, with raw pages: there are few.
    Raw,
    /// With raw and with compressed pages.
    Pages,
    /// The same, while the program runs on.
    Running,
}

const fn row(name: &'static str, program: Program) -> Row {
    Row {
        name,
        program,
        ways: Ways::Raw,
        long: false,
    }
}

const fn long(name: &'static str, program: Program) -> Row {
    Row {
        long: true,
        ..row(name, program)
    }
}

/// A row in which it matters how pages are written.
const fn heap(name: &'static str, program: Program) -> Row {
    Row {
        ways: Ways::Pages,
        ..row(name, program)
    }
}

const fn large(name: &'static str, program: Program) -> Row {
    Row {
        long: true,
        ..heap(name, program)
    }
}

const fn running(name: &'static str, program: Program) -> Row {
    Row {
        ways: Ways::Running,
        ..row(name, program)
    }
}

use Program::{Command, Guest, Java, Redis};

/// All rows, in the order of the table.
pub(super) const ROWS: &[Row] = &[
    row("sleep", Command(&["sleep", "1000000"])),
    row("100 threads", Guest("idle-threads", &["100"])),
    row("1,000 threads", Guest("idle-threads", &["1000"])),
    long("10,000 threads", Guest("idle-threads", &["10000"])),
    row("50 processes", Guest("idle-tree", &["50"])),
    row("500 processes", Guest("idle-tree", &["500"])),
    long("2,000 processes", Guest("idle-tree", &["2000"])),
    heap(
        "8 workers sharing 1 GiB",
        Guest("idle-workers", &["8", "1024"]),
    ),
    row("30,000 mappings", Guest("idle-mappings", &["30000"])),
    long("60,000 mappings", Guest("idle-mappings", &["60000"])),
    row("5,000 descriptors", Guest("idle-descriptors", &["5000"])),
    long("10,000 descriptors", Guest("idle-descriptors", &["10000"])),
    heap("1 GiB of objects", Guest("idle-heap", &["1024", "objects"])),
    heap("1 GiB of noise", Guest("idle-heap", &["1024", "noise"])),
    running(
        "1 GiB of objects, left running",
        Guest("idle-heap", &["1024", "objects", "beat"]),
    ),
    large("1 GiB in huge pages", Guest("idle-heap", &["1024", "huge"])),
    large(
        "1 GiB, mostly zeros",
        Guest("idle-heap", &["1024", "zeros"]),
    ),
    large(
        "1 GiB spread over 1 TiB",
        Guest("idle-heap", &["1024", "sparse"]),
    ),
    large("4 GiB of objects", Guest("idle-heap", &["4096", "objects"])),
    large("8 GiB of objects", Guest("idle-heap", &["8192", "objects"])),
    heap("redis of 1 GiB", Redis(1 << 30)),
    running("redis of 1 GiB, left running", Redis(1 << 30)),
    heap("JVM", Java),
];
