//! What every command finds when it starts: the folder of the images, the work folder, an open log.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::args::{Command, Identity, Invocation};
use crate::{CRIU_VERSION, log, privilege};

/// Folders, by paths that do not depend on the current one, and the log.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) images: PathBuf,
    /// The current folder, from now on.
    pub(crate) work: PathBuf,
    pub(crate) log: log::Output,
}

/// Checks the privileges, goes to the work folder and opens the log there.
pub(crate) fn enter(invocation: &Invocation) -> anyhow::Result<Surroundings> {
    privilege::check(invocation)?;
    let options = &invocation.options.general;
    if invocation.identity == Identity::Gelid && invocation.command == Command::Dump {
        create_images_dir(&options.images_dir)?;
    }
    let images = folder(&options.images_dir)?;
    let work = match &options.work_dir {
        Some(work) => folder(work)?,
        None => images.clone(),
    };
    rustix::process::chdir(&work).with_context(|| format!("cannot go to {}", work.display()))?;
    let log = log::open(invocation.verbosity(), options.log_file.as_deref())?;
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
    for fd in &options.close {
        tracing::info!("--close {fd}: no descriptor of the caller is passed on to a restored task");
    }
    Ok(Surroundings { images, work, log })
}

/// A dump needs no folder that is there already, except for callers that count on CRIU's refusal.
fn create_images_dir(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(|| format!("cannot create {}", path.display())),
    }
}

fn folder(path: &Path) -> anyhow::Result<PathBuf> {
    let folder = path
        .canonicalize()
        .with_context(|| format!("cannot open {}", path.display()))?;
    anyhow::ensure!(folder.is_dir(), "{} is not a folder", path.display());
    Ok(folder)
}
