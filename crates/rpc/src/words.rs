//! The options of a request as words of the command line, so that they mean the same.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::messages::{CgroupMode, NetworkLock, Options, PreDumpMode, RequestKind};

/// `CLONE_NEWNET`, the only kind of namespace that can be left empty.
const NEW_NET: u32 = 0x4000_0000;

/// The level of the log where the request says nothing.
const DEFAULT_LOG_LEVEL: i32 = 2;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The client, whose descriptors are meant.
    pub peer: Option<i32>,
    /// It came to the service: such clients cannot hand over descriptors or adopt the tree.
    pub service: bool,
}

/// A request as a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// `--name` or `--name=value`, in an order in which the last one counts.
    pub options: Vec<OsString>,
    /// Program to execute after a restore, and its words.
    pub program: Vec<OsString>,
    /// A configuration file that wins over the options.
    pub config_file: Option<OsString>,
    /// The level of the log, which wins over that.
    pub log_level: i32,
    /// The log goes to the standard error, unless a file is named.
    pub log_to_stderr: bool,
    /// A file that is opened for writing and told of nothing any more.
    pub status: Option<OsString>,
}

/// Why options cannot be those of a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A path where a name is expected.
    #[error("No subdirs are allowed in log_file name")]
    LogFile,
    /// There is nowhere to put images.
    #[error("neither images_dir_fd nor images_dir was passed by the client")]
    NoImages,
    /// Descriptors of the client are meant, and it cannot be seen.
    #[error("{field}: the client is in another pid namespace, its descriptors cannot be opened")]
    UnseenPeer {
        /// The field.
        field: &'static str,
    },
    /// Something that a client of the service cannot ask for.
    #[error("{field} is not available to clients of the service; start gelid by swrk")]
    Service {
        /// The field.
        field: &'static str,
    },
    /// A number outside of its enumeration.
    #[error("{field}: {value} is unknown")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// An option of another request.
    #[error("mntns_compat_mode is only for restore")]
    CompatMode,
}

/// The command line that a request stands for, its command aside.
///
/// # Errors
///
/// The options make no sense, or are not for this client.
pub fn words(
    kind: RequestKind,
    options: &Options,
    connection: Connection,
) -> Result<Words, Refusal> {
    let mut line = Line(Vec::new());
    if connection.service {
        check_service(options)?;
    }
    if options
        .log_file
        .as_ref()
        .is_some_and(|name| name.contains(&b'/'))
    {
        return Err(Refusal::LogFile);
    }
    if options.mntns_compat_mode == Some(true) && kind != RequestKind::Restore {
        return Err(Refusal::CompatMode);
    }
    folders(&mut line, kind, options, connection)?;
    match kind {
        RequestKind::Dump | RequestKind::PreDump | RequestKind::SinglePreDump => {
            let tree = options.pid.or(connection.peer);
            line.number("tree", tree.ok_or(Refusal::UnseenPeer { field: "pid" })?);
        }
        RequestKind::Restore => line.flag("restore-detached"),
        _ => {}
    }
    flags(&mut line, options);
    texts(&mut line, options);
    modes(&mut line, options)?;
    maps(&mut line, options);
    page_server(&mut line, options);
    let status = options.status_fd.filter(|fd| *fd >= 0);
    let bytes = |word: &Vec<u8>| OsStr::from_bytes(word).to_owned();
    Ok(Words {
        options: line.0,
        program: options.exec_cmd.iter().map(bytes).collect(),
        config_file: options.config_file.as_ref().map(bytes),
        log_level: options.log_level.unwrap_or(DEFAULT_LOG_LEVEL),
        log_to_stderr: options.log_to_stderr == Some(true),
        status: status
            .map(|fd| descriptor("status_fd", fd, connection))
            .transpose()?,
    })
}

/// What is about the process that serves, whose parent the client of a service is not.
fn check_service(options: &Options) -> Result<(), Refusal> {
    let ps_fd = options.ps.as_ref().and_then(|ps| ps.fd);
    let asked = [
        ("rst_sibling", options.rst_sibling == Some(true)),
        ("inherit_fd", !options.inherit_fd.is_empty()),
        ("ps.fd", ps_fd.is_some_and(|fd| fd >= 0)),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Refusal::Service { field }),
        None => Ok(()),
    }
}

/// A file of the client's, by the number it has there.
fn descriptor(field: &'static str, fd: i32, connection: Connection) -> Result<OsString, Refusal> {
    let peer = connection.peer.ok_or(Refusal::UnseenPeer { field })?;
    Ok(format!("/proc/{peer}/fd/{fd}").into())
}

