//! Contents of shared memory: `pagemap-shmem-*.img`. Section 9.3 of the format.

mod mapped;

use std::sync::Arc;

use gelid_pages::{Extent, FileSource, Owner, PageSource, RunFlags, Zeros};
use rustix::io::Errno;

use self::mapped::MappedSource;
use crate::Error;
use crate::files::{Contents, Memory};
use crate::pages::{Queued, Sink};

/// Queues the pages of each object.
pub(crate) fn queue(sink: &mut Sink<'_>, objects: Vec<Memory>) -> Result<Vec<Queued>, Error> {
    objects
        .into_iter()
        .map(|object| queue_object(sink, object))
        .collect()
}

fn queue_object(sink: &mut Sink<'_>, object: Memory) -> Result<Queued, Error> {
    let shmid = object.shmid;
    let failed = |error: std::io::Error| Error::Shared {
        shmid: shmid.into(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    };
    let (source, ranges): (Arc<dyn PageSource>, _) = match object.contents {
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
    let (mut stored, mut writer) = sink.begin(Owner::Shared(shmid.into()))?;
    for range in ranges {
        stored.scanned += (range.end - range.start) / gelid_pages::PAGE_SIZE as u64;
        let extent = Extent {
            range,
            flags: RunFlags::PRESENT,
            zeros: Zeros::Drop,
        };
        writer.push(&source, extent)?;
    }
    let pending = writer.finish()?;
    Ok(Queued { stored, pending })
}
