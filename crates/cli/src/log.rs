//! The log, in the form that CRIU's callers read.
//!
//! Errors begin with `Error (FILE:LINE): `, warnings with `Warn  (FILE:LINE): `; from level 3 on each line is
//! preceded by the time since the log was opened, as `(SS.UUUUUU) `.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// From this level on, lines carry the time.
const TIMED: i64 = 3;

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
}

/// Opens the log: a file, truncated in place, or `-` for the standard output, or the standard error.
pub(crate) fn open(verbosity: i64, file: Option<&Path>) -> anyhow::Result<Output> {
    Ok(match file {
        None => {
            start(verbosity, io::stderr);
            Output::Error
        }
        Some(path) if path == Path::new("-") => {
            start(verbosity, io::stdout);
            Output::Standard
        }
        Some(path) => {
            // Truncated apart from opening, since append and truncate exclude each other in std.
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path);
            let file =
                file.with_context(|| format!("cannot open the log file {}", path.display()))?;
            // A log file may be a pipe or a terminal.
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                file.set_len(0)
                    .with_context(|| format!("cannot truncate {}", path.display()))?;
            }
            let output = Output::File(file.try_clone()?);
            start(verbosity, Mutex::new(file));
            output
        }
    })
}

/// Makes sure that something is said, on the standard error, when no log was opened so far.
pub(crate) fn ensure_open(verbosity: i64) {
    if !tracing::dispatcher::has_been_set() {
        start(verbosity, io::stderr);
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

fn start(verbosity: i64, writer: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static) {
    let level = match verbosity {
        ..=0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        5.. => LevelFilter::TRACE,
    };
    let lines = Lines {
        start: Instant::now(),
        timed: verbosity >= TIMED,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .event_format(lines);
    // A second log cannot be opened; the first one stays.
    let _ = log.with_writer(writer).try_init();
}

/// The form of a line.
struct Lines {
    start: Instant,
    timed: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.timed {
            let time = self.start.elapsed();
            write!(
                writer,
                "({:02}.{:06}) ",
                time.as_secs(),
                time.subsec_micros()
            )?;
        }
        let metadata = event.metadata();
        let place = || {
            (
                short(metadata.file().unwrap_or("?")),
                metadata.line().unwrap_or(0),
            )
        };
        if *metadata.level() == Level::ERROR {
            let (file, line) = place();
            write!(writer, "Error ({file}:{line}): ")?;
        } else if *metadata.level() == Level::WARN {
            let (file, line) = place();
            write!(writer, "Warn  ({file}:{line}): ")?;
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// `cli/log.rs` for `crates/cli/src/log.rs`, wherever the checkout was.
fn short(file: &str) -> String {
    let file = file.rsplit_once("crates/").map_or(file, |(_, file)| file);
    file.replacen("/src/", "/", 1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(timed: bool, say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = Lines {
            start: Instant::now(),
            timed,
        };
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, say);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn errors_and_warnings_say_where() {
        let text = logged(false, || {
            tracing::error!("no such pid");
            tracing::warn!(pid = 7, "odd");
            tracing::info!("plain");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Error (cli/log.rs:"), "{text}");
        assert!(lines[0].ends_with("): no such pid"), "{text}");
        assert!(lines[1].starts_with("Warn  (cli/log.rs:"), "{text}");
        assert!(lines[1].ends_with("): odd pid=7"), "{text}");
        assert_eq!(lines[2], "plain");
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
        let text = logged(true, || tracing::info!("plain"));
        assert!(
            text.starts_with("(00.0") && &text[10..12] == ") ",
            "{text:?}"
        );
        assert_eq!(&text[12..], "plain\n");
    }
}
