//! `pagemap-*.img` and the names of files of pages. Section 9 of the format.

use gelid_image::messages::{PagemapEntry, PagemapHead};
use gelid_image::{ImageKind, Staging};
use gelid_pages::{Format, Owner, Run, encode_checksums};

use crate::Error;
use crate::pages::Stored;

/// The file of pages number `pages_id`.
pub(crate) fn pages_file(pages_id: u32, format: Format) -> String {
    match format {
        Format::Raw => format!("pages-{pages_id}.img"),
        Format::Zstd { .. } => format!("pages-{pages_id}.img.zst"),
    }
}

/// What the manifest says of a file of frames, which carry checksums themselves.
const FRAMES: &str = "zstd frames";

impl Stored {
    /// Writes the pagemap, and notes the checksum of the file of pages.
    pub(crate) fn write(&self, staging: &Staging) -> Result<(), Error> {
        let mut writer = match self.owner {
            Owner::Task(pid) => staging.writer(ImageKind::Pagemap, pid)?,
            Owner::Shared(shmid) => staging.writer(ImageKind::PagemapShmem, shmid)?,
        };
        let pages_id = self.pages_id;
        writer.push(&PagemapHead { pages_id })?;
        for run in &self.summary.pagemap {
            writer.push(&entry(run))?;
        }
        writer.finish()?;
        let checksum = if self.file.ends_with(".zst") {
            FRAMES.to_owned()
        } else {
            encode_checksums(&self.summary.checksums)
        };
        staging.set_checksum(&self.file, checksum)?;
        Ok(())
    }
}

fn entry(run: &Run) -> PagemapEntry {
    PagemapEntry {
        vaddr: run.vaddr,
        flags: Some(run.flags.bits()),
        nr_pages: Some(run.nr_pages),
        ..PagemapEntry::default()
    }
}
