//! Moments of a dump at which somebody else is told, and may object: action scripts and notifications.

use std::fmt;
use std::io;
use std::sync::Arc;

use gelid_sys::Pid;

use crate::Error;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// All images are there, and the tree stands still. Who objects takes the images away, and the tree runs on.
    PostDump,
}

impl Hook {
    /// Its name, as action scripts know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PostDump => "post-dump",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who is told.
type Listener = dyn Fn(Hook, Pid) -> io::Result<()> + Send + Sync;

/// Somebody who is told of moments, with the root of the tree; nobody by default. The thread of the dump waits meanwhile.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<Listener>>);

impl Hooks {
    /// Tells `listener`.
    pub fn new(listener: impl Fn(Hook, Pid) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn tell(&self, hook: Hook, root: Pid) -> Result<(), Error> {
        let told = self
            .0
            .as_ref()
            .map_or(Ok(()), |listener| listener(hook, root));
        told.map_err(|source| Error::Hook { hook, source })
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Hooks(..)"
        } else {
            "Hooks"
        })
    }
}