fn folders(
    line: &mut Line,
    kind: RequestKind,
    options: &Options,
    connection: Connection,
) -> Result<(), Refusal> {
    let work = options.work_dir_fd.filter(|fd| *fd >= 0);
    if kind == RequestKind::Check && work.is_some() {
        // Where images are would only stand for where the log is.
    } else if options.images_dir_fd != -1 {
        let images = descriptor("images_dir_fd", options.images_dir_fd, connection)?;
        line.value("images-dir", images.as_bytes());
    } else if let Some(images) = &options.images_dir {
        line.value("images-dir", images);
    } else {
        return Err(Refusal::NoImages);
    }
    if let Some(fd) = work {
        let work = descriptor("work_dir_fd", fd, connection)?;
        line.value("work-dir", work.as_bytes());
    }
    Ok(())
}

/// What is on or off. Where the field says off, a configuration file does not count; a few can only be switched on.
fn flags(line: &mut Line, options: &Options) {
    for (name, field) in [
        ("tcp-established", options.tcp_established),
        ("evasive-devices", options.evasive_devices),
        ("shell-job", options.shell_job),
        ("file-locks", options.file_locks),
        ("track-mem", options.track_mem),
        ("auto-dedup", options.auto_dedup),
        ("link-remap", options.link_remap),
        ("force-irmap", options.force_irmap),
        ("restore-sibling", options.rst_sibling),
        ("skip-in-flight", options.tcp_skip_in_flight),
        ("weak-sysctls", options.weak_sysctls),
        ("tcp-close", options.tcp_close),
        ("skip-file-rwx-check", options.skip_file_rwx_check),
        ("unprivileged", options.unprivileged),
        ("display-stats", options.display_stats),
    ] {
        match field {
            Some(true) => line.flag(name),
            Some(false) => line.flag(&format!("no-{name}")),
            None => {}
        }
    }
    for (name, field) in [
        ("leave-running", options.leave_running),
        ("leave-stopped", options.leave_stopped),
        ("lazy-pages", options.lazy_pages),
        ("tls", options.tls),
        ("tls-no-cn-verify", options.tls_no_cn_verify),
        ("mntns-compat-mode", options.mntns_compat_mode),
        ("enable-external-sharing", options.ext_sharing),
        ("enable-external-masters", options.ext_masters),
        ("orphan-pts-master", options.orphan_pts_master),
    ] {
        if field == Some(true) {
            line.flag(name);
        }
    }
    if options.auto_ext_mnt == Some(true) {
        line.value("ext-mount-map", b"auto");
    }
}

fn texts(line: &mut Line, options: &Options) {
    for (name, field) in [
        ("log-file", &options.log_file),
        ("root", &options.root),
        ("prev-images-dir", &options.parent_img),
        ("cgroup-props", &options.cgroup_props),
        ("cgroup-props-file", &options.cgroup_props_file),
        ("freeze-cgroup", &options.freeze_cgroup),
        ("lsm-profile", &options.lsm_profile),
        ("lsm-mount-context", &options.lsm_mount_context),
        ("tls-cacert", &options.tls_cacert),
        ("tls-cacrl", &options.tls_cacrl),
        ("tls-cert", &options.tls_cert),
        ("tls-key", &options.tls_key),
        ("cgroup-yard", &options.cgroup_yard),
    ] {
        if let Some(value) = field {
            line.value(name, value);
        }
    }
    for (name, field) in [
        ("skip-mnt", &options.skip_mnt),
        ("enable-fs", &options.enable_fs),
        ("irmap-scan-path", &options.irmap_scan_paths),
        ("external", &options.external),
        ("cgroup-dump-controller", &options.cgroup_dump_controller),
    ] {
        for value in field {
            line.value(name, value);
        }
    }
    for (name, field) in [
        ("ghost-limit", options.ghost_limit),
        ("timeout", options.timeout),
    ] {
        if let Some(value) = field {
            line.number(name, value);
        }
    }
}

