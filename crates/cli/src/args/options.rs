//! Every option, as clap sees it: CRIU's names, letters, arguments and defaults, then gelid's own.
//!
//! The doc comments are the help. Every option is accepted with every command, as by CRIU; the names, and the second
//! spelling `--no-NAME` of flags, are in [`known`](super::known) as well.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, Args, Parser};

use super::values::{
    self, Compression, CpuCap, EmptyNamespace, FileValidation, InheritFd, ManageCgroups,
    NetworkLock, PreDumpMode, Snapshot,
};

/// Everything that was said.
#[derive(Debug, Parser)]
#[command(
    name = "gelid",
    about = "Freeze a process tree, write it to files, and bring it back",
    override_usage = "gelid COMMAND [OPTIONS]",
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = "Commands:\n  \
        dump -t PID       freeze a tree, write its images, then end it\n  \
        restore           bring a tree back from its images\n  \
        check             what this kernel offers, what is missing and what that costs\n  \
        service           answer CRIU's RPC at a socket (--address)\n  \
        swrk FD           answer CRIU's RPC at an inherited socket\n  \
        show DIR [FILE]   what is in the images, also in CRIU's own\n\n\
        A flag NAME is switched off again by --no-NAME. Long options may be abbreviated."
)]
pub(crate) struct Options {
    #[command(flatten, next_help_heading = "General")]
    pub(crate) general: General,
    #[command(flatten, next_help_heading = "What happens to the tasks")]
    pub(crate) tasks: Tasks,
    #[command(flatten, next_help_heading = "Files, sockets, devices")]
    pub(crate) files: Files,
    #[command(flatten, next_help_heading = "Memory")]
    pub(crate) memory: Memory,
    #[command(flatten, next_help_heading = "Namespaces and mounts")]
    pub(crate) namespaces: Namespaces,
    #[command(flatten, next_help_heading = "cgroups and CPU")]
    pub(crate) cgroups: Cgroups,
    #[command(flatten, next_help_heading = "check and show")]
    pub(crate) check: Check,
}

