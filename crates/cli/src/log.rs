//! The log, in the form that CRIU's callers read.
//!
//! Errors begin with `Error (FILE:LINE): `, warnings with `Warn  (FILE:LINE): `; from level 3 on each line is
//! preceded by the time since the log was opened, as `(SS.UUUUUU) `. What is said before it is open is kept, and
//! written then. A process that serves several requests opens it anew for each of them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// From this level on, lines carry the time.
const TIMED: i64 = 3;

/// Lines that are kept of what is said before the log is open.
const KEPT: usize = 4096;

/// Where the log goes.
#[derive(Debug)]
pub(crate) enum Output {
    Error,
    Standard,
    File(File),
}

impl Output {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Error => Self::Error,
            Self::Standard => Self::Standard,
            Self::File(file) => Self::File(file.try_clone()?),
        })
    }

    /// The same, for a program that is started.
    pub(crate) fn stdio(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Error => Stdio::from(io::stderr().as_fd().try_clone_to_owned()?),
            Self::Standard => Stdio::from(io::stdout().as_fd().try_clone_to_owned()?),
            Self::File(file) => Stdio::from(file.try_clone()?),
        })
    }

    fn write(&mut self, line: &str) {
        let line = line.as_bytes();
        // Nobody can be told of a log that cannot be written.
        let _ = match self {
            Self::Error => io::stderr().write_all(line),
            Self::Standard => io::stdout().write_all(line),
            Self::File(file) => file.write_all(line),
        };
    }
}

/// The log of this process. Its clones are one and the same.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// `None` until it is open.
    output: Option<Output>,
    level: LevelFilter,
    timed: bool,
    opened: Instant,
    /// What was said before.
    early: Vec<(Level, String)>,
    /// The first error since somebody has asked for it.
    first_error: Option<String>,
}

impl Log {
    /// Keeps what is said, from now on, until it is open.
    pub(crate) fn start() -> Self {
        let log = Self::new();
        // There is one log for a process, and this is called once.
        let _ = tracing::subscriber::set_global_default(log.clone());
        log
    }

    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            output: None,
            level: LevelFilter::DEBUG,
            timed: false,
            opened: Instant::now(),
            early: Vec::new(),
            first_error: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it: a file, truncated in place, or `-` for the standard output, or the standard error.
    pub(crate) fn open(&self, verbosity: i64, file: Option<&Path>) -> anyhow::Result<Output> {
        let output = match file {
            None => Output::Error,
            Some(path) if path == Path::new("-") => Output::Standard,
            Some(path) => Output::File(open(path)?),
        };
        self.go_to(output.try_clone()?, verbosity);
        Ok(output)
    }

    /// Makes sure that something is said, on the standard error, when it was not opened so far.
    pub(crate) fn ensure_open(&self, verbosity: i64) {
        let open = self.state().output.is_some();
        if !open {
            self.go_to(Output::Error, verbosity);
        }
    }

    /// The next request opens it anew. What nobody has opened it for goes to the standard error, as far as that level.
    pub(crate) fn close(&self, verbosity: i64) {
        let mut state = self.state();
        let lost = std::mem::take(&mut state.early);
        for (_, line) in lost.iter().filter(|(of, _)| *of <= level(verbosity)) {
            Output::Error.write(line);
        }
        state.output = None;
        state.level = LevelFilter::DEBUG;
        state.first_error = None;
        drop(state);
        tracing::callsite::rebuild_interest_cache();
    }

    /// The first error since it was opened or asked for, as it stands in the log.
    pub(crate) fn take_first_error(&self) -> Option<String> {
        self.state().first_error.take()
    }

    fn go_to(&self, mut output: Output, verbosity: i64) {
        let mut state = self.state();
        state.level = level(verbosity);
        state.timed = verbosity >= TIMED;
        state.opened = Instant::now();
        let prefix = time(Duration::ZERO);
        for (level, line) in std::mem::take(&mut state.early) {
            if level <= state.level {
                let prefix = if state.timed { prefix.as_str() } else { "" };
                output.write(&format!("{prefix}{line}"));
            }
        }
        state.output = Some(output);
        drop(state);
        tracing::callsite::rebuild_interest_cache();
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    // Truncated apart from opening, since append and truncate exclude each other in std.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    let file = file.with_context(|| format!("cannot open the log file {}", path.display()))?;
    // A log file may be a pipe or a terminal, and is new as a rule.
    if (file.metadata()).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0) {
        file.set_len(0)
            .with_context(|| format!("cannot truncate {}", path.display()))?;
    }
    Ok(file)
}

