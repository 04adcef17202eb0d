//! `gelid dump`: from options to a dump, and what is said about it.

use std::process::ExitCode;

use gelid_image::messages::DumpStatsEntry;

use crate::args::Invocation;
use crate::surroundings::Surroundings;
use crate::{log, statistics};

/// Dumps the tree and says how it went.
pub(crate) fn run(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<ExitCode> {
    match dump(invocation, surroundings) {
        Ok(stats) => {
            if invocation.options.general.display_stats {
                print!("{}", statistics::Dump(&stats));
            }
            tracing::info!("Dumping finished successfully");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            tracing::error!("{}", log::one_line(&error));
            tracing::error!("Dumping FAILED.");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn dump(invocation: &Invocation, surroundings: &Surroundings) -> anyhow::Result<DumpStatsEntry> {
    let options = &invocation.options;
    tracing::debug!(
        tree = options.general.tree,
        images = %surroundings.images.display(),
        work = %surroundings.work.display(),
        compression = ?invocation.compression(),
        validation = ?options.files.file_validation,
        "options"
    );
    anyhow::bail!("dump is not built yet")
}