#[derive(Debug, Args)]
pub(crate) struct General {
    /// Root of the tree
    #[arg(short, long, value_name = "PID", value_parser = values::pid)]
    pub(crate) tree: Option<u32>,
    /// Folder of the images
    #[arg(
        short = 'D',
        long,
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    pub(crate) images_dir: PathBuf,
    /// Folder for log, pidfile and statistics; the one of the images if not given
    #[arg(short = 'W', long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Folder of the previous images, relative to that of the images
    #[arg(long, value_name = "DIR")]
    pub(crate) prev_images_dir: Option<PathBuf>,
    /// File for the log, in the work folder; - is the standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// One log for each restored task
    #[arg(long)]
    pub(crate) log_pid: bool,
    /// What is logged: 0 nothing, 1 errors, 2 warnings, 3 information and time, 4 everything
    #[arg(short, long, value_name = "N", num_args = 0..=1, require_equals = true,
          default_missing_value = "", action = ArgAction::Append)]
    pub(crate) verbosity: Vec<OsString>,
    /// Print statistics at the end
    #[arg(long)]
    pub(crate) display_stats: bool,
    /// File for the pid of the restored root, in the work folder
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Descriptor to write a NUL byte to when ready
    #[arg(long, value_name = "FD", value_parser = values::descriptor)]
    pub(crate) status_fd: Option<i32>,
    /// Descriptor to close
    #[arg(long, value_name = "FD", value_parser = values::descriptor)]
    pub(crate) close: Vec<i32>,
    /// Folder of plugins
    #[arg(short = 'L', long, value_name = "DIR")]
    pub(crate) libdir: Option<PathBuf>,
    /// Script to run at each step
    #[arg(long, value_name = "FILE")]
    pub(crate) action_script: Vec<PathBuf>,
    /// Configuration file to read instead of the default ones
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Read no default configuration files, and store pages as CRIU does
    #[arg(long)]
    pub(crate) no_default_config: bool,
    /// Run without being root
    #[arg(long)]
    pub(crate) unprivileged: bool,
    /// Allow what is deprecated
    #[arg(long)]
    pub(crate) deprecated: bool,
    /// Exchange images with an image streamer
    #[arg(long)]
    pub(crate) stream: bool,
    /// Seconds that freezing may take; 0 is no limit
    #[arg(long, value_name = "N", value_parser = values::count, default_value = "10")]
    pub(crate) timeout: u32,
    /// Was removed
    #[arg(long, hide = true)]
    pub(crate) ms: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Tasks {
    /// Let the tasks run on after the dump
    #[arg(short = 'R', long)]
    pub(crate) leave_running: bool,
    /// Leave the tasks stopped
    #[arg(short = 's', long)]
    pub(crate) leave_stopped: bool,
    /// Exit as soon as the restored tree runs
    #[arg(short = 'd', long, alias = "daemon")]
    pub(crate) restore_detached: bool,
    /// The restored root becomes a child of the caller
    #[arg(short = 'S', long)]
    pub(crate) restore_sibling: bool,
    /// Execute the words after -- once the tree is restored
    #[arg(long)]
    pub(crate) exec_cmd: bool,
    /// Allow a tree that was started by a shell, with its terminal
    #[arg(short = 'j', long)]
    pub(crate) shell_job: bool,
    /// Freeze by this cgroup
    #[arg(long, value_name = "PATH")]
    pub(crate) freeze_cgroup: Option<PathBuf>,
    /// Print what a restore would do, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The master of the tree's console is with the caller
    #[arg(long, hide = true)]
    pub(crate) orphan_pts_master: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Files {
    /// Something outside of the tree that is not dumped, as TYPE[ID]:VALUE
    #[arg(long, value_name = "KEY")]
    pub(crate) external: Vec<String>,
    /// Descriptor that stands for something external, as fd[N]:KEY
    #[arg(long, value_name = "fd[N]:KEY")]
    pub(crate) inherit_fd: Vec<InheritFd>,
    /// Allow connected TCP sockets
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Ignore connections that are not yet accepted
    #[arg(long)]
    pub(crate) skip_in_flight: bool,
    /// Restore connected TCP sockets shut down
    #[arg(long)]
    pub(crate) tcp_close: bool,
    /// Who keeps packets of dumped connections away
    #[arg(long, value_name = "METHOD", value_enum, default_value = "iptables")]
    pub(crate) network_lock: NetworkLock,
    /// Allow one end of a UNIX socket to be outside
    #[arg(short = 'x', long, value_name = "INO,...", num_args = 0..=1, require_equals = true,
          default_missing_value = "", action = ArgAction::Append)]
    pub(crate) ext_unix_sk: Vec<String>,
    /// Dump file locks
    #[arg(short = 'l', long)]
    pub(crate) file_locks: bool,
    /// Link deleted files that have other names back into their folders
    #[arg(long)]
    pub(crate) link_remap: bool,
    /// Largest deleted file that is put into the images; 1M if not given
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) ghost_limit: Option<u64>,
    /// Copy only the data of sparse deleted files (the default)
    #[arg(long)]
    pub(crate) ghost_fiemap: bool,
    /// Accept a device file that is reached by another path
    #[arg(long)]
    pub(crate) evasive_devices: bool,
    /// Look for files watched by inotify even if their handle opens
    #[arg(long)]
    pub(crate) force_irmap: bool,
    /// Path to look for watched files
    #[arg(long, value_name = "PATH")]
    pub(crate) irmap_scan_path: Vec<PathBuf>,
    /// How a file is compared with the one that was dumped
    #[arg(long, value_name = "METHOD", value_enum, default_value = "buildid")]
    pub(crate) file_validation: FileValidation,
    /// Ignore differing permissions of files
    #[arg(long)]
    pub(crate) skip_file_rwx_check: bool,
    /// Accept mappings of uprobes
    #[arg(long)]
    pub(crate) allow_uprobes: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Memory {
    /// How pages are stored: zstd[:LEVEL], the default under the name of gelid, or none
    #[arg(long, value_name = "HOW")]
    pub(crate) compress: Option<Compression>,
    /// Store equal pages of the tree once, wherever they are, and none that earlier images have
    #[arg(long)]
    pub(crate) dedup_content: bool,
    /// When memory is copied, so that a tree that is left running stands still only for that
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(crate) snapshot: Snapshot,
    /// Track changes of memory for the next dump
    #[arg(long)]
    pub(crate) track_mem: bool,
    /// How a pre-dump takes the pages
    #[arg(long, value_name = "MODE", value_enum, default_value = "splice")]
    pub(crate) pre_dump_mode: PreDumpMode,
    /// Free pages of previous images that newer ones override
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// Send pages to, or take them from, a page server
    #[arg(long)]
    pub(crate) page_server: bool,
    /// Address of the page server or service
    #[arg(long, value_name = "ADDR")]
    pub(crate) address: Option<String>,
    /// Port of the page server
    #[arg(long, value_name = "N", value_parser = values::port)]
    pub(crate) port: Option<u16>,
    /// Connected socket of the page server
    #[arg(long, value_name = "FD", value_parser = values::descriptor)]
    pub(crate) ps_socket: Option<i32>,
    /// Transfer pages when they are touched
    #[arg(long)]
    pub(crate) lazy_pages: bool,
    /// Encrypt the connection of the page server
    #[arg(long)]
    pub(crate) tls: bool,
    /// Trusted certificates
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cacert: Option<PathBuf>,
    /// Revoked certificates
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cacrl: Option<PathBuf>,
    /// Own certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Own key
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Do not compare the certificate with the address
    #[arg(long)]
    pub(crate) tls_no_cn_verify: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Namespaces {
    /// Root of the restored mount namespace
    #[arg(short, long, value_name = "PATH")]
    pub(crate) root: Option<PathBuf>,
    /// Namespace to join, as NS:TARGET[,UID[,GID]]
    #[arg(short = 'J', long, value_name = "SPEC")]
    pub(crate) join_ns: Vec<String>,
    /// Namespace whose contents are left out
    #[arg(long, value_name = "net", value_enum)]
    pub(crate) empty_ns: Option<EmptyNamespace>,
    /// Mount point to leave out
    #[arg(long, value_name = "PATH")]
    pub(crate) skip_mnt: Vec<PathBuf>,
    /// File systems to mount again as they are
    #[arg(long, value_name = "LIST")]
    pub(crate) enable_fs: Vec<String>,
    /// External mount, as KEY:VALUE or auto
    #[arg(short = 'M', long, value_name = "KEY:VALUE")]
    pub(crate) ext_mount_map: Vec<String>,
    /// Allow external mounts to be shared
    #[arg(long)]
    pub(crate) enable_external_sharing: bool,
    /// Allow external mounts to be slaves
    #[arg(long)]
    pub(crate) enable_external_masters: bool,
    /// Mount by the older calls
    #[arg(long)]
    pub(crate) mntns_compat_mode: bool,
    /// Outer end of a veth pair, as IN=OUT
    #[arg(long, value_name = "IN=OUT")]
    pub(crate) veth_pair: Vec<String>,
    /// Skip sysctls that this kernel lacks
    #[arg(long)]
    pub(crate) weak_sysctls: bool,
    /// Label of the restored tasks, as TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    pub(crate) lsm_profile: Option<String>,
    /// Context of the restored mounts
    #[arg(long, value_name = "CTX")]
    pub(crate) lsm_mount_context: Option<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Cgroups {
    /// What is done about cgroups
    #[arg(long, value_name = "MODE", value_enum, num_args = 0..=1, require_equals = true,
          default_value = "soft", default_missing_value = "soft")]
    pub(crate) manage_cgroups: ManageCgroups,
    /// Root of the cgroups of a controller, as [CTRL:]/PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_root: Vec<String>,
    /// Properties to dump
    #[arg(long, value_name = "STRING")]
    pub(crate) cgroup_props: Vec<String>,
    /// File with properties to dump
    #[arg(long, value_name = "FILE")]
    pub(crate) cgroup_props_file: Option<PathBuf>,
    /// Leave out the usual properties of controllers for which others are given
    #[arg(long)]
    pub(crate) cgroup_props_ignore_default: bool,
    /// Dump only this controller
    #[arg(long, value_name = "NAME")]
    pub(crate) cgroup_dump_controller: Vec<String>,
    /// Folder where cgroups are mounted
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_yard: Option<PathBuf>,
    /// CPU features that must agree: fpu, cpu, ins, all, none
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true,
          default_missing_value = "")]
    pub(crate) cpu_cap: Option<CpuCap>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Check {
    /// Check one feature; `list` prints their names
    #[arg(long, value_name = "NAME")]
    pub(crate) feature: Option<String>,
    /// Check what some trees need
    #[arg(long)]
    pub(crate) extra: bool,
    /// Check what is experimental
    #[arg(long)]
    pub(crate) experimental: bool,
    /// Check everything
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Print this help
    #[arg(short, long)]
    pub(crate) help: bool,
    /// Print the version
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
}

