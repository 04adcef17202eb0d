//! `cargo xtask bench --peer PATH` and `--machine`: whole dumps and restores, gelid beside another executable that takes
//! CRIU's options, beside the calls that no dump and no restore can do without, or beside what the machine can do.
//!
//! Two executables work on the same programs in turn, in one run, so that what the machine does meanwhile meets both. A
//! round is: start the program, dump it, see it dead, restore it, let it check itself, end it. The
//! first round of each row is not counted: it warms the page cache, and the features that a peer remembers. The
//! peer may keep those only where `/run` is a tmpfs; so the bench gives itself one, in a mount namespace of its own. All
//! executables are copies, as those of installed programs are.

pub(crate) mod engine;
mod family;
mod machine;
mod memory;
mod plot;
mod redis;
mod rows;
mod table;
pub(crate) mod target;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{is_root, output, run};
use crate::{dist, workspace};
use engine::{Engine, Measured};
use memory::{Memory, Watch};
use rows::{ROWS, Row, Ways};
use table::Table;
use target::Running;

/// Set in the environment once `/run` is a tmpfs.
const PREPARED: &str = "GELID_BENCH_PREPARED";

/// Options of the comparison.
#[derive(Debug, clap::Args)]
pub(crate) struct Comparison {
    /// Compare whole dumps and restores with this executable, which takes CRIU's options
    #[arg(long, value_name = "PATH", group = "whole")]
    peer: Option<PathBuf>,
    /// Compare a raw dump and restore of 4 GiB with what the machine needs for as many bytes at best
    #[arg(long, group = "whole")]
    machine: bool,
    /// Also measure the calls that no dump and no restore can do without, for rows that are not left running
    #[arg(long, requires = "peer")]
    bare: bool,
    /// Counted rounds of each row
    #[arg(long, value_name = "N", default_value_t = 10, requires = "whole")]
    rounds: usize,
    /// Another gelid than the one of this checkout
    #[arg(long, value_name = "PATH", requires = "whole")]
    gelid: Option<PathBuf>,
    /// Where the images are written for the time of a round [default: the folder for temporary files]
    #[arg(long, value_name = "DIR", requires = "whole")]
    images: Option<PathBuf>,
    /// Also write every single figure into this file
    #[arg(long, value_name = "FILE", requires = "whole")]
    json: Option<PathBuf>,
    /// Also draw every row, and the times over the sizes of rows that differ in size only, into files of this folder
    #[arg(long, value_name = "DIR", requires = "peer")]
    plots: Option<PathBuf>,
}

impl Comparison {
    /// Whether a comparison is asked for.
    pub(crate) fn wanted(&self) -> bool {
        self.peer.is_some() || self.machine
    }

    /// Measures the rows whose name contains `filter`, and prints a table.
    pub(crate) fn run(&self, filter: &str) -> Result<()> {
        ensure!(is_root(), "dumps and restores need root");
        if std::env::var_os(PREPARED).is_none() {
            return prepared();
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let (gelid, guests, target) = build(self.gelid.as_deref())?;
        let programs = tempfile::tempdir_in(target)?;
        let gelid = installed(&gelid, programs.path(), "gelid")?;
        let top = top(self.images.as_deref())?;
        let raw = Engine::new("gelid", &gelid, &["--compress=none"])?;
        let Some(peer) = &self.peer else {
            return self.beside_the_machine(&raw, &guests, top.path());
        };
        let zstd = Engine::new("gelid zstd", &gelid, &["--compress=zstd"])?;
        let peer = Engine::new("peer", &installed(peer, programs.path(), "peer")?, &[])?;
        let bare = || -> Result<Engine> {
            let built = machine::build("bare")?;
            Engine::bare(&installed(&built, programs.path(), "bare")?)
        };
        let bare = self.bare.then(bare).transpose()?;
        let mut table = Table::new(self.rounds);
        let mut spent = Vec::new();
        for row in ROWS.iter().filter(|row| row.is_wanted(filter)) {
            let mut engines = vec![&raw];
            if row.ways != Ways::Raw {
                engines.push(&zstd);
            }
            if row.ways != Ways::Running {
                engines.extend(&bare);
            }
            engines.push(&peer);
            let all = self.measure(row, &engines, (&guests, &gelid), top.path(), &mut spent)?;
            table.add(row, all);
        }
        print!("{table}");
        self.keep(&table.figures())?;
        if let Some(folder) = &self.plots {
            fs::create_dir_all(folder)?;
            table.plot(folder)?;
        }
        Ok(())
    }

    /// What one engine takes for a heap, and the machine for as many bytes.
    fn beside_the_machine(&self, engine: &Engine, guests: &Path, top: &Path) -> Result<()> {
        let machine = machine::build("machine")?;
        let mut spent = Vec::new();
        let mut table = machine::Table::default();
        for round in 0..self.rounds {
            eprintln!("the machine: round {}", round + 1);
            let folder = for_a_round(top)?;
            table.add(machine::play(engine, guests, &machine, folder.path())?);
            empty(folder.path())?;
            spent.push(folder);
        }
        print!("{table}");
        self.keep(&table.figures())
    }

    /// Writes the figures into the file that is wanted.
    fn keep(&self, figures: &serde_json::Value) -> Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let document = serde_json::json!({"host": host()?, "rows": figures});
        fs::write(path, serde_json::to_string_pretty(&document)?)?;
        Ok(())
    }

