//! Maps of BPF: hash tables and arrays.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gelid_image::messages::{BpfmapDataEntry, BpfmapFileEntry};
use gelid_image::{Dir, ImageKind};
use gelid_sys::Errno;
use gelid_sys::bpf::{self, ARRAY, Access, Entries, HASH, Map, PLAIN_FLAGS};

use super::open::{Opener, set_status};
use super::{Description, Error, Kind, Label};

/// What is in maps, by their numbers.
pub(super) type Contents = BTreeMap<u32, Arc<Entries>>;

/// An open map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfMap {
    /// Its number at the dump: open files of one map have the same.
    pub number: u32,
    /// How it is made.
    pub map: Map,
    /// Nobody may change it by `bpf(2)`.
    pub frozen: bool,
    /// What is in it.
    pub entries: Arc<Entries>,
}

impl fmt::Display for BpfMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.map.kind {
            ARRAY => "array",
            _ => "hash table",
        };
        let (count, max) = (self.entries.count, self.map.max_entries);
        write!(f, "BPF {kind} of {count} entries of {max}")
    }
}

/// Reads what is in all maps.
pub(super) fn read(dir: &Dir) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    let Some(mut reader) = dir.reader_opt(ImageKind::BpfmapData, ())? else {
        return Ok(contents);
    };
    while let Some(entry) = reader.next::<BpfmapDataEntry>()? {
        let (keys, values) = (entry.keys_bytes.into(), entry.values_bytes.into());
        let entries = Entries {
            count: entry.count,
            keys: reader.payload(keys)?.bytes(keys)?,
            values: reader.payload(values)?.bytes(values)?,
        };
        if contents.insert(entry.map_id, Arc::new(entries)).is_some() {
            return Err(Error::Duplicate {
                image: "bpfmap-data.img".to_owned(),
                what: "BPF map",
                id: entry.map_id.into(),
            });
        }
    }
    Ok(contents)
}

/// Checks a record.
pub(super) fn plan(
    object: &str,
    entry: &BpfmapFileEntry,
    contents: &Contents,
) -> Result<BpfMap, Error> {
    if ![HASH, ARRAY].contains(&entry.map_type) {
        let rule = "only hash tables (1) and arrays (2) can be made again";
        return Err(Error::invalid(object, "map_type", entry.map_type, rule));
    }
    if entry.map_flags & !PLAIN_FLAGS != 0 || entry.ifindex != 0 {
        let rule = "flags say all that they mean, and the map is that of no interface";
        return Err(Error::invalid(object, "map_flags", entry.map_flags, rule));
    }
    let mut name = [0; 16];
    // The last byte is a zero.
    match name[..15].get_mut(..entry.map_name.len()) {
        Some(room) => room.copy_from_slice(entry.map_name.as_bytes()),
        None => {
            let rule = "has 15 bytes at most";
            return Err(Error::invalid(object, "map_name", &entry.map_name, rule));
        }
    }
    let Some(entries) = contents.get(&entry.map_id) else {
        return Err(Error::Missing {
            by: object.to_owned(),
            what: "BPF map",
            id: entry.map_id.into(),
            image: "bpfmap-data.img",
        });
    };
    let count = u64::from(entries.count);
    let fits = |bytes: &[u8], size: u32| bytes.len() as u64 == count * u64::from(size);
    if !fits(&entries.keys, entry.key_size)
        || !fits(&entries.values, entry.value_size)
        || entries.count > entry.max_entries
    {
        let rule = "as many keys and values of their sizes are in bpfmap-data.img, and no more than max_entries";
        return Err(Error::invalid(object, "count", entries.count, rule));
    }
    Ok(BpfMap {
        number: entry.map_id,
        map: Map {
            kind: entry.map_type,
            key_size: entry.key_size,
            value_size: entry.value_size,
            max_entries: entry.max_entries,
            flags: entry.map_flags,
            name,
            ifindex: entry.ifindex,
            extra: entry.map_extra.unwrap_or_default(),
        },
        frozen: entry.frozen,
        entries: Arc::clone(entries),
    })
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    // By their numbers in the images.
    let mut made: HashMap<u32, Made> = HashMap::new();
    for description in plan.descriptions.values() {
        let Kind::BpfMap(map) = &description.kind else {
            continue;
        };
        let label = Label(description);
        let of = match made.entry(map.number) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                let fresh = make(map).map_err(|errno| opener.failed("make", label, errno))?;
                place.insert(fresh)
            }
        };
        if of.plan != &**map {
            let rule = "all open files of a map say the same of it";
            return Err(Error::invalid(label, "map_id", map.number, rule));
        }
        let fd = of.open(description);
        let fd = fd.map_err(|errno| opener.failed("open", label, errno))?;
        let fd = opener.raise(fd, label)?;
        set_status(fd.as_fd(), description.flags.status(), label)?;
        opener.add(description.id, fd);
    }
    Ok(())
}

