//! Memory mappings for large buffers, with a safe interface.
//!
//! A slice of a shared file mapping is only as good as the file: whoever truncates it turns the next access
//! into `SIGBUS`, whoever writes it changes what the slice holds. So a file is mapped only if it is a
//! regular file that the effective user (or root) owns and nobody else may write. Against the owner's own
//! other programs that is no protection: lock image directories, or read what may change.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::null_mut;

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::PAGE_SIZE;
use crate::procmap::Query;
use crate::vm;

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}

/// Zeroed private memory of its own, page aligned.
#[derive(Debug)]
pub struct Anonymous(MmapMut);

impl Anonymous {
    /// Maps `len` bytes (more than 0); they take memory only once touched.
    pub fn new(len: usize) -> Result<Self> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        MmapMut::map_anon(len).map(Self).map_err(errno)
    }

    /// Like [`new`](Self::new), asking for huge pages where the kernel has them to give.
    pub fn huge(len: usize) -> Result<Self> {
        let map = Self::new(len)?;
        // A kernel without transparent huge pages refuses; the memory is as good without.
        let _ = map.0.advise(Advice::HugePage);
        Ok(map)
    }

    /// Has the kernel find memory for all of it now, rather than when it is touched. Without that it is as good.
    pub fn populate(&self) {
        let _ = self.0.advise(Advice::PopulateWrite);
    }
}

