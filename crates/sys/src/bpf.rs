//! Maps of BPF, hash tables and arrays, for who has a descriptor of one: `bpf(2)`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

/// `BPF_MAP_TYPE_HASH`
pub const HASH: u32 = 1;
/// `BPF_MAP_TYPE_ARRAY`
pub const ARRAY: u32 = 2;

/// `BPF_F_NO_PREALLOC`, `BPF_F_ZERO_SEED`, `BPF_F_RDONLY_PROG`, `BPF_F_WRONLY_PROG`, `BPF_F_MMAPABLE`: flags of a map that say
/// all that they mean. Others come with something that nobody tells, or are about one descriptor.
pub const PLAIN_FLAGS: u32 = 1 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10;

/// `enum bpf_cmd` of `linux/bpf.h`.
const MAP_CREATE: usize = 0;
const MAP_GET_FD_BY_ID: usize = 14;
const OBJ_GET_INFO_BY_FD: usize = 15;
const MAP_FREEZE: usize = 22;
const MAP_LOOKUP_BATCH: usize = 24;
const MAP_UPDATE_BATCH: usize = 26;

/// Bytes of keys and values that are asked for at once, if none is larger.
const BATCH: usize = 256 << 10;

/// How a map was made, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// `BPF_MAP_TYPE_*`
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries that there may be.
    pub max_entries: u32,
    /// `BPF_F_*`, without those that are about one descriptor.
    pub flags: u32,
    /// Its name, up to a zero.
    pub name: [u8; 16],
    /// Interface that it is offloaded to; 0 for none.
    pub ifindex: u32,
    /// What else it was made with.
    pub extra: u64,
}

/// What a descriptor of a map can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read and write.
    Both,
    /// `BPF_F_RDONLY`
    Read,
    /// `BPF_F_WRONLY`
    Write,
}

/// Keys and values, each kind one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// How many there are.
    pub count: u32,
    /// `count` keys.
    pub keys: Vec<u8>,
    /// `count` values.
    pub values: Vec<u8>,
}

/// The start of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    btf_vmlinux_value_type_id: u32,
    netns_dev: u64,
    netns_ino: u64,
    btf_id: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    btf_vmlinux_id: u32,
    map_extra: u64,
}

/// What `BPF_OBJ_GET_INFO_BY_FD` takes.
#[repr(C)]
struct Question {
    fd: u32,
    len: u32,
    info: u64,
}

/// What `BPF_MAP_CREATE` takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    btf_vmlinux_value_type_id: u32,
    map_extra: u64,
}

/// What `BPF_MAP_GET_FD_BY_ID` takes.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// What `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` take.
#[repr(C)]
struct Batch {
    before: u64,
    after: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = {
    assert!(size_of::<Info>() == 88);
    assert!(size_of::<Attributes>() == 72);
    assert!(size_of::<Batch>() == 56);
};

fn number(map: impl AsFd) -> u32 {
    map.as_fd().as_raw_fd().cast_unsigned()
}

/// # Safety
///
/// As for the command: addresses in what it takes must be valid for what the kernel does with them.
unsafe fn bpf<T>(command: usize, takes: &mut T) -> Result<usize> {
    let at = std::ptr::from_mut(takes) as usize;
    // SAFETY: the structure lives and has the size that is told; the caller vouches for addresses in it.
    unsafe {
        call(
            libc::SYS_bpf as usize,
            [command, at, size_of::<T>(), 0, 0, 0],
        )
    }
}

/// How a map was made, and its number in the kernel; `None` if it is described by BTF, without which it could not be made
/// again.
///
/// # Errors
///
/// `EINVAL` for what is no object of BPF.
pub fn info(map: impl AsFd) -> Result<Option<(Map, u32)>> {
    let info = ask(map)?;
    let types = [
        info.btf_id,
        info.btf_vmlinux_id,
        info.btf_vmlinux_value_type_id,
    ];
    let map = Map {
        kind: info.kind,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
        name: info.name,
        ifindex: info.ifindex,
        extra: info.map_extra,
    };
    Ok((types == [0; 3]).then_some((map, info.id)))
}

fn ask(map: impl AsFd) -> Result<Info> {
    let mut info = Info::default();
    let mut question = Question {
        fd: number(map),
        len: size_of::<Info>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most as many bytes as the length allows into a live structure of integers.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut question) }?;
    Ok(info)
}

