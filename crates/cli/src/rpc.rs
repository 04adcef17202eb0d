//! `gelid swrk` and `gelid service`: CRIU's RPC. A request becomes an invocation, as a command line would, and goes
//! the same way.

mod service;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command as Program, ExitCode};
use std::sync::Arc;

use anyhow::Context;
use gelid_image::Dir;
use gelid_rpc::messages::{Features, Options, PageServer, RequestKind, Version};
use gelid_rpc::{Answer, Channel, Connection, Failure, Handler, Notifier, Words};
use gelid_sys::probe::{Feature, Support, probe};
use gelid_sys::{Errno, inherit};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::args::{Command, Invocation, Preset, Stop};
use crate::log::{self, Log};
use crate::moments::Client;
use crate::surroundings::{self, Surroundings};
use crate::{check, cpuinfo, dump, restore};

pub(crate) use self::service::run as service;

/// The level of what is said while no request has opened a log.
const VERBOSITY: i64 = 2;

/// The exit code where nobody could be served.
const UNSERVED: u8 = 255;

/// Serves the requests on an inherited socket.
pub(crate) fn swrk(invocation: &Invocation, log: &Log) -> anyhow::Result<ExitCode> {
    let number = match invocation.words.as_slice() {
        [fd] => fd.to_str().and_then(|fd| fd.parse().ok()),
        _ => None,
    };
    let Some(number) = number else {
        eprintln!("Usage: criu swrk <fd>");
        return Ok(ExitCode::FAILURE);
    };
    let preset = Preset::read().map_err(said)?;
    let channel = inherit::duplicate(number)
        .with_context(|| format!("descriptor {number}"))
        .and_then(|socket| Ok(Channel::new(socket)?));
    match channel {
        Ok(channel) => serve(channel, preset, false, log),
        Err(error) => {
            log.ensure_open(VERBOSITY);
            tracing::error!("{}", log::one_line(&error));
            Ok(ExitCode::from(UNSERVED))
        }
    }
}

/// Serves the requests of a connection, and does what the last one wants to be done after its answer.
fn serve(channel: Channel, preset: Preset, service: bool, log: &Log) -> anyhow::Result<ExitCode> {
    let channel = Arc::new(channel);
    let mut requests = Requests {
        channel: Arc::clone(&channel),
        preset,
        service,
        log,
        successor: None,
    };
    let code = gelid_rpc::serve(&channel, &mut requests);
    log.ensure_open(VERBOSITY);
    match requests.successor.take() {
        Some(successor) if code == 0 => {
            drop((requests, channel));
            Err(successor.take_over())
        }
        _ => Ok(ExitCode::from(code)),
    }
}

/// Why words could not be understood.
fn said(stop: Stop) -> anyhow::Error {
    match stop {
        Stop::Usage(Some(what)) | Stop::Refused { what, .. } => anyhow::Error::msg(what),
        Stop::Usage(None) | Stop::Help | Stop::Version => {
            anyhow::anyhow!("a configuration file asks for help or version")
        }
    }
}

/// A program that this process becomes once a request is answered.
struct Successor {
    words: Vec<OsString>,
    surroundings: Surroundings,
}

impl Successor {
    /// Comes back only if that fails.
    fn take_over(self) -> anyhow::Error {
        let Some((program, words)) = self.words.split_first() else {
            return anyhow::anyhow!("there is no program to execute");
        };
        let start = || -> std::io::Result<Program> {
            let mut command = Program::new(program);
            command.args(words);
            command.stdout(self.surroundings.log.stdio()?);
            command.stderr(self.surroundings.log.stdio()?);
            inherit::nothing_from(3)?;
            Ok(command)
        };
        let error = match start() {
            Ok(mut command) => command.exec(),
            Err(error) => error,
        };
        anyhow::Error::new(error).context(format!("cannot execute {}", program.display()))
    }
}

/// Does what the requests of one connection ask for.
struct Requests<'log> {
    channel: Arc<Channel>,
    preset: Preset,
    /// The client has connected to a service.
    service: bool,
    log: &'log Log,
    successor: Option<Successor>,
}