impl Namespaces {
    /// `--ext-mount-map`, as keys of `--external`.
    pub(crate) fn external_mounts(&self) -> anyhow::Result<Vec<String>> {
        let keys = self
            .ext_mount_map
            .iter()
            .map(|text| match text.split_once(':') {
                Some((key, value)) => Ok(format!("mnt[{key}]:{value}")),
                None if text == "auto" => Ok("mnt[]".to_owned()),
                None => anyhow::bail!("--ext-mount-map {text}: expected KEY:VALUE or auto"),
            });
        keys.collect()
    }
}

impl Cgroups {
    /// `--cgroup-props` and `--cgroup-props-file`, taken apart.
    pub(crate) fn properties(&self) -> anyhow::Result<gelid_dump::CgroupProperties> {
        let mut properties = gelid_dump::CgroupProperties::default();
        properties.instead = self.cgroup_props_ignore_default;
        for text in &self.cgroup_props {
            properties.define(text).context("--cgroup-props")?;
        }
        if let Some(path) = &self.cgroup_props_file {
            let what = || format!("--cgroup-props-file {}", path.display());
            let text = std::fs::read_to_string(path).with_context(what)?;
            properties.define(&text).with_context(what)?;
        }
        Ok(properties)
    }

    /// `--cgroup-root`, taken apart: the hierarchy it is for, if not for all, and the path.
    pub(crate) fn roots(&self) -> anyhow::Result<Vec<(Option<String>, String)>> {
        let roots = self.cgroup_root.iter().map(|text| {
            let (controller, path) = match text.split_once(":/") {
                Some((controller, path)) => (Some(controller.to_owned()), format!("/{path}")),
                None => (None, text.clone()),
            };
            match path.starts_with('/') {
                true => Ok((controller, path)),
                false => anyhow::bail!("--cgroup-root {text}: expected [CONTROLLER:]/PATH"),
            }
        });
        roots.collect()
    }
}
