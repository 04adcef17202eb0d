//! How a dump went, in numbers.

use std::time::Duration;

use gelid_image::messages::DumpStatsEntry;
use gelid_pages::{Owner, RunFlags};
use gelid_seize::Tree;

use crate::Outcome;
use crate::session::Pages;
use crate::survey::Task;

/// What is known when everything is observed.
pub(crate) fn outcome(tree: &Tree, tasks: &[Task]) -> Outcome {
    Outcome {
        tasks: tasks.len() as u64,
        threads: tree.threads().count() as u64,
        freezing: tree.stats().freezing,
        stats: DumpStatsEntry {
            freezing_time: micros(tree.stats().freezing),
            ..DumpStatsEntry::default()
        },
        ..Outcome::default()
    }
}

/// What is known when all pages are written.
pub(crate) fn add_pages(outcome: &mut Outcome, pages: &Pages) {
    outcome.stats.memdump_time = micros(pages.queuing);
    outcome.stats.memwrite_time = micros(pages.writing);
    for stored in &pages.stored {
        let summary = &stored.summary;
        outcome.pages += summary.pages;
        outcome.zero_pages += summary.zero_pages;
        outcome.raw_bytes += summary.raw_bytes;
        outcome.packed_bytes += summary.stored_bytes;
        let stats = &mut outcome.stats;
        match stored.owner {
            Owner::Task(_) => {
                stats.pages_scanned += stored.scanned;
                stats.pages_written += summary.pages;
            }
            Owner::Shared(_) => {
                *stats.shpages_scanned.get_or_insert_default() += stored.scanned;
                *stats.shpages_written.get_or_insert_default() += summary.pages;
            }
        }
        let parent = summary.pagemap.iter();
        let parent = parent.filter(|run| run.flags.contains(RunFlags::PARENT));
        stats.pages_skipped_parent += parent.map(|run| run.nr_pages).sum::<u64>();
        let lazy = summary.pagemap.iter();
        let lazy = lazy.filter(|run| run.flags.contains(RunFlags::LAZY));
        stats.pages_lazy += lazy.map(|run| run.nr_pages).sum::<u64>();
    }
}

/// Notes that the tree has stood still until now.
pub(crate) fn end_of_freeze(tree: &Tree, outcome: &mut Outcome) {
    outcome.frozen = tree.frozen_for();
    outcome.stats.frozen_time = micros(outcome.frozen);
}

/// Notes that the tree has stood still once more.
pub(crate) fn more_freeze(time: Duration, outcome: &mut Outcome) {
    outcome.frozen += time;
    outcome.stats.frozen_time = micros(outcome.frozen);
}

/// Microseconds; an hour and more is as long as can be.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