impl Deref for Anonymous {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Anonymous {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Makes memory that tasks can share, as `mmap` with `MAP_SHARED | MAP_ANONYMOUS` does, and opens it for
/// reading and writing. Mapped again it is called `/dev/zero (deleted)` in `maps`, like that memory, which a
/// memfd is not. Close-on-exec.
///
/// `huge` is the kind of huge pages, as the bits that `MAP_HUGETLB` takes beside it (0 is the default size).
///
/// # Errors
///
/// `EINVAL` for no bytes, `ENOMEM` for too many, `EPERM` without the right to open `/proc/self/map_files`
/// (`CAP_CHECKPOINT_RESTORE`).
pub fn shared_anonymous(len: usize, huge: Option<u32>) -> Result<OwnedFd> {
    let mut flags = MapFlags::SHARED;
    if let Some(kind) = huge {
        flags |= MapFlags::HUGETLB | MapFlags::from_bits_retain(kind);
    }
    let prot = ProtFlags::empty();
    // SAFETY: a new mapping where nothing is; nothing of Rust's lies in it, and it is gone on return.
    let map = unsafe { mmap_anonymous(null_mut(), len, prot, flags) };
    // Memory that was reserved for nobody is not charged.
    let map = match map {
        // SAFETY: as above.
        Err(Errno::NOMEM) if huge.is_none() => unsafe {
            mmap_anonymous(null_mut(), len, prot, flags | MapFlags::NORESERVE)
        },
        map => map,
    }?;
    let start = map as usize;
    let opened = extent(start, len, huge.is_some()).map(|end| {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let name = format!("/proc/self/map_files/{start:x}-{end:x}");
        let opened = rustix::fs::open(name, flags, Mode::empty());
        (opened, end - start)
    });
    let (opened, mapped) = opened.unwrap_or_else(|errno| (Err(errno), len));
    // SAFETY: this mapping was made above, and nothing refers to it.
    unsafe { munmap(map, mapped) }?;
    opened
}

/// Where the mapping of `len` bytes at `start` ends. Only the kernel knows how large huge pages are.
fn extent(start: usize, len: usize, huge: bool) -> Result<usize> {
    if !huge {
        return Ok(start + len.next_multiple_of(PAGE_SIZE));
    }
    let maps = OFlags::RDONLY | OFlags::CLOEXEC;
    let maps = rustix::fs::open("/proc/self/maps", maps, Mode::empty())?;
    match Query::new(maps).next_from(start as u64)? {
        Some(found) => Ok(found.map.end as usize),
        None => Err(Errno::NOENT),
    }
}

/// A shared mapping of a file that the kernel alone writes to, for files that know no `write(2)`: those of
/// huge pages. Whatever becomes of the file is an error of [`write`](Self::write), never a signal.
#[derive(Debug)]
pub struct Written {
    start: usize,
    len: usize,
}

impl Written {
    /// Maps the first `len` bytes of `file`, a multiple of its page size.
    pub fn map(file: impl AsFd, len: usize) -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where nothing is; no reference is ever made into it.
        let start = unsafe { mmap(null_mut(), len, prot, MapFlags::SHARED, file, 0) }?;
        Ok(Self {
            start: start as usize,
            len,
        })
    }

    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` behind the end of the mapping, `EFAULT` if the file has no pages to give.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let end = usize::try_from(offset)
            .ok()
            .and_then(|at| at.checked_add(bytes.len()));
        if end.is_none_or(|end| end > self.len) {
            return Err(Errno::INVAL);
        }
        let at = self.start as u64 + offset;
        let range = at..at + bytes.len() as u64;
        let written = vm::write_ranges(rustix::process::getpid(), bytes, &[range])?;
        match written == bytes.len() {
            true => Ok(()),
            false => Err(Errno::FAULT),
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nothing refers into it.
        let unmapped = unsafe { munmap(self.start as *mut _, self.len) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// A file mapped for reading.
#[derive(Debug)]
pub struct ReadOnly(Mmap);

impl ReadOnly {
    /// Maps the whole of `file`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is empty or no regular file, `EPERM` if somebody else owns it or may write it.
    pub fn map(file: impl AsFd) -> Result<Self> {
        let len = own_file(&file)?;
        // SAFETY: a mapping never dangles, whatever becomes of the file. That nobody changes or truncates
        // it is what `own_file` secures as far as a check can; the module says what is left.
        let map = unsafe { MmapOptions::new().len(len).map(file.as_fd().as_raw_fd()) };
        map.map(Self).map_err(errno)
    }

    /// Tells the kernel that the contents will be read in order.
    pub fn sequential(&self) {
        // Advice only: without it the reads are slower, not wrong.
        let _ = self.0.advise(Advice::Sequential);
    }
}

impl Deref for ReadOnly {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A file mapped for reading and writing; what is written goes to the file.
#[derive(Debug)]
pub struct ReadWrite(MmapMut);

impl ReadWrite {
    /// Gives `file` the length `len` and maps it. Under the same conditions as [`ReadOnly::map`].
    pub fn map(file: impl AsFd, len: usize) -> Result<Self> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        rustix::fs::ftruncate(&file, len as u64)?;
        if own_file(&file)? != len {
            return Err(Errno::INVAL);
        }
        // SAFETY: as in `ReadOnly::map`.
        let map = unsafe {
            MmapOptions::new()
                .len(len)
                .map_mut(file.as_fd().as_raw_fd())
        };
        map.map(Self).map_err(errno)
    }

    /// Writes what was changed to the disk and waits for it.
    pub fn flush(&self) -> Result<()> {
        self.0.flush().map_err(errno)
    }
}

impl Deref for ReadWrite {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for ReadWrite {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The length of `file`, if it is one that may be mapped.
fn own_file(file: &impl AsFd) -> Result<usize> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let owned = stat.st_uid == rustix::process::geteuid().as_raw() || stat.st_uid == 0;
    if !owned || stat.st_mode & 0o022 != 0 {
        return Err(Errno::PERM);
    }
    match usize::try_from(stat.st_size) {
        Ok(0) | Err(_) => Err(Errno::INVAL),
        Ok(len) => Ok(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn anonymous_memory_is_zero_and_writable() {
        let mut map = Anonymous::huge(3 << 20).unwrap();
        assert_eq!(map.len(), 3 << 20);
        assert!(map.iter().all(|byte| *byte == 0));
        map[5000] = 7;
        assert_eq!(map[5000], 7);
        assert_eq!(Anonymous::new(0).err(), Some(Errno::INVAL));
    }

    #[test]
    fn shared_memory_is_called_as_such() {
        let memory = shared_anonymous(3 * PAGE_SIZE + 1, None).unwrap();
        assert_eq!(
            rustix::fs::fstat(&memory).unwrap().st_size,
            4 * PAGE_SIZE as i64
        );
        let link = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let name = std::fs::read_link(link).unwrap();
        assert_eq!(name.to_str(), Some("/dev/zero (deleted)"));
        rustix::io::pwrite(&memory, b"kept", 5000).unwrap();
        let mut read = [0; 4];
        rustix::io::pread(&memory, &mut read, 5000).unwrap();
        assert_eq!(&read, b"kept");
        assert_eq!(shared_anonymous(0, None).err(), Some(Errno::INVAL));
        assert_eq!(shared_anonymous(1 << 60, None).err(), Some(Errno::NOMEM));
        // Where there are no huge pages, nothing is left behind.
        let before = std::fs::read_to_string("/proc/self/maps").unwrap();
        let huge = shared_anonymous(1, Some(0));
        assert!(matches!(huge, Ok(_) | Err(Errno::NOMEM)));
        let after = std::fs::read_to_string("/proc/self/maps").unwrap();
        let named = |maps: &str| maps.matches("/anon_hugepage").count();
        assert_eq!(named(&before), named(&after));
    }

    #[test]
    fn the_kernel_writes_to_a_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * PAGE_SIZE as u64).unwrap();
        let map = Written::map(&file, 3 * PAGE_SIZE).unwrap();
        map.write(b"across", PAGE_SIZE as u64 - 3).unwrap();
        let mut read = [0; 6];
        rustix::io::pread(&file, &mut read, PAGE_SIZE as u64 - 3).unwrap();
        assert_eq!(&read, b"across");
        // Behind the end of the file, and of the mapping.
        assert_eq!(map.write(b"x", 2 * PAGE_SIZE as u64), Err(Errno::FAULT));
        assert_eq!(
            map.write(b"xx", 3 * PAGE_SIZE as u64 - 1),
            Err(Errno::INVAL)
        );
        assert_eq!(map.write(b"x", u64::MAX), Err(Errno::INVAL));
    }

    #[test]
    fn files_are_read_and_written() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(ReadOnly::map(&file).err(), Some(Errno::INVAL));
        file.write_all(b"pages").unwrap();
        let map = ReadOnly::map(&file).unwrap();
        map.sequential();
        assert_eq!(&map[..], b"pages");
        let mut both = ReadWrite::map(&file, 8).unwrap();
        both[5..].copy_from_slice(b"!!!");
        both.flush().unwrap();
        assert_eq!(&both[..], b"pages!!!");
        assert_eq!(&ReadOnly::map(&file).unwrap()[..], b"pages!!!");
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"x").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(ReadOnly::map(file.as_file()).err(), Some(Errno::PERM));
        assert_eq!(
            ReadOnly::map(std::fs::File::open("/").unwrap()).err(),
            Some(Errno::INVAL)
        );
        assert_eq!(
            ReadOnly::map(std::fs::File::open("/dev/zero").unwrap()).err(),
            Some(Errno::INVAL)
        );
    }
}
