//! What CRIU can do and gelid cannot yet: refused by name, never silently left out.
//!
//! Options that only permit something, such as `--tcp-established`, are accepted: what they permit is refused
//! when it is met.

use super::{Command, Invocation};

/// The first option that asks for something that is not there.
pub(super) fn check(invocation: &Invocation) -> Result<(), String> {
    let options = &invocation.options;
    if !matches!(invocation.command, Command::Dump | Command::Restore) {
        return Ok(());
    }
    let incremental = "incremental dumps are not there yet";
    let is_compared = invocation.command == Command::Dump && options.memory.dedup_content;
    let travelling = "memory does not travel yet";
    let asked: [(bool, &str, &str); 8] = [
        (
            options.general.prev_images_dir.is_some() && !is_compared,
            "--prev-images-dir",
            "incremental dumps by tracking changes are not there yet; \
             gelid dump --dedup-content compares pages with those of earlier images",
        ),
        (options.memory.track_mem, "--track-mem", incremental),
        (options.memory.auto_dedup, "--auto-dedup", incremental),
        (options.memory.page_server, "--page-server", travelling),
        (options.memory.lazy_pages, "--lazy-pages", travelling),
        (options.memory.tls, "--tls", travelling),
        (options.general.stream, "--stream", travelling),
        (
            options
                .general
                .libdir
                .as_ref()
                .is_some_and(|dir| !dir.is_dir()),
            "--libdir",
            "there is no such folder",
        ),
    ];
    match asked.iter().find(|(given, _, _)| *given) {
        Some((_, option, why)) => Err(format!("{option}: {why}")),
        None => Ok(()),
    }
}
