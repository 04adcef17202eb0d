//! Where the pages of an object in memory go.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use gelid_pages::PageTarget;
use gelid_sys::map::Written;
use rustix::io::Errno;

/// An object to be filled, addressed by byte offset.
#[derive(Debug)]
pub struct MemoryTarget {
    file: File,
    size: u64,
    /// Objects of huge pages know no `write(2)`.
    mapped: OnceLock<Written>,
}

impl MemoryTarget {
    /// A target for an object of `size` bytes, of [`OpenFiles::shared_memory`](super::OpenFiles::shared_memory).
    #[must_use]
    pub fn new(file: File, size: u64) -> Self {
        Self {
            file,
            size,
            mapped: OnceLock::new(),
        }
    }

    fn mapped(&self) -> io::Result<&Written> {
        if let Some(mapped) = self.mapped.get() {
            return Ok(mapped);
        }
        let len = usize::try_from(self.size).map_err(|_| Errno::NOMEM)?;
        let mapped = Written::map(&self.file, len)?;
        Ok(self.mapped.get_or_init(|| mapped))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(mapped) = self.mapped.get() {
            return Ok(mapped.write(bytes, offset)?);
        }
        match self.file.write_all_at(bytes, offset) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                Ok(self.mapped()?.write(bytes, offset)?)
            }
            written => written,
        }
    }
}

impl PageTarget for MemoryTarget {
    fn write(&self, mut bytes: &[u8], ranges: &[Range<u64>]) -> io::Result<()> {
        for range in ranges {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (here, rest) = bytes.split_at_checked(len).ok_or(Errno::INVAL)?;
            // The last page may reach beyond the end of the object; what is there are zeros.
            let inside = usize::try_from(self.size.saturating_sub(range.start)).unwrap_or(len);
            self.write_at(&here[..inside.min(len)], range.start)?;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn object(flags: MemfdFlags, size: u64) -> File {
        let fd = rustix::fs::memfd_create("object", flags | MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, size).unwrap();
        File::from(fd)
    }

    #[test]
    fn an_object_keeps_its_size() {
        let file = object(MemfdFlags::empty(), 5000);
        let target = MemoryTarget::new(file.try_clone().unwrap(), 5000);
        target.write(&[7; 8192], &[0..4096, 4096..8192]).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5000);
        let mut last = [0];
        file.read_exact_at(&mut last, 4999).unwrap();
        assert_eq!(last, [7]);
        assert!(
            target
                .write(&[7; 10], std::slice::from_ref(&(0..4096)))
                .is_err()
        );
    }

    #[test]
    fn huge_pages_are_written() {
        let size = 2 << 20;
        let file = object(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, size);
        let target = MemoryTarget::new(file.try_clone().unwrap(), size);
        let page = 1 << 20..(1 << 20) + 4096;
        match target.write(&[7; 4096], std::slice::from_ref(&page)) {
            // None are set aside.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOMEM) => {}
            written => {
                written.unwrap();
                let mut byte = [0];
                file.read_exact_at(&mut byte, 1 << 20).unwrap();
                assert_eq!(byte, [7]);
            }
        }
    }
}
