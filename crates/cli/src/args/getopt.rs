//! The command line as `getopt_long(3)` reads it, turned into what clap reads.
//!
//! CRIU's callers rely on GNU habits that clap does not have: any unambiguous prefix of a long option,
//! optional arguments that must be glued (`-v4`, `--cpu-cap=fpu`), values that begin with a dash, and options and
//! words in any order. So the words are first taken apart here, by the table of all names
//! ([`known`](super::known)), and put together again as `--name=value`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::known::{ALL, Group};

/// Whether an option has an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Required,
    /// Only when glued to the option.
    Optional,
}

/// One long option, with the letter that means the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) letter: Option<char>,
    pub(super) takes: Takes,
    /// The first name of this option, or of the one that is switched off.
    pub(super) meaning: &'static str,
    /// Whether what it means is switched off.
    pub(super) negates: bool,
    pub(super) group: Group,
}

/// One option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) known: &'static Known,
    pub(super) value: Option<OsString>,
}

impl Given {
    /// `--name` or `--name=value`, which clap cannot misunderstand.
    pub(super) fn word(&self) -> OsString {
        let mut word = OsString::from(format!("--{}", self.known.name));
        if let Some(value) = &self.value {
            word.push("=");
            word.push(value);
        }
        word
    }
}

/// Options in their order, and the words that are none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) options: Vec<Given>,
    pub(super) words: Vec<OsString>,
}

/// A complaint in the words of `getopt_long(3)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    Unrecognized(String),
    Ambiguous {
        option: String,
        possible: Vec<String>,
    },
    NeedsArgument(String),
    AllowsNoArgument(String),
    InvalidLetter(char),
    LetterNeedsArgument(char),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrecognized(option) => write!(f, "unrecognized option '{option}'"),
            Self::Ambiguous { option, possible } => {
                write!(f, "option '{option}' is ambiguous; possibilities:")?;
                possible
                    .iter()
                    .try_for_each(|name| write!(f, " '--{name}'"))
            }
            Self::NeedsArgument(option) => write!(f, "option '{option}' requires an argument"),
            Self::AllowsNoArgument(option) => {
                write!(f, "option '{option}' doesn't allow an argument")
            }
            Self::InvalidLetter(letter) => write!(f, "invalid option -- '{letter}'"),
            Self::LetterNeedsArgument(letter) => {
                write!(f, "option requires an argument -- '{letter}'")
            }
        }
    }
}

/// Takes `arguments` (without the program's name) apart, as options of [`ALL`]. With `options_first`, as `POSIXLY_CORRECT` asks for,
/// nothing after the first word is an option.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    options_first: bool,
) -> Result<Parsed, Complaint> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.into_iter();
    while let Some(word) = rest.next() {
        // The version is told as soon as it is asked for, whatever follows.
        if parsed
            .options
            .last()
            .is_some_and(|given| given.known.name == "version")
        {
            break;
        }
        match word.as_bytes() {
            b"--" => parsed.words.extend(rest.by_ref()),
            [b'-', b'-', long @ ..] => parsed.options.push(parse_long(long, &mut rest)?),
            [b'-', letters @ ..] if !letters.is_empty() => {
                parse_letters(letters, &mut rest, &mut parsed.options)?;
            }
            _ => {
                parsed.words.push(word);
                if options_first {
                    parsed.words.extend(rest.by_ref());
                }
            }
        }
    }
    Ok(parsed)
}

/// `--name`, `--name=value` or `--name value`; `text` is what follows the dashes.
fn parse_long(text: &[u8], rest: &mut impl Iterator<Item = OsString>) -> Result<Given, Complaint> {
    let (name, glued) = match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let known = find(&String::from_utf8_lossy(name))?;
    let value = match (known.takes, glued) {
        (Takes::Nothing, Some(_)) => {
            return Err(Complaint::AllowsNoArgument(format!("--{}", known.name)));
        }
        (Takes::Required, None) => {
            let value = rest.next();
            Some(value.ok_or_else(|| Complaint::NeedsArgument(format!("--{}", known.name)))?)
        }
        (_, glued) => glued.map(|value| OsStr::from_bytes(value).to_owned()),
    };
    Ok(Given { known, value })
}

