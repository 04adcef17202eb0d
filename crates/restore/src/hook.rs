//! Moments of a restore at which somebody else is told, and may object: action scripts and notifications.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// Packets may come to a tree that has a network namespace of its own. Nobody can object any more.
    NetworkUnlock,
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
            Self::NetworkUnlock => "network-unlock",
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

/// Who is told, with the root of the tree. The thread of the restore waits meanwhile.
pub trait Listener: Send + Sync {
    /// It is that moment.
    ///
    /// # Errors
    ///
    /// An objection.
    fn told(&self, hook: Hook, root: Pid) -> io::Result<()>;

    /// Takes the master of the tree's console.
    ///
    /// # Errors
    ///
    /// It does not want it: the terminal of the restore stands in then.
    fn console(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        let _ = master;
        Err(io::ErrorKind::Unsupported.into())
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

    /// Gives away the master of a console, if somebody takes it.
    pub(crate) fn console(&self, master: BorrowedFd<'_>) -> bool {
        let Some(listener) = &self.0 else {
            return false;
        };
        let taken = listener.console(master);
        if let Err(error) = &taken {
            tracing::warn!("nobody takes the master of the console: {error}");
        }
        taken.is_ok()
    }

    /// The same listener for another thread, told by whoever [listens](Told::listen).
    pub(crate) fn elsewhere(&self) -> (Self, Told) {
        let (sender, calls) = mpsc::channel::<Call>();
        let told = Told {
            listener: self.0.clone(),
            calls,
        };
        let hooks = self.0.as_ref().map(|_| {
            let elsewhere = Elsewhere(Mutex::new(sender));
            Arc::new(elsewhere) as Arc<dyn Listener>
        });
        (Self(hooks), told)
    }

    pub(crate) fn tell(&self, hook: Hook, root: i32) -> Result<(), Error> {
        let (Some(listener), Some(root)) = (&self.0, Pid::from_raw(root)) else {
            return Ok(());
        };
        let told = listener.told(hook, root);
        told.map_err(|source| Error::Hook { hook, source })
    }

    /// Tells of what cannot be undone.
    pub(crate) fn announce(&self, hook: Hook, root: i32) {
        if let Err(error) = self.tell(hook, root) {
            tracing::error!("{error}");
        }
    }
}

/// What a listener in another thread is told, and where to answer.
type Call = (Message, Sender<io::Result<()>>);

enum Message {
    /// A moment, and the root.
    Moment(Hook, Pid),
    /// The master of a console.
    Console(OwnedFd),
}

/// A listener in another thread.
struct Elsewhere(Mutex<Sender<Call>>);

impl Elsewhere {
    fn call(&self, message: Message) -> io::Result<()> {
        let (answer, answered) = mpsc::channel();
        let gone = || io::Error::other("nobody listens");
        let sender = self.0.lock().map_err(|_| gone())?;
        sender.send((message, answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Listener for Elsewhere {
    fn told(&self, hook: Hook, root: Pid) -> io::Result<()> {
        self.call(Message::Moment(hook, root))
    }

    fn console(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        self.call(Message::Console(master.try_clone_to_owned()?))
    }
}

/// What is told in another thread.
pub(crate) struct Told {
    listener: Option<Arc<dyn Listener>>,
    calls: Receiver<Call>,
}

impl Told {
    /// Tells the listener of everything, until there is nobody any more who could.
    pub(crate) fn listen(self) {
        let Some(listener) = self.listener else {
            return;
        };
        for (message, answer) in self.calls {
            let told = match message {
                Message::Moment(hook, root) => listener.told(hook, root),
                Message::Console(master) => listener.console(master.as_fd()),
            };
            // Whoever has asked waits for it.
            let _ = answer.send(told);
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
