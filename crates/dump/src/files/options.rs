//! What the caller says about files.

use std::collections::HashSet;

use super::Error;
use crate::{Options, Validation};

/// The options that concern files, understood.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Mount and inode of files that are not the tree's.
    pub(super) external: HashSet<(i32, u64)>,
    pub(super) build_ids: bool,
    pub(super) ghost_limit: u64,
    pub(super) link_remap: bool,
    pub(super) shell_job: bool,
    pub(super) evasive_devices: bool,
}

impl Choices {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let mut external = HashSet::new();
        for key in &options.external {
            if let Some(rest) = key.strip_prefix("file[") {
                let file = file(rest).ok_or_else(|| Error::External { key: key.clone() })?;
                external.insert(file);
            }
        }
        Ok(Self {
            external,
            build_ids: options.validation == Validation::BuildId,
            ghost_limit: options.ghost_limit,
            link_remap: options.link_remap,
            shell_job: options.shell_job,
            evasive_devices: options.evasive_devices,
        })
    }
}

/// Understands what follows `file[`.
fn file(rest: &str) -> Option<(i32, u64)> {
    let (inside, _) = rest.split_once(']')?;
    let (mount, inode) = inside.split_once(':')?;
    let mount = i32::from_str_radix(mount, 16).ok()?;
    Some((mount, u64::from_str_radix(inode, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hexadecimal() {
        assert_eq!(file("1d:ff]"), Some((0x1d, 0xff)));
        assert_eq!(file("1d:ff]:x"), Some((0x1d, 0xff)));
        for wrong in ["", "1d]", "1d:]", "x:1]", "1:2"] {
            assert_eq!(file(wrong), None, "{wrong}");
        }
    }
}
