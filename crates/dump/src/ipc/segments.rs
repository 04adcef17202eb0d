//! System V shared memory that tasks are attached to: `ipcns-shm-*.img`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;

use gelid_image::messages::{GelidSegmentEntry, IpcShmEntry};
use gelid_image::{ImageKind, Staging};
use gelid_sys::ipc::shm::{self, Attached, Segment};
use gelid_sys::proc::maps::{Mapping, Perms};
use gelid_sys::proc::ns::Kind as Namespace;
use gelid_sys::{PAGE_SIZE, Pid};
use rustix::fs::{MemfdFlags, OFlags, fstat, fstatfs};

use super::{Error, Object, description, failed};
use crate::Error as DumpError;
use crate::files::{self, Contents, HUGETLBFS_MAGIC, Mapped, Memory, huge_flags};
use crate::namespace::{Census, Instance, Own, Users};
use crate::survey::Task;

/// The segments that tasks of a tree are attached to.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// By the number of the namespace, if it is one of the tree's own, and id.
    held: BTreeMap<(Option<u32>, i32), Held>,
    inside: Vec<Inside>,
}

/// All segments of a namespace of the tree's own.
#[derive(Debug)]
struct Inside {
    namespace: Instance,
    all: Vec<Segment>,
    /// Keys of their memory by id, where these are not the ids: other namespaces may have the same ones.
    keys: BTreeMap<i32, u32>,
}

/// A segment that somebody is attached to.
#[derive(Debug)]
struct Held {
    /// Somebody.
    pid: Pid,
    /// Mappings of it, in all of the tree.
    mappings: u64,
    /// Its memory.
    file: File,
}

impl Segments {
    /// For a tree that has these namespaces of its own, with these segments.
    pub(crate) fn new(inside: Vec<(Instance, Vec<Segment>)>) -> Self {
        let inside = inside.into_iter().map(|(namespace, all)| Inside {
            namespace,
            all,
            keys: BTreeMap::new(),
        });
        Self {
            held: BTreeMap::new(),
            inside: inside.collect(),
        }
    }

    /// The keys of shared memory that are those of segments, of which the tree may have mapped some.
    pub(crate) fn keys(&self) -> Result<Vec<u32>, DumpError> {
        let found = match self.inside.iter().find(|inside| inside.namespace.root) {
            Some(inside) => Cow::Borrowed(&inside.all),
            None => Cow::Owned(match shm::all() {
                // A kernel without System V IPC has none.
                Err(errno) if errno == gelid_sys::Errno::NOSYS => Vec::new(),
                all => all.map_err(failed("list", Object::Every("segments")))?,
            }),
        };
        let ids = found.iter().map(|segment| segment.id.cast_unsigned());
        Ok(ids.collect())
    }

    /// Gives keys to those of namespaces that the root is not in.
    pub(crate) fn name(&mut self, mut new: impl FnMut() -> u32) {
        for inside in self
            .inside
            .iter_mut()
            .filter(|inside| !inside.namespace.root)
        {
            let ids = inside.all.iter().map(|segment| segment.id);
            inside.keys = ids.map(|id| (id, new())).collect();
        }
    }

