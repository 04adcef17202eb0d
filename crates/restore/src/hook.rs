//! Moments of a restore at which somebody else is told, and may object: action scripts and notifications.

use std::fmt;
use std::io;
use std::sync::Arc;

use gelid_sys::Pid;

use crate::Error;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Everything is restored, and nothing runs yet. Who objects ends the tree.
    PostRestore,
    /// The tasks are about to run. Nobody can object any more.
    PreResume,
    /// They run.
    PostResume,
}

impl Hook {
    /// Its name, as action scripts know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PostRestore => "post-restore",
            Self::PreResume => "pre-resume",
            Self::PostResume => "post-resume",
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

/// Somebody who is told of moments, with the root of the tree; nobody by default. The thread of the restore waits meanwhile.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<Listener>>);

impl Hooks {
    /// Tells `listener`.
    pub fn new(listener: impl Fn(Hook, Pid) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn tell(&self, hook: Hook, root: i32) -> Result<(), Error> {
        let (Some(listener), Some(root)) = (&self.0, Pid::from_raw(root)) else {
            return Ok(());
        };
        let told = listener(hook, root);
        told.map_err(|source| Error::Hook { hook, source })
    }

    /// Tells of what cannot be undone.
    pub(crate) fn announce(&self, hook: Hook, root: i32) {
        if let Err(error) = self.tell(hook, root) {
            tracing::error!("{error}");
        }
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
