//! The page store seen from outside: what goes in comes out, and what is damaged does not.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::single_range_in_vec_init,
    reason = "slices of ranges are what is wanted"
)]

mod damage;
mod dedup;
mod guest;

mod pipeline;
mod process;
mod round_trip;
mod sets;
mod targets;

use gelid_pages::*;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

/// The only object of most tests.
const KEY: ObjectKey = ObjectKey {
    pages_id: 7,
    owner: Owner::Task(4711),
};
const PAGE: u64 = PAGE_SIZE as u64;

/// A sink whose bytes can be looked at afterwards.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options(format: Format, workers: usize) -> StoreOptions {
    StoreOptions {
        format,
        workers: NonZeroUsize::new(workers),
        dedup: false,
    }
}

/// Stores `extents` of `source` as one object.
fn store(
    options: StoreOptions,
    source: &Arc<dyn PageSource>,
    extents: &[Extent],
) -> Result<(Summary, Vec<u8>), StoreError> {
    let store = Store::start(options)?;
    let file = Buffer::default();
    let mut object = store.object(KEY, Box::new(file.clone()));
    for extent in extents {
        object.push(source, extent.clone())?;
    }
    let summary = object.finish()?.wait()?;
    Ok((summary, file.bytes()))
}

/// Opens what [`store`] returned.
fn open(format: Format, summary: &Summary, file: Vec<u8>) -> Result<ObjectReader, ReadError> {
    match format {
        Format::Raw => ObjectReader::open_raw(KEY, Box::new(file), Some(&summary.checksums)),
        Format::Zstd { .. } | Format::Adaptive => ObjectReader::open_zstd(KEY, Box::new(file)),
    }
}

/// Pages that compress, pages that do not, and pages of zeros, as `kinds` says.
fn pages(kinds: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(kinds.len() * PAGE_SIZE);
    let mut state = 88_172_645_463_325_252_u64;
    for (index, kind) in kinds.iter().enumerate() {
        let end = bytes.len() + PAGE_SIZE;
        match kind % 3 {
            0 => bytes.resize(end, 0),
            1 => bytes.extend(format!("{index:015} ").bytes().cycle().take(PAGE_SIZE)),
            _ => {
                while bytes.len() < end {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
                }
            }
        }
    }
    bytes
}
