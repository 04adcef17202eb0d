//! Files recorded by their path. Section 12.1 of the format.

use std::collections::{HashMap, HashSet};

use gelid_image::messages::{FdTypes, FileEntry, FownEntry, RegFileEntry};
use gelid_sys::Errno;
use gelid_sys::proc::ns::Kind::Mnt;
use rustix::fs::{AtFlags, FileType, OFlags, Stat, statat};

use super::descriptions::Inode;
use super::kind::DELETED;
use super::remap_file_path::Remap;
use super::{Collector, Error, Name, Object, Unsupported, build_id, fown, mount};

const PROC_MAGIC: u64 = 0x9fa0;
/// `MQUEUE_MAGIC`
pub(super) const MQUEUE_MAGIC: u64 = 0x1980_0202;
const SECRETMEM_MAGIC: u64 = 0x5345_434d;
/// `HUGETLBFS_MAGIC`
pub(crate) const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// How a file was opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) flags: u32,
    pub(super) pos: u64,
    pub(super) fown: FownEntry,
    /// Mount it was opened through, if known.
    pub(super) mount: Option<i32>,
}

impl Opening {
    /// A reference that is no descriptor.
    pub(super) fn reference() -> Self {
        Self {
            flags: 0,
            pos: 0,
            fown: fown::nobody(),
            mount: None,
        }
    }
}

/// What is known of files, so that it is asked for once.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// References to regular files and directories that have a record.
    references: HashMap<Reference, u32>,
    /// With the time at which the inode had last changed.
    build_ids: HashMap<Inode, (Changed, Vec<u32>)>,
    /// Type of the file system, by its device.
    magics: HashMap<u64, u64>,
}

/// Inode and path, and of directories the mount, as a record tells it.
type Reference = (Inode, Vec<u8>, Option<i32>);

/// Time of the last change of an inode: seconds and nanoseconds.
type Changed = (i64, u64);

fn changed(stat: &Stat) -> Changed {
    (stat.st_ctime, stat.st_ctime_nsec)
}

