//! Root directories for guests that are in a container.

use crate::process::{output, succeeds};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Makes what a guest needs below its root: itself, its libraries, and places for what is mounted.
///
/// # Errors
///
/// What cannot be copied or made.
pub fn furnish(root: &Path, guest: &Path) -> Result<()> {
    for place in ["proc", "tmp", "dev/pts", "etc"] {
        fs::create_dir_all(root.join(place))?;
    }
    let text = output(Command::new("ldd").arg(guest)).context("ldd")?;
    let libraries = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(Path::new);
    for library in libraries {
        copy(library, &root.join(library.strip_prefix("/")?))?;
    }
    copy(guest, &root.join("gelid-guest"))?;
    symlink("pts/ptmx", root.join("dev/ptmx"))?;
    for (name, minor) in [("null", 3), ("zero", 5)] {
        device(&root.join("dev").join(name), minor)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

/// A character device of memory.
fn device(path: &Path, minor: u32) -> Result<()> {
    let minor = minor.to_string();
    if !succeeds(Command::new("mknod").arg(path).args(["c", "1", &minor])) {
        bail!("mknod {} fails", path.display());
    }
    File::open(path)?.set_permissions(fs::Permissions::from_mode(0o666))?;
    Ok(())
}
