//! What every command finds when it starts: the folder of the images, the work folder, an open log.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Mode, OFlags};

use crate::args::{Command, Identity, Invocation};
use crate::log::{Log, Output};
use crate::{CRIU_VERSION, privilege};

/// Folders, by paths that do not depend on the current one, and the log.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) images: PathBuf,
    /// The current folder, from now on.
    pub(crate) work: PathBuf,
    pub(crate) log: Output,
    /// Folders that have no path, or not for long: those of descriptors of somebody else.
    _held: Vec<OwnedFd>,
}

/// Goes to the work folder, opens the log there, and checks the privileges.
pub(crate) fn enter(invocation: &Invocation, log: &Log) -> anyhow::Result<Surroundings> {
    let (images, work, held) = folders(invocation)?;
    rustix::process::chdir(&work).with_context(|| format!("cannot go to {}", work.display()))?;
    let options = &invocation.options.general;
    let log = log.open(invocation.verbosity(), options.log_file.as_deref())?;
    introduce();
    for fd in &options.close {
        tracing::info!("--close {fd}: no descriptor of the caller is passed on to a restored task");
    }
    privilege::check(invocation)?;
    Ok(Surroundings {
        images,
        work,
        log,
        _held: held,
    })
}

/// The folders of the images and for everything else.
fn folders(invocation: &Invocation) -> anyhow::Result<(PathBuf, PathBuf, Vec<OwnedFd>)> {
    let options = &invocation.options.general;
    if invocation.identity == Identity::Gelid && invocation.command == Command::Dump {
        create_images_dir(&options.images_dir)?;
    }
    let mut held = Vec::new();
    let images = folder(&options.images_dir, &mut held)?;
    let work = match &options.work_dir {
        Some(work) => folder(work, &mut held)?,
        None => images.clone(),
    };
    Ok((images, work, held))
}

/// The first lines of a log.
fn introduce() {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!("Version: {CRIU_VERSION} (gelid {version})");
    if tracing::enabled!(tracing::Level::INFO) {
        let system = rustix::system::uname();
        let words = [
            system.nodename(),
            system.sysname(),
            system.release(),
            system.version(),
            system.machine(),
        ];
        tracing::info!(
            "Running on {}",
            words.map(|word| word.to_string_lossy()).join(" ")
        );
    }
}

/// A dump needs no folder that is there already, except for callers that count on CRIU's refusal.
fn create_images_dir(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(|| format!("cannot create {}", path.display())),
    }
}

/// A path of a folder that is good whatever becomes of the current one. What a link of procfs leads to is held, since
/// the text of such a link may be no path.
fn folder(path: &Path, held: &mut Vec<OwnedFd>) -> anyhow::Result<PathBuf> {
    let cannot = || format!("cannot open {}", path.display());
    if path.starts_with("/proc") {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).with_context(cannot)?;
        let name = format!("/proc/self/fd/{}", folder.as_raw_fd());
        held.push(folder);
        return Ok(name.into());
    }
    let folder = path.canonicalize().with_context(cannot)?;
    anyhow::ensure!(folder.is_dir(), "{} is not a folder", path.display());
    Ok(folder)
}
