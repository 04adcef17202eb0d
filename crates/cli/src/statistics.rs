//! What `--display-stats` prints, in CRIU's words.

use std::fmt;

use gelid_image::messages::{DumpStatsEntry, RestoreStatsEntry};

/// The statistics of a dump, as text.
pub(crate) struct Dump<'stats>(pub(crate) &'stats DumpStatsEntry);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.0;
        writeln!(f, "Displaying dump stats:")?;
        for (name, microseconds) in [
            ("Freezing time", stats.freezing_time),
            ("Frozen time", stats.frozen_time),
            ("Memory dump time", stats.memdump_time),
            ("Memory write time", stats.memwrite_time),
            (
                "IRMAP resolve time",
                stats.irmap_resolve.unwrap_or_default(),
            ),
        ] {
            writeln!(f, "{name}: {microseconds} us")?;
        }
        for (name, pages) in [
            ("Memory pages scanned", stats.pages_scanned),
            (
                "Memory pages skipped from parent",
                stats.pages_skipped_parent,
            ),
            ("Memory pages written", stats.pages_written),
            ("Lazy memory pages", stats.pages_lazy),
        ] {
            writeln!(f, "{name}: {pages} (0x{pages:x})")?;
        }
        Ok(())
    }
}

/// The statistics of a restore, as text.
pub(crate) struct Restore<'stats>(pub(crate) &'stats RestoreStatsEntry);

impl fmt::Display for Restore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.0;
        writeln!(f, "Displaying restore stats:")?;
        for (name, pages) in [
            ("Pages compared", stats.pages_compared),
            ("Pages skipped COW", stats.pages_skipped_cow),
            ("Pages restored", stats.pages_restored.unwrap_or_default()),
        ] {
            writeln!(f, "{name}: {pages} (0x{pages:x})")?;
        }
        writeln!(f, "Restore time: {} us", stats.restore_time)?;
        writeln!(f, "Forking time: {} us", stats.forking_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_twice() {
        let stats = DumpStatsEntry {
            frozen_time: 25370,
            pages_written: 3141,
            ..Default::default()
        };
        let text = Dump(&stats).to_string();
        assert!(text.contains("\nFrozen time: 25370 us\n"), "{text}");
        assert!(
            text.contains("\nMemory pages written: 3141 (0xc45)\n"),
            "{text}"
        );
        let stats = RestoreStatsEntry {
            restore_time: 7,
            ..Default::default()
        };
        assert!(
            Restore(&stats)
                .to_string()
                .ends_with("Restore time: 7 us\nForking time: 0 us\n")
        );
    }
}