fn level(verbosity: i64) -> LevelFilter {
    match verbosity {
        ..=0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        5.. => LevelFilter::TRACE,
    }
}

/// An error and its causes; what an error already says of its cause is not said twice.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Spans leave no trace in it, so that they need no names of their own, nor a registry, which takes 32 KiB at once.
impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // An error is the answer to a request, even where nothing is logged.
        *metadata.level() == Level::ERROR || *metadata.level() <= self.state().level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Ok(line) = line(event) else { return };
        let level = *event.metadata().level();
        let mut state = self.state();
        if level == Level::ERROR && state.first_error.is_none() {
            state.first_error = Some(line.clone());
        }
        if level > state.level {
            return;
        }
        let prefix = match state.timed {
            true => time(state.opened.elapsed()),
            false => String::new(),
        };
        if let Some(output) = &mut state.output {
            output.write(&format!("{prefix}{line}"));
        } else if state.early.len() < KEPT {
            state.early.push((level, line));
        }
    }
}

fn time(time: Duration) -> String {
    format!("({:02}.{:06}) ", time.as_secs(), time.subsec_micros())
}

/// A line, without the time.
fn line(event: &Event<'_>) -> Result<String, fmt::Error> {
    let metadata = event.metadata();
    let file = short(metadata.file().unwrap_or("?"));
    let number = metadata.line().unwrap_or(0);
    let mut line = match *metadata.level() {
        Level::ERROR => format!("Error ({file}:{number}): "),
        Level::WARN => format!("Warn  ({file}:{number}): "),
        _ => String::new(),
    };
    DefaultFields::new().format_fields(Writer::new(&mut line), event)?;
    line.push('\n');
    Ok(line)
}

/// `cli/log.rs` for `crates/cli/src/log.rs`, wherever the checkout was.
fn short(file: &str) -> String {
    let file = file.rsplit_once("crates/").map_or(file, |(_, file)| file);
    file.replacen("/src/", "/", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a log of that level after `say`.
    fn logged(verbosity: i64, early: impl FnOnce(), say: impl FnOnce()) -> (String, Log) {
        let file = tempfile();
        let log = Log::new();
        tracing::subscriber::with_default(log.clone(), || {
            early();
            log.go_to(Output::File(File::create(&file).unwrap()), verbosity);
            say();
        });
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        (text, log)
    }

    fn tempfile() -> std::path::PathBuf {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::env::temp_dir().join(format!("gelid-log-{}-{count}", std::process::id()))
    }

    #[test]
    fn errors_and_warnings_say_where() {
        let (text, log) = logged(
            3,
            || {},
            || {
                let _span = tracing::info_span!("inside", of = 1).entered();
                tracing::error!("no such pid");
                tracing::warn!(pid = 7, "odd");
                tracing::info!("plain");
            },
        );
        let lines: Vec<&str> = text.lines().map(|line| &line[12..]).collect();
        assert!(lines[0].starts_with("Error (cli/log.rs:"), "{text}");
        assert!(lines[0].ends_with("): no such pid"), "{text}");
        assert!(lines[1].starts_with("Warn  (cli/log.rs:"), "{text}");
        assert!(lines[1].ends_with("): odd pid=7"), "{text}");
        assert_eq!(lines[2], "plain");
        let first = log.take_first_error().unwrap();
        assert_eq!(first.trim_end(), lines[0]);
        assert_eq!(log.take_first_error(), None);
    }

    #[test]
    fn what_was_said_before_comes_first() {
        let early = || {
            tracing::info!("early");
            tracing::debug!("not asked for");
        };
        let (text, _) = logged(3, early, || tracing::info!("late"));
        assert!(text.starts_with("(00.000000) early\n(00.0"), "{text}");
        assert!(
            text.ends_with(") late\n") && text.lines().count() == 2,
            "{text}"
        );
        let (text, log) = logged(0, early, || tracing::error!("silent"));
        assert_eq!(text, "");
        assert!(log.take_first_error().unwrap().ends_with("silent\n"));
    }

    #[test]
    fn causes_are_told_once() {
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(
            one_line(&cause.context("a: no such file").context("opening")),
            "opening: a: no such file"
        );
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(one_line(&cause.context("opening")), "opening: no such file");
    }

    #[test]
    fn time_takes_twelve_columns() {
        assert_eq!(time(Duration::from_micros(1_000_017)), "(01.000017) ");
    }
}