impl Requests<'_> {
    fn connection(&self) -> Connection {
        Connection {
            peer: self.channel.peer().pid.map(Pid::as_raw_pid),
            service: self.service,
        }
    }

    /// Goes to the folders of a request, opens its log, and checks what it asks for, in an order that leaves as much
    /// as possible in the log.
    fn begin(
        &self,
        kind: RequestKind,
        command: Command,
        options: &Options,
    ) -> anyhow::Result<(Invocation, Surroundings)> {
        self.allowed(kind)?;
        let words = gelid_rpc::words(kind, options, self.connection())?;
        let status = words.status.clone();
        let invocation = self.preset.with(command, words).map_err(said)?;
        let surroundings = surroundings::enter(&invocation, self.log)?;
        invocation.check().map_err(anyhow::Error::msg)?;
        if let Some(status) = status {
            tracing::warn!("status_fd is obsolete: ask for the notification status-ready");
            let opened = OpenOptions::new().write(true).open(&status);
            opened.with_context(|| format!("status_fd: {}", status.display()))?;
        }
        Ok((invocation, surroundings))
    }

    /// What a stranger may ask of a service: nothing that reads or writes files, or touches a process.
    fn allowed(&self, kind: RequestKind) -> anyhow::Result<()> {
        let peer = self.channel.peer().uid;
        let stranger = self.service && !peer.is_root() && peer != rustix::process::geteuid();
        anyhow::ensure!(
            !stranger,
            "{}: user {} may not ask the service for that",
            kind.name(),
            peer.as_raw()
        );
        Ok(())
    }

    /// The whole of a request that has options.
    fn request<T>(
        &mut self,
        kind: RequestKind,
        command: Command,
        options: &Options,
        perform: impl FnOnce(&mut Self, Invocation, Surroundings) -> anyhow::Result<T>,
    ) -> Answer<T> {
        let result = match self.begin(kind, command, options) {
            Ok((invocation, surroundings)) => {
                let done = perform(self, invocation, surroundings);
                done.map_err(|error| Failure {
                    errno: errno(&error),
                    root: None,
                })
            }
            Err(error) => {
                tracing::error!("{}", log::one_line(&error));
                Err(Failure::BAD_REQUEST)
            }
        };
        self.end(result)
    }

    /// An answer with the first error of the log, which is closed.
    fn end<T>(&self, result: Result<T, Failure>) -> Answer<T> {
        let message = self.log.take_first_error();
        self.log.close(VERBOSITY);
        Answer { result, message }
    }

    /// A request for what is not there, with a log all the same.
    fn missing<T>(&mut self, kind: RequestKind, options: &Options) -> Answer<T> {
        let command = Command::Missing(kind.name());
        self.request(kind, command, options, |_, _, _| {
            tracing::error!("{} is not there yet; see SHORTCOMINGS.md", kind.name());
            anyhow::bail!("not there yet")
        })
    }

    /// Whom to tell of moments.
    fn client(&self, options: &Options) -> Client {
        let wanted = options.notify_scripts == Some(true);
        Client {
            notifier: wanted.then(|| Notifier::new(Arc::clone(&self.channel))),
            socket: self.channel.inode(),
        }
    }

    fn look(&self, options: Option<&Options>) -> anyhow::Result<bool> {
        let logged = options
            .filter(|options| options.log_file.is_some() && options.log_to_stderr != Some(true));
        if let Some(options) = logged {
            let (invocation, _surroundings) =
                self.begin(RequestKind::Check, Command::Check, options)?;
            return check::run(&invocation);
        }
        let words = Words {
            log_to_stderr: true,
            log_level: 2,
            ..Words::default()
        };
        let invocation = self.preset.with(Command::Check, words).map_err(said)?;
        self.log.ensure_open(VERBOSITY);
        check::run(&invocation)
    }
}

impl Handler for Requests<'_> {
    fn version(&mut self) -> Version {
        Version {
            major_number: crate::CRIU_MAJOR,
            minor_number: crate::CRIU_MINOR,
            ..Version::default()
        }
    }

    fn features(&mut self, asked: Features) -> Features {
        let there = |asked: Option<bool>, feature: Feature| {
            let wanted = asked == Some(true) && check::is_ours(feature.name());
            Some(wanted && matches!(probe(feature), Support::Yes))
        };
        Features {
            mem_track: there(asked.mem_track, Feature::MemDirtyTrack),
            lazy_pages: there(asked.lazy_pages, Feature::UffdNoncoop),
            pidfd_store: there(asked.pidfd_store, Feature::PidfdStore),
        }
    }

    fn check(&mut self, options: Option<&Options>) -> Answer {
        let result = match self.look(options) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::default()),
            Err(error) => {
                tracing::error!("{}", log::one_line(&error));
                Err(Failure::BAD_REQUEST)
            }
        };
        self.end(result)
    }

    fn cpuinfo(&mut self, kind: RequestKind, options: &Options) -> Answer {
        let command = match kind {
            RequestKind::CpuinfoDump => Command::CpuinfoDump,
            _ => Command::CpuinfoCheck,
        };
        self.request(kind, command, options, |_, invocation, surroundings| {
            let images = Dir::open(&surroundings.images)?;
            let done = match kind {
                RequestKind::CpuinfoDump => cpuinfo::write(&images),
                _ => cpuinfo::check(&images, invocation.cpu()),
            };
            done.inspect_err(|error| tracing::error!("{}", log::one_line(error)))
        })
    }

    fn page_server(&mut self, kind: RequestKind, options: &Options) -> Answer<PageServer> {
        self.missing(kind, options)
    }

    fn wait_for(&mut self, pid: u32) -> Answer<i32> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let waited = pid.and_then(|pid| {
            loop {
                match waitpid(Some(pid), WaitOptions::empty()) {
                    Err(Errno::INTR) => {}
                    waited => break waited.ok().flatten(),
                }
            }
        });
        let status = waited.map(|(_, status)| status.as_raw());
        self.end(status.ok_or(Failure::default()))
    }

    fn pre_dump(&mut self, options: &Options) -> Answer {
        self.missing(RequestKind::PreDump, options)
    }

    fn dump(&mut self, options: &Options) -> Answer {
        self.request(
            RequestKind::Dump,
            Command::Dump,
            options,
            |requests, invocation, surroundings| {
                let client = requests.client(options);
                dump::run(&invocation, &surroundings, client)
            },
        )
    }

    fn restore(&mut self, options: &Options) -> Answer<i32> {
        self.request(
            RequestKind::Restore,
            Command::Restore,
            options,
            |requests, invocation, surroundings| {
                let client = requests.client(options);
                let root = restore::perform(&invocation, &surroundings, client)?;
                if !invocation.words.is_empty() {
                    requests.successor = Some(Successor {
                        words: invocation.words,
                        surroundings,
                    });
                }
                Ok(root.as_raw_pid())
            },
        )
    }
}

/// The number that clients know a failure by.
fn errno(error: &anyhow::Error) -> Option<i32> {
    let dump = error.downcast_ref().map(|error| match error {
        gelid_dump::Error::Freeze(freeze) if freeze.is_gone() => Some(Errno::SRCH),
        _ => None,
    });
    let restore = error.downcast_ref().map(|error| match error {
        gelid_restore::Error::PidTaken { .. } => Some(Errno::EXIST),
        _ => None,
    });
    let known = dump.or(restore).flatten();
    known.map(Errno::raw_os_error)
}