/// A map that is there again.
struct Made<'p> {
    plan: &'p BpfMap,
    /// Its number now.
    id: u32,
    /// The open file that it was made with, if nobody has got that yet.
    first: Option<OwnedFd>,
}

fn make(map: &BpfMap) -> Result<Made<'_>, Errno> {
    let fd = bpf::create(&map.map)?;
    bpf::insert(&fd, &map.entries)?;
    if map.frozen {
        bpf::freeze(&fd)?;
    }
    let (_, id) = bpf::info(&fd)?.ok_or(Errno::INVAL)?;
    Ok(Made {
        plan: map,
        id,
        first: Some(fd),
    })
}

impl Made<'_> {
    /// An open file for a description.
    fn open(&mut self, description: &Description) -> Result<OwnedFd, Errno> {
        let access = match description.flags.access() {
            0 => Access::Read,
            1 => Access::Write,
            _ => Access::Both,
        };
        match self.first.take_if(|_| access == Access::Both) {
            Some(first) => Ok(first),
            None => bpf::by_id(self.id, access),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::Staging;
    use gelid_image::messages::FownEntry;

    fn entry() -> BpfmapFileEntry {
        BpfmapFileEntry {
            id: 4,
            flags: 2,
            pos: 0,
            fown: FownEntry::default(),
            map_type: HASH,
            key_size: 4,
            value_size: 8,
            map_id: 9,
            max_entries: 3,
            map_flags: 0,
            memlock: 0,
            frozen: false,
            map_name: "a_map".to_owned(),
            ifindex: 0,
            mnt_id: None,
            map_extra: None,
        }
    }

    fn contents(count: u32, keys: usize, values: usize) -> Contents {
        let entries = Entries {
            count,
            keys: vec![1; keys],
            values: vec![2; values],
        };
        Contents::from([(9, Arc::new(entries))])
    }

    #[test]
    fn maps_that_cannot_be_are_refused() {
        let good = contents(2, 8, 16);
        let refused = |change: fn(&mut BpfmapFileEntry), contents: &Contents| {
            let mut entry = entry();
            change(&mut entry);
            plan("it", &entry, contents).unwrap_err().to_string()
        };
        let planned = plan("it", &entry(), &good).unwrap();
        assert_eq!(&planned.map.name, b"a_map\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(planned.to_string(), "BPF hash table of 2 entries of 3");
        let error = refused(|entry| entry.map_type = 6, &good);
        assert!(error.contains("map_type is 6"), "{error}");
        let error = refused(|entry| entry.map_name = "0123456789abcdef".into(), &good);
        assert!(error.contains("15 bytes at most"), "{error}");
        let error = refused(|entry| entry.map_flags = 1 << 3, &good);
        assert!(error.contains("map_flags is 8"), "{error}");
        let error = refused(|entry| entry.ifindex = 1, &good);
        assert!(error.contains("of no interface"), "{error}");
        let error = refused(|entry| entry.map_id = 8, &good);
        assert!(error.contains("bpfmap-data.img"), "{error}");
        for (count, keys, values) in [(2, 7, 16), (2, 8, 17), (4, 16, 32), (u32::MAX, 8, 16)] {
            let error = refused(|_| {}, &contents(count, keys, values));
            assert!(error.contains("no more than max_entries"), "{error}");
        }
        let huge = |entry: &mut BpfmapFileEntry| entry.key_size = u32::MAX;
        assert!(refused(huge, &good).contains("as many keys"));
    }

    #[test]
    fn what_is_in_maps_is_read_as_far_as_it_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        assert!(read(&dir).unwrap().is_empty());
        let write = |ids: &[u32], keys_bytes| {
            let staging = Staging::new(&dir).unwrap();
            let mut writer = staging.writer(ImageKind::BpfmapData, ()).unwrap();
            for map_id in ids {
                let entry = BpfmapDataEntry {
                    map_id: *map_id,
                    keys_bytes,
                    values_bytes: 4,
                    count: 1,
                };
                writer.push(&entry).unwrap();
                writer.push_payload(b"key!").unwrap();
                writer.push_payload(b"then").unwrap();
            }
            writer.finish().unwrap();
            staging.commit().unwrap();
            read(&dir)
        };
        let found = write(&[7, 8], 4).unwrap();
        assert_eq!(
            (&found[&8].keys[..], &found[&8].values[..]),
            (&b"key!"[..], &b"then"[..])
        );
        assert!(matches!(
            write(&[7, 7], 4),
            Err(Error::Duplicate { id: 7, .. })
        ));
        assert!(write(&[7], u32::MAX).is_err());
    }
}
