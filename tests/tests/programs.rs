//! Real programs: interpreters, a compiler, a virtual machine, a pipeline, each busy while it is dumped.
//!
//! They speak the guests' protocol (`ready`, `go`, `result`) in their own languages. What a
//! machine does not have is skipped with the reason. `GELID_HEAP_MIB` sets the heap of the Python program.

use crate::trial;
use gelid_tests::{Case, Mode, Verdict, succeeds};
use libtest_mimic::Trial;
use std::process::Command;

/// A program, and the command that succeeds where it can be run.
struct Program {
    probe: &'static [&'static str],
    case: Case,
}

/// Facts that a busy program changes itself.
const BUSY: &[&str] = &["maps", "SigPnd", "ShdPnd"];

const PROTOCOL: (&str, &str) = ("protocol.sh", include_str!("programs/protocol.sh"));
/// `-B`: nothing compiled is left in the folder.
const PYTHON: (&str, &str) = ("protocol.py", include_str!("programs/protocol.py"));

const PROGRAMS: &[Program] = &[
    Program {
        probe: &["bash", "-c", "awk 1 < /dev/null"],
        case: Case {
            name: "bash-pipeline",
            args: &["bash", "{dir}/pipeline.sh", "{dir}"],
            files: &[
                PROTOCOL,
                ("pipeline.sh", include_str!("programs/pipeline.sh")),
            ],
            moving: true,
            ..Case::new("run")
        },
    },
    Program {
        probe: &["python3", "-c", "import sqlite3, threading"],
        case: Case {
            name: "python-sqlite-threads",
            args: &["python3", "-B", "{dir}/heap.py", "{dir}"],
            files: &[PYTHON, ("heap.py", include_str!("programs/heap.py"))],
            ignore: BUSY,
            ..Case::new("run")
        },
    },
    Program {
        probe: &["python3", "-c", "import numpy"],
        case: Case {
            name: "numpy",
            args: &["python3", "-B", "{dir}/arrays.py", "{dir}"],
            files: &[PYTHON, ("arrays.py", include_str!("programs/arrays.py"))],
            ignore: BUSY,
            ..Case::new("run")
        },
    },
    Program {
        probe: &[
            "python3",
            "-c",
            "import asyncio; asyncio.create_subprocess_exec",
        ],
        case: Case {
            name: "python-asyncio",
            args: &["python3", "-B", "{dir}/loop.py", "{dir}"],
            files: &[PYTHON, ("loop.py", include_str!("programs/loop.py"))],
            moving: true,
            ..Case::new("run")
        },
    },
    Program {
        probe: &["node", "-e", "require('worker_threads')"],
        case: Case {
            name: "node",
            args: &["node", "{dir}/loop.js", "{dir}"],
            files: &[("loop.js", include_str!("programs/loop.js"))],
            moving: true,
            ..Case::new("run")
        },
    },
    Program {
        probe: &["perl", "-e", "use strict"],
        case: Case {
            name: "perl",
            args: &["perl", "{dir}/closures.pl", "{dir}"],
            files: &[("closures.pl", include_str!("programs/closures.pl"))],
            ignore: BUSY,
            ..Case::new("run")
        },
    },
    Program {
        probe: &["gcc", "--version"],
        case: Case {
            name: "gcc",
            args: &["bash", "{dir}/compile.sh", "{dir}"],
            files: &[
                PROTOCOL,
                ("compile.sh", include_str!("programs/compile.sh")),
            ],
            // Its temporary files are not in the guest's directory.
            without: &[Mode::Running],
            moving: true,
            ..Case::new("run")
        },
    },
    Program {
        probe: &["javac", "-version"],
        case: Case {
            name: "jvm",
            args: &["java", "-Xmx256m", "{dir}/Work.java", "{dir}"],
            files: &[("Work.java", include_str!("programs/Work.java"))],
            // It removes the file of its counters when it ends; and those of others, which would be in the way of a restore.
            without: OTHER_MODES,
            moving: true,
            ..Case::new("run")
        },
    },
    in_terminal(
        "tmux",
        &["tmux", "-V"],
        &["python3", "-B", "{dir}/terminal.py", "{dir}", "tmux"],
        Some(INHERITED),
    ),
    in_terminal(
        "vi",
        &["vi", "--version"],
        &["python3", "-B", "{dir}/terminal.py", "{dir}", "vi"],
        None,
    ),
    in_terminal(
        "script",
        &["script", "--version"],
        &["python3", "-B", "{dir}/terminal.py", "{dir}", "script"],
        Some(INHERITED),
    ),
    Program {
        case: Case {
            options: &["--file-locks"],
            ..SQLITE.case
        },
        ..SQLITE
    },
    // The same without that file: it looks at nobody else's.
    Program {
        probe: &["javac", "-version"],
        case: Case {
            name: "jvm-without-counters",
            args: &[
                "java",
                "-XX:-UsePerfData",
                "-Xmx256m",
                "{dir}/Work.java",
                "{dir}",
            ],
            files: &[("Work.java", include_str!("programs/Work.java"))],
            without: &[Mode::Raw],
            moving: true,
            ..Case::new("run")
        },
    },
];

/// The shell of sqlite3, with a transaction and so a lock.
const SQLITE: Program = in_terminal(
    "sqlite3",
    &["sqlite3", "--version"],
    &["python3", "-B", "{dir}/terminal.py", "{dir}", "sqlite3"],
    None,
);

/// All modes but the one in which one JVM has the file of its counters, since any other that starts removes it while
/// the tree is away.
const OTHER_MODES: &[Mode] = &[
    Mode::None,
    Mode::Zstd,
    Mode::Running,
    Mode::Rounds,
    Mode::ToCriu,
    Mode::FromCriu,
];

/// What CRIU loses of programs that make a session for whoever they run.
const INHERITED: &str = "terminals that are open in another session than their own";

/// A program that a Python program types to.
const fn in_terminal(
    name: &'static str,
    probe: &'static [&'static str],
    args: &'static [&'static str],
    lost_by_criu: Option<&'static str>,
) -> Program {
    Program {
        probe,
        case: Case {
            name,
            args,
            files: &[
                PYTHON,
                ("terminal.py", include_str!("programs/terminal.py")),
            ],
            moving: true,
            terminals: true,
            lost_by_criu,
            ..Case::new("run")
        },
    }
}

/// One test for each program in each of its modes.
pub(crate) fn trials() -> Vec<Trial> {
    let all = PROGRAMS
        .iter()
        .flat_map(|program| program.case.modes().map(move |mode| (program, mode)));
    all.map(|(program, mode)| {
        let name = format!("{}/{}", program.case.name, mode.name());
        trial(name, move || {
            if there(program.probe) {
                program.case.run(mode)
            } else {
                absent(program.probe)
            }
        })
    })
    .collect()
}

/// Whether a command succeeds.
fn there(words: &[&str]) -> bool {
    words
        .split_first()
        .is_some_and(|(program, args)| succeeds(Command::new(program).args(args)))
}

fn absent(words: &[&str]) -> anyhow::Result<Verdict> {
    Ok(Verdict::Skipped(format!(
        "`{}` fails here",
        words.join(" ")
    )))
}