/// The option called `name`, or the only one whose name begins so.
fn find(name: &str) -> Result<&'static Known, Complaint> {
    if let Some(known) = ALL.iter().find(|known| known.name == name) {
        return Ok(known);
    }
    let option = format!("--{name}");
    let candidates: Vec<&'static Known> = ALL
        .iter()
        .filter(|known| known.name.starts_with(name))
        .collect();
    match candidates.as_slice() {
        [] => Err(Complaint::Unrecognized(option)),
        [only] => Ok(only),
        _ => {
            let possible = candidates
                .iter()
                .map(|known| known.name.to_owned())
                .collect();
            Err(Complaint::Ambiguous { option, possible })
        }
    }
}

/// `-abc`, `-oVALUE` or `-o VALUE`; `letters` is what follows the dash.
fn parse_letters(
    letters: &[u8],
    rest: &mut impl Iterator<Item = OsString>,
    options: &mut Vec<Given>,
) -> Result<(), Complaint> {
    for (at, letter) in letters.iter().enumerate() {
        let letter = char::from(*letter);
        let known = ALL
            .iter()
            .find(|known| known.letter == Some(letter))
            .ok_or(Complaint::InvalidLetter(letter))?;
        if known.takes == Takes::Nothing {
            options.push(Given { known, value: None });
            continue;
        }
        let glued = &letters[at + 1..];
        let value = match (known.takes, glued.is_empty()) {
            (_, false) => Some(OsString::from_vec(glued.to_vec())),
            (Takes::Required, true) => {
                Some(rest.next().ok_or(Complaint::LetterNeedsArgument(letter))?)
            }
            _ => None,
        };
        options.push(Given { known, value });
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: &[&str]) {
        let given = words.iter().map(OsString::from);
        let got = match parse(given, false) {
            Ok(parsed) => parsed
                .options
                .into_iter()
                .map(|given| given.word().into_string().unwrap())
                .chain(
                    parsed
                        .words
                        .into_iter()
                        .map(|word| word.into_string().unwrap()),
                )
                .collect(),
            Err(complaint) => vec![complaint.to_string()],
        };
        assert_eq!(got, expected, "{words:?}");
    }

    #[test]
    fn options_and_words_mix() {
        check(
            &["dump", "-t", "7", "x", "-R"],
            &["--tree=7", "--leave-running", "dump", "x"],
        );
        check(
            &["-Rst7"],
            &["--leave-running", "--leave-stopped", "--tree=7"],
        );
        check(&["restore", "--", "-R"], &["restore", "-R"]);
        check(&["-"], &["-"]);
    }

    #[test]
    fn optional_arguments_are_glued() {
        check(&["-v", "4"], &["--verbosity", "4"]);
        check(&["-v4", "-vvv"], &["--verbosity=4", "--verbosity=vv"]);
        check(&["--verb=4"], &["--verbosity=4"]);
        check(&["--verbosity", "4"], &["--verbosity", "4"]);
        check(
            &["check", "-verbosity=0"],
            &["--verbosity=erbosity=0", "check"],
        );
    }

    #[test]
    fn prefixes_are_unambiguous() {
        check(&["--tre=-5"], &["--tree=-5"]);
        check(&["--restore-d"], &["--restore-detached"]);
        check(
            &["--leave"],
            &["option '--leave' is ambiguous; possibilities: '--leave-running' '--leave-stopped'"],
        );
        check(
            &["--leave-r=1"],
            &["option '--leave-running' doesn't allow an argument"],
        );
    }

    #[test]
    fn complaints_are_those_of_getopt() {
        check(&["--nope"], &["unrecognized option '--nope'"]);
        check(&["-q"], &["invalid option -- 'q'"]);
        check(&["-t"], &["option requires an argument -- 't'"]);
        check(&["--tree"], &["option '--tree' requires an argument"]);
    }

    #[test]
    fn options_first_stops_at_a_word() {
        let words = ["-R", "dump", "-t", "7"].map(OsString::from);
        let parsed = parse(words, true).unwrap();
        assert_eq!(parsed.options.len(), 1);
        assert_eq!(parsed.words, ["dump", "-t", "7"].map(OsString::from));
    }
}
