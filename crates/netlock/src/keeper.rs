//! The shell that lifts rules when the one who set them is gone.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::rules::Rules;

/// Waits for a word or the end of its input; without the word it lifts the rules, all at once or, if some are gone
/// already, each by itself. Arguments: how to lift one rule, how to lift all, and what lifts them.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
single=$1; whole=$2; shift 2
read -r word && [ "$word" = keep ] && exit 0
printf %s "$@" | $whole && exit 0
[ -n "$single" ] || exit 0
printf %s "$@" | while read -r rule; do
    case $rule in -D*) $single $rule ;; esac
done
exit 0
"#;

/// Where programs of the firewall are, beside where others are.
const PLACES: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// What stands in the way of keeping packets away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error(
        "{program}, which keeps packets of connections away, is not installed: install it, or use another \
         --network-lock (iptables, nftables, skip)"
    )]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// The program could not be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The program has failed.
    #[error("{program} has not taken the rules that keep packets away: {message}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// The shell that would lift the rules is gone.
    #[error("the shell that holds the rules of the firewall is gone: {source}")]
    Keeper {
        /// How that was noticed.
        source: std::io::Error,
    },
}

/// A shell that lifts rules at its end.
#[derive(Debug)]
pub(crate) struct Keeper(Option<Child>);

impl Keeper {
    /// Starts it; there need not be any rules yet.
    pub(crate) fn start(rules: &Rules) -> Result<Self, Error> {
        let single = rules
            .single
            .map(|program| format!("{program} -w -t filter"));
        let whole = format!("{} {}", rules.program, rules.arguments.join(" "));
        let child = command("/bin/sh")
            .args([
                "-c",
                SCRIPT,
                "gelid-netlock",
                &single.unwrap_or_default(),
                &whole,
            ])
            .args(&rules.lift)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What the terminal sends to the dumper is not for it.
            .process_group(0)
            .spawn();
        let program = "/bin/sh";
        let child = child.map_err(|source| Error::Run { program, source })?;
        Ok(Self(Some(child)))
    }

    /// Sets the rules. The program that does holds the shell's input too: should this process be killed meanwhile, the
    /// shell lifts them when they are all set.
    pub(crate) fn set(&self, rules: &Rules) -> Result<(), Error> {
        let input = self.0.as_ref().and_then(|child| child.stdin.as_ref());
        let held = input.map(|input| input.as_fd().try_clone_to_owned());
        let held = held
            .transpose()
            .map_err(|source| Error::Keeper { source })?;
        let held = held.map_or_else(Stdio::null, Stdio::from);
        run_holding(held, rules.program, rules.arguments, rules.set.as_bytes())
    }

    /// Ends it, and the rules stay.
    pub(crate) fn keep(mut self) -> Result<(), Error> {
        let Some(mut child) = self.0.take() else {
            return Ok(());
        };
        let told = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(b"keep\n"),
            None => Ok(()),
        };
        let ended = child.wait().map(drop);
        told.and(ended).map_err(|source| Error::Keeper { source })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            // It has lifted what there was.
            let _ = child.wait();
        }
    }
}

/// Runs a program that reads `input`.
pub(crate) fn run(program: &'static str, arguments: &[&str], input: &[u8]) -> Result<(), Error> {
    run_holding(Stdio::null(), program, arguments, input)
}

/// The same with something open instead of its output, of which there is none.
fn run_holding(
    held: Stdio,
    program: &'static str,
    arguments: &[&str],
    input: &[u8],
) -> Result<(), Error> {
    let failed = |source| Error::Run { program, source };
    let child = command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(held)
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::Missing { program },
        _ => failed(source),
    })?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(input),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return written.map_err(failed);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.lines().next().unwrap_or("it did not say why");
    Err(Error::Failed {
        program,
        message: message.to_owned(),
    })
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:{PLACES}"))
        .current_dir("/");
    command
}
