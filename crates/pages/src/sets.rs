//! Sets of images whose pages are in sets before them. Section 10.1 of the format.
//!
//! What the link `parent` leads to is looked at when pages are said to be there, and not before: a link that was left
//! behind does no harm.

use crate::Part;
use crate::key::{ObjectKey, Owner};
use crate::listing::Listing;
use crate::pagemap::Pagemap;
use crate::read::{ObjectReader, ReadError};
use crate::summary::parse_checksums;
use gelid_image::manifest::{self, Checksum, Damage, Manifest, ManifestError};
use gelid_image::messages::InventoryEntry;
use gelid_image::{Dir, ImageKind};
use rustix::fs::fstat;
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Sets that may follow each other, the newest among them.
const MOST_SETS: usize = 64;

/// Why pages of a set, or of one before it, could not be found.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// An image or a directory cannot be read.
    #[error("{directory}: {source}")]
    Image {
        /// The set.
        directory: String,
        /// What is wrong.
        source: gelid_image::ReadError,
    },
    /// A directory cannot be looked at.
    #[error("{directory}: {errno}")]
    Directory {
        /// The set.
        directory: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The manifest cannot be read.
    #[error("{directory}: {source}")]
    Manifest {
        /// The set.
        directory: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// An image is not what the dump wrote.
    #[error("{directory}: {damage}; take another copy of the images")]
    Damaged {
        /// The set.
        directory: String,
        /// What is wrong.
        damage: Damage,
    },
    /// A file of pages cannot be read.
    #[error("{directory}: {source}")]
    Pages {
        /// The set.
        directory: String,
        /// What is wrong.
        source: ReadError,
    },
    /// There is no set before.
    #[error(
        "{directory}: pages are in an earlier set, but the link `parent` leads nowhere: bring that set back to its place"
    )]
    NoParent {
        /// The set.
        directory: String,
    },
    /// A set is before itself.
    #[error("{directory}: is a set that comes later: the links `parent` lead in a circle")]
    Circle {
        /// The set.
        directory: String,
    },
    /// There are too many.
    #[error("{directory}: {MOST_SETS} sets follow each other: begin anew with a dump of all pages")]
    TooMany {
        /// The set.
        directory: String,
    },
    /// It is not the set that was compared with.
    #[error(
        "{directory}: is another set than the one that a later dump refers to: bring that one back to its place"
    )]
    Replaced {
        /// The set.
        directory: String,
    },
    /// A pagemap does not make sense.
    #[error("{directory}: pagemap of pages-{pages_id}: {what}, at {vaddr:#x}")]
    Pagemap {
        /// The set.
        directory: String,
        /// Number of the pages.
        pages_id: u32,
        /// What is wrong.
        what: &'static str,
        /// Where.
        vaddr: u64,
    },
}

impl SetError {
    /// True if an image is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Image { source, .. } if source.is_missing())
    }
}

/// A set of images and, as far as pages are said to be there, those before it.
#[derive(Debug)]
pub struct Sets {
    sets: Vec<Set>,
    /// The set to come, which none of these may be.
    coming: Option<Identity>,
    listings: HashMap<(usize, Owner), Arc<Listing>>,
}

/// Device and inode of a directory.
type Identity = (u64, u64);

#[derive(Debug)]
struct Set {
    dir: Dir,
    identity: Identity,
    manifest: Option<Manifest>,
    /// Whether all files are known to be what the manifest says.
    verified: bool,
    inventory: Option<InventoryEntry>,
}

impl Sets {
    /// A set, whose files have been compared with its manifest.
    ///
    /// # Errors
    ///
    /// [`SetError::Directory`].
    pub fn new(dir: &Dir, manifest: Option<Manifest>) -> Result<Self, SetError> {
        Ok(Self {
            sets: vec![Set {
                dir: dir.clone(),
                identity: identity(dir)?,
                manifest,
                verified: true,
                inventory: None,
            }],
            coming: None,
            listings: HashMap::new(),
        })
    }

