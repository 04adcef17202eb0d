//! The ways through dump and restore, as data.

use crate::engine::Engine;
use anyhow::Result;

/// A way through dump and restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No dump at all: start, go, check. Proves the guest itself.
    None,
    /// Dump with raw pages, death, restore.
    Raw,
    /// Dump with zstd, death, restore.
    Zstd,
    /// Dump with `--leave-running`, from a copy of the memory: the original goes on and passes; when it is gone, the
    /// images restore, and that one passes as well.
    Running,
    /// Several dumps and restores one after the other, with raw pages and with packed ones that are stored once.
    Rounds,
    /// Dumped by gelid, restored by CRIU.
    ToCriu,
    /// Dumped by CRIU, restored by gelid.
    FromCriu,
}

impl Mode {
    /// All that this machine can run: those with CRIU only where `GELID_CRIU` names its executable.
    #[must_use]
    pub fn all() -> &'static [Self] {
        const ALL: [Mode; 7] = [
            Mode::None,
            Mode::Raw,
            Mode::Zstd,
            Mode::Running,
            Mode::Rounds,
            Mode::ToCriu,
            Mode::FromCriu,
        ];
        if Engine::criu().is_some() {
            &ALL
        } else {
            &ALL[..5]
        }
    }

    /// Its name in the list of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Raw => "raw",
            Self::Zstd => "zstd",
            Self::Running => "running",
            Self::Rounds => "rounds",
            Self::ToCriu => "to-criu",
            Self::FromCriu => "from-criu",
        }
    }

    /// Options of its dump in a round, as far as the executable knows them.
    pub(crate) fn options(self, engine: &Engine, round: usize) -> Vec<&'static str> {
        let pages = match self {
            Self::Zstd => "--compress=zstd",
            Self::Rounds if round % 2 == 1 => "--compress=zstd",
            _ => "--compress=none",
        };
        let mut words = Vec::new();
        if !engine.is_criu() {
            words.push(pages);
            if self == Self::Rounds && round % 2 == 1 {
                words.push("--dedup-content");
            }
        }
        if self == Self::Running {
            words.push("--leave-running");
            if !engine.is_criu() {
                words.push("--snapshot=always");
            }
        }
        words
    }

    /// Who dumps, and who restores.
    ///
    /// # Errors
    ///
    /// An executable is missing or cannot be built.
    pub(crate) fn engines(self) -> Result<(Engine, Engine)> {
        let own = Engine::find()?;
        let other = Engine::criu().unwrap_or_else(|| own.clone());
        Ok(match self {
            Self::ToCriu => (own, other),
            Self::FromCriu => (other, own),
            _ => (own.clone(), own),
        })
    }
}

/// How many times [`Mode::Rounds`] goes round: `GELID_ROUNDS`, else 2.
#[must_use]
pub fn rounds() -> usize {
    std::env::var("GELID_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}
