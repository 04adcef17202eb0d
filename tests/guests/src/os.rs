//! System calls by `libc`, and memory a guest maps for itself.

use crate::protocol::{Check, Failure, ensure};
use std::io;

/// Runs one `libc` call and turns its error return into a [`Failure`] that names the call.
///
/// The expression runs in an `unsafe` block. Whoever uses the macro passes only numbers, pointers
/// to live locals and statics, and addresses of mappings the guest made itself and keeps.
macro_rules! os {
    ($call:expr) => {{
        // SAFETY: by the rule of this macro every pointer in the call is valid for it.
        let value = unsafe { $call };
        $crate::os::checked(value, stringify!($call))
    }};
}
pub(crate) use os;

/// Return values by which a call says that it failed.
pub(crate) trait Returned: Copy {
    /// Whether `errno` holds the reason.
    fn failed(self) -> bool;
}

macro_rules! returned {
    ($($number:ty),*) => {$(
        impl Returned for $number {
            fn failed(self) -> bool {
                self == -1
            }
        }
    )*};
}
returned!(i32, i64, isize);

impl Returned for usize {
    fn failed(self) -> bool {
        self == usize::MAX
    }
}

impl<T> Returned for *mut T {
    fn failed(self) -> bool {
        self.addr() == usize::MAX
    }
}

/// The value, or a failure with the call and the error.
#[track_caller]
pub(crate) fn checked<T: Returned>(value: T, call: &str) -> Check<T> {
    if value.failed() {
        let error = io::Error::last_os_error();
        return Err(Failure::new(format!("{call}: {error}")));
    }
    Ok(value)
}

/// The errno of the last failed call on this thread.
pub(crate) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Size of a page.
pub(crate) const PAGE: usize = 4096;

/// A mapping of this process, unmapped at the end of its life.
pub(crate) struct Map {
    base: *mut u8,
    len: usize,
}

// SAFETY: a mapping belongs to the whole process; accesses go through volatile reads and writes.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// `mmap(2)` at a place the kernel chooses.
    pub(crate) fn new(len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> Check<Self> {
        let base = os!(libc::mmap(
            std::ptr::null_mut(),
            len,
            prot,
            flags,
            fd,
            offset
        ))?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// Private anonymous memory, readable and writable.
    pub(crate) fn anon(len: usize) -> Check<Self> {
        Self::new(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    }

    /// Shared anonymous memory, readable and writable.
    pub(crate) fn shared(len: usize) -> Check<Self> {
        Self::new(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    }

    /// First address.
    pub(crate) fn addr(&self) -> usize {
        self.base.expose_provenance()
    }

    /// A pointer to the byte at an offset.
    pub(crate) fn at(&self, offset: usize) -> *mut libc::c_void {
        assert!(offset <= self.len, "offset inside the mapping");
        self.base.wrapping_add(offset).cast()
    }

    /// The 64-bit word at an aligned offset.
    pub(crate) fn get(&self, offset: usize) -> u64 {
        assert!(
            offset + 8 <= self.len && offset.is_multiple_of(8),
            "aligned word inside the mapping"
        );
        // SAFETY: inside the mapping and aligned; the guest reads only where it mapped readably.
        unsafe { self.base.wrapping_add(offset).cast::<u64>().read_volatile() }
    }

    /// Stores a 64-bit word at an aligned offset.
    pub(crate) fn set(&self, offset: usize, value: u64) {
        assert!(
            offset + 8 <= self.len && offset.is_multiple_of(8),
            "aligned word inside the mapping"
        );
        // SAFETY: inside the mapping and aligned; the guest writes only where it mapped writably.
        unsafe {
            self.base
                .wrapping_add(offset)
                .cast::<u64>()
                .write_volatile(value)
        }
    }

    /// Changes the protection of a part.
    pub(crate) fn protect(&self, offset: usize, len: usize, prot: i32) -> Check {
        os!(libc::mprotect(self.at(offset), len, prot))?;
        Ok(())
    }

    /// `madvise(2)` on a part.
    pub(crate) fn advise(&self, offset: usize, len: usize, advice: i32) -> Check {
        os!(libc::madvise(self.at(offset), len, advice))?;
        Ok(())
    }

    /// Fills pages `from..to` so that every word differs, by page, word and seed.
    pub(crate) fn fill(&self, from: usize, to: usize, seed: u64) {
        for offset in (from * PAGE..to * PAGE).step_by(8) {
            self.set(offset, word(seed, offset));
        }
    }

    /// Checks what [`fill`](Self::fill) wrote.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, from: usize, to: usize, seed: u64) -> Check {
        for offset in (from * PAGE..to * PAGE).step_by(8) {
            let (got, want) = (self.get(offset), word(seed, offset));
            if got != want {
                return Err(Failure::new(format!(
                    "{what}: page {} word {}: {got:#x}, expected {want:#x}",
                    offset / PAGE,
                    offset % PAGE / 8
                )));
            }
        }
        Ok(())
    }

    /// Checks that pages `from..to` hold zeros.
    #[track_caller]
    pub(crate) fn check_zero(&self, what: &str, from: usize, to: usize) -> Check {
        for offset in (from * PAGE..to * PAGE).step_by(8) {
            let got = self.get(offset);
            if got != 0 {
                return Err(Failure::new(format!(
                    "{what}: page {} holds {got:#x}, expected zeros",
                    offset / PAGE
                )));
            }
        }
        Ok(())
    }

    /// Which pages are present, by `mincore(2)`.
    pub(crate) fn resident(&self) -> Check<Vec<bool>> {
        let mut pages = vec![0_u8; self.len / PAGE];
        os!(libc::mincore(self.at(0), self.len, pages.as_mut_ptr()))?;
        Ok(pages.iter().map(|page| page & 1 == 1).collect())
    }

    /// Keeps the memory mapped for the rest of the process.
    pub(crate) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nothing refers to it after the drop.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// The word that [`Map::fill`] puts at an offset: splitmix64 of seed and offset.
pub(crate) fn word(seed: u64, offset: usize) -> u64 {
    let mut value = seed.wrapping_add((offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The lines of `/proc/self/smaps` for the mapping that starts at an address.
pub(crate) fn smaps(addr: usize) -> Check<Vec<String>> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let start = format!("{addr:x}-");
    let lines: Vec<String> = text
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .map(str::to_owned)
        .collect();
    ensure!(!lines.is_empty(), "no mapping starts at {addr:#x}");
    let end = lines
        .iter()
        .position(|line| line.starts_with("VmFlags:"))
        .map_or(lines.len(), |index| index + 1);
    Ok(lines.into_iter().take(end).collect())
}

/// The two-letter flags of the mapping that starts at an address.
pub(crate) fn vm_flags(addr: usize) -> Check<Vec<String>> {
    let lines = smaps(addr)?;
    let flags = lines.last().and_then(|line| line.strip_prefix("VmFlags:"));
    let flags = flags.ok_or_else(|| Failure::new("no VmFlags in smaps"))?;
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

/// A mapping of so many pages has this flag.
pub(crate) fn has_flag(map: &Map, flag: &str) -> Check<bool> {
    Ok(vm_flags(map.addr())?.iter().any(|have| have == flag))
}
