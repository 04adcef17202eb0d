//! A guest, what to know about it, and its way through a mode.

use crate::compare::compare;
use crate::directory::DirectoryState;
use crate::engine::Engine;
use crate::guest::{Guest, Started};
use crate::mode::{Mode, rounds};
use crate::snapshot::Snapshot;
use anyhow::{Result, bail, ensure};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A tree that was killed must be gone by then.
const DEATH: Duration = Duration::from_secs(20);
/// A dump that is refused says so within this time.
const REFUSED: Duration = Duration::from_secs(1);

/// Flags of mappings that need not come back: soft-dirty tells when a page was written.
const PASSING_FLAGS: &[&str] = &["sd"];

/// What a container has, beside what a guest asks for.
const CONTAINER: [&str; 5] = ["mnt", "uts", "ipc", "net", "box"];

/// Held by whoever uses pseudoterminals.
static TERMINALS: Mutex<()> = Mutex::new(());

/// Keeps the numbers of pseudoterminals for one test.
pub fn terminals() -> MutexGuard<'static, ()> {
    TERMINALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So often a tree is looked at until it has come to rest.
const LOOKS: usize = 50;

/// So long it may take a restored tree to come to rest.
const REST: Duration = Duration::from_secs(2);

/// A guest and what to know about it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the test.
    pub name: &'static str,
    /// What `gelid-guest` is to run.
    pub guest: &'static str,
    /// Its arguments; `{dir}` stands for its folder.
    pub args: &'static [&'static str],
    /// Files to be put in its folder first: name and text.
    pub files: &'static [(&'static str, &'static str)],
    /// Processes come and go in it, so that `/proc` cannot be compared.
    pub moving: bool,
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
    /// It uses pseudoterminals, the numbers of which must be free when it is restored.
    pub terminals: bool,
    /// What CRIU loses of it; then there is nothing to be exchanged with CRIU.
    pub lost_by_criu: Option<&'static str>,
    /// Kinds of namespaces that it has of its own, pid always among them, as `gelid-guest inside` knows them.
    pub inside: Option<&'static str>,
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
            args: &[],
            files: &[],
            moving: false,
            without: &[],
            ignore: &[],
            options: &[],
            dump_options: &[],
            pause: Duration::ZERO,
            refused: None,
            terminals: false,
            lost_by_criu: None,
            inside: None,
        }
    }

    /// Modes in which it is run.
    pub fn modes(&self) -> impl Iterator<Item = Mode> {
        // How the images would be written makes no difference to a refusal.
        let fits = |mode: &Mode| self.refused.is_none() || [Mode::None, Mode::Raw].contains(mode);
        Mode::all()
            .iter()
            .copied()
            .filter(move |mode| !self.without.contains(mode) && fits(mode))
    }

    /// Runs the guest through a mode.
    ///
    /// # Errors
    ///
    /// A failed command, differences in `/proc`, or what the guest found wrong.
    pub fn run(&self, mode: Mode) -> Result<Verdict> {
        let (dumper, restorer) = match mode {
            Mode::None => return self.started(self.inside.map(str::to_owned), Guest::check),
            mode => mode.engines()?,
        };
        if let (Some(loss), true) = (self.lost_by_criu, dumper.is_criu() || restorer.is_criu()) {
            return Ok(Verdict::Skipped(format!("CRIU: {loss}")));
        }
        let _alone = self.terminals.then(terminals);
        if dumper.is_criu() && mode == Mode::Zstd {
            return Ok(Verdict::Skipped("CRIU has no zstd".into()));
        }
        self.started(self.kinds(&dumper, &restorer), |guest| {
            let restorer = restorer.rooted(guest.root_directory());
            let journey = Journey {
                case: self,
                mode,
                dumper,
                restorer,
                guest,
                findings: Vec::new(),
            };
            match (self.refused, mode) {
                (Some(reason), _) => journey.refusal(reason),
                (None, Mode::Running) => journey.leave_running(),
                (None, Mode::Rounds) => journey.go_round(rounds()),
                (None, _) => journey.go_round(1),
            }
        })
    }

    /// The namespaces it is to have. CRIU takes no less than a container whole: it looks at `/proc` inside, and writes
    /// beside it.
    fn kinds(&self, dumper: &Engine, restorer: &Engine) -> Option<String> {
        let mut kinds: Vec<&str> = self.inside?.split(' ').collect();
        if dumper.is_criu() || restorer.is_criu() {
            kinds.extend(CONTAINER);
        }
        Some(kinds.join(" "))
    }

    /// Starts the guest and does something with it, unless it cannot run here.
    fn started(
        &self,
        kinds: Option<String>,
        test: impl FnOnce(&mut Guest) -> Result<()>,
    ) -> Result<Verdict> {
        match Guest::start(self.guest, kinds.as_deref(), self.args, self.files)? {
            Started::Skip(reason) => Ok(Verdict::Skipped(reason)),
            Started::Ready(mut guest) => test(&mut guest).map(|()| Verdict::Passed),
        }
    }
}

/// A guest on its way.
struct Journey<'a> {
    case: &'a Case,
    mode: Mode,
    dumper: Engine,
    restorer: Engine,
    guest: &'a mut Guest,
    /// What `/proc` showed differently; the guest is asked all the same.
    findings: Vec<String>,
}

