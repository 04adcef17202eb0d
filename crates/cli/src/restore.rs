//! `gelid restore`: from options to a restore, and what follows it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use gelid_image::messages::{RestoreStatsEntry, StatsEntry};
use gelid_image::{Dir, ImageKind};
use gelid_restore::files::{Inherit, Validation};
use gelid_restore::{CgroupOptions, FileOptions, Hooks, Options};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use crate::action_scripts::Scripts;
use crate::args::{FileValidation, InheritFd, Invocation, ManageCgroups};
use crate::surroundings::Surroundings;
use crate::{log, statistics};

/// Restores the tree and says how it went; waits for its end unless it is detached.
pub(crate) fn run(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<ExitCode> {
    let options = &invocation.options;
    if options.tasks.dry_run {
        return plan(invocation, surroundings);
    }
    let pidfile = options
        .general
        .pidfile
        .clone()
        .map(Pidfile::create)
        .transpose()?;
    match restore(invocation, surroundings).and_then(|(root, stats)| {
        pidfile.map(|pidfile| pidfile.keep(root)).transpose()?;
        Ok(stats)
    }) {
        Ok(stats) => {
            if options.general.display_stats {
                print!("{}", statistics::Restore(&stats));
            }
            tracing::info!("Restore finished successfully. Tasks resumed.");
        }
        Err(error) => {
            tracing::error!("{}", log::one_line(&error));
            tracing::error!("Restoring FAILED.");
            return Ok(ExitCode::FAILURE);
        }
    }
    if let (true, [program, words @ ..]) = (options.tasks.exec_cmd, invocation.words.as_slice()) {
        let error = Command::new(program).args(words).exec();
        return Err(error).with_context(|| format!("cannot execute {}", program.display()));
    }
    if !options.tasks.restore_detached {
        wait_for_children()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The root of the restored tree, as the caller sees it, and statistics.
fn restore(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<(Pid, RestoreStatsEntry)> {
    let given = &invocation.options;
    for inherited in &given.files.inherit_fd {
        if let InheritFd::Debug { fd, text } = inherited {
            fs::write(format!("/proc/self/fd/{fd}"), text)?;
        }
    }
    let images = Dir::open(&surroundings.images)?;
    let mut options = options(invocation)?;
    if let Some(scripts) = Scripts::new(&given.general.action_script, surroundings)? {
        scripts.run("pre-restore", None)?;
        options.hooks = Hooks::new(move |hook, root| scripts.run(hook.name(), Some(root)));
    }
    let outcome = gelid_restore::restore(&images, &options)?;
    let root = outcome.root.context("the restored tree has no root")?;
    let stats = StatsEntry {
        restore: Some(outcome.stats()),
        ..StatsEntry::default()
    };
    Dir::open(&surroundings.work)?.store(ImageKind::StatsRestore, (), &stats)?;
    Ok((root, outcome.stats()))
}

/// Prints what a restore would do.
fn plan(invocation: &Invocation, surroundings: &Surroundings) -> anyhow::Result<ExitCode> {
    let images = Dir::open(&surroundings.images)?;
    let plan = gelid_restore::plan(&images, &options(invocation)?)?;
    let mut out = std::io::stdout().lock();
    for line in plan.describe() {
        writeln!(out, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command line says about restoring.
fn options(invocation: &Invocation) -> anyhow::Result<Options> {
    let given = &invocation.options;
    let inherit = given.files.inherit_fd.iter().filter_map(|fd| match fd {
        InheritFd::Descriptor { fd, key } => Some(Inherit {
            fd: *fd,
            key: key.clone(),
        }),
        InheritFd::Debug { .. } => None,
    });
    let fault = std::env::var("GELID_FAULT").ok();
    Ok(Options {
        files: FileOptions {
            validation: match given.files.file_validation {
                FileValidation::Filesize => Validation::Size,
                FileValidation::Buildid => Validation::BuildId,
            },
            skip_rwx_check: given.files.skip_file_rwx_check,
            shell_job: given.tasks.shell_job,
            tcp_established: given.files.tcp_established,
            tcp_close: given.files.tcp_close,
            inherit: inherit.collect(),
        },
        cgroups: CgroupOptions {
            manage: match given.cgroups.manage_cgroups {
                ManageCgroups::Ignore => gelid_restore::ManageCgroups::Ignore,
                ManageCgroups::None => gelid_restore::ManageCgroups::None,
                ManageCgroups::Props => gelid_restore::ManageCgroups::Props,
                ManageCgroups::Soft => gelid_restore::ManageCgroups::Soft,
                ManageCgroups::Full => gelid_restore::ManageCgroups::Full,
                ManageCgroups::Strict => gelid_restore::ManageCgroups::Strict,
            },
            roots: given.cgroups.roots()?,
            yard: given.cgroups.cgroup_yard.clone(),
        },
        root: given.namespaces.root.clone(),
        sibling: given.tasks.restore_sibling,
        leave_stopped: given.tasks.leave_stopped,
        workers: None,
        // Names of phases of a dump are none of a restore.
        fault: fault.and_then(|name| name.parse().ok()),
        hooks: Hooks::default(),
    })
}

/// Until every restored task that is a child of this process is gone.
fn wait_for_children() -> anyhow::Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno).context("waiting for the restored tasks"),
        }
    }
}

/// A pidfile that is new, and goes away again unless it is [kept](Self::keep).
struct Pidfile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Pidfile {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = file.with_context(|| format!("cannot create the pidfile {}", path.display()))?;
        Ok(Self {
            path,
            file,
            kept: false,
        })
    }

    /// Writes the pid: decimal, without a newline.
    fn keep(mut self, pid: Pid) -> anyhow::Result<()> {
        self.file
            .write_all(pid.to_string().as_bytes())
            .with_context(|| format!("cannot write the pidfile {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing is lost if it stays: it is empty.
            let _ = fs::remove_file(&self.path);
        }
    }
}