    /// Takes note of a mapping of a segment.
    pub(crate) fn attached(
        &mut self,
        of: &Task,
        task: files::Task<'_>,
        map: &Mapping,
    ) -> Result<Mapped, DumpError> {
        let pid = task.pid;
        let ipc = of.live.as_ref().and_then(|live| live.ids.ipc_ns_id);
        let inside = self
            .inside
            .iter()
            .find(|inside| Some(inside.namespace.id) == ipc);
        let namespace = inside.map(|inside| inside.namespace.id);
        let none = || Error::NoSegment {
            pid,
            start: map.start,
            end: map.end,
        };
        // The kernel shows the id of a segment as the number of its inode.
        let id = i32::try_from(map.inode).map_err(|_| none())?;
        let name = format!("map_files/{:x}-{:x}", map.start, map.end);
        let link = rustix::fs::statat(task.dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        let link = link.map_err(failed("look at the mapping of", Object::Segment(id)))?;
        let writes = link.st_mode & 0o200 != 0;
        match self.held.get_mut(&(namespace, id)) {
            Some(held) => held.mappings += 1,
            None => {
                let file = File::from(task.dir.open_file(&name, OFlags::RDONLY)?);
                let found = match inside {
                    Some(inside) => inside.all.iter().find(|segment| segment.id == id).copied(),
                    None => shm::stat(id).ok(),
                };
                if map.perms.contains(Perms::SHARED) && is_segment(id, found.as_ref(), &file)? {
                    let held = Held {
                        pid,
                        mappings: 1,
                        file,
                    };
                    self.held.insert((namespace, id), held);
                } else {
                    return Err(none().into());
                }
            }
        }
        let key = inside.and_then(|inside| inside.keys.get(&id).copied());
        Ok(Mapped {
            id: key.unwrap_or(id.cast_unsigned()),
            fdflags: Some(if writes { 2 } else { 0 }),
            memfd: false,
        })
    }

    /// Records the segments, and gives the memory that is to be stored. In the dumper's own namespace those are recorded
    /// that the tree is attached to, in the tree's own all. The calling thread is in that of the root.
    pub(crate) fn finish(
        mut self,
        staging: &Staging,
        own: &Own,
        census: &Census,
    ) -> Result<Vec<Memory>, DumpError> {
        let mut memory = Vec::new();
        let inside = std::mem::take(&mut self.inside);
        for Inside {
            namespace,
            all,
            keys,
        } in &inside
        {
            let mut record = || {
                let name = (Some(namespace.id), namespace.id);
                self.record(staging, name, (all, keys), (&census.users, false))
            };
            memory.extend(match namespace.root {
                true => record()?,
                false => namespace.inside(record)?,
            });
        }
        if census.root(Namespace::Ipc).is_none() {
            let look = |id: i32| shm::stat(id).map_err(failed("look at", Object::Segment(id)));
            let ids = self.held.keys().map(|(_, id)| look(*id));
            let all = ids.collect::<Result<Vec<_>, _>>()?;
            let own = own.ids().ipc_ns_id.unwrap_or_default();
            let none = BTreeMap::new();
            memory.extend(self.record(
                staging,
                (None, own),
                (&all, &none),
                (&census.users, true),
            )?);
        }
        Ok(memory)
    }

    fn record(
        &mut self,
        staging: &Staging,
        (inside, namespace): (Option<u32>, u32),
        (all, keys): (&[Segment], &BTreeMap<i32, u32>),
        (users, may_stay): (&Users, bool),
    ) -> Result<Vec<Memory>, DumpError> {
        let mut writer = staging.writer(ImageKind::IpcnsShm, namespace)?;
        let mut memory = Vec::with_capacity(all.len());
        for segment in all {
            let held = self.held.remove(&(inside, segment.id));
            let mut found = memory_of(segment, alone(segment, held, may_stay)?)?;
            let key = keys.get(&segment.id).copied();
            writer.push(&IpcShmEntry {
                gelid: may_stay.then_some(GelidSegmentEntry {
                    changed: segment.changed,
                    creator: segment.creator,
                }),
                pages: key,
                ..entry(segment, &found, users)
            })?;
            found.shmid = key.unwrap_or(found.shmid);
            memory.push(found);
        }
        writer.finish()?;
        Ok(memory)
    }
}

/// The memory of a segment. Where somebody of the tree is attached, nobody else may be, as it would not be common to them
/// any more. To others of a namespace of the tree's own, which `may_stay` does not say of the dumper's, anybody may be.
fn alone(segment: &Segment, held: Option<Held>, may_stay: bool) -> Result<File, Error> {
    let object = Object::Segment(segment.id);
    let (attached, own) = (
        segment.attached,
        held.as_ref().map_or(0, |held| held.mappings),
    );
    match held {
        _ if attached != own && (own > 0 || may_stay) => Err(Error::Outside {
            pid: held.map(|held| held.pid),
            object,
            attached,
            own,
        }),
        Some(held) => Ok(held.file),
        None => {
            let file = Attached::new(segment.id, false).and_then(|attached| attached.open(false));
            Ok(File::from(
                file.map_err(failed("open the memory of", object))?,
            ))
        }
    }
}

/// Whether a file is the memory of the segment with this id.
fn is_segment(id: i32, segment: Option<&Segment>, file: &File) -> Result<bool, Error> {
    let failed = || failed("look at the memory of", Object::Segment(id));
    let found = fstat(file).map_err(failed())?;
    let mut flags = MemfdFlags::CLOEXEC;
    if fstatfs(file).map_err(failed())?.f_type.cast_unsigned() == HUGETLBFS_MAGIC {
        let huge = huge_flags(found.st_blksize.unsigned_abs());
        flags |= MemfdFlags::from_bits_retain(huge);
    }
    // It lies where memory without a name does.
    let is_internal = rustix::fs::memfd_create("gelid", flags)
        .and_then(fstat)
        .is_ok_and(|own| own.st_dev == found.st_dev);
    let fits = segment.is_some_and(|segment| shm::extent(segment.size) <= extent(&found));
    Ok(is_internal && fits)
}

/// Bytes that a file has, in whole pages.
fn extent(stat: &rustix::fs::Stat) -> u64 {
    shm::extent(stat.st_size.unsigned_abs())
}

/// The memory of a segment.
pub(crate) fn memory_of(segment: &Segment, file: File) -> Result<Memory, Error> {
    let failed = || failed("look at the memory of", Object::Segment(segment.id));
    let stat = fstat(&file).map_err(failed())?;
    let magic = fstatfs(&file).map_err(failed())?.f_type.cast_unsigned();
    Ok(Memory {
        shmid: segment.id.cast_unsigned(),
        size: segment.size,
        page_size: match magic {
            HUGETLBFS_MAGIC => stat.st_blksize.unsigned_abs(),
            _ => PAGE_SIZE as u64,
        },
        contents: Contents::File(file),
    })
}

/// The record of a segment.
pub(crate) fn entry(segment: &Segment, memory: &Memory, users: &Users) -> IpcShmEntry {
    /// `SHM_HUGETLB`, which stands where `MFD_HUGETLB` does not.
    const HUGE: u32 = 0o4000;
    const HUGE_KIND: u32 = 0x3f << 26;
    let huge = memory.page_size > PAGE_SIZE as u64;
    IpcShmEntry {
        desc: description(&segment.perm, segment.id, users),
        size: segment.size,
        in_pagemaps: Some(true),
        hugetlb_flag: huge.then(|| HUGE | huge_flags(memory.page_size) & HUGE_KIND),
        gelid: None,
        pages: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_memory_is_no_segment() {
        let memfd = rustix::fs::memfd_create("SYSV", MemfdFlags::CLOEXEC).unwrap();
        let id = shm::create(0, 5000, 0o600, None).unwrap();
        let segment = shm::stat(id).unwrap();
        assert_eq!(is_segment(id, None, &File::from(memfd)), Ok(false));
        let attached = shm::Attached::new(id, false).unwrap();
        let file = File::from(attached.open(false).unwrap());
        assert_eq!(is_segment(id, Some(&segment), &file), Ok(true));
        let ordinary = tempfile::tempfile().unwrap();
        assert_eq!(is_segment(id, Some(&segment), &ordinary), Ok(false));
        let memory = memory_of(&segment, file).unwrap();
        let record = entry(&segment, &memory, &Users::default());
        assert_eq!((memory.size, memory.page_size), (5000, 4096));
        assert_eq!((record.size, record.hugetlb_flag), (5000, None));
        assert_eq!((record.desc.uid, record.desc.gid), (0, 0));
        shm::remove(id).unwrap();
    }
}
