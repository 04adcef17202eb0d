//! `pagemap-*.img` and the names of files of pages. Section 9 of the format.

use gelid_image::messages::{PagemapEntry, PagemapHead};
use gelid_image::{ImageKind, Staging};
use gelid_pages::{Format, Owner, PAGE_SIZE, Run, encode_checksums};

use crate::Error;
use crate::frames::Same;
use crate::pages::Stored;

/// The file of pages number `pages_id`.
pub(crate) fn pages_file(pages_id: u32, format: Format) -> String {
    match format {
        Format::Raw => format!("pages-{pages_id}.img"),
        Format::Zstd { .. } | Format::Adaptive => format!("pages-{pages_id}.img.zst"),
    }
}

/// What the manifest says of a file of frames, which carry checksums themselves.
const FRAMES: &str = "zstd frames";

impl Stored {
    /// Writes the pagemap, and notes the checksum of the file of pages. `number` tells what the process is called that
    /// was asked.
    pub(crate) fn write(
        &self,
        staging: &Staging,
        number: impl Fn(i32) -> i32,
    ) -> Result<(), Error> {
        let mut writer = match self.owner {
            Owner::Task(pid) => staging.writer(ImageKind::Pagemap, number(pid))?,
            Owner::Shared(shmid) => staging.writer(ImageKind::PagemapShmem, shmid)?,
        };
        let pages_id = self.pages_id;
        writer.push(&PagemapHead { pages_id })?;
        let own = self.summary.pagemap.iter().map(entry);
        let mut entries: Vec<_> = own
            .chain(self.same.iter().map(|same| of_another(same, &number)))
            .collect();
        entries.sort_by_key(|entry| entry.vaddr);
        for entry in &entries {
            writer.push(entry)?;
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

/// Pages that are among those of another task.
fn of_another(same: &Same, number: impl Fn(i32) -> i32) -> PagemapEntry {
    PagemapEntry {
        vaddr: same.range.start,
        flags: Some(0),
        nr_pages: Some((same.range.end - same.range.start) / PAGE_SIZE as u64),
        same_as: Some(number(same.owner.as_raw_pid()).cast_unsigned()),
        ..PagemapEntry::default()
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
