//! Moments of a dump at which somebody else is told, and may object: action scripts and notifications.

use std::fmt;
use std::io;
use std::sync::Arc;

use gelid_sys::Pid;

use crate::Error;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// The tree stands still and has a network namespace of its own: from now on packets are to stay away from it.
    NetworkLock,
    /// They may come again, as the tree is about to run on. Nobody can object any more.
    NetworkUnlock,
    /// The tree stands still, and somebody is asked what is external.
    QueryExternal,
    /// All images are there, and the tree stands still. Who objects takes the images away, and the tree runs on.
    PostDump,
}

impl Hook {
    /// Its name, as action scripts know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkLock => "network-lock",
            Self::NetworkUnlock => "network-unlock",
            Self::QueryExternal => "query-ext-files",
            Self::PostDump => "post-dump",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who is told, with the root of the tree. The thread of the dump waits meanwhile.
pub trait Listener: Send + Sync {
    /// It is that moment.
    ///
    /// # Errors
    ///
    /// An objection, which ends the dump.
    fn told(&self, hook: Hook, root: Pid) -> io::Result<()>;

    /// The tree stands still: what else is external, as `--external` has it?
    ///
    /// # Errors
    ///
    /// An objection, which ends the dump.
    fn external(&self, root: Pid) -> io::Result<Vec<String>> {
        let _ = root;
        Ok(Vec::new())
    }
}

/// Somebody who is told of moments; nobody by default.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<dyn Listener>>);

impl Hooks {
    /// Tells `listener`.
    pub fn new(listener: impl Listener + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn tell(&self, hook: Hook, root: Pid) -> Result<(), Error> {
        let told = self
            .0
            .as_ref()
            .map_or(Ok(()), |listener| listener.told(hook, root));
        told.map_err(|source| Error::Hook { hook, source })
    }

    /// What else is external.
    pub(crate) fn external(&self, root: Pid) -> Result<Vec<String>, Error> {
        let Some(listener) = &self.0 else {
            return Ok(Vec::new());
        };
        let hook = Hook::QueryExternal;
        let told = listener.external(root);
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
