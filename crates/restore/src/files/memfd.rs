//! Memory that is a file: memfds, and shared anonymous memory, which images hold as one called `/dev/zero`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use gelid_image::messages::{MemfdFileEntry, MemfdInodeEntry};
use gelid_image::{Dir, ImageKind};
use rustix::fs::{Gid, MemfdFlags, Mode, SealFlags, Uid};
use rustix::io::Errno;

use super::open::Opener;
use super::{Error, Kind, regular};

/// Bytes of the longest name of a memfd.
const NAME_MAX: usize = 249;
/// `MFD_HUGETLB`, and where the kind of huge pages stands beside it.
const HUGE: u32 = 4;
const HUGE_KIND: u32 = 0x3f << 26;

/// Names of memory that is shared, but was no memfd.
const ANONYMOUS: [&[u8]; 2] = [b"/dev/zero", b"/anon_hugepage"];

/// An object in memory, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Key of the object.
    pub inode: u64,
    /// Name without `memfd:`.
    pub name: Vec<u8>,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permissions, if recorded.
    pub mode: Option<u32>,
    /// Size in bytes.
    pub size: u64,
    /// Key of its pages.
    pub shmid: u32,
    /// Seals, as `F_ADD_SEALS` takes them.
    pub seals: u32,
    /// Kind of huge pages, as `MAP_HUGETLB` takes it; `None` for small ones.
    pub huge: Option<u32>,
}

/// An open memfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFile {
    /// Key of the object.
    pub inode: u64,
    /// Where it is read and written next.
    pub position: Option<u64>,
}

pub(super) fn plan(entry: &MemfdFileEntry) -> MemoryFile {
    MemoryFile {
        inode: entry.inode_id.into(),
        position: Some(entry.pos).filter(|pos| !matches!(*pos, 0 | u64::MAX)),
    }
}

/// Reads `memfd.img`, by key of the object.
pub(super) fn read(dir: &Dir) -> Result<BTreeMap<u64, Memory>, Error> {
    let mut memories = BTreeMap::new();
    let mut pages = BTreeMap::new();
    for entry in dir.read_all::<MemfdInodeEntry>(ImageKind::Memfd, ())? {
        let duplicate = |what, id| Error::Duplicate {
            image: "memfd.img".into(),
            what,
            id,
        };
        let memory = check(entry)?;
        if pages.insert(memory.shmid, memory.inode).is_some() {
            return Err(duplicate("shmid", memory.shmid.into()));
        }
        let inode = memory.inode;
        if memories.insert(inode, memory).is_some() {
            return Err(duplicate("memory object", inode));
        }
    }
    Ok(memories)
}

fn check(entry: MemfdInodeEntry) -> Result<Memory, Error> {
    let object = || format!("memfd.img: memory object {}", entry.inode_id);
    if entry.name.len() > NAME_MAX || entry.name.contains(&0) {
        let found = entry.name.escape_ascii();
        return Err(Error::invalid(
            object(),
            "name",
            found,
            "no memfd has such a name",
        ));
    }
    if i64::try_from(entry.size).is_err() {
        return Err(Error::invalid(
            object(),
            "size",
            entry.size,
            "no file is that large",
        ));
    }
    let huge = entry.hugetlb_flag.filter(|flags| *flags != 0);
    if let Some(flags) = huge
        && (flags & HUGE == 0 || flags & !(HUGE | HUGE_KIND) != 0)
    {
        let rule = "huge pages are 4 and a size from bit 26 on";
        return Err(Error::invalid(
            object(),
            "hugetlb_flag",
            format!("{flags:#x}"),
            rule,
        ));
    }
    Ok(Memory {
        inode: entry.inode_id,
        name: entry.name,
        owner: (entry.uid, entry.gid),
        mode: entry.mode,
        size: entry.size,
        shmid: entry.shmid,
        seals: entry.seals,
        huge: huge.map(|flags| flags & HUGE_KIND),
    })
}

