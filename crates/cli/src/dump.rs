//! `gelid dump`: from options to a dump, and what is said about it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use gelid_dump::{End, Hook, Options, Outcome, Phase, Validation};
use gelid_image::messages::{DumpStatsEntry, StatsEntry};
use gelid_image::{Dir, ImageKind};
use gelid_pages::{Format, StoreOptions};
use rustix::process::Pid;

use crate::action_scripts::Scripts;
use crate::args::{
    Compression, FileValidation, Files, Invocation, ManageCgroups, Namespaces, NetworkLock,
    Snapshot, inodes,
};
use crate::moments::{Audience, Client};
use crate::surroundings::Surroundings;
use crate::{cpuinfo, log, privilege, statistics};

/// The environment's variable that names a phase that is to fail: for tests.
const FAULT: &str = "GELID_FAULT";

/// What CRIU returns when a script objects to images that are there.
const OBJECTED: u8 = 255;

/// Longer than anybody waits: no limit.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Dumps the tree and says how it went.
pub(crate) fn run(
    invocation: &Invocation,
    surroundings: &Surroundings,
    client: Client,
) -> anyhow::Result<()> {
    match dump(invocation, surroundings, client) {
        Ok(stats) => {
            if invocation.options.general.display_stats {
                print!("{}", statistics::Dump(&stats));
            }
            tracing::info!("Dumping finished successfully");
            Ok(())
        }
        Err(error) => {
            tracing::error!("{}", log::one_line(&error));
            tracing::error!("Dumping FAILED.");
            Err(error)
        }
    }
}

/// The exit code of a dump.
pub(crate) fn code(dumped: &anyhow::Result<()>) -> ExitCode {
    let Err(error) = dumped else {
        return ExitCode::SUCCESS;
    };
    match error.downcast_ref() {
        Some(gelid_dump::Error::Hook {
            hook: Hook::PostDump,
            ..
        }) => ExitCode::from(OBJECTED),
        _ => ExitCode::FAILURE,
    }
}

fn dump(
    invocation: &Invocation,
    surroundings: &Surroundings,
    client: Client,
) -> anyhow::Result<DumpStatsEntry> {
    let mut options = options(invocation, surroundings)?;
    let scripts = Scripts::new(&invocation.options.general.action_script, surroundings)?;
    let audience = Audience::new(client.notifier, scripts);
    audience.tell("pre-dump", Some(options.tree))?;
    options.hooks = audience.of_dump();
    options.service = client.socket;
    tracing::debug!(?options, work = %surroundings.work.display(), "options");
    if invocation.cpu_image().is_some() {
        cpuinfo::write(&options.images)?;
    }
    let dumped = gelid_dump::dump(&options);
    if dumped.is_err() && invocation.cpu_image().is_some() {
        // It says nothing of the tree.
        let _ = std::fs::remove_file(surroundings.images.join("cpuinfo.img"));
    }
    let outcome = dumped.map_err(with_words_of_criu)?;
    account(&outcome);
    let stats = StatsEntry {
        dump: Some(outcome.stats),
        ..StatsEntry::default()
    };
    // The tree is dumped, whatever becomes of the figures.
    let stored = Dir::open(&surroundings.work)
        .map_err(anyhow::Error::from)
        .and_then(|work| Ok(work.store(ImageKind::StatsDump, (), &stats)?));
    if let Err(error) = stored {
        tracing::warn!("statistics: {}", log::one_line(&error));
    }
    Ok(stats.dump.unwrap_or_default())
}

