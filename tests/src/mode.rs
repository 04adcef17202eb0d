//! The ways through dump and restore, as data, and what to expect of a guest on them.

use crate::compare::compare;
use crate::directory::DirectoryState;
use crate::engine::Engine;
use crate::guest::{Guest, Started};
use crate::snapshot::Snapshot;
use anyhow::{Result, bail, ensure};
use std::time::Duration;

/// A way through dump and restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No dump at all: start, go, check. Proves the guest itself.
    None,
    /// Dump with raw pages, death, restore.
    Raw,
    /// Dump with zstd, death, restore.
    Zstd,
    /// Dump with `--leave-running`: the original goes on and passes; when it is gone, the images
    /// restore, and that one passes as well.
    Running,
    /// Several dumps and restores one after the other.
    Rounds,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Raw,
        Self::Zstd,
        Self::Running,
        Self::Rounds,
    ];

    /// Its name in the list of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Raw => "raw",
            Self::Zstd => "zstd",
            Self::Running => "running",
            Self::Rounds => "rounds",
        }
    }

    /// Options of its dumps.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Raw | Self::Rounds => &["--compress=none"],
            Self::Zstd => &["--compress=zstd"],
            Self::Running => &["--compress=none", "--leave-running"],
        }
    }
}

/// How many times [`Mode::Rounds`] goes round: `GELID_ROUNDS`, else 2.
#[must_use]
pub fn rounds() -> usize {
    std::env::var("GELID_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

/// A guest and what to know about it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the test.
    pub name: &'static str,
    /// What `gelid-guest` is to run.
    pub guest: &'static str,
    /// Files to be put in its folder first: name and text.
    pub files: &'static [(&'static str, &'static str)],
    /// Processes come and go in it, so that `/proc` cannot be compared.
    pub moving: bool,
    /// Its arguments; `{dir}` stands for its folder.
    pub args: &'static [&'static str],
    /// Modes that make no sense for it.
    pub without: &'static [Mode],
    /// Facts that it changes itself all the time; see [`Snapshot::without`].
    pub ignore: &'static [&'static str],
    /// Options of both commands.
    pub options: &'static [&'static str],
    /// Options of the dump alone.
    pub dump_options: &'static [&'static str],
    /// For how long it stays dead.
    pub pause: Duration,
    /// A part of the message by which its dump is refused; the guest must go on as if nothing had been.
    pub refused: Option<&'static str>,
}

/// What came of a test that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was as it should be.
    Passed,
    /// This machine cannot run it, for this reason.
    Skipped(String),
}

impl Case {
    /// A guest without arguments or peculiarities.
    #[must_use]
    pub const fn new(guest: &'static str) -> Self {
        Self {
            name: guest,
            guest,
            files: &[],
            moving: false,
            args: &[],
            without: &[],
            ignore: &[],
            options: &[],
            dump_options: &[],
            pause: Duration::ZERO,
            refused: None,
        }
    }

    /// Modes in which it is run.
    pub fn modes(&self) -> impl Iterator<Item = Mode> {
        // How the images would be written makes no difference to a refusal.
        let refused =
            |mode: &Mode| self.refused.is_none() || [Mode::None, Mode::Raw].contains(mode);
        Mode::ALL
            .into_iter()
            .filter(move |mode| !self.without.contains(mode) && refused(mode))
    }

    /// Runs the guest through a mode.
    ///
    /// # Errors
    ///
    /// A failed command, a difference, or what the guest found wrong.
    pub fn run(&self, mode: Mode) -> Result<Verdict> {
        if mode == Mode::None {
            return self.started(Guest::check);
        }
        let engine = Engine::find()?;
        if engine.is_criu() && mode == Mode::Zstd {
            return Ok(Verdict::Skipped("CRIU has no zstd".into()));
        }
        self.started(|guest| match (self.refused, mode) {
            (Some(reason), _) => self.refusal(&engine, guest, mode, reason),
            (None, Mode::Running) => self.leave_running(&engine, guest),
            (None, Mode::Rounds) => (0..rounds())
                .try_for_each(|round| self.round(&engine, guest, mode, round))
                .and_then(|()| guest.check()),
            (None, _) => self
                .round(&engine, guest, mode, 0)
                .and_then(|()| guest.check()),
        })
    }

