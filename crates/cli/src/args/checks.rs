//! Options that contradict each other or the command.

use super::values::{Compression, InheritFd, inodes, user_and_group};
use super::{Command, Invocation};

/// The first contradiction, in CRIU's words where it has some.
pub(super) fn check(invocation: &Invocation) -> Result<(), String> {
    let options = &invocation.options;
    if invocation.command == Command::Swrk {
        // Configuration files speak of the requests to come.
        return Ok(());
    }
    let (dumps, restores) = (
        invocation.command == Command::Dump,
        invocation.command == Command::Restore,
    );
    let rules: [(bool, &str); 11] = [
        (options.general.ms, "--ms was removed: use check without it"),
        (
            options.tasks.restore_sibling && !options.tasks.restore_detached,
            "--restore-sibling only makes sense with --restore-detached",
        ),
        (
            options.namespaces.mntns_compat_mode && !restores,
            "--mntns-compat-mode is only for restore",
        ),
        (
            options.namespaces.empty_ns.is_some()
                && options
                    .namespaces
                    .join_ns
                    .iter()
                    .any(|spec| spec.starts_with("net:")),
            "--join-ns net and --empty-ns net contradict each other",
        ),
        (
            !options.files.inherit_fd.is_empty() && !restores,
            "--inherit-fd is only for restore",
        ),
        (
            options.tasks.exec_cmd && !restores,
            "--exec-cmd is only for restore",
        ),
        (
            options.tasks.exec_cmd && options.tasks.restore_detached,
            "--restore-detached and --exec-cmd cannot be used together",
        ),
        (
            options.tasks.exec_cmd && invocation.words.is_empty(),
            "--exec-cmd requires a command after --",
        ),
        (
            options.tasks.dry_run && !restores,
            "--dry-run is only for restore",
        ),
        (
            dumps
                && options.memory.dedup_content
                && options.general.prev_images_dir.is_none()
                && invocation.compression() == Compression::None,
            "--dedup-content needs packed pages (--compress=zstd) or earlier images (--prev-images-dir): CRIU's form has \
             no word for pages of others",
        ),
        (
            dumps && options.general.tree.is_none(),
            "pid not specified: use --tree",
        ),
    ];
    if let Some((_, what)) = rules.iter().find(|(broken, _)| *broken) {
        return Err((*what).to_owned());
    }
    check_external_mounts(&options.files.external)?;
    options
        .namespaces
        .join_ns
        .iter()
        .try_for_each(check_joined)?;
    for text in &options.files.ext_unix_sk {
        inodes(text).map_err(|wrong| format!("--ext-unix-sk: {wrong}"))?;
    }
    options.files.inherit_fd.iter().try_for_each(check_open)
}

/// A kind of namespace, one of it, and of users who is to be whom.
fn check_joined(spec: &String) -> Result<(), String> {
    let kinds = ["net", "uts", "ipc", "time", "mnt", "pid", "user"];
    let (kind, target) = spec.split_once(':').unwrap_or((spec, ""));
    if !kinds.contains(&kind) || target.is_empty() {
        return Err(format!(
            "--join-ns {spec}: not a kind of namespace and one of it"
        ));
    }
    match (kind, target.split_once(',')) {
        ("user", Some((_, ids))) if user_and_group(ids).is_none() => Err(format!(
            "--join-ns {spec}: not a user and a group, each at most {}",
            u16::MAX
        )),
        _ => Ok(()),
    }
}

/// `mnt[]` takes one letter, `m` or `s`.
fn check_external_mounts(externals: &[String]) -> Result<(), String> {
    for key in externals {
        let letter = key
            .strip_prefix("mnt[]")
            .map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match letter.and_then(|letters| letters.chars().next()) {
            None | Some('m' | 's') => {}
            Some(letter) => return Err(format!("--external {key}: unknown letter {letter:?}")),
        }
    }
    Ok(())
}

/// Descriptors that are handed over have to be open.
fn check_open(inherited: &InheritFd) -> Result<(), String> {
    let (InheritFd::Descriptor { fd, .. } | InheritFd::Debug { fd, .. }) = inherited;
    match std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("--inherit-fd: descriptor {fd} is not open")),
    }
}