impl Journey<'_> {
    /// Dumps, deaths and restores; then the guest has the word.
    fn go_round(mut self, count: usize) -> Result<()> {
        for round in 0..count {
            let images = self.guest.images(&format!("images-{round}"));
            let before = self.settled()?;
            self.dump(&images, round)?.expect("dump")?;
            self.guest.tree.await_death(DEATH)?;
            std::thread::sleep(self.case.pause);
            self.restore(&images)?;
            self.same(&before, "after the restore")?;
        }
        let verdict = self.guest.check();
        self.close(verdict)
    }

    fn leave_running(mut self) -> Result<()> {
        let images = self.guest.images("images");
        let before = self.settled()?;
        self.dump(&images, 0)?.expect("dump")?;
        self.same(&before, "after a dump that left it running")?;
        let files = DirectoryState::save(&self.guest.path())?;
        let original = self.guest.check();
        original.map_err(|error| error.context("the original"))?;
        files.put_back()?;
        self.restore(&images)?;
        self.same(&before, "after the restore")?;
        let verdict = self.guest.check();
        self.close(verdict)
    }

    /// The dump must fail with its reason, and leave no trace.
    fn refusal(mut self, reason: &str) -> Result<()> {
        let images = self.guest.images("images");
        let before = self.settled()?;
        let start = Instant::now();
        let outcome = self.dump(&images, 0)?;
        let took = start.elapsed();
        // Some have a time to wait for, which options say.
        let is_quick = took < REFUSED || !self.case.dump_options.is_empty();
        ensure!(self.dumper.is_criu() || is_quick, "refused after {took:?}");
        if outcome.ok() {
            bail!("the dump was to be refused because of {reason:?}, and succeeded");
        }
        let text = format!("{}{}", outcome.output, outcome.log);
        ensure!(
            self.dumper.is_criu() || text.contains(reason),
            "the dump was to be refused because of {reason:?}, and said:\n{text}"
        );
        ensure!(
            !images.join("inventory.img").exists(),
            "a refused dump left images behind"
        );
        self.same(&before, "after a refused dump")?;
        let verdict = self.guest.check();
        self.close(verdict)
    }

    fn dump(&self, images: &std::path::Path, round: usize) -> Result<crate::engine::Outcome> {
        let mut words = self.mode.options(&self.dumper, round);
        words.extend(self.case.options);
        words.extend(self.case.dump_options);
        self.dumper.dump(self.guest.tree.root(), images, &words)
    }

    fn restore(&mut self, images: &std::path::Path) -> Result<()> {
        let mut options = self.case.options.to_vec();
        let pidfile = images.join("root.pid");
        let path = pidfile.display().to_string();
        if self.case.inside.is_some() {
            options.extend(["--pidfile", &path]);
        }
        let outcome = self.restorer.restore(images, &options)?;
        outcome.expect("restore")?;
        if self.case.inside.is_some() {
            // What it is called outside is up to the kernel.
            let pid = std::fs::read_to_string(&pidfile)?;
            self.guest.tree.again(pid.trim().parse()?);
            std::fs::remove_file(&pidfile)?;
        }
        Ok(())
    }

    /// The tree as `/proc` shows it, without what changes anyway. Of images that CRIU wrote or restores,
    /// only what the guest says counts.
    fn look(&mut self) -> Result<Snapshot> {
        if self.case.moving
            || self.case.inside.is_some()
            || self.dumper.is_criu()
            || self.restorer.is_criu()
        {
            self.guest.tree.look();
            return Ok(Snapshot::default());
        }
        let snapshot = self.guest.snapshot(PASSING_FLAGS)?;
        Ok(snapshot.without(self.case.ignore))
    }

    /// The tree once two looks at it agree: a guest may say that it is ready a little before the last of its
    /// tasks has come to rest.
    fn settled(&mut self) -> Result<Snapshot> {
        let mut last = self.look()?;
        for _ in 0..LOOKS {
            std::thread::sleep(Duration::from_millis(2));
            let next = self.look()?;
            if next == last {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    /// Notes what differs from before, once the tasks had time to come to rest: one that is about to enter its
    /// system call again, say, does not have the mask of it yet.
    fn same(&mut self, before: &Snapshot, when: &str) -> Result<()> {
        let mut differences = compare(before, &self.look()?);
        let deadline = Instant::now() + REST;
        while !differences.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            differences = compare(before, &self.look()?);
        }
        if !differences.is_empty() {
            let count = differences.len();
            self.findings.push(format!(
                "{count} differences {when}:\n  {}",
                shortened(&differences)
            ));
        }
        Ok(())
    }

    /// The guest's verdict and the findings together.
    fn close(self, verdict: Result<()>) -> Result<()> {
        let mut parts = self.findings;
        match verdict {
            Ok(()) if parts.is_empty() => return Ok(()),
            Ok(()) => parts.push("the guest itself is content".into()),
            Err(error) => parts.push(format!("{error:#}")),
        }
        bail!("{}", parts.join("\n"))
    }
}

/// The first differences, and how many more there are.
fn shortened(lines: &[String]) -> String {
    const MOST: usize = 20;
    let mut shown = lines[..lines.len().min(MOST)].to_vec();
    if lines.len() > MOST {
        shown.push(format!("and {} more", lines.len() - MOST));
    }
    shown.join("\n  ")
}
