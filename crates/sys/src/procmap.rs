//! Mappings one by one, in binary: the `PROCMAP_QUERY` ioctl of `/proc/PID/maps` (since Linux 6.11).
//!
//! Cheaper than reading `maps` where only some mappings are wanted, and names come unescaped. The
//! flags of a mapping that are not permissions it does not tell; [`proc::smaps`](crate::proc::smaps) does.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::proc::maps::{Dev, Mapping, Perms};
use crate::syscall::call;

/// `struct procmap_query` of `linux/fs.h`.
#[derive(Default)]
#[repr(C)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const _: () = {
    assert!(size_of::<ProcmapQuery>() == 104);
    assert!(offset_of!(ProcmapQuery, vma_flags) == 40);
    assert!(offset_of!(ProcmapQuery, inode) == 64);
    assert!(offset_of!(ProcmapQuery, vma_name_size) == 80);
    assert!(offset_of!(ProcmapQuery, build_id_addr) == 96);
};

#[cfg(test)]
crate::layout::same!(whole ProcmapQuery, linux_raw_sys::general::procmap_query {
    size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode,
    dev_major, dev_minor, vma_name_size, build_id_size, vma_name_addr, build_id_addr,
});

/// `PROCMAP_QUERY`, `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: usize = 0xc068_6611;
/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`
const COVERING_OR_NEXT: u64 = 0x10;
/// `PROCMAP_QUERY_FILE_BACKED_VMA`
const FILE_BACKED: u64 = 0x20;
/// `PATH_MAX`, the longest name the kernel gives.
const NAME_MAX: usize = 4096;

/// Bytes of the longest build id that the kernel knows.
const BUILD_ID_MAX: usize = 20;

/// What [`Query::next_from`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Range, permissions, file and name.
    pub map: Mapping,
    /// Bytes in a page of the mapping; more than 4096 on hugetlbfs.
    pub page_size: u64,
}

/// Asks an open `/proc/PID/maps`.
#[derive(Debug)]
pub struct Query<Fd> {
    maps: Fd,
    name: Vec<u8>,
}

impl<Fd: AsFd> Query<Fd> {
    /// Takes an open `/proc/PID/maps`.
    pub fn new(maps: Fd) -> Self {
        Self {
            maps,
            name: vec![0; NAME_MAX],
        }
    }

    /// The mapping that holds `address` or, if none does, the next one; `None` behind the last.
    ///
    /// # Errors
    ///
    /// `ENOTTY` on a kernel without the ioctl, `ESRCH` if the address space is gone, `ENAMETOOLONG` for a
    /// path longer than `PATH_MAX`.
    pub fn next_from(&mut self, address: u64) -> Result<Option<Found>> {
        self.next(address, COVERING_OR_NEXT)
    }

    /// The same of mappings with a file behind them; the kernel passes over all others.
    ///
    /// # Errors
    ///
    /// As [`next_from`](Self::next_from).
    pub fn next_file_from(&mut self, address: u64) -> Result<Option<Found>> {
        self.next(address, COVERING_OR_NEXT | FILE_BACKED)
    }

    fn next(&mut self, address: u64, query_flags: u64) -> Result<Option<Found>> {
        let mut query = ProcmapQuery {
            size: size_of::<ProcmapQuery>() as u64,
            query_flags,
            query_addr: address,
            vma_name_size: NAME_MAX as u32,
            vma_name_addr: self.name.as_mut_ptr() as u64,
            ..ProcmapQuery::default()
        };
        let fd = self.maps.as_fd().as_raw_fd() as usize;
        let args = [fd, PROCMAP_QUERY, &raw mut query as usize, 0, 0, 0];
        // SAFETY: query and name buffer are alive and exclusively ours during the call; the kernel writes
        // at most `vma_name_size` bytes of name and no build id, whose size is 0. On a descriptor that
        // is no `maps` the number means nothing else.
        match unsafe { call(libc::SYS_ioctl as usize, args) } {
            Ok(_) => self.found(&query).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The inode of the file behind the mapping that holds `address`, and its build id if it is an ELF file that
    /// has one of at most 20 bytes. The file is not opened; the kernel may read it.
    ///
    /// # Errors
    ///
    /// `ENOTTY` on a kernel without the ioctl, `ENOENT` if nothing is mapped there, `ESRCH` if the address
    /// space is gone.
    pub fn build_id(&self, address: u64) -> Result<(u64, Option<Vec<u8>>)> {
        let mut id = [0; BUILD_ID_MAX];
        let mut query = ProcmapQuery {
            size: size_of::<ProcmapQuery>() as u64,
            query_addr: address,
            build_id_size: BUILD_ID_MAX as u32,
            build_id_addr: id.as_mut_ptr() as u64,
            ..ProcmapQuery::default()
        };
        let fd = self.maps.as_fd().as_raw_fd() as usize;
        let args = [fd, PROCMAP_QUERY, &raw mut query as usize, 0, 0, 0];
        // SAFETY: query and buffer are alive and exclusively ours during the call; the kernel writes at most
        // `build_id_size` bytes of it and no name, whose size is 0.
        unsafe { call(libc::SYS_ioctl as usize, args) }?;
        let id = id.get(..query.build_id_size as usize);
        let id = id.filter(|id| !id.is_empty()).map(<[u8]>::to_vec);
        Ok((query.inode, id))
    }

    fn found(&self, query: &ProcmapQuery) -> Result<Found> {
        if query.vma_end <= query.vma_start {
            return Err(Errno::OVERFLOW);
        }
        let name = self
            .name
            .get(..query.vma_name_size as usize)
            .ok_or(Errno::OVERFLOW)?;
        let map = Mapping {
            start: query.vma_start,
            end: query.vma_end,
            perms: Perms::from_bits_truncate(query.vma_flags as u32),
            offset: query.vma_offset,
            dev: Dev {
                major: query.dev_major,
                minor: query.dev_minor,
            },
            inode: query.inode,
            path: name.strip_suffix(b"\0").unwrap_or(name).to_vec(),
        };
        Ok(Found {
            map,
            page_size: query.vma_page_size,
        })
    }
}

/// All mappings of the address space behind an open `/proc/PID/maps`, in ascending order.
pub fn list(maps: impl AsFd) -> Result<Vec<Found>> {
    let mut query = Query::new(maps);
    let mut all = Vec::with_capacity(64);
    let mut at = 0;
    while let Some(found) = query.next_from(at)? {
        at = found.map.end;
        all.push(found);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_kernel_knows_build_ids() {
        let maps = File::open("/proc/self/maps").unwrap();
        let mut query = Query::new(&maps);
        let text = the_kernel_knows_build_ids as fn() as usize as u64;
        let found = query.next_from(text).unwrap().unwrap();
        let (inode, id) = query.build_id(found.map.start).unwrap();
        assert_eq!(inode, found.map.inode);
        // A linker may leave it out.
        assert!(id.is_none_or(|id| id.len() <= BUILD_ID_MAX));
        let libc = list(&maps).unwrap();
        let libc = libc
            .iter()
            .find(|found| found.map.path.ends_with(b"/libc.so.6"));
        if let Some(libc) = libc {
            assert_eq!(query.build_id(libc.map.start).unwrap().1.unwrap().len(), 20);
        }
        assert_eq!(query.build_id(0).err(), Some(Errno::NOENT));
    }

    #[test]
    fn files_are_found_among_other_mappings() {
        let maps = File::open("/proc/self/maps").unwrap();
        let mut query = Query::new(&maps);
        let (mut at, mut files) = (0, Vec::new());
        while let Some(found) = query.next_file_from(at).unwrap() {
            at = found.map.end;
            assert!(found.map.has_file());
            files.push(found.map);
        }
        let all = list(&maps).unwrap();
        assert!(!all.iter().all(|found| found.map.has_file()));
        // Other tests map and unmap files meanwhile, but not this executable.
        let text = files_are_found_among_other_mappings as fn() as usize as u64;
        let own = all.iter().find(|found| found.map.range().contains(&text));
        let own = own.unwrap().map.inode;
        files.retain(|map| map.inode == own);
        let parts = all.iter().map(|found| &found.map);
        let parts = parts.filter(|map| map.inode == own);
        assert!(!files.is_empty() && parts.eq(&files));
    }
}
