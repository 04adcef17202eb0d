//! Maps of BPF.
//!
//! `bpf-hash`, `bpf-array`: entries, names, capacity, the kinds of access that descriptors have, one that parent and child share.
//! `bpf-frozen`: nobody may write. `bpf-large`: more entries than are read at once.
//! `refused-bpf-map`: of another type. `refused-bpf-types`: with types of its own.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("bpf-hash", hash),
    Entry("bpf-array", array),
    Entry("bpf-frozen", frozen),
    Entry("bpf-large", large),
    Entry("refused-bpf-map", other),
    Entry("refused-bpf-types", types),
];

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_HASH: u32 = 5;

const CREATE: i64 = 0;
const LOOKUP: i64 = 1;
const UPDATE: i64 = 2;
const NEXT: i64 = 4;
const BY_ID: i64 = 14;
const LOAD_TYPES: i64 = 18;
const FREEZE: i64 = 22;

/// What the calls take, as words of four bytes.
type Words = [u32; 32];

fn bpf(command: i64, words: &mut Words) -> i64 {
    // SAFETY: addresses among the words are of live memory.
    unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), 128) }
}

fn halves(address: u64) -> [u32; 2] {
    [address as u32, (address >> 32) as u32]
}

/// A map, its name and flags.
fn create(kind: u32, [key, value, max, flags]: [u32; 4], name: &str) -> Check<i32> {
    let mut words = [0; 32];
    words[..5].copy_from_slice(&[kind, key, value, max, flags]);
    for (at, byte) in name.bytes().enumerate() {
        words[7 + at / 4] |= u32::from(byte) << (at % 4 * 8);
    }
    made(bpf(CREATE, &mut words))
}

fn made(fd: i64) -> Check<i32> {
    match fd as i32 {
        -1 if [libc::EPERM, libc::ENOSYS].contains(&errno()) => Err(Failure::skip("no BPF")),
        -1 => Err(Failure::new(std::io::Error::last_os_error())),
        fd => Ok(fd),
    }
}

/// 0, or the errno.
fn put(fd: i32, key: &[u8], value: &[u8]) -> i32 {
    let mut words = [0; 32];
    words[0] = fd.cast_unsigned();
    words[2..4].copy_from_slice(&halves(key.as_ptr() as u64));
    words[4..6].copy_from_slice(&halves(value.as_ptr() as u64));
    match bpf(UPDATE, &mut words) {
        0 => 0,
        _ => errno(),
    }
}

/// The value of a key, or the errno.
fn get<const N: usize>(fd: i32, key: &[u8]) -> Result<[u8; N], i32> {
    let (mut words, mut value) = ([0; 32], [0; N]);
    words[0] = fd.cast_unsigned();
    words[2..4].copy_from_slice(&halves(key.as_ptr() as u64));
    words[4..6].copy_from_slice(&halves(value.as_mut_ptr() as u64));
    match bpf(LOOKUP, &mut words) {
        0 => Ok(value),
        _ => Err(errno()),
    }
}

/// How many keys there are, of eight bytes at most.
fn count(fd: i32) -> usize {
    let (mut key, mut next, mut count) = ([0_u8; 8], [0_u8; 8], 0);
    loop {
        let mut words = [0; 32];
        words[0] = fd.cast_unsigned();
        if count > 0 {
            words[2..4].copy_from_slice(&halves(key.as_ptr() as u64));
        }
        words[4..6].copy_from_slice(&halves(next.as_mut_ptr() as u64));
        if bpf(NEXT, &mut words) != 0 {
            return count;
        }
        (key, count) = (next, count + 1);
    }
}

/// A descriptor of the same map with other rights.
fn again(fd: i32, flags: u32) -> Check<i32> {
    let mut words = [0; 32];
    words[0] = fact(fd, "map_id")?.parse()?;
    words[2] = flags;
    made(bpf(BY_ID, &mut words))
}

fn fact(fd: i32, name: &str) -> Check<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.strip_prefix(':'));
    Ok(value.ok_or("no such fact")?.trim().to_owned())
}

/// What `fdinfo` says, but for the number of the map, and its memory, which grows with its entries.
fn facts(fd: i32) -> Check<Vec<String>> {
    let names = ["flags", "map_type", "key_size", "value_size", "max_entries"];
    let more = ["map_flags", "map_extra", "frozen"];
    names
        .iter()
        .chain(&more)
        .map(|name| fact(fd, name))
        .collect()
}

fn value(at: u32) -> [u8; 12] {
    let mut value = [0; 12];
    for (word, bytes) in [at, !at, at ^ 0x5555].iter().zip(value.chunks_mut(4)) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    value
}