fn options(invocation: &Invocation, surroundings: &Surroundings) -> anyhow::Result<Options> {
    let given = &invocation.options;
    let tree = given.general.tree.and_then(|pid| i32::try_from(pid).ok());
    let tree = tree
        .and_then(Pid::from_raw)
        .context("--tree: pid not specified")?;
    let images = Dir::open(&surroundings.images)?;
    let end = match (given.tasks.leave_running, given.tasks.leave_stopped) {
        (_, true) => End::Stop,
        (true, false) => End::Run,
        (false, false) => End::Kill,
    };
    let timeout = match given.general.timeout {
        0 => FOREVER,
        seconds => Duration::from_secs(seconds.into()),
    };
    let earlier = given.general.prev_images_dir.clone();
    if earlier.as_ref().is_some_and(|path| path.is_absolute()) {
        tracing::warn!("--prev-images-dir: images with an absolute path cannot be moved");
    }
    let defaults = Options::new(tree, images);
    Ok(Options {
        end,
        pages: StoreOptions {
            format: format(invocation.compression()),
            dedup: given.memory.dedup_content,
            ..defaults.pages
        },
        earlier,
        timeout,
        freeze_cgroup: given.tasks.freeze_cgroup.clone(),
        shell_job: given.tasks.shell_job,
        external: external(&given.files, &given.namespaces)?,
        mounts: gelid_dump::Mounts {
            skip: given.namespaces.skip_mnt.clone(),
            enable_fs: given.namespaces.enable_fs.clone(),
            masters: given.namespaces.enable_external_masters,
            sharing: given.namespaces.enable_external_sharing,
        },
        orphan_pts_master: given.tasks.orphan_pts_master,
        empty_net: given.namespaces.empty_ns.is_some(),
        ext_unix_sk: !given.files.ext_unix_sk.is_empty(),
        skip_in_flight: given.files.skip_in_flight,
        tcp_established: given.files.tcp_established,
        tcp_close: given.files.tcp_close,
        network_lock: match given.files.network_lock {
            NetworkLock::Iptables => gelid_dump::NetworkLock::Iptables,
            NetworkLock::Nftables => gelid_dump::NetworkLock::Nftables,
            NetworkLock::Skip => gelid_dump::NetworkLock::Skip,
        },
        snapshot: match given.memory.snapshot {
            Snapshot::Auto => gelid_dump::Snapshot::Auto,
            Snapshot::Never => gelid_dump::Snapshot::Never,
            Snapshot::Always => gelid_dump::Snapshot::Always,
        },
        validation: match given.files.file_validation {
            FileValidation::Filesize => Validation::Size,
            FileValidation::Buildid => Validation::BuildId,
        },
        ghost_limit: given.files.ghost_limit.unwrap_or(defaults.ghost_limit),
        link_remap: given.files.link_remap,
        evasive_devices: given.files.evasive_devices,
        file_locks: given.files.file_locks,
        cgroups: gelid_dump::Cgroups {
            ignore: given.cgroups.manage_cgroups == ManageCgroups::Ignore || !privilege::is_root(),
            roots: given.cgroups.roots()?,
            controllers: given.cgroups.cgroup_dump_controller.clone(),
            yard: given.cgroups.cgroup_yard.clone(),
            properties: given.cgroups.properties()?,
        },
        fault: fault()?,
        ..defaults
    })
}

/// What is outside of the tree. Inodes of `--ext-unix-sk` are keys of `--external` as well.
fn external(files: &Files, namespaces: &Namespaces) -> anyhow::Result<Vec<String>> {
    let sockets = files.ext_unix_sk.iter().flat_map(|text| inodes(text));
    let sockets = sockets.flatten().map(|inode| format!("unix[{inode}]"));
    let external = files.external.iter().cloned();
    Ok(external
        .chain(sockets)
        .chain(namespaces.external_mounts()?)
        .collect())
}

fn format(compression: Compression) -> Format {
    match compression {
        Compression::None => Format::Raw,
        Compression::Zstd { level: Some(level) } => Format::Zstd { level },
        Compression::Zstd { level: None } => Format::Adaptive,
    }
}

fn fault() -> anyhow::Result<Option<Phase>> {
    let Some(name) = std::env::var_os(FAULT) else {
        return Ok(None);
    };
    let phase = name.to_string_lossy().parse();
    phase.map(Some).context(FAULT)
}

/// Clients look for these.
fn with_words_of_criu(error: gelid_dump::Error) -> anyhow::Error {
    let caller = matches!(&error, gelid_dump::Error::Freeze(freeze) if freeze.is_caller());
    let error = anyhow::Error::new(error);
    match caller {
        true => error.context("The criu itself is within dumped tree"),
        false => error,
    }
}

/// What a human wants to know.
fn account(outcome: &Outcome) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    tracing::info!(
        "{} tasks, {} threads, {} pages: {:.1} MiB in {:.1} MiB; frozen for {:.1?} of {:.1?}",
        outcome.tasks,
        outcome.threads,
        outcome.pages,
        mib(outcome.raw_bytes),
        mib(outcome.packed_bytes),
        outcome.frozen,
        outcome.elapsed
    );
}
