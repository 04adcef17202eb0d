//! Who is told of the moments of a dump or restore, and may object: first the client of a request, then scripts.

use std::io;
use std::os::fd::BorrowedFd;

use gelid_dump::Hooks as DumpHooks;
use gelid_restore::Hooks as RestoreHooks;
use gelid_rpc::Notifier;
use rustix::process::Pid;

use crate::action_scripts::Scripts;

/// A client of a request.
#[derive(Default)]
pub(crate) struct Client {
    /// By which it is told of moments, if it wants that.
    pub(crate) notifier: Option<Notifier>,
    /// Inode of the socket that it is connected with.
    pub(crate) socket: Option<u32>,
}

/// Whoever is told.
#[derive(Default)]
pub(crate) struct Audience {
    client: Option<Notifier>,
    scripts: Option<Scripts>,
}

impl Audience {
    /// A client, if it has asked for it, and scripts, if there are any.
    pub(crate) fn new(client: Option<Notifier>, scripts: Option<Scripts>) -> Self {
        Self { client, scripts }
    }

    /// Tells of a moment.
    ///
    /// # Errors
    ///
    /// The first objection.
    pub(crate) fn tell(&self, action: &str, root: Option<Pid>) -> io::Result<()> {
        if let Some(client) = &self.client {
            // The only moments at which clients expect it.
            let told = ["setup-namespaces", "post-restore"].contains(&action);
            let root = root.filter(|_| told).map(Pid::as_raw_pid);
            client.tell(action, root)?;
        }
        match &self.scripts {
            Some(scripts) => scripts.run(action, root),
            None => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.client.is_none() && self.scripts.is_none()
    }

    /// For a dump.
    pub(crate) fn of_dump(self) -> DumpHooks {
        match self.is_empty() {
            true => DumpHooks::default(),
            false => DumpHooks::new(self),
        }
    }

    /// For a restore.
    pub(crate) fn of_restore(self) -> RestoreHooks {
        match self.is_empty() {
            true => RestoreHooks::default(),
            false => RestoreHooks::new(self),
        }
    }
}

impl gelid_dump::Listener for Audience {
    fn told(&self, hook: gelid_dump::Hook, root: Pid) -> io::Result<()> {
        self.tell(hook.name(), Some(root))
    }

    fn external(&self, _: Pid) -> io::Result<Vec<String>> {
        let Some(client) = &self.client else {
            return Ok(Vec::new());
        };
        let answer = client.tell("query-ext-files", None)?;
        let keys = answer.map(|options| options.external).unwrap_or_default();
        let text = |key| String::from_utf8(key).map_err(io::Error::other);
        keys.into_iter().map(text).collect()
    }
}

impl gelid_restore::Listener for Audience {
    fn told(&self, hook: gelid_restore::Hook, root: Pid) -> io::Result<()> {
        self.tell(hook.name(), Some(root))
    }

    fn console(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        match &self.client {
            Some(client) => client
                .tell_with("orphan-pts-master", None, Some(master))
                .map(drop),
            None => Err(io::Error::other("there is no client")),
        }
    }
}