/// Bytes of a key and a value of a hash table or an array.
fn sizes(map: impl AsFd) -> Result<(usize, usize)> {
    let info = ask(map)?;
    match info.kind {
        HASH | ARRAY => Ok((info.key_size as usize, info.value_size as usize)),
        _ => Err(Errno::INVAL),
    }
}

/// Makes an empty map; its descriptor is closed on `execve(2)`.
///
/// # Errors
///
/// `EPERM` without `CAP_BPF`, `EINVAL` for what no map can be, `E2BIG` and `ENOMEM` for what is too large.
pub fn create(map: &Map) -> Result<OwnedFd> {
    let mut attributes = Attributes {
        kind: map.kind,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        map_flags: map.flags,
        name: map.name,
        ifindex: map.ifindex,
        map_extra: map.extra,
        ..Attributes::default()
    };
    // SAFETY: the structure has no address.
    owned(unsafe { bpf(MAP_CREATE, &mut attributes) }?)
}

/// Another open file of a map.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOENT` for a number that no map has.
pub fn by_id(id: u32, access: Access) -> Result<OwnedFd> {
    let open_flags = match access {
        Access::Both => 0,
        Access::Read => 1 << 3,
        Access::Write => 1 << 4,
    };
    let mut takes = ById {
        id,
        next_id: 0,
        open_flags,
    };
    // SAFETY: the structure has no address.
    owned(unsafe { bpf(MAP_GET_FD_BY_ID, &mut takes) }?)
}

fn owned(fd: usize) -> Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// All entries of a hash table or an array, which nobody may change meanwhile.
///
/// # Errors
///
/// `EPERM` for a descriptor that is not for reading, `EINVAL` for another map or a kernel before Linux 5.6, `EFBIG` for keys
/// or values of 4 GiB.
pub fn entries(map: impl AsFd) -> Result<Entries> {
    let (key, value) = sizes(&map)?;
    // Hash tables tell where they are by the number of a bucket, arrays by a key: both have four bytes.
    let (mut place, mut begun) = ([0u32; 2], false);
    let mut room = (BATCH / (key + value).max(1)).max(1);
    let mut all = Entries::default();
    loop {
        let done = all.count as usize;
        all.keys.resize((done + room) * key, 0);
        all.values.resize((done + room) * value, 0);
        let mut batch = Batch {
            before: if begun { &raw const place as u64 } else { 0 },
            after: &raw mut place as u64,
            keys: all.keys[done * key..].as_mut_ptr() as u64,
            values: all.values[done * value..].as_mut_ptr() as u64,
            count: u32::try_from(room).map_err(|_| Errno::FBIG)?,
            map_fd: number(&map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: there is room for as many keys and values as are asked for, of the sizes that the kernel has told, and for
        // eight bytes of a place.
        let answer = unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) };
        // A bucket has more than there was room for.
        if answer == Err(Errno::NOSPC) {
            room = room.checked_mul(2).ok_or(Errno::FBIG)?;
            continue;
        }
        let is_last = answer == Err(Errno::NOENT);
        if !is_last {
            answer?;
        }
        begun = true;
        all.count = all.count.checked_add(batch.count).ok_or(Errno::FBIG)?;
        if u64::from(all.count) * key.max(value) as u64 > u64::from(u32::MAX) {
            return Err(Errno::FBIG);
        }
        if is_last {
            all.keys.truncate(all.count as usize * key);
            all.values.truncate(all.count as usize * value);
            return Ok(all);
        }
    }
}

