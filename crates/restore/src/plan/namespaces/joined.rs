//! Namespaces of the caller's that the root of the tree is to be in, instead of new ones: `--join-ns`.

use std::path::PathBuf;

use gelid_sys::proc::ns::Kind;

use super::super::{Plan, PlanError};

/// Namespaces that the caller gives, by kind: host names, System V IPC, clocks. That of the network is said with
/// [`NetOptions`](crate::NetOptions).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinOptions {
    /// The host, by its name in `/proc`.
    pub uts: Option<PathBuf>,
    /// System V IPC and message queues, which must not be among what is restored then.
    pub ipc: Option<PathBuf>,
    /// Clocks.
    pub time: Option<PathBuf>,
}

impl JoinOptions {
    /// All that are given.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Kind, &PathBuf)> {
        let all = [
            (Kind::Uts, &self.uts),
            (Kind::Ipc, &self.ipc),
            (Kind::Time, &self.time),
        ];
        let given = all.into_iter();
        given.filter_map(|(kind, path)| Some((kind, path.as_ref()?)))
    }
}

impl Plan {
    /// Has the root be in what the caller gives.
    pub(crate) fn join(&mut self, options: &JoinOptions) -> Result<(), PlanError> {
        let namespaces = &mut self.namespaces;
        for (kind, _) in options.all() {
            namespaces.root.retain(|(own, _)| *own != kind);
            namespaces.is_joined = true;
            match kind {
                Kind::Uts => namespaces.uts = None,
                Kind::Time => namespaces.time = None,
                _ => {
                    let ipc = &mut self.ipc;
                    let variables = ipc.variables.take();
                    let posix = variables.is_some_and(|variables| !variables.posix.is_empty());
                    let has_any = posix
                        || !ipc.segments.is_empty()
                        || !ipc.sets.is_empty()
                        || !ipc.queues.is_empty();
                    if has_any {
                        return Err(PlanError::JoinedIpc);
                    }
                }
            }
        }
        Ok(())
    }
}