impl Memory {
    /// Whether it was made by `mmap` and never had a descriptor.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        ANONYMOUS.contains(&&*self.name) && self.seals == SealFlags::SEAL.bits()
    }

    /// What to call it in messages.
    pub(super) fn label(&self) -> String {
        match self.is_anonymous() {
            true => format!("shared memory {}", self.shmid),
            false => format!("memfd {}", self.name.escape_ascii()),
        }
    }

    fn make(&self) -> Result<OwnedFd, Errno> {
        let made = match self.is_anonymous() {
            true => {
                let len = usize::try_from(self.size).map_err(|_| Errno::NOMEM)?;
                match gelid_sys::map::shared_anonymous(len, self.huge) {
                    // With rights in a user namespace alone: the same memory, but for its name.
                    Err(Errno::PERM) => self.make_memfd()?,
                    made => made?,
                }
            }
            false => self.make_memfd()?,
        };
        let stat = rustix::fs::fstat(&made)?;
        if u64::try_from(stat.st_size) != Ok(self.size) {
            rustix::fs::ftruncate(&made, self.size)?;
        }
        if (stat.st_uid, stat.st_gid) != self.owner {
            let (user, group) = self.owner;
            let user = (user != u32::MAX).then(|| Uid::from_raw(user));
            let group = (group != u32::MAX).then(|| Gid::from_raw(group));
            rustix::fs::fchown(&made, user, group)?;
        }
        if let Some(mode) = self.mode
            && (mode ^ stat.st_mode) & 0o7777 != 0
        {
            rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777))?;
        }
        Ok(made)
    }

    fn make_memfd(&self) -> Result<OwnedFd, Errno> {
        let mut flags = MemfdFlags::CLOEXEC;
        // The one seal without another was there from the start.
        if self.seals != SealFlags::SEAL.bits() {
            flags |= MemfdFlags::ALLOW_SEALING;
        }
        if let Some(kind) = self.huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(kind);
        }
        // Said, so that the system's setting does not decide. Kernels before 6.3 do not know it.
        match rustix::fs::memfd_create(&*self.name, flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL | Errno::ACCESS) => rustix::fs::memfd_create(&*self.name, flags),
            made => made,
        }
    }

    /// Seals it as it was, once it is filled.
    fn seal(&self, fd: impl AsFd) -> Result<(), Error> {
        if self.seals == 0 || self.seals == SealFlags::SEAL.bits() {
            return Ok(());
        }
        let seals = SealFlags::from_bits_retain(self.seals);
        rustix::fs::fcntl_add_seals(fd, seals).map_err(Error::system("seal", self.label()))
    }
}

/// An object that was made.
#[derive(Debug)]
pub(super) struct Object {
    memory: Memory,
    pub(super) fd: OwnedFd,
    /// What was opened of it to be mapped, by access mode.
    pub(super) mapped: [OnceLock<OwnedFd>; 3],
    /// What the caller fills it through, until it takes it.
    to_fill: Option<File>,
}

impl Object {
    pub(super) fn seal(&self) -> Result<(), Error> {
        self.memory.seal(&self.fd)
    }

    /// Key of the pages, size, and the file to fill.
    pub(super) fn take(&mut self) -> Option<(u32, u64, File)> {
        let file = self.to_fill.take()?;
        Some((self.memory.shmid, self.memory.size, file))
    }
}

/// Makes all objects and opens the descriptions that a table refers to. Those that are only mapped are
/// opened when they are.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for memory in plan.memories.values() {
        let label = memory.label();
        let made = memory
            .make()
            .map_err(|errno| opener.failed("make", &label, errno))?;
        let fd = opener.raise(made, &label)?;
        let to_fill = Some(File::from(opener.again(fd.as_fd(), &label)?));
        let memory = memory.clone();
        let inode = memory.inode;
        let object = Object {
            memory,
            fd,
            mapped: Default::default(),
            to_fill,
        };
        opener.objects.insert(inode, object);
    }
    let used = plan.used();
    for description in plan.descriptions.values() {
        let Kind::Memory(file) = &description.kind else {
            continue;
        };
        if !used.contains(&description.id) {
            continue;
        }
        let label = description.label();
        if let Some(object) = opener.objects.get(&file.inode) {
            let opened = opener.reopen(object.fd.as_fd(), description.flags, &label)?;
            regular::seek(opened.as_fd(), file.position, &label)?;
            opener.add(description.id, opened);
        }
    }
    Ok(())
}
