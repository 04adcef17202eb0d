//! Values of options: what CRIU accepts, as types.

use std::ffi::OsString;
use std::str::FromStr;

use clap::ValueEnum;

/// A number as `atoi(3)` reads it: leading digits count, what follows is ignored, no digits are 0.
pub(crate) fn atoi(text: &str) -> i64 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    // More digits than fit are as large as can be.
    let number = digits[..end]
        .parse()
        .unwrap_or(if end == 0 { 0 } else { i64::MAX });
    sign * number
}

/// A pid: a positive number.
pub(crate) fn pid(text: &str) -> Result<u32, String> {
    u32::try_from(atoi(text))
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| "invalid argument".to_owned())
}

/// A port: 0 is not one.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    u16::try_from(atoi(text))
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| "invalid argument".to_owned())
}

/// A count; what is negative or not a number is 0.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    Ok(u32::try_from(atoi(text).max(0)).unwrap_or(u32::MAX))
}

/// A descriptor of the caller: digits only.
pub(crate) fn descriptor(text: &str) -> Result<i32, String> {
    text.parse()
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(|| "not a descriptor".to_owned())
}

/// A user, and a group, which is that of the same number if none is given.
pub(crate) fn user_and_group(text: &str) -> Option<(u32, u32)> {
    let id = |text: &str| text.parse::<u16>().ok().map(u32::from);
    let (uid, gid) = text.split_once(',').unwrap_or((text, text));
    Some((id(uid)?, id(gid)?))
}

/// A size in bytes, with an optional suffix K, M or G.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let number = u64::try_from(atoi(text)).map_err(|_| "negative size".to_owned())?;
    let unit = match text
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .chars()
        .next()
    {
        Some('K' | 'k') => 1 << 10,
        Some('M' | 'm') => 1 << 20,
        Some('G' | 'g') => 1 << 30,
        _ => 1,
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| "too large".to_owned())
}

/// How pages are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As CRIU stores them: `pages-N.img`.
    None,
    /// Seekable zstd frames: `pages-N.img.zst`.
    Zstd {
        /// zstd's level; negative ones are faster and larger. `None`: whatever is worth while.
        level: Option<i32>,
    },
}

impl Compression {
    /// What is used where nothing is said.
    pub(crate) const DEFAULT: Self = Self::Zstd { level: None };
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "zstd" => Ok(Self::DEFAULT),
            Some(("zstd", level)) => match level.parse() {
                Ok(level @ -50..=19) => Ok(Self::Zstd { level: Some(level) }),
                _ => Err("the level of zstd is -50 to 19".to_owned()),
            },
            _ => Err("zstd, zstd:LEVEL or none".to_owned()),
        }
    }
}

/// How a file on disk is compared with the one that was dumped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileValidation {
    /// Its size is the same.
    Filesize,
    /// Its size, and the build-id of an ELF file, are the same.
    #[default]
    Buildid,
}

/// When memory is copied, so that a tree that runs on need not stand still until it is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Snapshot {
    /// Where it is large, and there is room for copies of all that may be written meanwhile.
    #[default]
    Auto,
    /// Never.
    Never,
    /// However little it is.
    Always,
}

/// Who keeps the packets of dumped connections away.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkLock {
    #[default]
    Iptables,
    Nftables,
    /// The caller does.
    #[value(alias = "none")]
    Skip,
}

/// How a pre-dump takes the pages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PreDumpMode {
    #[default]
    Splice,
    Read,
}

/// What is done about cgroups.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManageCgroups {
    Ignore,
    None,
    Props,
    #[default]
    Soft,
    Full,
    Strict,
}

/// A kind of namespace that `--empty-ns` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmptyNamespace {
    Net,
}

/// `fd[N]:KEY`: a descriptor of the caller that stands for what is called KEY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InheritFd {
    Descriptor {
        fd: i32,
        key: String,
    },
    /// `debug[N]:TEXT`: TEXT is written to descriptor N.
    Debug {
        fd: i32,
        text: String,
    },
}

impl FromStr for InheritFd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (kind, rest) = text.split_once('[')?;
            let (fd, key) = rest.split_once("]:")?;
            Some((kind, descriptor(fd).ok()?, key.to_owned()))
        };
        match parts() {
            Some(("fd", fd, key)) => Ok(Self::Descriptor { fd, key }),
            Some(("debug", fd, text)) => Ok(Self::Debug { fd, text }),
            _ => Err("Invalid inherit fd argument".to_owned()),
        }
    }
}

/// Which CPU features must agree: bits `fpu` 1, `cpu` 2, `ins` 4, `image` 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuCap(pub(crate) u8);

impl CpuCap {
    const FPU: u8 = 1;
    const CPU: u8 = 2;
    const INS: u8 = 4;
    const IMAGE: u8 = 8;
    const ALL: u8 = Self::FPU | Self::CPU | Self::INS;

