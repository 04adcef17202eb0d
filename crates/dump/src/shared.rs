//! Contents of shared memory: `pagemap-shmem-*.img`. Section 9.3 of the format.

mod copy;
mod mapped;

use std::ops::Range;
use std::sync::Arc;

use gelid_pages::{Extent, FileSource, Owner, PageSource, RunFlags, Zeros};
use rustix::io::Errno;

pub(crate) use self::copy::{Room, copied};
use self::mapped::MappedSource;
use crate::Error;
use crate::files::{Contents, Memory};
use crate::pages::{Queued, Sink};

/// Memory whose pages are to be stored.
pub(crate) struct Object {
    shmid: u32,
    source: Arc<dyn PageSource>,
    /// What may hold data, by byte offsets, ascending.
    ranges: Vec<Range<u64>>,
}

impl Object {
    /// Finds out where each object has data.
    pub(crate) fn all(memory: Vec<Memory>) -> Result<Vec<Self>, Error> {
        memory.into_iter().map(Self::of).collect()
    }

    fn of(memory: Memory) -> Result<Self, Error> {
        let shmid = memory.shmid;
        let failed = |error: std::io::Error| Error::Shared {
            shmid: shmid.into(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let (source, ranges): (Arc<dyn PageSource>, _) = match memory.contents {
            Contents::File(file) => {
                let source = FileSource::new(file);
                let ranges = source.data_ranges().map_err(failed)?;
                (Arc::new(source), ranges)
            }
            Contents::Mapped(parts) => {
                let source = MappedSource::new(parts);
                let ranges = source.ranges();
                (Arc::new(source), ranges)
            }
        };
        Ok(Self {
            shmid,
            source,
            ranges,
        })
    }

    fn bytes(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

/// Queues the pages of each object.
pub(crate) fn queue(sink: &mut Sink<'_>, objects: &[Object]) -> Result<Vec<Queued>, Error> {
    objects
        .iter()
        .map(|object| queue_object(sink, object))
        .collect()
}

fn queue_object(sink: &mut Sink<'_>, object: &Object) -> Result<Queued, Error> {
    let (mut stored, mut writer) = sink.begin(Owner::Shared(object.shmid.into()))?;
    stored.scanned = object.bytes() / gelid_pages::PAGE_SIZE as u64;
    for range in &object.ranges {
        let extent = Extent {
            range: range.clone(),
            flags: RunFlags::PRESENT,
            zeros: Zeros::Drop,
            // Only tasks refer to pages, and only to those of tasks.
            alike: false,
        };
        writer.push(&object.source, extent)?;
    }
    let pending = writer.finish()?;
    Ok(Queued { stored, pending })
}
