//! `gelid`: freeze a process tree, write it to files, and bring it back. Answers to the name `criu` too.
//!
//! This crate holds what is about the command line: options, log, exit codes, what is printed. What is done is
//! in the libraries, which know nothing of it.

#![forbid(unsafe_code)]

mod action_scripts;
mod args;
mod check;
mod cpuinfo;
mod dump;
mod log;
mod moments;
mod pidfile;
mod privilege;
mod restore;
mod rpc;
mod show;
mod statistics;
mod surroundings;

use std::process::ExitCode;

use gelid_image::Dir;

use self::args::{Command, Identity, Invocation, Stop};
use self::log::Log;
use self::moments::Client;

/// The release of CRIU whose options, images and answers are spoken.
const CRIU_VERSION: &str = "4.2";

/// The same in numbers.
const CRIU_MAJOR: i32 = 4;
const CRIU_MINOR: i32 = 2;

/// What CRIU returns for commands that were removed.
const REMOVED: u8 = 255;

/// What CRIU returns where the features of a CPU cannot be written down.
const FAILED: u8 = 255;

fn main() -> ExitCode {
    let log = Log::start();
    let (identity, parsed) = args::parse(std::env::args_os());
    match parsed {
        Ok(invocation) => run(&invocation, &log).unwrap_or_else(|error| {
            log.ensure_open(invocation.verbosity());
            tracing::error!("{}", log::one_line(&error));
            ExitCode::FAILURE
        }),
        Err(stop) => stopped(identity, stop, &log),
    }
}

/// Does what was asked for; how it went is the exit code.
fn run(invocation: &Invocation, log: &Log) -> anyhow::Result<ExitCode> {
    match invocation.command {
        Command::Show => show::run(invocation),
        Command::Removed(command, instead) => {
            log.ensure_open(invocation.verbosity());
            tracing::error!("{command} was removed: use {instead}");
            Ok(ExitCode::from(REMOVED))
        }
        Command::Missing(command) => {
            anyhow::bail!("{command} is not there yet; see SHORTCOMINGS.md")
        }
        Command::Check => {
            let surroundings = surroundings::enter(invocation, log)?;
            let good = match check::of_images(invocation) {
                true => restore::examine(invocation, &surroundings)?,
                false => check::run(invocation)?,
            };
            Ok(match good {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Command::CpuinfoDump => {
            let surroundings = surroundings::enter(invocation, log)?;
            let images = Dir::open(&surroundings.images)?;
            Ok(match cpuinfo::write(&images) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{}", log::one_line(&error));
                    ExitCode::from(FAILED)
                }
            })
        }
        Command::CpuinfoCheck => {
            let surroundings = surroundings::enter(invocation, log)?;
            let images = Dir::open(&surroundings.images)?;
            cpuinfo::check(&images, invocation.cpu())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Dump => {
            let surroundings = surroundings::enter(invocation, log)?;
            Ok(dump::code(&dump::run(
                invocation,
                &surroundings,
                Client::default(),
            )))
        }
        Command::Restore => restore::run(invocation, &surroundings::enter(invocation, log)?),
        Command::Swrk => rpc::swrk(invocation, log),
        Command::Service => rpc::service(invocation, log),
    }
}

/// Answers a command line that asks for nothing to be done, or for what is refused.
fn stopped(identity: Identity, stop: Stop, log: &Log) -> ExitCode {
    match stop {
        Stop::Help => print!("{}", args::help()),
        Stop::Version => println!("{}", version(identity)),
        Stop::Usage(complaint) => {
            if let Some(complaint) = complaint {
                eprintln!("{}: {complaint}", identity.name());
            }
            println!(
                "Usage: {0} COMMAND [OPTIONS]\nTry '{0} --help' for commands and options.",
                identity.name()
            );
            return ExitCode::FAILURE;
        }
        Stop::Refused { what, verbosity } => {
            log.ensure_open(verbosity);
            tracing::error!("{what}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn version(identity: Identity) -> String {
    match identity {
        Identity::Criu => format!("Version: {CRIU_VERSION}"),
        Identity::Gelid => format!("gelid {} (CRIU {CRIU_VERSION})", env!("CARGO_PKG_VERSION")),
    }
}