fn hash(guest: &Guest) -> Check {
    let map = create(HASH, [8, 12, 100, 1], "gelid_hash")?;
    let key = |at: u32| [at.to_ne_bytes(), [7; 4]].concat();
    for at in 0..60 {
        same!("put", put(map, &key(at), &value(at)), 0);
    }
    let (empty, reads) = (create(HASH, [4, 4, 10, 0], "")?, again(map, 1 << 3)?);
    let (writes, twin) = (again(map, 1 << 4)?, again(map, 0)?);
    let copy = os!(libc::fcntl(map, libc::F_DUPFD_CLOEXEC, 200))?;
    let fds = [map, empty, reads, writes, twin, copy];
    let before: Vec<_> = fds.iter().map(|fd| facts(*fd)).collect::<Check<_>>()?;
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        gate.arrive()?;
        guest.wait();
        same!("put by a child", put(twin, &key(77), &value(78)), 0);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    let after: Vec<_> = fds.iter().map(|fd| facts(*fd)).collect::<Check<_>>()?;
    same!("facts", after, before);
    kid.join(guest)?;
    same!("keys", count(map), 61);
    same!("none", count(empty), 0);
    for at in 0..60 {
        same!("value", get(map, &key(at)), Ok(value(at)));
        same!("value read", get(reads, &key(at)), Ok(value(at)));
    }
    same!("of the child", get(map, &key(77)), Ok(value(78)));
    same!("no such key", get::<12>(map, &key(60)), Err(libc::ENOENT));
    same!("read only", put(reads, &key(0), &value(1)), libc::EPERM);
    same!("write only", get::<12>(writes, &key(0)), Err(libc::EPERM));
    same!("written", put(writes, &key(0), &value(9)), 0);
    for fd in [map, reads, twin, copy] {
        same!("one map", get(fd, &key(0)), Ok(value(9)));
    }
    same!("name", name(map)?, "gelid_hash");
    Ok(())
}

/// The name of a map.
fn name(fd: i32) -> Check<String> {
    const INFO: i64 = 15;
    let mut info = [0_u8; 88];
    let mut words = [0; 32];
    (words[0], words[1]) = (fd.cast_unsigned(), 88);
    words[2..4].copy_from_slice(&halves(info.as_mut_ptr() as u64));
    ensure!(bpf(INFO, &mut words) == 0, "not told: {}", errno());
    let name = info[24..40].split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

fn array(guest: &Guest) -> Check {
    let map = create(ARRAY, [4, 12, 50, 0], "gelid_array")?;
    let mapped = create(ARRAY, [4, 8, 3, 1 << 10], "mapped")?;
    for at in (0..50).step_by(3) {
        same!("put", put(map, &at_bytes(at), &value(at)), 0);
    }
    same!("put", put(mapped, &at_bytes(2), &[9; 8]), 0);
    let before = (facts(map)?, facts(mapped)?);
    guest.hold()?;
    same!("facts", (facts(map)?, facts(mapped)?), before);
    for at in 0..50 {
        let expected = if at % 3 == 0 { value(at) } else { [0; 12] };
        same!("value", get(map, &at_bytes(at)), Ok(expected));
    }
    same!("last", get(mapped, &at_bytes(2)), Ok([9; 8]));
    same!("first", get(mapped, &at_bytes(0)), Ok([0; 8]));
    Ok(())
}

fn at_bytes(at: u32) -> [u8; 4] {
    at.to_ne_bytes()
}

fn frozen(guest: &Guest) -> Check {
    let maps = [
        create(HASH, [4, 12, 5, 0], "cold")?,
        create(ARRAY, [4, 12, 5, 1 << 7], "cold_too")?,
    ];
    for map in maps {
        same!("put", put(map, &at_bytes(3), &value(4)), 0);
        let mut words = [0; 32];
        words[0] = map.cast_unsigned();
        same!("freeze", bpf(FREEZE, &mut words), 0);
        same!("is frozen", fact(map, "frozen")?, "1");
    }
    let before = (facts(maps[0])?, facts(maps[1])?);
    guest.hold()?;
    same!("facts", (facts(maps[0])?, facts(maps[1])?), before);
    for map in maps {
        same!("value", get(map, &at_bytes(3)), Ok(value(4)));
        same!("frozen", put(map, &at_bytes(3), &value(5)), libc::EPERM);
    }
    Ok(())
}

fn large(guest: &Guest) -> Check {
    const COUNT: u32 = 60_000;
    let map = create(HASH, [4, 12, COUNT, 0], "large")?;
    for at in 0..COUNT {
        same!("put", put(map, &at_bytes(at), &value(at)), 0);
    }
    guest.hold()?;
    same!("keys", count(map), COUNT as usize);
    for at in 0..COUNT {
        same!("value", get(map, &at_bytes(at)), Ok(value(at)));
    }
    Ok(())
}

fn other(guest: &Guest) -> Check {
    let _map = create(PERCPU_HASH, [4, 4, 4, 0], "each")?;
    guest.hold()?;
    Ok(())
}

fn types(guest: &Guest) -> Check {
    // A header, the type `int` of four bytes, and its name.
    const INT: [u8; 45] = *b"\x9f\xeb\x01\0\x18\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x05\0\0\0\x01\0\0\0\0\0\0\x01\x04\0\0\0\x20\0\0\x01\0int\0";
    let mut words = [0; 32];
    words[..2].copy_from_slice(&halves(INT.as_ptr() as u64));
    words[4] = 45;
    let types = made(bpf(LOAD_TYPES, &mut words))?;
    let mut words = [0; 32];
    words[..4].copy_from_slice(&[ARRAY, 4, 4, 1]);
    words[12..15].copy_from_slice(&[types.cast_unsigned(), 1, 1]);
    let _map = made(bpf(CREATE, &mut words))?;
    os!(libc::close(types))?;
    guest.hold()?;
    Ok(())
}