    /// The set at `path`, relative to the directory of one that is to follow it.
    ///
    /// # Errors
    ///
    /// [`SetError`]: there is no complete set, or it is the one to come.
    pub fn before(coming: &Dir, path: &Path) -> Result<Self, SetError> {
        let dir = coming.beside(path).map_err(|source| SetError::Image {
            directory: coming.label().into(),
            source,
        })?;
        let mut sets = Self {
            sets: Vec::new(),
            coming: Some(identity(coming)?),
            listings: HashMap::new(),
        };
        sets.add(dir)?;
        Ok(sets)
    }

    /// Name of the dump that made the set, if it has one.
    #[must_use]
    pub fn run_id(&self) -> Option<&str> {
        let inventory = self.sets.first()?.inventory.as_ref()?;
        inventory.dump_criu_run_id.as_deref()
    }

    /// The directory of the set itself.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        // There is one from the beginning.
        &self.sets[0].dir
    }

    /// An object has been read for good.
    pub(crate) fn forget(&mut self, owner: Owner) {
        self.listings.remove(&(0, owner));
    }

    /// What to call a set in messages.
    pub(crate) fn label(&self, generation: usize) -> String {
        let set = self.sets.get(generation);
        set.map_or_else(String::new, |set| set.dir.label().to_owned())
    }

    /// What the pagemap of an object says in the set that is so many before the first.
    pub(crate) fn listing(
        &mut self,
        generation: usize,
        owner: Owner,
    ) -> Result<Arc<Listing>, SetError> {
        if let Some(listing) = self.listings.get(&(generation, owner)) {
            return Ok(Arc::clone(listing));
        }
        while self.sets.len() <= generation {
            self.follow()?;
        }
        let (kind, key) = match owner {
            Owner::Task(pid) => (ImageKind::Pagemap, pid.cast_unsigned().into()),
            Owner::Shared(id) => (ImageKind::PagemapShmem, id.into()),
        };
        let set = &self.sets[generation];
        if let Some(name) = kind.file_name(key) {
            set.verify(&name)?;
        }
        let listing = Arc::new(Listing::read(&set.dir, kind, key)?);
        self.listings
            .insert((generation, owner), Arc::clone(&listing));
        Ok(listing)
    }

    /// Opens the files that a pagemap refers to.
    ///
    /// # Errors
    ///
    /// [`SetError`]: a file is missing, damaged, or not as long as its pagemap says.
    pub fn open(&self, owner: Owner, pagemap: &Pagemap) -> Result<ObjectReader, SetError> {
        let open = |part: &Part| {
            let set = &self.sets[part.generation.min(self.sets.len() - 1)];
            let reader = set.open(ObjectKey {
                pages_id: part.pages_id,
                owner: part.owner,
            })?;
            Ok((reader, part.pages))
        };
        let parts = pagemap.parts.iter().map(open);
        let parts: Vec<_> = parts.collect::<Result<_, SetError>>()?;
        let key = ObjectKey {
            pages_id: pagemap.pages_id,
            owner,
        };
        ObjectReader::joined(key, parts).map_err(|source| SetError::Pages {
            directory: self.label(0),
            source,
        })
    }

    /// True if one of the files is packed, which CRIU does not read.
    #[must_use]
    pub fn is_packed(&self, pagemap: &Pagemap) -> bool {
        let packed = |part: &Part| {
            let set = self.sets.get(part.generation);
            set.is_some_and(|set| set.dir.raw(&packed_name(part.pages_id)).is_ok())
        };
        pagemap.parts.iter().any(packed)
    }

    /// Goes one set back.
    fn follow(&mut self) -> Result<(), SetError> {
        let sets = self.sets.len() + usize::from(self.coming.is_some());
        let Some(last) = self.sets.last_mut() else {
            return Ok(());
        };
        let directory = last.dir.label().to_owned();
        if sets >= MOST_SETS {
            return Err(SetError::TooMany { directory });
        }
        let parent = match last.dir.parent() {
            Ok(Some(parent)) => parent,
            Ok(None) => return Err(SetError::NoParent { directory }),
            Err(source) => return Err(SetError::Image { directory, source }),
        };
        if last.inventory.is_none() {
            last.inventory = Some(inventory(&last.dir)?);
        }
        let known = last.inventory.as_ref();
        let known = known.and_then(|inventory| inventory.parent_run_id.clone());
        self.add(parent)?;
        let found = self.sets.last();
        let found = found.and_then(|set| set.inventory.as_ref()?.dump_criu_run_id.as_ref());
        match known.is_some_and(|known| found != Some(&known)) {
            true => Err(SetError::Replaced {
                directory: self.label(self.sets.len() - 1),
            }),
            false => Ok(()),
        }
    }

    /// Adds the set before all that are there.
    fn add(&mut self, dir: Dir) -> Result<(), SetError> {
        let directory = dir.label().to_owned();
        let identity = identity(&dir)?;
        let mut later = self.sets.iter().map(|set| set.identity).chain(self.coming);
        if later.any(|later| later == identity) {
            return Err(SetError::Circle { directory });
        }
        let manifest = manifest::read(&dir);
        let manifest = manifest.map_err(|source| SetError::Manifest { directory, source })?;
        let mut set = Set {
            identity,
            manifest,
            verified: false,
            inventory: None,
            dir,
        };
        let name = ImageKind::Inventory.file_name(gelid_image::Key::None);
        name.iter().try_for_each(|name| set.verify(name))?;
        // A set without one is not complete.
        set.inventory = Some(inventory(&set.dir)?);
        self.sets.push(set);
        Ok(())
    }
}

