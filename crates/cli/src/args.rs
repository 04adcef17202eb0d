//! From the words of the command line to checked options.
//!
//! Words are taken apart as by `getopt_long(3)` ([`getopt`]), preceded by those of the configuration files
//! ([`config`]), typed by clap ([`Options`]) group by group, as far as anything was said of one, and then checked
//! against each other ([`checks`]). What CRIU can do and gelid cannot yet is refused by name ([`missing`]).

mod checks;
mod config;
mod getopt;
mod known;
mod missing;
mod options;
mod request;
mod values;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Args, CommandFactory};

use self::getopt::Given;
use self::known::Group;
pub(crate) use self::options::{Files, Namespaces, Options};
pub(crate) use self::request::Preset;
pub(crate) use self::values::{
    Compression, CpuCap, FileValidation, InheritFd, ManageCgroups, NetworkLock, Snapshot, inodes,
    user_and_group,
};

/// The level of the log where nothing is said: errors and warnings.
const DEFAULT_VERBOSITY: i64 = 2;

/// Under which name the executable was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Gelid,
    /// Scripts must not be able to tell the difference.
    Criu,
}

impl Identity {
    /// By the file name of the first word.
    fn of(program: &OsStr) -> Self {
        match Path::new(program).file_name() {
            Some(name) if name == "criu" => Self::Criu,
            _ => Self::Gelid,
        }
    }

    /// The name that complaints begin with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gelid => "gelid",
            Self::Criu => "criu",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Dump,
    Restore,
    Check,
    Show,
    /// Serves the requests on an inherited socket.
    Swrk,
    /// Serves whoever connects.
    Service,
    /// Writes down the features of this CPU.
    CpuinfoDump,
    /// Compares them with those of this CPU.
    CpuinfoCheck,
    /// A command of CRIU that is not there yet.
    Missing(&'static str),
    /// A command that CRIU has removed, and what replaces it.
    Removed(&'static str, &'static str),
}

impl Command {
    fn of(word: &OsStr, identity: Identity) -> Option<Self> {
        Some(match word.to_str()? {
            "dump" => Self::Dump,
            "restore" => Self::Restore,
            "check" => Self::Check,
            "show" if identity == Identity::Criu => {
                Self::Removed("show", "crit decode -i FILE --pretty")
            }
            "show" => Self::Show,
            "exec" => Self::Removed("exec", "compel"),
            "pre-dump" => Self::Missing("pre-dump"),
            "page-server" => Self::Missing("page-server"),
            "lazy-pages" => Self::Missing("lazy-pages"),
            "dedup" => Self::Missing("dedup"),
            "service" => Self::Service,
            "swrk" => Self::Swrk,
            _ => return None,
        })
    }

    /// `cpuinfo` has a second word.
    fn of_cpuinfo(action: Option<&str>) -> Result<Self, Stop> {
        match action {
            Some("dump") => Ok(Self::CpuinfoDump),
            Some("check") => Ok(Self::CpuinfoCheck),
            _ => {
                let complaint = "cpuinfo requires an action: dump or check";
                Err(Stop::Usage(Some(complaint.to_owned())))
            }
        }
    }

    /// How many words may follow the command.
    fn max_words(self, options: &Options) -> usize {
        match self {
            Self::Show => 2,
            Self::Missing(_) | Self::Removed(..) => usize::MAX,
            Self::Restore if options.tasks.exec_cmd => usize::MAX,
            // How many there must be is told by its usage.
            Self::Swrk => usize::MAX,
            _ => 0,
        }
    }
}

/// A command line that makes sense.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) identity: Identity,
    pub(crate) command: Command,
    pub(crate) options: Options,
    /// What follows the command.
    pub(crate) words: Vec<OsString>,
}

impl Invocation {
    /// The level of the log: 0 nothing to 4 everything.
    pub(crate) fn verbosity(&self) -> i64 {
        level(&self.options)
    }

    /// What `cpuinfo check` compares.
    pub(crate) fn cpu(&self) -> CpuCap {
        match self.options.cgroups.cpu_cap {
            None => CpuCap::USUAL,
            Some(CpuCap(0)) => CpuCap::EVERYTHING,
            Some(named) => named,
        }
    }

    /// What a dump writes down and a restore compares, if anything.
    pub(crate) fn cpu_image(&self) -> Option<CpuCap> {
        self.options.cgroups.cpu_cap.filter(|cap| cap.uses_image())
    }

    /// Refuses what contradicts itself or is not there.
    pub(crate) fn check(&self) -> Result<(), String> {
        checks::check(self).and_then(|()| missing::check(self))
    }

    /// How pages are stored: as asked for, else packed, but as CRIU does under its name and for who wants no
    /// defaults beyond its own.
    pub(crate) fn compression(&self) -> Compression {
        let as_criu = self.identity == Identity::Criu || self.options.general.no_default_config;
        let default = if as_criu {
            Compression::None
        } else {
            Compression::DEFAULT
        };
        self.options.memory.compress.unwrap_or(default)
    }
}

