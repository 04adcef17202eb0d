//! Sysctls of the network namespace that the calling thread is in.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use super::NetError;
use crate::plan::namespaces::net::Sysctl;

const ROOT: &str = "/proc/sys/net";

/// Sets what differs. `weak` leaves out what the kernel lacks.
pub(super) fn set(id: u32, sysctls: &[Sysctl], weak: bool) -> Result<(), NetError> {
    let mut all = sysctls.iter();
    all.try_for_each(|sysctl| put(id, &sysctl.path, sysctl, weak))
}

/// Sets those of a link, but not that which `later` says.
pub(super) fn set_of_link(
    id: u32,
    link: &str,
    sysctls: &[Sysctl],
    weak: bool,
    concerned: impl Fn(&str) -> bool,
) -> Result<(), NetError> {
    for sysctl in sysctls.iter().filter(|sysctl| concerned(&sysctl.path)) {
        if let Some(path) = of_link(link, &sysctl.path) {
            put(id, &path, sysctl, weak)?;
        }
    }
    Ok(())
}

/// The path of a sysctl of a link, whose name comes third.
fn of_link(link: &str, path: &str) -> Option<String> {
    let (directory, name) = path.rsplit_once('/')?;
    Some(format!("{directory}/{link}/{name}"))
}

/// Sets a sysctl of a link for the time, if there is one.
pub(super) fn override_of_link(link: &str, path: &str, value: &[u8]) {
    if let Some(path) = of_link(link, path) {
        // Without IPv6 there is none, and no need.
        let _ = write(&path, value);
    }
}

fn put(id: u32, path: &str, sysctl: &Sysctl, weak: bool) -> Result<(), NetError> {
    let failed = |source: std::io::Error, remedy| NetError::Sysctl {
        id,
        name: path.to_owned(),
        source,
        remedy,
    };
    match read(path) {
        Ok(now) if now == sysctl.value => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if weak || !sysctl.expected {
                tracing::warn!("this kernel has no sysctl net/{path}, which is left out");
                return Ok(());
            }
            return Err(failed(error, "; --weak-sysctls leaves it out"));
        }
        // One that was never set cannot be read, but set.
        _ => {}
    }
    write(path, &sysctl.value).map_err(|error| failed(error, ""))
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    const LONGEST: u64 = 64 << 10;
    let mut value = Vec::new();
    let file = std::fs::File::open(Path::new(ROOT).join(path))?;
    file.take(LONGEST).read_to_end(&mut value)?;
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    Ok(value)
}

fn write(path: &str, value: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).open(Path::new(ROOT).join(path))?;
    // In one piece, as the kernel wants it.
    file.write_all(value)
}
