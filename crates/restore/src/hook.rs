//! Moments of a restore at which somebody else is told, and may object: action scripts and notifications.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use gelid_sys::Pid;

use crate::Error;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// The root of the tree is there, in namespaces that are empty.
    SetupNamespaces,
    /// The namespaces are as they were.
    PostSetupNamespaces,
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
            Self::SetupNamespaces => "setup-namespaces",
            Self::PostSetupNamespaces => "post-setup-namespaces",
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

    /// The same listener for another thread, told by whoever [listens](Told::listen).
    pub(crate) fn elsewhere(&self) -> (Self, Told) {
        let (sender, calls) = mpsc::channel::<Call>();
        let told = Told {
            listener: self.0.clone(),
            calls,
        };
        let hooks = self.0.as_ref().map(|_| {
            let sender = Mutex::new(sender);
            Arc::new(move |hook, root| {
                let (answer, answered) = mpsc::channel();
                let gone = || io::Error::other("nobody listens");
                let sender = sender.lock().map_err(|_| gone())?;
                sender.send((hook, root, answer)).map_err(|_| gone())?;
                answered.recv().map_err(|_| gone())?
            }) as Arc<Listener>
        });
        (Self(hooks), told)
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

/// A moment, the root, and where to answer.
type Call = (Hook, Pid, Sender<io::Result<()>>);

/// What is told in another thread.
pub(crate) struct Told {
    listener: Option<Arc<Listener>>,
    calls: Receiver<Call>,
}

impl Told {
    /// Tells the listener of everything, until there is nobody any more who could.
    pub(crate) fn listen(self) {
        let Some(listener) = self.listener else {
            return;
        };
        for (hook, root, answer) in self.calls {
            // Whoever has asked waits for it.
            let _ = answer.send(listener(hook, root));
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
