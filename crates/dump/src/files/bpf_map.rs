//! Maps of BPF: hash tables and arrays, with what is in them. Section 16.5 of the format.
//!
//! Programs are not dumped: what of a map a program outside of the tree uses, it goes on using, and the tree gets another
//! one.

use std::collections::HashSet;
use std::os::fd::AsFd;

use gelid_image::messages::{BpfmapDataEntry, BpfmapFileEntry, FdTypes, FileEntry};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::Errno;
use gelid_sys::bpf::{self, ARRAY, Access, HASH, Map, PLAIN_FLAGS};
use gelid_sys::proc::fdinfo::FdInfo;
use rustix::fs::OFlags;

use super::regfile::Opening;
use super::{Collector, Error, Object, Unsupported};

/// A table in which programs put in and take out is read so often until what is found can have been in it at one time.
const TRIES: u32 = 10;

/// Maps met so far, and the image of what is in them.
#[derive(Debug)]
pub(super) struct BpfMaps {
    writer: ImageWriter,
    written: HashSet<u32>,
}

impl BpfMaps {
    pub(super) fn new(staging: &Staging) -> Result<Self, Error> {
        Ok(Self {
            writer: staging.writer(ImageKind::BpfmapData, ())?,
            written: HashSet::new(),
        })
    }

    /// Closes the image.
    pub(super) fn finish(self) -> Result<(), Error> {
        Ok(self.writer.finish()?)
    }
}

/// How a map was made, and its number, or why it is not dumped.
fn told(map: impl AsFd) -> Result<Result<(Map, u32), Unsupported>, Errno> {
    let Some((map, id)) = bpf::info(map)? else {
        return Ok(Err(Unsupported::BpfTypes));
    };
    let all = u64::from(map.max_entries) * u64::from(map.value_size);
    let is_plain = [HASH, ARRAY].contains(&map.kind)
        && map.flags & !PLAIN_FLAGS == 0
        && map.ifindex == 0
        && (map.kind == HASH || all <= u64::from(u32::MAX));
    Ok(is_plain.then_some((map, id)).ok_or(Unsupported::BpfMap))
}

/// Why a map is not dumped; `None` for one that is.
pub(super) fn refused(map: impl AsFd) -> Option<Unsupported> {
    told(map).ok()?.err()
}

impl Collector<'_> {
    /// Records an open map, and what is in it if that was not recorded yet.
    pub(super) fn bpf_map(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let told = told(object.file).map_err(object.failed("ask about"))?;
        let (map, map_id) = told.map_err(|why| object.unsupported(why))?;
        if self.bpf_maps.written.insert(map_id) {
            self.contents(object, opening.flags, (map_id, &map))?;
        }
        let id = self.new_id()?;
        let name = map.name.split(|byte| *byte == 0).next();
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        self.push(FileEntry {
            r#type: FdTypes::Bpfmap.into(),
            id,
            bpf: Some(Box::new(BpfmapFileEntry {
                id,
                flags: opening.flags,
                pos: opening.pos,
                fown: opening.fown,
                map_type: map.kind,
                key_size: map.key_size,
                value_size: map.value_size,
                map_id,
                max_entries: map.max_entries,
                map_flags: map.flags,
                memlock: info.number("memlock").unwrap_or_default(),
                frozen: info.number("frozen") == Some(1),
                map_name: name.into_owned(),
                ifindex: map.ifindex,
                mnt_id: None,
                map_extra: Some(map.extra).filter(|extra| *extra != 0),
            })),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Bpfmap, id))
    }

    fn contents(
        &mut self,
        object: &Object<'_>,
        flags: u32,
        (map_id, map): (u32, &Map),
    ) -> Result<(), Error> {
        let failed = object.failed("read the entries of");
        let read = || match flags & OFlags::RWMODE.bits() == OFlags::WRONLY.bits() {
            true => bpf::by_id(map_id, Access::Read).and_then(bpf::entries),
            false => bpf::entries(object.file),
        };
        let possible = |count| match map.kind {
            // It has all its entries, always.
            ARRAY => count == map.max_entries,
            _ => count <= map.max_entries,
        };
        let mut found = (0..TRIES).map(|_| read());
        let found = found.find(|found| found.as_ref().map_or(true, |it| possible(it.count)));
        let entries = found.unwrap_or(Err(Errno::AGAIN)).map_err(failed)?;
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Error::TooMany);
        self.bpf_maps.writer.push(&BpfmapDataEntry {
            map_id,
            keys_bytes: len(&entries.keys)?,
            values_bytes: len(&entries.values)?,
            count: entries.count,
        })?;
        let writer = &mut self.bpf_maps.writer;
        writer
            .push_payload(&entries.keys)?
            .push_payload(&entries.values)?;
        Ok(())
    }
}
