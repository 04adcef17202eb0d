//! Configuration files: options, one on a line.
//!
//! They are read before the command line, so that it can override them: `/etc/criu/default.conf`,
//! `$HOME/.criu/default.conf`, the file that `CRIU_CONFIG_FILE` names, the file of `--config`. A file that is
//! not there is no error.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is wrong with a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// It is there but cannot be read.
    Unreadable { file: PathBuf, kind: io::ErrorKind },
    /// A line is not an option.
    Format { file: PathBuf, line: usize },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { file, kind } => {
                write!(
                    f,
                    "Can't read configuration file {}: {kind}",
                    file.display()
                )
            }
            Self::Format { file, line } => {
                write!(
                    f,
                    "Unsupported configuration file format: {}:{line}",
                    file.display()
                )
            }
        }
    }
}

/// The options of all configuration files that count for the command line `arguments`.
pub(super) fn options(arguments: &[OsString]) -> Result<Vec<OsString>, Error> {
    let mut options = Vec::new();
    for name in files(arguments) {
        options.extend(file(&name)?);
    }
    Ok(options)
}

/// The options of one file; none if it is not there.
pub(super) fn file(name: &Path) -> Result<Vec<OsString>, Error> {
    let text = match fs::read(name) {
        Ok(text) => text,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => {
            return Err(Error::Unreadable {
                file: name.to_owned(),
                kind: error.kind(),
            });
        }
    };
    let mut options = Vec::new();
    parse(name, &text, &mut options)?;
    Ok(options)
}

/// The files in the order in which they are read. These options are sought in the raw words, spelled so.
fn files(arguments: &[OsString]) -> Vec<PathBuf> {
    let options = || {
        arguments
            .iter()
            .take_while(|word| *word != "--")
            .enumerate()
    };
    let named =
        options().filter_map(
            |(at, word)| match word.as_bytes().strip_prefix(b"--config") {
                Some(b"") => arguments.get(at + 1).map(PathBuf::from),
                Some([b'=', file @ ..]) => Some(PathBuf::from(OsStr::from_bytes(file))),
                _ => None,
            },
        );
    let named: Vec<PathBuf> = named.collect();
    let mut files = Vec::new();
    if named.is_empty() && !options().any(|(_, word)| word == "--no-default-config") {
        files.push(PathBuf::from("/etc/criu/default.conf"));
        let home = env::var_os("HOME").map(|home| Path::new(&home).join(".criu/default.conf"));
        files.extend(home.filter(|file| !is_another_users(file)));
    }
    files.extend(env::var_os("CRIU_CONFIG_FILE").map(PathBuf::from));
    files.extend(named.into_iter().last());
    files
}

/// Whoever has changed the user may still have the home of the other one.
fn is_another_users(file: &Path) -> bool {
    fs::metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Appends each line `name value` as `--name=value`.
fn parse(file: &Path, text: &[u8], options: &mut Vec<OsString>) -> Result<(), Error> {
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let wrong = || Error::Format {
            file: file.to_owned(),
            line: number,
        };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let end = line
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if [&b"config"[..], b"no-default-config"].contains(&name) || name.starts_with(b"config=") {
            continue;
        }
        let mut option = OsString::from("--");
        option.push(OsStr::from_bytes(name));
        if let Some(value) = value(rest.trim_ascii()).ok_or_else(wrong)? {
            option.push("=");
            option.push(OsStr::from_bytes(&value));
        }
        options.push(option);
    }
    Ok(())
}

/// The value in `text`, if there is one; `None` if something follows it that is no comment.
fn value(text: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut value = Vec::new();
    let after = match text {
        [] | [b'#', ..] => return Some(None),
        [b'"', quoted @ ..] => {
            let mut rest = quoted;
            loop {
                rest = match rest {
                    [b'\\', b'"', rest @ ..] => {
                        value.push(b'"');
                        rest
                    }
                    [b'"', rest @ ..] => break rest,
                    [byte, rest @ ..] => {
                        value.push(*byte);
                        rest
                    }
                    [] => return None,
                }
            }
        }
        _ => {
            let end = text
                .iter()
                .position(u8::is_ascii_whitespace)
                .unwrap_or(text.len());
            value.extend_from_slice(&text[..end]);
            &text[end..]
        }
    };
    let after = after.trim_ascii();
    (after.is_empty() || after.starts_with(b"#")).then_some(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let mut options = Vec::new();
        let parsed = parse(Path::new("f"), text.as_bytes(), &mut options);
        let expected: Vec<OsString> = expected.iter().map(OsString::from).collect();
        assert_eq!(parsed.map(|()| options), Ok(expected), "{text:?}");
    }

    #[test]
    fn lines_become_options() {
        check("tcp-established \n\n  # comment\n", &["--tcp-established"]);
        check(
            "verbosity=4 \nlog-file dump.log # here\n",
            &["--verbosity=4", "--log-file=dump.log"],
        );
        check(
            "root \"/a \\\"b\\\" c\"\nlibdir \"\"\n",
            &["--root=/a \"b\" c", "--libdir="],
        );
        check("config other\nno-default-config\n", &[]);
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for text in ["a b c", "name \"open", "name \"a\"b"] {
            let parsed = parse(Path::new("f"), text.as_bytes(), &mut Vec::new());
            assert!(
                matches!(parsed, Err(Error::Format { line: 1, .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn named_files_replace_the_default_ones() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(files(&words(&["dump"])).contains(&PathBuf::from("/etc/criu/default.conf")));
        let named = files(&words(&["dump", "--config", "a", "--config=b"]));
        assert!(named.contains(&PathBuf::from("b")) && !named.contains(&PathBuf::from("a")));
        assert!(!named.contains(&PathBuf::from("/etc/criu/default.conf")));
        let none = files(&words(&["dump", "--no-default-config"]));
        assert!(!none.contains(&PathBuf::from("/etc/criu/default.conf")));
    }
}
