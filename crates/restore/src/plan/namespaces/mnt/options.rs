//! What the caller says about mounts.

use std::path::{Path, PathBuf};

/// What stands for mounts and devices of the tree, and what is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// The directory that becomes the root; `/` if none is given.
    pub root: Option<PathBuf>,
    /// `--external mnt[NAME]:PATH`: paths of the restorer, by the names that images have for them.
    pub external: Vec<(String, PathBuf)>,
    /// `--external dev[NAME]:PATH`: devices, likewise.
    pub devices: Vec<(String, PathBuf)>,
    /// `--external mnt[]`: what a dump has found to be the restorer's is taken from where it was found.
    pub found: bool,
    /// `--lsm-mount-context`: stands in for the value of a `context` option.
    pub context: Option<String>,
}

impl MountOptions {
    /// Takes what concerns mounts from keys as `--external` has them, `TYPE[ID]:VALUE`.
    #[must_use]
    pub fn from_external(keys: &[String]) -> Self {
        let mut options = Self::default();
        for key in keys {
            let Some((kind, rest)) = key.split_once('[') else {
                continue;
            };
            let Some((id, value)) = rest.split_once(']') else {
                continue;
            };
            // Wherever the caller is, paths start at the root.
            let path = value.strip_prefix(':');
            let path = path.map(|path| Path::new("/").join(path));
            match (kind, id, path) {
                ("mnt", "", _) => options.found = true,
                ("mnt", id, Some(path)) => options.external.push((id.to_owned(), path)),
                ("dev", id, Some(path)) => options.devices.push((id.to_owned(), path)),
                _ => {}
            }
        }
        options
    }

    /// The path that stands for an external mount; of several the last counts.
    pub(crate) fn mount(&self, name: &str) -> Option<&Path> {
        last(&self.external, name)
    }

    /// The device that stands for an external one.
    pub(crate) fn device(&self, name: &str) -> Option<&Path> {
        last(&self.devices, name)
    }
}

fn last<'a>(all: &'a [(String, PathBuf)], name: &str) -> Option<&'a Path> {
    let found = all.iter().rev().find(|(known, _)| known == name);
    found.map(|(_, path)| path.as_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_mounts_are_taken() {
        let keys = [
            "mnt[a]:/x",
            "mnt[a]:/y",
            "mnt[]:m",
            "dev[d]:/dev/sda",
            "file[1:2]",
        ];
        let options = MountOptions::from_external(&keys.map(str::to_owned));
        assert_eq!(options.mount("a"), Some(Path::new("/y")));
        assert_eq!(options.device("d"), Some(Path::new("/dev/sda")));
        assert_eq!(options.mount("d"), None);
        assert!(options.found);
    }
}
