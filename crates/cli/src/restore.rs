//! `gelid restore`: from options to a restore, and what follows it.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use gelid_image::messages::{CpuinfoEntry, RestoreStatsEntry, StatsEntry};
use gelid_image::{Dir, ImageKind};
use gelid_restore::files::{Inherit, Validation};
use gelid_restore::{
    CgroupOptions, FileOptions, Hooks, JoinOptions, MountOptions, NetOptions, Options,
};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use crate::action_scripts::Scripts;
use crate::args::{FileValidation, InheritFd, Invocation, ManageCgroups, user_and_group};
use crate::moments::{Audience, Client};
use crate::pidfile::Pidfile;
use crate::surroundings::Surroundings;
use crate::{cpuinfo, log, privilege, statistics};

/// Restores the tree and says how it went: the command, which waits for the end of the tree unless it is detached.
pub(crate) fn run(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<ExitCode> {
    let options = &invocation.options;
    if options.tasks.dry_run {
        return plan(invocation, surroundings);
    }
    if perform(invocation, surroundings, Client::default()).is_err() {
        return Ok(ExitCode::FAILURE);
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

/// Restores the tree, says how it went, and gives its root.
pub(crate) fn perform(
    invocation: &Invocation,
    surroundings: &Surroundings,
    client: Client,
) -> anyhow::Result<Pid> {
    let options = &invocation.options.general;
    let pidfile = options.pidfile.clone().map(Pidfile::create).transpose();
    let restored = pidfile.and_then(|pidfile| {
        let (root, stats) = restore(invocation, surroundings, client)?;
        pidfile.map(|pidfile| pidfile.keep(root)).transpose()?;
        Ok((root, stats))
    });
    match restored {
        Ok((root, stats)) => {
            if options.display_stats {
                print!("{}", statistics::Restore(&stats));
            }
            tracing::info!("Restore finished successfully. Tasks resumed.");
            Ok(root)
        }
        Err(error) => {
            tracing::error!("{}", log::one_line(&error));
            tracing::error!("Restoring FAILED.");
            Err(error)
        }
    }
}

/// The root of the restored tree, as the caller sees it, and statistics.
fn restore(
    invocation: &Invocation,
    surroundings: &Surroundings,
    client: Client,
) -> anyhow::Result<(Pid, RestoreStatsEntry)> {
    let given = &invocation.options;
    for inherited in &given.files.inherit_fd {
        if let InheritFd::Debug { fd, text } = inherited {
            fs::write(format!("/proc/self/fd/{fd}"), text)?;
        }
    }
    let images = Dir::open(&surroundings.images)?;
    let mut options = options(invocation, client.notifier.is_some())?;
    if let Some(wanted) = invocation.cpu_image() {
        cpuinfo::check(&images, wanted)?;
    }
    let scripts = Scripts::new(&given.general.action_script, surroundings)?;
    let audience = Audience::new(client.notifier, scripts);
    audience.tell("pre-restore", None)?;
    options.hooks = audience.of_restore();
    let outcome = gelid_restore::restore(&images, &options)?;
    let root = outcome.root.context("the restored tree has no root")?;
    let stats = StatsEntry {
        restore: Some(outcome.stats()),
        ..StatsEntry::default()
    };
    Dir::open(&surroundings.work)?.store(ImageKind::StatsRestore, (), &stats)?;
    Ok((root, outcome.stats()))
}

/// Tells what would be in the way of a restore; whether there is nothing.
pub(crate) fn examine(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<bool> {
    let images = Dir::open(&surroundings.images)?;
    let mut found = gelid_restore::examine(&images, &options(invocation, true)?)?
        .into_iter()
        .map(anyhow::Error::from)
        .collect::<Vec<_>>();
    let recorded = images.read_all::<CpuinfoEntry>(ImageKind::Cpuinfo, ())?;
    if !recorded.is_empty() {
        found.extend(cpuinfo::check(&images, invocation.cpu()).err());
    }
    for obstacle in &found {
        println!("{}", crate::log::one_line(obstacle));
    }
    if found.is_empty() {
        println!("Looks good.");
    }
    Ok(found.is_empty())
}

/// Prints what a restore would do.
fn plan(invocation: &Invocation, surroundings: &Surroundings) -> anyhow::Result<ExitCode> {
    let images = Dir::open(&surroundings.images)?;
    let plan = gelid_restore::plan(&images, &options(invocation, true)?)?;
    let mut out = std::io::stdout().lock();
    for line in plan.describe() {
        writeln!(out, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What it says about mounts.
fn mounts(given: &crate::args::Options) -> anyhow::Result<MountOptions> {
    let external = given.files.external.iter().cloned();
    let external = external.chain(given.namespaces.external_mounts()?);
    Ok(MountOptions {
        context: given.namespaces.lsm_mount_context.clone(),
        ..MountOptions::from_external(&external.collect::<Vec<_>>())
    })
}

/// What the command line says about restoring.
fn options(invocation: &Invocation, notifies: bool) -> anyhow::Result<Options> {
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
            orphan_pts_master: given.tasks.orphan_pts_master && notifies,
            console: given.tasks.orphan_pts_master,
            tcp_established: given.files.tcp_established,
            tcp_close: given.files.tcp_close,
            inherit: inherit.collect(),
        },
        lsm_profile: match &given.namespaces.lsm_profile {
            Some(text) => Some(text.parse().context("--lsm-profile")?),
            None => None,
        },
        cgroups: CgroupOptions {
            manage: match given.cgroups.manage_cgroups {
                _ if !privilege::is_root() => gelid_restore::ManageCgroups::Ignore,
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
        net: networks(invocation),
        join: others_joined(&given.namespaces.join_ns),
        root: given.namespaces.root.clone(),
        mounts: mounts(given)?,
        sibling: given.tasks.restore_sibling,
        leave_stopped: given.tasks.leave_stopped,
        workers: None,
        // Names of phases of a dump are none of a restore.
        fault: fault.and_then(|name| name.parse().ok()),
        hooks: Hooks::default(),
    })
}

/// What it says about network namespaces.
fn networks(invocation: &Invocation) -> NetOptions {
    let (files, namespaces) = (&invocation.options.files, &invocation.options.namespaces);
    let pairs = namespaces.veth_pair.iter();
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(inner, outer)| format!("veth[{inner}]:{outer}"));
    let keys: Vec<String> = pairs.chain(files.external.iter().cloned()).collect();
    NetOptions {
        join: joined(&namespaces.join_ns, "net"),
        empty: namespaces.empty_ns.is_some(),
        weak_sysctls: namespaces.weak_sysctls,
        ..NetOptions::from_external(&keys)
    }
}

/// What it says of other namespaces to be joined.
fn others_joined(specs: &[String]) -> JoinOptions {
    JoinOptions {
        uts: joined(specs, "uts"),
        ipc: joined(specs, "ipc"),
        time: joined(specs, "time"),
        mnt: joined(specs, "mnt"),
        pid: joined(specs, "pid"),
        user: joined(specs, "user"),
        ids: specs.iter().rev().find_map(|spec| ids(spec)),
    }
}

/// Who makes what the tree gets in a user namespace that is joined.
fn ids(spec: &str) -> Option<(u32, u32)> {
    let (_, ids) = spec.strip_prefix("user:")?.split_once(',')?;
    user_and_group(ids)
}

/// The namespace of a kind that is to be joined: a file, or that of a process.
fn joined(specs: &[String], kind: &str) -> Option<PathBuf> {
    let own = |spec: &String| Some(spec.strip_prefix(kind)?.strip_prefix(':')?.to_owned());
    let target = specs.iter().rev().find_map(own)?;
    let target = target.split(',').next().unwrap_or(&target);
    Some(match target.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("/proc/{target}/ns/{kind}").into(),
        false => target.into(),
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
