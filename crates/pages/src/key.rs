//! Names of page objects, for errors and logs.

use std::fmt;

/// What the pages of an object belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The private memory of the task with this pid (as numbered in the image).
    Task(i32),
    /// The shared memory object with this id.
    Shared(u64),
}

/// One object of the store: the pages of one pagemap image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// The number in `pages-N.img`.
    pub pages_id: u32,
    /// Whose memory it is.
    pub owner: Owner,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            Owner::Task(pid) => write!(f, "pages-{} (task {pid})", self.pages_id),
            Owner::Shared(id) => write!(f, "pages-{} (shared memory {id:#x})", self.pages_id),
        }
    }
}