impl Set {
    /// Refuses a file that is not what the manifest says.
    fn verify(&self, name: &str) -> Result<(), SetError> {
        let manifest = self.manifest.as_ref().filter(|_| !self.verified);
        match manifest.and_then(|manifest| manifest.verify_file(&self.dir, name)) {
            // Whoever wants the file says so better.
            None | Some(Damage::Missing { .. }) => Ok(()),
            Some(damage) => Err(SetError::Damaged {
                directory: self.dir.label().into(),
                damage,
            }),
        }
    }

    /// Opens a file of pages: packed or raw, whatever is there.
    fn open(&self, key: ObjectKey) -> Result<ObjectReader, SetError> {
        let image = |source| SetError::Image {
            directory: self.dir.label().into(),
            source,
        };
        let pages = |source| SetError::Pages {
            directory: self.dir.label().into(),
            source,
        };
        let packed = packed_name(key.pages_id);
        match self.dir.raw(&packed) {
            Ok(file) => {
                self.verify(&packed)?;
                return ObjectReader::open_zstd(key, Box::new(file)).map_err(pages);
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(image(error)),
        }
        let raw = raw_name(key.pages_id);
        let file = self.dir.raw(&raw).map_err(image)?;
        self.verify(&raw)?;
        let manifest = self.manifest.as_ref();
        let sums = match manifest.and_then(|manifest| manifest.get(&raw)) {
            Some((_, Checksum::Other(text))) => parse_checksums(text).ok(),
            _ => None,
        };
        ObjectReader::open_raw(key, Box::new(file), sums.as_deref()).map_err(pages)
    }
}

fn raw_name(pages_id: u32) -> String {
    format!("pages-{pages_id}.img")
}

fn packed_name(pages_id: u32) -> String {
    format!("pages-{pages_id}.img.zst")
}

fn identity(dir: &Dir) -> Result<Identity, SetError> {
    let stat = fstat(dir).map_err(|errno| SetError::Directory {
        directory: dir.label().into(),
        errno,
    })?;
    Ok((stat.st_dev, stat.st_ino))
}

fn inventory(dir: &Dir) -> Result<InventoryEntry, SetError> {
    let read = dir.read_one(ImageKind::Inventory, ());
    read.map_err(|source| SetError::Image {
        directory: dir.label().into(),
        source,
    })
}