    /// All counted rounds of a row, by engine.
    fn measure<'a>(
        &self,
        row: &Row,
        engines: &[&'a Engine],
        (guests, gelid): (&Path, &Path),
        top: &Path,
        spent: &mut Vec<tempfile::TempDir>,
    ) -> Result<Vec<(&'a Engine, Vec<Measured>)>> {
        let mut all: Vec<_> = engines.iter().map(|engine| (*engine, Vec::new())).collect();
        let mut unable = vec![false; engines.len()];
        eprintln!("{}: {} rounds", row.name, self.rounds);
        for round in 0..=self.rounds {
            for turn in 0..engines.len() {
                // Nobody always comes first.
                let place = (round + turn) % engines.len();
                let (engine, figures) = &mut all[place];
                if unable[place] {
                    continue;
                }
                let folder = for_a_round(top)?;
                let measured = play(row, engine, guests, gelid, folder.path())
                    .with_context(|| format!("{}, {}, round {round}", row.name, engine.name));
                empty(folder.path())?;
                spent.push(folder);
                match measured {
                    Ok(measured) if round > 0 => figures.push(measured),
                    Ok(_) => {}
                    // What the peer, which comes last, cannot do is still worth a figure of ours.
                    Err(error) if engine.is_bare || place + 1 == engines.len() => {
                        eprintln!("{error:#}");
                        figures.clear();
                        unable[place] = true;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(all)
    }
}

/// One program, dumped, restored and asked.
fn play(
    row: &Row,
    engine: &Engine,
    guests: &Path,
    gelid: &Path,
    folder: &Path,
) -> Result<Measured> {
    let images = folder.join("images");
    fs::create_dir(&images)?;
    let mut running = Running::start(&row.program, guests, &folder.join("work"))?;
    let left = row.ways == Ways::Running;
    if engine.is_bare {
        return calls_alone(engine, &mut running, &images);
    }
    let memory = Memory::of(running.pid())?;
    running.pause()?;
    let dump = engine.dump(running.pid(), &images, left)?;
    let pause = running.pause()?.filter(|_| left);
    match left {
        true => running.end()?,
        false => running.await_death()?,
    }
    let statistics = engine::statistics(gelid, &images)?;
    let restore = engine.restore(&images)?;
    // What looking at the memory takes is no part of the answer's time.
    let watch = Watch::begin(memory.of_content(statistics.pages));
    let answer = running.answer().context("the restored program")?;
    running.finish().context("the restored program")?;
    Ok(Measured {
        dump,
        restore: Some(restore),
        frozen: statistics.frozen,
        pause,
        answer: answer.map(|time| restore.wall + time),
        resident: watch.end().map(|time| restore.wall + time),
        bytes: Some(engine::bytes(&images)?),
    })
}

/// The calls of a dump and of a restore, after which nobody is asked anything: what was made ends with `running`.
fn calls_alone(engine: &Engine, running: &mut Running, images: &Path) -> Result<Measured> {
    engine.look(running.pid(), images)?;
    let (dump, frozen) = engine.calls_alone(running.pid(), images)?;
    running.await_death()?;
    let restore = engine.make_calls(images);
    let restore = restore.inspect_err(|error| eprintln!("no calls of a restore: {error:#}"));
    Ok(Measured {
        dump,
        restore: restore.ok(),
        frozen,
        pause: None,
        answer: None,
        resident: None,
        bytes: None,
    })
}

/// What was measured, and where.
fn host() -> Result<serde_json::Value> {
    let revision = output(
        Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(workspace::root()),
    )?;
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    Ok(serde_json::json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end(),
        "processor": model.unwrap_or_default().trim_start_matches([' ', '\t', ':']),
        "processors": std::thread::available_parallelism()?,
        "revision": revision.trim_end(),
    }))
}

/// Gives the room of the images back, but leaves the files until all is measured: for minutes after one was deleted,
/// ext4 without a journal needs twenty times as long to make another.
fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder.join("images"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::options().write(true).open(entry.path())?.set_len(0)?;
        }
    }
    Ok(())
}

/// The folder of all rounds. ext4 spreads those in it over the disk, if it is told so: what others have removed in one
/// corner, up to minutes ago, makes it slow there.
fn top(parent: Option<&Path>) -> Result<tempfile::TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let top = tempfile::Builder::new()
        .prefix("gelid-bench.")
        .tempdir_in(&parent)
        .with_context(|| parent.display().to_string())?;
    // No other file system knows of it.
    let _ = output(Command::new("chattr").arg("+T").arg(top.path()));
    Ok(top)
}

/// A folder for the files of a round.
fn for_a_round(top: &Path) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("round.").tempdir_in(top);
    folder.with_context(|| top.display().to_string())
}

/// This command again, in a mount namespace where `/run` is a tmpfs.
fn prepared() -> Result<()> {
    let own = std::env::current_exe().context("path of this program")?;
    run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .args(["mount -t tmpfs gelid-bench /run && exec \"$@\"", "sh"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(PREPARED, "1"))
}

/// Builds the programs as they are released, and gelid unless another one is given; paths of both, and of the folder for
/// what is built.
fn build(gelid: Option<&Path>) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--locked"]);
    run(cargo.args(["--package", "gelid-guests"]))?;
    let target = workspace::members(&workspace::root().join("Cargo.toml"))?.target_directory;
    let gelid = gelid.map_or_else(dist::build, |path| Ok(path.to_owned()))?;
    Ok((gelid, target.join("release/gelid-guest"), target))
}

/// A copy of a program, as those are that were installed. How it came into the page cache decides how many page faults it
/// has: `gelid --version` 110 if it was written at once, 130 if it was read by page faults before.
fn installed(program: &Path, folder: &Path, name: &str) -> Result<PathBuf> {
    let copy = folder.join(name);
    fs::copy(program, &copy).with_context(|| program.display().to_string())?;
    Ok(copy)
}