impl Collector<'_> {
    /// Keeps a build id for when the file is met.
    pub(super) fn note_build_id(&mut self, stat: &Stat, id: Vec<u32>) {
        let inode = (stat.st_dev, stat.st_ino);
        self.known.build_ids.insert(inode, (changed(stat), id));
    }

    /// The id of a file that is held by path only: an executable, a mapped file, a directory. Regular files and
    /// directories share theirs.
    pub(super) fn reference(&mut self, object: &Object<'_>) -> Result<u32, Error> {
        let mount = match object.file_type() {
            FileType::RegularFile => None,
            FileType::Directory => self.mount_of(object),
            _ => return self.regular(object, Opening::reference()),
        };
        let key = (object.inode(), object.link.clone(), mount);
        if let Some(id) = self.known.references.get(&key) {
            return Ok(*id);
        }
        let id = self.regular(object, Opening::reference())?;
        self.known.references.insert(key, id);
        Ok(id)
    }

    /// The same of a regular file that its path leads to, without opening it; `None` where more than that may matter.
    pub(super) fn plain_reference(
        &mut self,
        stat: Stat,
        path: &[u8],
    ) -> Result<Option<u32>, Error> {
        let magic = self.known.magics.get(&stat.st_dev);
        let is_plain = magic.is_some_and(|magic| ![PROC_MAGIC, MQUEUE_MAGIC].contains(magic));
        // Mounts are told of an open file only.
        if !is_plain || self.mounts.root().is_some() || !self.options.external.is_empty() {
            return Ok(None);
        }
        let build_id = match self.known_build_id(&stat) {
            id if !self.options.build_ids => id.unwrap_or_default(),
            Some(id) => id,
            None => return Ok(None),
        };
        let key = ((stat.st_dev, stat.st_ino), path.to_vec(), None);
        if let Some(id) = self.known.references.get(&key) {
            return Ok(Some(*id));
        }
        let id = self.new_id()?;
        let stat = self.census.users.of_file(stat);
        let mut entry = entry(&stat, id, path.to_vec(), Opening::reference());
        entry.build_id = build_id;
        self.push_regular(entry)?;
        self.known.references.insert(key, id);
        Ok(Some(id))
    }

    /// Records a file under a new id.
    pub(super) fn regular(&mut self, object: &Object<'_>, opening: Opening) -> Result<u32, Error> {
        let id = self.new_id()?;
        if let Some(name) = self.external(object, &opening)? {
            let mut entry = entry(object.stat, id, name, opening);
            entry.ext = Some(true);
            entry.mnt_id = self.mount_of(object);
            self.push_regular(entry)?;
            return Ok(id);
        }
        self.refuse_special(object)?;
        let (name, remap) = self.locate(object, &opening)?;
        if remap.is_none() && name.starts_with(b"/proc/") && self.magic(object)? == PROC_MAGIC {
            let name = self.inside_proc(name);
            self.note_process(object, &name);
        }
        let mut entry = entry(object.stat, id, self.inside_proc(name), opening);
        entry.mnt_id = self.mount_of(object);
        if object.is_regular() && self.options.build_ids {
            entry.build_id = self.build_id(object, &entry);
        }
        self.push_regular(entry)?;
        if let Some(remap) = remap {
            self.remap(id, object, name, remap)?;
        }
        Ok(id)
    }

    /// The name of a file in procfs by the numbers that images have. With a mount namespace of its own the tree has a
    /// procfs of its own, which names processes by those already.
    fn inside_proc(&self, name: &[u8]) -> Vec<u8> {
        let numbers = &self.census.numbers;
        let parts = name.strip_prefix(b"/proc/");
        let Some(parts) = parts.filter(|_| numbers.differ() && self.census.root(Mnt).is_none())
        else {
            return name.to_vec();
        };
        let number = |part: &[u8]| {
            let outer = std::str::from_utf8(part).ok()?.parse().ok()?;
            Some(numbers.number(outer)).filter(|number| *number != 0)
        };
        let parts = parts.split(|byte| *byte == b'/').enumerate();
        let parts: Vec<Vec<u8>> = parts
            .map(
                |(at, part)| match number(part).filter(|_| at == 0 || at == 2) {
                    Some(number) => number.to_string().into_bytes(),
                    None => part.to_vec(),
                },
            )
            .collect();
        [b"/proc/", parts.join(&b'/').as_slice()].concat()
    }

    /// Notes whose file in procfs it is.
    fn note_process(&mut self, object: &Object<'_>, name: &[u8]) {
        let digits = name.split(|byte| *byte == b'/').nth(2).unwrap_or_default();
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        // The first process is there on every machine.
        if let Some(pid) = digits.parse().ok().filter(|pid| *pid != 1) {
            let name = Name(object.link.clone());
            let pid = match self.pid_ns_of(object) {
                Some(pid_ns) => self.census.numbers.nested(pid_ns, pid),
                None => pid,
            };
            self.of_processes.push((pid, object.place, name));
        }
    }

    /// Refuses files of processes that are not in the tree: they may be gone, or be others, when it comes back.
    pub(super) fn refuse_strangers(&self) -> Result<(), Error> {
        let mut files = self.of_processes.iter();
        let numbers = &self.census.numbers;
        let processes = self.processes.iter().map(|pid| numbers.number(*pid));
        let processes: HashSet<i32> = processes.collect();
        match files.find(|(pid, ..)| !processes.contains(pid)) {
            None => Ok(()),
            Some((pid, place, name)) => Err(Error::Stranger {
                place: *place,
                name: name.clone(),
                pid: *pid,
            }),
        }
    }

    /// Writes the record.
    pub(super) fn push_regular(&mut self, entry: RegFileEntry) -> Result<(), Error> {
        self.push(FileEntry {
            r#type: FdTypes::Reg.into(),
            id: entry.id,
            reg: Some(Box::new(entry)),
            ..FileEntry::default()
        })
    }

    /// Its name if `--external` says that the file is not the tree's.
    fn external(&self, object: &Object<'_>, opening: &Opening) -> Result<Option<Vec<u8>>, Error> {
        if self.options.external.is_empty() {
            return Ok(None);
        }
        let mount = match opening.mount {
            Some(mount) => mount,
            None => mount::id(object.file).map_err(object.failed("look at"))?,
        };
        let inode = object.stat.st_ino;
        let named = self.options.external.contains(&(mount, inode));
        Ok(named.then(|| format!("file[{mount:x}:{inode:x}]").into_bytes()))
    }

    /// Refuses what looks like a regular file and is none.
    fn refuse_special(&mut self, object: &Object<'_>) -> Result<(), Error> {
        if !object.is_regular() {
            return Ok(());
        }
        match self.magic(object)? {
            MQUEUE_MAGIC => Err(object.unsupported(Unsupported::MessageQueue)),
            SECRETMEM_MAGIC => Err(object.unsupported(Unsupported::SecretMemory)),
            _ => Ok(()),
        }
    }

    /// The type of the file system that a file is on.
    pub(super) fn magic(&mut self, object: &Object<'_>) -> Result<u64, Error> {
        if let Some(magic) = self.known.magics.get(&object.stat.st_dev) {
            return Ok(*magic);
        }
        let stat = rustix::fs::fstatfs(object.file).map_err(object.failed("ask about"))?;
        let magic = stat.f_type.cast_unsigned();
        self.known.magics.insert(object.stat.st_dev, magic);
        Ok(magic)
    }

    /// The path to record, and what to do if it does not lead to the file.
    fn locate<'o>(
        &mut self,
        object: &'o Object<'_>,
        opening: &Opening,
    ) -> Result<(&'o [u8], Option<Remap>), Error> {
        let link = object.link.as_slice();
        if self.leads_to(object, link)? {
            // The same file by another mount, on top of that which it was opened by.
            if self.is_covered(object, link) {
                return Err(self.hidden(object, opening));
            }
            return Ok((link, None));
        }
        let deleted = link.strip_suffix(DELETED);
        // The kernel may not have noticed yet that what belonged to a process is gone.
        let name = deleted.unwrap_or(link);
        if name.first() == Some(&b'/') && self.magic(object)? == PROC_MAGIC {
            // Files of networks get a new name in the kernel each time somebody looks for them, and those from before
            // count as deleted.
            if deleted.is_some() && self.leads_to(object, name)? {
                return Ok((name, None));
            }
            match (process(&self.inside_proc(name)), deleted) {
                (Some(_), _) if self.pid_ns_of(object).is_some() => {
                    return Err(object.unsupported(Unsupported::Vanished));
                }
                (Some(pid), _) => return Ok((name, Some(Remap::Process(pid)))),
                (None, Some(_)) => return Err(object.unsupported(Unsupported::Vanished)),
                (None, None) if is_of_thread(&self.inside_proc(name)) => {
                    return Err(object.unsupported(Unsupported::Vanished));
                }
                (None, None) => {}
            }
        }
        let Some(name) = deleted.filter(|name| name.first() == Some(&b'/')) else {
            return Err(self.hidden(object, opening));
        };
        // Deleted, and linked to the same name again.
        if self.leads_to(object, name)? {
            return Ok((name, None));
        }
        // The number of links of a deleted directory is up to its file system.
        if object.stat.st_nlink == 0 || object.file_type() == FileType::Directory {
            return Ok((name, Some(Remap::Ghost)));
        }
        Ok((name, Some(Remap::Linked)))
    }

    /// Whether a path leads to the file.
    pub(super) fn leads_to(&self, object: &Object<'_>, path: &[u8]) -> Result<bool, Error> {
        if path.first() != Some(&b'/') {
            return Ok(false);
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match statat(self.root_of(object), relative(path), flags) {
            Ok(stat) => {
                let device = object.file_type() == FileType::CharacterDevice
                    && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
                let evasive = self.options.evasive_devices && device;
                Ok((stat.st_dev, stat.st_ino) == object.inode()
                    || evasive && stat.st_rdev == object.stat.st_rdev)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(false),
            Err(errno) => Err(object.failed("look for")(errno)),
        }
    }

    fn hidden(&self, object: &Object<'_>, opening: &Opening) -> Error {
        let mount = opening.mount.or_else(|| mount::id(object.file).ok());
        Error::Hidden {
            place: object.place,
            name: Name(object.link.clone()),
            mount: mount.unwrap_or(-1),
            inode: object.stat.st_ino,
        }
    }

    /// The build id of a file that has not changed since it was asked for.
    fn known_build_id(&self, stat: &Stat) -> Option<Vec<u32>> {
        let (then, id) = self.known.build_ids.get(&(stat.st_dev, stat.st_ino))?;
        (*then == changed(stat)).then(|| id.clone())
    }

    /// The build id of an ELF file. Of files behind descriptors only those that may be executed are looked
    /// into.
    fn build_id(&mut self, object: &Object<'_>, entry: &RegFileEntry) -> Vec<u32> {
        let reference = entry.flags == 0;
        if !reference && object.stat.st_mode & 0o111 == 0 {
            return Vec::new();
        }
        if let Some(id) = self.known_build_id(object.stat) {
            return id;
        }
        // It cannot be executed, and opening it would break the lease.
        if self.is_leased(object.inode()) {
            return Vec::new();
        }
        // What cannot be read is no program whose version would matter.
        let file = object.reopen(OFlags::RDONLY);
        let id = file.map(|file| build_id::read(&file).unwrap_or_default());
        let id = id.unwrap_or_default();
        self.note_build_id(object.stat, id.clone());
        id
    }
}

/// The record of a file by a name.
pub(super) fn entry(stat: &Stat, id: u32, name: Vec<u8>, opening: Opening) -> RegFileEntry {
    let flags = OFlags::from_bits_retain(opening.flags);
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    // A log grows while the tree is away.
    let grows = flags.contains(OFlags::APPEND) && opening.flags & 3 == OFlags::WRONLY.bits();
    RegFileEntry {
        id,
        flags: opening.flags,
        pos: opening.pos,
        fown: opening.fown,
        name,
        size: (is_regular && !grows).then(|| stat.st_size.unsigned_abs()),
        mode: Some(stat.st_mode),
        ..RegFileEntry::default()
    }
}

/// A path without the slash that it starts with.
pub(super) fn relative(path: &[u8]) -> &[u8] {
    match path.get(1..) {
        None | Some(b"") => b".",
        Some(relative) => relative,
    }
}

/// The process whose directory in procfs a path is below; not if it is that of a single thread.
fn process(path: &[u8]) -> Option<u32> {
    let rest = path.strip_prefix(b"/proc/")?;
    let mut parts = rest.splitn(3, |byte| *byte == b'/');
    let pid = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    (parts.next() != Some(b"task")).then_some(pid)
}

/// Whether a path in `/proc` leads to a thread.
pub(crate) fn is_of_thread(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/').skip(3);
    path.starts_with(b"/proc/") && parts.next() == Some(b"task") && parts.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_process_are_known() {
        assert_eq!(process(b"/proc/17/status"), Some(17));
        assert_eq!(process(b"/proc/17"), Some(17));
        assert_eq!(process(b"/proc/17/task/18/status"), None);
        assert_eq!(process(b"/proc/x/status"), None);
        assert!(is_of_thread(b"/proc/17/task/18/status"));
        assert!(!is_of_thread(b"/proc/17/task") && !is_of_thread(b"/proc/17/status"));
        assert_eq!(process(b"/sys/17"), None);
    }

    #[test]
    fn paths_are_relative_to_the_root() {
        assert_eq!(relative(b"/"), b".");
        assert_eq!(relative(b"/a/b"), b"a/b");
    }
}
