//! Absolute paths as images hold them, opened relative to the descriptor of a root.

use std::fmt;

/// Bytes of the longest path the kernel takes, its end excluded.
const PATH_MAX: usize = 4095;

/// An absolute path without `..`, of bytes that the kernel takes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    path: Vec<u8>,
    /// Number of a mount at the dump that tells which mount namespace it is in.
    mount: Option<i32>,
}

impl Name {
    /// Takes a path from an image, or tells what is wrong with it.
    pub(crate) fn new(path: &[u8]) -> Result<Self, &'static str> {
        if path.first() != Some(&b'/') {
            return Err("an absolute path is expected");
        }
        if path.len() > PATH_MAX {
            return Err("no path is that long");
        }
        if path.contains(&0) {
            return Err("no path has a zero byte");
        }
        let mut clean = Vec::with_capacity(path.len());
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err("no path of an open file leads upwards"),
                part => {
                    clean.push(b'/');
                    clean.extend_from_slice(part);
                }
            }
        }
        Ok(Self {
            path: clean,
            mount: None,
        })
    }

    /// The same path in the namespace of a mount; negative numbers are none.
    pub(crate) fn on(self, mount: Option<i32>) -> Self {
        Self {
            mount: mount.filter(|mount| *mount >= 0),
            ..self
        }
    }

    /// The mount that tells the namespace.
    pub(crate) fn mount(&self) -> Option<i32> {
        self.mount
    }

    /// What to open relative to the root.
    pub(crate) fn relative(&self) -> &[u8] {
        match self.path.get(1..) {
            Some(relative) => relative,
            None => b".",
        }
    }

    /// The same; nothing for the root itself.
    pub(crate) fn relative_to_root(&self) -> &[u8] {
        self.path.get(1..).unwrap_or_default()
    }

    /// The directory it is in and its name there; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Name, &[u8])> {
        let at = self.path.iter().rposition(|byte| *byte == b'/')?;
        let parent = Self {
            path: self.path[..at].to_vec(),
            mount: self.mount,
        };
        Some((parent, &self.path[at + 1..]))
    }

    /// Another name in the same directory.
    pub(crate) fn sibling(&self, name: &[u8]) -> Result<Self, &'static str> {
        let (directory, _) = self.split().ok_or("the root has none")?;
        let path = [&directory.path[..], b"/", name].concat();
        Ok(Self::new(&path)?.on(directory.mount))
    }

    /// The same path below `/proc` with other numbers for the process, and for the thread if it is one of those.
    pub(crate) fn renumbered(&self, number: impl Fn(i32) -> Option<i32>) -> Self {
        let Some(rest) = self.path.strip_prefix(b"/proc/") else {
            return self.clone();
        };
        let other = |part: &[u8]| number(std::str::from_utf8(part).ok()?.parse().ok()?);
        let parts = rest.split(|byte| *byte == b'/').enumerate();
        let parts = parts.map(|(at, part)| match other(part) {
            Some(number) if at == 0 || at == 2 => number.to_string().into_bytes(),
            _ => part.to_vec(),
        });
        let parts: Vec<Vec<u8>> = parts.collect();
        Self {
            path: [b"/proc/", parts.join(&b'/').as_slice()].concat(),
            mount: self.mount,
        }
    }

    /// The process that a path below `/proc` belongs to.
    pub(crate) fn process(&self) -> Option<u32> {
        let rest = self.path.strip_prefix(b"/proc/")?;
        let digits = rest.split(|byte| *byte == b'/').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// As readable as an error message on one line can have it.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str("/");
        }
        if let Ok(plain) = std::str::from_utf8(&self.path)
            && !plain.chars().any(char::is_control)
        {
            return f.write_str(plain);
        }
        for c in String::from_utf8_lossy(&self.path).chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let name = Name::new(b"//a/./b\n").unwrap();
        assert_eq!(name.relative(), b"a/b\n");
        assert_eq!(name.to_string(), "/a/b\\n");
        let (parent, last) = name.split().unwrap();
        assert_eq!((parent.relative(), last), (&b"a"[..], &b"b\n"[..]));
        let (root, _) = parent.split().unwrap();
        assert_eq!(root, Name::new(b"/").unwrap());
        assert_eq!((root.relative(), root.split()), (&b"."[..], None));
        assert_eq!(root.to_string(), "/");
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for wrong in [&b""[..], b"a", b"/a/../b", b"/a\0", &[b'/'; 5000]] {
            assert!(Name::new(wrong).is_err());
        }
    }

    #[test]
    fn files_of_a_process_are_known() {
        let process = |path: &[u8]| Name::new(path).unwrap().process();
        assert_eq!(process(b"/proc/17/maps"), Some(17));
        assert_eq!(process(b"/proc/17"), Some(17));
        assert_eq!(process(b"/proc/self/maps"), None);
        assert_eq!(process(b"/proc/meminfo"), None);
    }
}
