//! Work of the kernel beside what limits it, measured in the same run.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::counted::Built;
use crate::compare::engine::Engine;
use crate::compare::target::{Program, Running};

/// MiB of the heap that is dumped and restored.
const MIB: &str = "256";
/// Rounds, of which the median counts.
const ROUNDS: usize = 5;

/// How much longer than its limit something may take.
struct Bound {
    name: &'static str,
    most: f64,
}

/// What of a round is beside what.
type Figure = fn(&Round) -> f64;

/// Writing as many bytes as the heap has into a new file.
const DUMP: Bound = Bound {
    name: "a raw dump, of the time to write its pages",
    most: 4.0,
};
/// Filling as much fresh memory.
const RESTORE: Bound = Bound {
    name: "a raw restore, of the time to fill fresh memory",
    most: 1.5,
};

/// Prints a line for each bound; names of those that are exceeded. What is too slow is measured once more: the
/// machine may have been busy with something else.
pub(super) fn exceeded(built: &Built) -> Result<Vec<String>> {
    if !crate::process::is_root() {
        println!("ratios: not measured without root");
        return Ok(Vec::new());
    }
    let first = measure(built)?;
    match first.is_empty() {
        true => Ok(first),
        false => measure(built),
    }
}

fn measure(built: &Built) -> Result<Vec<String>> {
    // What is restored is to come back to this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Round::play(built)?);
    }
    let mut slower = Vec::new();
    let ratios: [(Bound, Figure); 2] = [
        (DUMP, |round| ratio(round.dump, round.write)),
        (RESTORE, |round| ratio(round.restore, round.fill)),
    ];
    for (bound, figure) in ratios {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let median = figures[ROUNDS / 2];
        println!("{}: {median:.2} (at most {:.1})", bound.name, bound.most);
        if median > bound.most {
            slower.push(bound.name.to_owned());
        }
    }
    Ok(slower)
}

fn ratio(time: Duration, limit: Duration) -> f64 {
    time.as_secs_f64() / limit.as_secs_f64()
}

/// What one round took.
struct Round {
    write: Duration,
    fill: Duration,
    dump: Duration,
    restore: Duration,
}

impl Round {
    fn play(built: &Built) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let (fill, write) = limits(scratch.path())?;
        let images = scratch.path().join("images");
        fs::create_dir(&images)?;
        let guests = built.path("gelid-guest");
        let program = Program::Guest("idle-heap", &[MIB, "noise"]);
        let mut guest = Running::start(&program, &guests, &scratch.path().join("work"))?;
        let gelid = Engine::new("gelid", &built.path("gelid"), &["--compress=none"])?;
        let dump = gelid.dump(guest.pid(), &images, false)?.wall;
        guest.await_death()?;
        let restore = gelid.restore(&images)?.wall;
        guest.finish()?;
        Ok(Self {
            write,
            fill,
            dump,
            restore,
        })
    }
}

/// Fills fresh memory, and writes it into a new file.
fn limits(scratch: &Path) -> Result<(Duration, Duration)> {
    let bytes = MIB.parse::<usize>()? << 20;
    let start = Instant::now();
    let memory = vec![7_u8; bytes];
    let fill = start.elapsed();
    let start = Instant::now();
    let mut file = File::create(scratch.join("limit"))?;
    for chunk in memory.chunks(1 << 20) {
        file.write_all(chunk)?;
    }
    let write = start.elapsed();
    fs::remove_file(scratch.join("limit"))?;
    Ok((fill, write))
}
