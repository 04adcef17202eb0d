//! What is measured: programs of one size each, and how they are dumped.

use super::target::Program;

/// A program to be dumped, and the ways in which that is measured.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) program: Program,
    pub(super) ways: Ways,
    /// If other rows differ in it only.
    pub(super) size: Option<Size>,
    /// Takes long, and is only measured when a filter names it.
    pub(super) long: bool,
}

/// How large a program is, among others of its family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) family: &'static str,
    pub(super) count: u32,
    /// What is counted.
    pub(super) unit: &'static str,
}

impl Row {
    /// Whether a filter asks for it: one part of a name, or several with bars in between.
    pub(super) fn is_wanted(&self, filter: &str) -> bool {
        let named = filter.split('|').any(|part| self.name.contains(part));
        named && (!self.long || !filter.is_empty())
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
        size: None,
        long: false,
    }
}

/// The member of a family that is named after what is counted.
const fn of(count: u32, unit: &'static str, row: Row) -> Row {
    sized(unit, count, unit, row)
}

const fn sized(family: &'static str, count: u32, unit: &'static str, row: Row) -> Row {
    let size = Some(Size {
        family,
        count,
        unit,
    });
    Row { size, ..row }
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

/// Heaps of one kind.
const fn gib(family: &'static str, count: u32, row: Row) -> Row {
    sized(family, count, "GiB", row)
}

const OBJECTS: &str = "heaps of objects";
const NOISE: &str = "heaps of noise";
const HUGE: &str = "heaps in huge pages";
const ZEROS: &str = "heaps, mostly zeros";
const SPARSE: &str = "heaps spread out";

/// All rows, in the order of the table.
pub(super) const ROWS: &[Row] = &[
    row("sleep", Command(&["sleep", "1000000"])),
    of(
        100,
        "threads",
        row("100 threads", Guest("idle-threads", &["100"])),
    ),
    of(
        1_000,
        "threads",
        row("1,000 threads", Guest("idle-threads", &["1000"])),
    ),
    of(
        10_000,
        "threads",
        long("10,000 threads", Guest("idle-threads", &["10000"])),
    ),
    of(
        50,
        "processes",
        row("50 processes", Guest("idle-tree", &["50"])),
    ),
    of(
        500,
        "processes",
        heap("500 processes", Guest("idle-tree", &["500"])),
    ),
    of(
        2_000,
        "processes",
        long("2,000 processes", Guest("idle-tree", &["2000"])),
    ),
    heap(
        "8 workers sharing 1 GiB",
        Guest("idle-workers", &["8", "1024"]),
    ),
    of(
        30_000,
        "mappings",
        row("30,000 mappings", Guest("idle-mappings", &["30000"])),
    ),
    of(
        60_000,
        "mappings",
        long("60,000 mappings", Guest("idle-mappings", &["60000"])),
    ),
    of(
        5_000,
        "descriptors",
        row("5,000 descriptors", Guest("idle-descriptors", &["5000"])),
    ),
    of(
        10_000,
        "descriptors",
        long("10,000 descriptors", Guest("idle-descriptors", &["10000"])),
    ),
    gib(
        OBJECTS,
        1,
        heap("1 GiB of objects", Guest("idle-heap", &["1024", "objects"])),
    ),
    gib(
        OBJECTS,
        4,
        large("4 GiB of objects", Guest("idle-heap", &["4096", "objects"])),
    ),
    gib(
        OBJECTS,
        8,
        large("8 GiB of objects", Guest("idle-heap", &["8192", "objects"])),
    ),
    running(
        "1 GiB of objects, left running",
        Guest("idle-heap", &["1024", "objects", "beat"]),
    ),
    running(
        "1 GiB of shared memory, left running",
        Guest("idle-heap", &["1024", "shared", "beat"]),
    ),
    gib(
        NOISE,
        1,
        heap("1 GiB of noise", Guest("idle-heap", &["1024", "noise"])),
    ),
    gib(
        NOISE,
        4,
        large("4 GiB of noise", Guest("idle-heap", &["4096", "noise"])),
    ),
    gib(
        NOISE,
        8,
        large("8 GiB of noise", Guest("idle-heap", &["8192", "noise"])),
    ),
    gib(
        HUGE,
        1,
        large("1 GiB in huge pages", Guest("idle-heap", &["1024", "huge"])),
    ),
    gib(
        HUGE,
        4,
        large("4 GiB in huge pages", Guest("idle-heap", &["4096", "huge"])),
    ),
    gib(
        HUGE,
        8,
        large("8 GiB in huge pages", Guest("idle-heap", &["8192", "huge"])),
    ),
    gib(
        ZEROS,
        1,
        large(
            "1 GiB, mostly zeros",
            Guest("idle-heap", &["1024", "zeros"]),
        ),
    ),
    gib(
        ZEROS,
        4,
        large(
            "4 GiB, mostly zeros",
            Guest("idle-heap", &["4096", "zeros"]),
        ),
    ),
    gib(
        ZEROS,
        8,
        large(
            "8 GiB, mostly zeros",
            Guest("idle-heap", &["8192", "zeros"]),
        ),
    ),
    gib(
        SPARSE,
        1,
        large(
            "1 GiB spread over 1 TiB",
            Guest("idle-heap", &["1024", "sparse"]),
        ),
    ),
    gib(
        SPARSE,
        4,
        large(
            "4 GiB spread over 4 TiB",
            Guest("idle-heap", &["4096", "sparse"]),
        ),
    ),
    gib(
        SPARSE,
        8,
        large(
            "8 GiB spread over 8 TiB",
            Guest("idle-heap", &["8192", "sparse"]),
        ),
    ),
    heap("redis of 1 GiB", Redis(1 << 30)),
    running("redis of 1 GiB, left running", Redis(1 << 30)),
    heap("JVM", Java),
];