/// Why there is nothing to do, or nothing that can be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Help,
    Version,
    /// The command line is not understood; the complaint, if any, is followed by the usage.
    Usage(Option<String>),
    /// The command line is understood and refused.
    Refused {
        what: String,
        verbosity: i64,
    },
}

/// Reads the command line, `arguments` being all of its words.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> (Identity, Result<Invocation, Stop>) {
    let mut arguments = arguments.into_iter();
    let identity = Identity::of(&arguments.next().unwrap_or_default());
    (identity, parse_words(identity, arguments.collect()))
}

/// The help, as it is printed.
pub(crate) fn help() -> String {
    Options::command().render_help().to_string()
}

fn parse_words(identity: Identity, arguments: Vec<OsString>) -> Result<Invocation, Stop> {
    if arguments.is_empty() {
        return Err(Stop::Usage(None));
    }
    if arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "-h" || word == "--help")
    {
        return Err(Stop::Help);
    }
    let usage = |complaint: String| Stop::Usage(Some(complaint));
    let configured = config::options(&arguments).map_err(|error| usage(error.to_string()))?;
    let options_first = std::env::var_os("POSIXLY_CORRECT").is_some();
    let configured = getopt::parse(configured, false).map_err(|error| usage(error.to_string()))?;
    let given =
        getopt::parse(arguments, options_first).map_err(|error| usage(error.to_string()))?;

    let options: Vec<_> = configured
        .options
        .into_iter()
        .chain(given.options)
        .collect();
    let options = typed(&options)?;
    finish(identity, options, given.words)
}

/// Words that were taken apart, as options.
fn typed(given: &[Given]) -> Result<Options, Stop> {
    if given
        .last()
        .is_some_and(|option| option.known.name == "version")
    {
        return Err(Stop::Version);
    }
    let given = settled(given);
    let options = Options {
        general: described(&given, Group::General)?,
        tasks: group(&given, Group::Tasks)?,
        files: group(&given, Group::Files)?,
        memory: group(&given, Group::Memory)?,
        namespaces: group(&given, Group::Namespaces)?,
        cgroups: group(&given, Group::Cgroups)?,
        check: group(&given, Group::Check)?,
    };
    match options.check.help {
        true => Err(Stop::Help),
        false => Ok(options),
    }
}

/// Without flags that were switched off again.
fn settled(given: &[Given]) -> Vec<&Given> {
    let mut left: Vec<&Given> = Vec::with_capacity(given.len());
    for option in given {
        match option.known.negates {
            true => left.retain(|before| before.known.meaning != option.known.meaning),
            false => left.push(option),
        }
    }
    left
}

/// The options of one group, of which there may be none.
fn group<G: Args + Default>(given: &[&Given], group: Group) -> Result<G, Stop> {
    match given.iter().any(|option| option.known.group == group) {
        true => described(given, group),
        false => Ok(G::default()),
    }
}

/// The options of one group, as clap types them.
fn described<G: Args>(given: &[&Given], group: Group) -> Result<G, Stop> {
    let of_group = given.iter().filter(|option| option.known.group == group);
    let words = of_group.map(|option| option.word());
    let definition = clap::Command::new("gelid")
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .no_binary_name(true);
    G::augment_args(definition)
        .try_get_matches_from(words)
        .and_then(|mut matches| G::from_arg_matches_mut(&mut matches))
        .map_err(|error| Stop::Usage(Some(first_line(&error))))
}

/// Finds the command, and checks the options against it and each other.
fn finish(identity: Identity, options: Options, words: Vec<OsString>) -> Result<Invocation, Stop> {
    let Some((word, mut words)) = words.split_first() else {
        return Err(Stop::Usage(Some("command is required".to_owned())));
    };
    let unknown = || Stop::Usage(Some(format!("unknown command: {}", word.display())));
    let command = match word == "cpuinfo" {
        true => {
            let action = words.split_off_first();
            Command::of_cpuinfo(action.and_then(|action| action.to_str()))?
        }
        false => Command::of(word, identity).ok_or_else(unknown)?,
    };
    if words.len() > command.max_words(&options) {
        let excess = words
            .last()
            .map(|word| word.display().to_string())
            .unwrap_or_default();
        return Err(Stop::Usage(Some(format!(
            "excessive parameter for command {}: {excess}",
            word.display()
        ))));
    }
    let invocation = Invocation {
        identity,
        command,
        options,
        words: words.to_vec(),
    };
    let verbosity = invocation.verbosity();
    match invocation.check() {
        Ok(()) => Ok(invocation),
        Err(what) => Err(Stop::Refused { what, verbosity }),
    }
}

fn level(options: &Options) -> i64 {
    options
        .general
        .verbosity
        .iter()
        .fold(DEFAULT_VERBOSITY, values::verbosity)
}

/// What clap says about a value, without its advice.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests;