/// Puts entries into a hash table or an array.
///
/// # Errors
///
/// `EINVAL` if there are not as many bytes as there should be, `E2BIG` for more entries than a map may have, `EPERM` for one
/// that is frozen.
pub fn insert(map: impl AsFd, entries: &Entries) -> Result<()> {
    let (key, value) = sizes(&map)?;
    let bytes_of = |size: usize| size.checked_mul(entries.count as usize);
    let is_whole =
        Some(entries.keys.len()) == bytes_of(key) && Some(entries.values.len()) == bytes_of(value);
    if !is_whole {
        return Err(Errno::INVAL);
    }
    if entries.count == 0 {
        return Ok(());
    }
    let mut batch = Batch {
        before: 0,
        after: 0,
        keys: entries.keys.as_ptr() as u64,
        values: entries.values.as_ptr() as u64,
        count: entries.count,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads as many keys and values as there are, of the sizes that it has told.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) }.map(drop)
}

/// Lets nobody change a map any more by `bpf(2)`.
///
/// # Errors
///
/// `EBUSY` for one that is written to, `EPERM` for one that is frozen already, or a descriptor that is not for writing.
pub fn freeze(map: impl AsFd) -> Result<()> {
    let mut map_fd = number(map);
    // SAFETY: the structure is a number.
    unsafe { bpf(MAP_FREEZE, &mut map_fd) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(kind: u32, max_entries: u32) -> Map {
        let mut name = [0; 16];
        name[..5].copy_from_slice(b"gelid");
        Map {
            kind,
            key_size: 4,
            value_size: 12,
            max_entries,
            flags: 0,
            name,
            ifindex: 0,
            extra: 0,
        }
    }

    /// An empty map, or none where there can be none.
    fn made(map: &Map) -> Option<OwnedFd> {
        match create(map) {
            Err(Errno::PERM | Errno::NOSYS) => None,
            made => Some(made.unwrap()),
        }
    }

    fn filled(count: u32) -> Entries {
        let values = (0..count).flat_map(|at| [at, !at, at ^ 7]);
        Entries {
            count,
            keys: (0..count).flat_map(u32::to_ne_bytes).collect(),
            values: values.flat_map(u32::to_ne_bytes).collect(),
        }
    }

    fn sorted(entries: &Entries) -> Vec<(&[u8], &[u8])> {
        let mut all: Vec<_> = entries
            .keys
            .chunks(4)
            .zip(entries.values.chunks(12))
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn what_was_put_in_is_found() {
        for (kind, max, count) in [
            (HASH, 8, 0),
            (HASH, 50_000, 49_999),
            (HASH, 2, 2),
            (ARRAY, 40_000, 40_000),
        ] {
            let Some(fd) = made(&map(kind, max)) else {
                return;
            };
            let (told, id) = info(&fd).unwrap().unwrap();
            assert_eq!(told, map(kind, max));
            insert(&fd, &filled(count)).unwrap();
            let again = by_id(id, Access::Read).unwrap();
            assert_eq!(insert(&again, &filled(1)), Err(Errno::PERM));
            let found = entries(&again).unwrap();
            assert_eq!(found.count, count);
            assert_eq!(sorted(&found), sorted(&filled(count)));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let Some(fd) = made(&map(HASH, 3)) else {
            return;
        };
        let mut short = filled(2);
        short.values.pop();
        assert_eq!(insert(&fd, &short), Err(Errno::INVAL));
        assert_eq!(insert(&fd, &filled(4)), Err(Errno::TOOBIG));
        freeze(&fd).unwrap();
        assert_eq!(freeze(&fd), Err(Errno::PERM));
        assert_eq!(insert(&fd, &filled(1)), Err(Errno::PERM));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(info(&file), Err(Errno::INVAL));
        assert_eq!(entries(&file), Err(Errno::INVAL));
    }
}