    /// Starts the guest and does something with it, unless it cannot run here.
    fn started(&self, test: impl FnOnce(&mut Guest) -> Result<()>) -> Result<Verdict> {
        match Guest::start(self.guest, self.args, self.files)? {
            Started::Skip(reason) => Ok(Verdict::Skipped(reason)),
            Started::Ready(mut guest) => test(&mut guest).map(|()| Verdict::Passed),
        }
    }

    /// Dump options of a mode for an executable.
    fn dump_words(&self, engine: &Engine, mode: Mode) -> Vec<&'static str> {
        let of_mode = mode
            .options()
            .iter()
            .filter(|word| !engine.is_criu() || !word.starts_with("--compress"));
        of_mode
            .chain(self.options)
            .chain(self.dump_options)
            .copied()
            .collect()
    }

    /// One dump, death and restore; `/proc` must show the same afterwards.
    fn round(&self, engine: &Engine, guest: &mut Guest, mode: Mode, round: usize) -> Result<()> {
        let images = guest.images(&format!("images-{round}"));
        let before = self.look(engine, guest)?;
        engine
            .dump(guest.tree.root(), &images, &self.dump_words(engine, mode))?
            .expect("dump")?;
        guest.tree.await_death(Duration::from_secs(20))?;
        std::thread::sleep(self.pause);
        engine.restore(&images, self.options)?.expect("restore")?;
        self.same(engine, &before, guest, "after the restore")
    }

    /// The tree as `/proc` shows it, without what changes anyway.
    fn look(&self, engine: &Engine, guest: &mut Guest) -> Result<Snapshot> {
        if self.moving {
            guest.tree.look();
            return Ok(Snapshot::default());
        }
        Ok(guest.snapshot(engine.passing_flags())?.without(self.ignore))
    }

    /// Nothing may differ from before.
    fn same(
        &self,
        engine: &Engine,
        before: &Snapshot,
        guest: &mut Guest,
        when: &str,
    ) -> Result<()> {
        let differences = compare(before, &self.look(engine, guest)?);
        ensure!(
            differences.is_empty(),
            "{} differences {when}:\n  {}",
            differences.len(),
            shortened(&differences)
        );
        Ok(())
    }

    fn leave_running(&self, engine: &Engine, guest: &mut Guest) -> Result<()> {
        let images = guest.images("images");
        let before = self.look(engine, guest)?;
        engine
            .dump(
                guest.tree.root(),
                &images,
                &self.dump_words(engine, Mode::Running),
            )?
            .expect("dump")?;
        self.same(engine, &before, guest, "after a dump that left it running")?;
        let files = DirectoryState::save(&guest.path())?;
        guest
            .check()
            .map_err(|error| error.context("the original"))?;
        files.put_back()?;
        engine.restore(&images, self.options)?.expect("restore")?;
        self.same(engine, &before, guest, "after the restore")?;
        guest
            .check()
            .map_err(|error| error.context("the restored one"))
    }

    /// The dump must fail with its reason, and leave no trace.
    fn refusal(&self, engine: &Engine, guest: &mut Guest, mode: Mode, reason: &str) -> Result<()> {
        let images = guest.images("images");
        let before = self.look(engine, guest)?;
        let outcome = engine.dump(guest.tree.root(), &images, &self.dump_words(engine, mode))?;
        if outcome.ok() {
            bail!("the dump was to be refused because of {reason:?}, and succeeded");
        }
        let text = format!("{}{}", outcome.output, outcome.log);
        ensure!(
            engine.is_criu() || text.contains(reason),
            "the dump was to be refused because of {reason:?}, and said:\n{text}"
        );
        ensure!(
            !images.join("inventory.img").exists(),
            "a refused dump left images behind"
        );
        self.same(engine, &before, guest, "after a refused dump")?;
        guest.check()
    }
}

/// The first differences, and how many more there are.
fn shortened(lines: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = lines
        .iter()
        .take(MOST)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n  ");
    if lines.len() > MOST {
        text.push_str(&format!("\n  and {} more", lines.len() - MOST));
    }
    text
}
