//! All records of an image at once, decoded by two threads if there are many.

use std::io::Read;
use std::ops::Range;

use super::ImageReader;
use crate::schema::Record;
use crate::{ReadError, shared_out};

/// Records that are decoded by the same thread: so many that what is not [worth sharing](shared_out) is done before there
/// is another thread.
const TOGETHER: usize = 16;

/// A record that has been read: its offset in the file, and where its bytes are.
type Loaded = (u64, Range<usize>);

impl<R: Read> ImageReader<R> {
    /// What `keep` makes of each further record, in their order. Behind the first error there may be more, which does not
    /// count. A second thread, called `thread`, decodes the other half of many records. Not for images with payloads between
    /// the records.
    pub fn decoded<M: Record, T: Send>(
        &mut self,
        thread: &str,
        keep: impl Fn(M) -> T + Sync,
    ) -> impl Iterator<Item = Result<T, ReadError>> {
        let (mut bytes, mut loaded) = (Vec::new(), Vec::new());
        let failed = self.load_all::<M>(&mut bytes, &mut loaded).err();
        let some: Vec<&[Loaded]> = loaded.chunks(TOGETHER).collect();
        let name = &*self.name;
        let decode = |some: &[&[Loaded]]| {
            let mut decoded = Vec::with_capacity(some.len() * TOGETHER);
            for (offset, place) in some.iter().copied().flatten() {
                let record = super::decode::<M>(name, *offset, &bytes[place.clone()]);
                let failed = record.is_err();
                decoded.push(record.map(&keep));
                if failed {
                    break;
                }
            }
            decoded
        };
        let parts = shared_out(thread, &some, decode);
        let end = failed.map(Err);
        parts.into_iter().flatten().chain(end)
    }

    /// Reads all further records, as far as that is possible.
    fn load_all<M: Record>(
        &mut self,
        bytes: &mut Vec<u8>,
        loaded: &mut Vec<Loaded>,
    ) -> Result<(), ReadError> {
        self.must_hold(M::schema())?;
        while let Some(offset) = self.load()? {
            let from = bytes.len();
            bytes.extend_from_slice(&self.record);
            loaded.push((offset, from..bytes.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::FdinfoEntry;
    use crate::{ImageKind, Layout};

    /// An image of so many records.
    fn image(count: u32) -> Vec<u8> {
        let mut image = crate::header(ImageKind::Fdinfo);
        for fd in 0..count {
            let entry = FdinfoEntry {
                id: fd + 1,
                fd,
                ..Default::default()
            };
            crate::append(&mut image, &entry);
        }
        image
    }

    fn reader(image: &[u8]) -> ImageReader<&[u8]> {
        ImageReader::from_stream(image, ImageKind::Fdinfo, "fdinfo-1.img", Layout::V1_1).unwrap()
    }

    /// Numbers up to the first error, and that.
    fn read(
        entries: impl Iterator<Item = Result<FdinfoEntry, ReadError>>,
    ) -> (Vec<u32>, Option<String>) {
        let mut numbers = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => numbers.push(entry.fd),
                Err(error) => return (numbers, Some(error.to_string())),
            }
        }
        (numbers, None)
    }

    #[test]
    fn records_come_in_order_up_to_the_first_error() {
        for count in [0, 1, 1000, 5000] {
            let whole = image(count);
            let mut images = vec![whole.clone()];
            // One that is cut short, ones with a record that cannot be at the start, in the middle and in both halves.
            if let Some(cut) = whole.len().checked_sub(12) {
                images.push(whole[..cut].to_vec());
            }
            let places = [&[0][..], &[2000], &[4000], &[2001, 4999]];
            for places in places.iter().filter(|it| it.iter().all(|at| *at < count)) {
                let mut image = whole.clone();
                for at in *places {
                    let start = self::image(*at).len();
                    // Behind its size, the tag of its first field.
                    image[start + 4] = 7;
                }
                images.push(image);
            }
            for image in images {
                let decoded = read(reader(&image).decoded("test", |entry| entry));
                let one_by_one = read(reader(&image).records());
                assert_eq!(decoded, one_by_one, "{count}");
            }
        }
    }

    #[test]
    fn an_image_of_another_kind_is_refused() {
        let image = image(3);
        let mut reader = reader(&image);
        let mut decoded = reader.decoded("test", |entry: crate::messages::FileEntry| entry.id);
        assert!(matches!(
            decoded.next(),
            Some(Err(ReadError::WrongMessage { .. }))
        ));
        assert!(decoded.next().is_none());
    }
}