    /// What is compared where nothing is said.
    pub(crate) const USUAL: Self = Self(Self::FPU | Self::INS);

    /// Everything.
    pub(crate) const EVERYTHING: Self = Self(Self::ALL);

    /// Whether the state of floating point must fit.
    pub(crate) fn has_floating_point(self) -> bool {
        self.0 & Self::FPU != 0
    }

    /// Whether there must be the same instructions.
    pub(crate) fn has_instructions(self) -> bool {
        self.0 & Self::INS != 0
    }

    /// Whether the processors must be the same.
    pub(crate) fn has_all(self) -> bool {
        self.0 & Self::CPU != 0
    }

    /// Whether `cpuinfo.img` is written on dump and required on restore.
    pub(crate) fn uses_image(self) -> bool {
        self.0 & Self::IMAGE != 0
    }
}

impl FromStr for CpuCap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bits = Self::FPU | Self::INS;
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (name, remove) = match word.strip_prefix('^') {
                Some(name) => (name, true),
                None => (word, false),
            };
            let named = match name {
                "fpu" => Self::FPU,
                "cpu" => Self::CPU,
                "ins" => Self::INS,
                "all" => Self::ALL,
                // Nothing to have is everything to give up, and the other way round.
                "none" => {
                    bits = if remove { Self::ALL } else { 0 };
                    continue;
                }
                _ => return Err(format!("unknown CPU capability {name:?}")),
            };
            bits = if remove { bits & !named } else { bits | named };
        }
        Ok(Self(if text.is_empty() {
            Self::ALL | Self::IMAGE
        } else if bits == 0 {
            0
        } else {
            bits | Self::IMAGE
        }))
    }
}

/// `[INO,...]`: the inodes of `--ext-unix-sk`.
pub(crate) fn inodes(text: &str) -> Result<Vec<u64>, String> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .ok()
                .filter(|ino| *ino > 0)
                .ok_or_else(|| format!("{part:?} is not an inode"))
        })
        .collect()
}

/// One `-v`, `-vN`, `-vvv` or `--verbosity[=N]`, applied to the level so far.
pub(crate) fn verbosity(level: i64, given: &OsString) -> i64 {
    let text = given.to_string_lossy();
    if text.is_empty() {
        level + 1
    } else if text.starts_with('v') {
        level + 1 + text.len() as i64
    } else {
        atoi(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_by_atoi() {
        let read = [
            ("12", 12),
            ("12abc", 12),
            ("erbosity=0", 0),
            ("-3x", -3),
            (" +7", 7),
            ("", 0),
        ];
        for (text, number) in read {
            assert_eq!(atoi(text), number, "{text:?}");
        }
        assert_eq!(atoi("99999999999999999999"), i64::MAX);
        assert!(pid("0").is_err() && pid("-1").is_err() && pid("x").is_err());
        assert_eq!(pid("42"), Ok(42));
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("1M"), Ok(1 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("2G"), Ok(2 << 30));
        assert!(size("-1").is_err() && size("9223372036854775807G").is_err());
    }

    #[test]
    fn levels_of_compression() {
        assert_eq!("zstd:-5".parse(), Ok(Compression::Zstd { level: Some(-5) }));
        assert_eq!("zstd".parse(), Ok(Compression::DEFAULT));
        assert_eq!("none".parse(), Ok(Compression::None));
        assert!("zstd:20".parse::<Compression>().is_err() && "lz4".parse::<Compression>().is_err());
    }

    #[test]
    fn inherited_descriptors() {
        let key = "pipe:[12]".to_owned();
        assert_eq!(
            "fd[3]:pipe:[12]".parse(),
            Ok(InheritFd::Descriptor { fd: 3, key })
        );
        assert_eq!(
            "debug[1]:x".parse(),
            Ok(InheritFd::Debug {
                fd: 1,
                text: "x".to_owned()
            })
        );
        for wrong in ["fd[]:x", "fd[3]", "fd[-1]:x", "what[3]:x", ""] {
            assert!(wrong.parse::<InheritFd>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpu_capabilities() {
        for (text, bits) in [
            ("", 15),
            ("none", 0),
            ("^none", 15),
            ("cpu", 15),
            ("^fpu", 12),
            ("none,fpu", 9),
        ] {
            assert_eq!(text.parse(), Ok(CpuCap(bits)), "{text:?}");
        }
        assert!("mmx".parse::<CpuCap>().is_err());
    }

    #[test]
    fn verbosity_adds_or_sets() {
        let level = |words: &[&str]| {
            words
                .iter()
                .fold(2, |level, word| verbosity(level, &word.into()))
        };
        assert_eq!(level(&[]), 2);
        assert_eq!(level(&[""]), 3);
        assert_eq!(level(&["vv"]), 5);
        assert_eq!(level(&["4"]), 4);
        assert_eq!(level(&["4", ""]), 5);
        assert_eq!(level(&["erbosity=0"]), 0);
    }
}