/// Fields with few values.
fn modes(line: &mut Line, options: &Options) -> Result<(), Refusal> {
    let unknown = |field, value: i32| Refusal::Unknown {
        field,
        value: value.into(),
    };
    if let Some(managed) = cgroup_mode(options)? {
        line.value("manage-cgroups", managed.as_bytes());
    }
    if let Some(method) = options.network_lock {
        let name = match NetworkLock::try_from(method) {
            Ok(NetworkLock::Iptables) => "iptables",
            Ok(NetworkLock::Nftables) => "nftables",
            Ok(NetworkLock::Skip) => "skip",
            Err(_) => return Err(unknown("network_lock", method)),
        };
        line.value("network-lock", name.as_bytes());
    }
    if let Some(mode) = options.pre_dump_mode {
        let name = match PreDumpMode::try_from(mode) {
            Ok(PreDumpMode::Splice) => "splice",
            Ok(PreDumpMode::VmRead) => "read",
            Err(_) => return Err(unknown("pre_dump_mode", mode)),
        };
        line.value("pre-dump-mode", name.as_bytes());
    }
    match options.empty_ns {
        None | Some(0) => {}
        Some(NEW_NET) => line.value("empty-ns", b"net"),
        Some(other) => {
            let value = other.into();
            return Err(Refusal::Unknown {
                field: "empty_ns",
                value,
            });
        }
    }
    if let Some(bits) = options.cpu_cap {
        line.value("cpu-cap", cpu_capabilities(bits).as_bytes());
    }
    Ok(())
}

/// What is to be done about cgroups, if the request says anything of it.
fn cgroup_mode(options: &Options) -> Result<Option<&'static str>, Refusal> {
    Ok(
        match (options.manage_cgroups_mode, options.manage_cgroups) {
            (Some(mode), _) => Some(match CgroupMode::try_from(mode) {
                Ok(CgroupMode::Ignore) => "ignore",
                Ok(CgroupMode::None) => "none",
                Ok(CgroupMode::Props) => "props",
                Ok(CgroupMode::Soft | CgroupMode::Default) => "soft",
                Ok(CgroupMode::Full) => "full",
                Ok(CgroupMode::Strict) => "strict",
                Err(_) => {
                    return Err(Refusal::Unknown {
                        field: "manage_cgroups_mode",
                        value: mode.into(),
                    });
                }
            }),
            (None, Some(true)) => Some("soft"),
            (None, Some(false)) => Some("ignore"),
            (None, None) => None,
        },
    )
}

/// The list that `--cpu-cap` takes.
fn cpu_capabilities(bits: u32) -> String {
    let names = [(1, "fpu"), (2, "cpu"), (4, "ins")];
    let named = names.iter().filter(|(bit, _)| bits & bit != 0);
    let named = named.map(|(_, name)| *name);
    std::iter::once("none")
        .chain(named)
        .collect::<Vec<_>>()
        .join(",")
}

/// Fields that are pairs.
fn maps(line: &mut Line, options: &Options) {
    for veth in &options.veths {
        line.value("veth-pair", &[&veth.if_in[..], b"=", &veth.if_out].concat());
    }
    for mount in &options.ext_mnt {
        let key = [b"mnt[", &mount.key[..], b"]:", &mount.val].concat();
        line.value("external", &key);
    }
    for root in &options.cg_root {
        match &root.ctrl {
            Some(controller) => {
                line.value("cgroup-root", &[&controller[..], b":", &root.path].concat());
            }
            None => line.value("cgroup-root", &root.path),
        }
    }
    for inherited in &options.inherit_fd {
        let number = inherited.fd.to_string();
        let key = [b"fd[", number.as_bytes(), b"]:", &inherited.key].concat();
        line.value("inherit-fd", &key);
    }
    for join in &options.join_ns {
        let mut spec = [&join.ns[..], b":", &join.ns_file].concat();
        if let Some(extra) = &join.extra_opt {
            spec.push(b',');
            spec.extend_from_slice(extra);
        }
        line.value("join-ns", &spec);
    }
    // Inodes count only where the field is there that they belong to.
    if let Some(allowed) = options.ext_unix_sk {
        let inodes = options.unix_sk_ino.iter();
        let inodes: Vec<String> = inodes.map(|socket| socket.inode.to_string()).collect();
        if allowed || !inodes.is_empty() {
            line.value("ext-unix-sk", inodes.join(",").as_bytes());
        }
    }
}

fn page_server(line: &mut Line, options: &Options) {
    let Some(server) = &options.ps else { return };
    if options.lazy_pages != Some(true) {
        line.flag("page-server");
        if let Some(address) = &server.address {
            line.value("address", address);
        }
        if let Some(fd) = server.fd.filter(|fd| *fd >= 0) {
            line.number("ps-socket", fd);
        }
    }
    // More than 16 bits of it never counted.
    if let Some(port) = server
        .port
        .map(|port| port & 0xffff)
        .filter(|port| *port != 0)
    {
        line.number("port", port);
    }
}

/// Words that are being put together.
struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(format!("--{name}").into());
    }

    fn value(&mut self, name: &str, value: &[u8]) {
        let mut word = OsString::from(format!("--{name}="));
        word.push(OsStr::from_bytes(value));
        self.0.push(word);
    }

    fn number(&mut self, name: &str, value: impl ToString) {
        self.value(name, value.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests;
