//! Labels of security modules that tasks are to get.

use std::str::FromStr;

use gelid_image::messages::{InventoryEntry, Lsmtype};
use gelid_sys::lsm::Module;

use super::{Life, Plan};

/// The label that all tasks get, whatever they had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LsmProfile {
    /// None.
    None,
    /// One of a module.
    Of(Module, String),
}

/// A text that says of no label whose it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: expected apparmor:PROFILE, selinux:CONTEXT or none:")]
pub struct NoSuchProfile {
    /// The text.
    pub text: String,
}

impl FromStr for LsmProfile {
    type Err = NoSuchProfile;

    fn from_str(text: &str) -> Result<Self, NoSuchProfile> {
        match text.split_once(':') {
            Some(("apparmor", name)) => Ok(Self::Of(Module::AppArmor, name.to_owned())),
            Some(("selinux", name)) => Ok(Self::Of(Module::Selinux, name.to_owned())),
            Some(("none", _)) => Ok(Self::None),
            _ => Err(NoSuchProfile { text: text.into() }),
        }
    }
}

/// The module that the labels of an image set belong to.
pub(super) fn module(inventory: &InventoryEntry) -> Option<Module> {
    match inventory.lsmtype.map(Lsmtype::try_from) {
        Some(Ok(Lsmtype::Apparmor)) => Some(Module::AppArmor),
        Some(Ok(Lsmtype::Selinux)) => Some(Module::Selinux),
        _ => None,
    }
}

impl Plan {
    /// Decides about the labels of all threads.
    pub(crate) fn give_labels(&mut self, wanted: Option<&LsmProfile>) {
        let module = self.module;
        for life in &mut self.lives {
            let Life::Alive(alive) = life else { continue };
            for thread in &mut alive.threads {
                thread.state.label(module, wanted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_of_a_module() {
        let of = |module, name: &str| Ok(LsmProfile::Of(module, name.to_owned()));
        assert_eq!("apparmor:a:b".parse(), of(Module::AppArmor, "a:b"));
        assert_eq!("selinux:u:r:t:s0".parse(), of(Module::Selinux, "u:r:t:s0"));
        assert_eq!("none:x".parse(), Ok(LsmProfile::None));
        for wrong in ["apparmor", "smack:x", ""] {
            wrong.parse::<LsmProfile>().unwrap_err();
        }
        let inventory = |lsmtype| InventoryEntry {
            lsmtype,
            ..InventoryEntry::default()
        };
        assert_eq!(module(&inventory(None)), None);
        let apparmor = inventory(Some(Lsmtype::Apparmor.into()));
        assert_eq!(module(&apparmor), Some(Module::AppArmor));
    }
}
