//! How memory is protected beyond its permissions, which comes last of all: the kernel gives a protection key to what
//! can only be executed, and that key has a number.

use std::ops::Range;

use gelid_image::messages::{MmEntry, VmaEntry};
use gelid_sys::pkey;

use super::space::prot;

/// Memory that is protected when everything else is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guarded {
    pub(crate) range: Range<u64>,
    /// `PROT_*`
    pub(crate) prot: u32,
    /// It has the key that the kernel gives to what can only be executed.
    pub(crate) is_kernels: bool,
}

/// The protection of an address space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Protection {
    /// The key of memory that can only be executed, if its number is known and this machine has keys.
    pub(crate) execute_only: Option<u32>,
    /// Ascending.
    pub(crate) guarded: Vec<Guarded>,
}

impl Protection {
    /// What an image says of keys; areas are still to be [noted](Self::note).
    pub(crate) fn of(mm: &MmEntry) -> Result<Self, &'static str> {
        match mm.execute_only_key {
            Some(key) if !(1..=pkey::LAST).contains(&key) => Err("there is no such key"),
            execute_only => Ok(Self {
                execute_only,
                guarded: Vec::new(),
            }),
        }
    }

    /// Takes an area.
    pub(crate) fn note(&mut self, vma: &VmaEntry) -> Result<(), &'static str> {
        let is_kernels = vma.protection_key.is_some() && vma.protection_key == self.execute_only;
        if vma.protection_key.is_some() && !(is_kernels && vma.prot == prot::EXEC) {
            return Err("an area has a key that cannot be");
        }
        if is_guarded(vma) {
            self.guarded.push(Guarded {
                range: vma.start..vma.end,
                prot: vma.prot,
                is_kernels,
            });
        }
        Ok(())
    }

    /// Says that all areas are there.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let has_memory = self.guarded.iter().any(|area| area.is_kernels);
        match self.execute_only {
            Some(_) if !has_memory => Err("there is a key without memory"),
            _ => Ok(()),
        }
    }

    /// Gives up what this machine does not have, if that makes no difference.
    pub(crate) fn suit(&mut self, has_keys: bool) {
        if !has_keys {
            self.execute_only = None;
        }
    }
}

/// Whether an area gets its protection last.
pub(crate) fn is_guarded(vma: &VmaEntry) -> bool {
    vma.prot == prot::EXEC
}

/// The permissions until then.
pub(crate) fn early(vma: &VmaEntry) -> u32 {
    match vma.prot {
        prot::EXEC => prot::EXEC | prot::READ,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vma(prot: u32, protection_key: Option<u32>) -> VmaEntry {
        VmaEntry {
            start: 0x1000,
            end: 0x2000,
            prot,
            protection_key,
            ..VmaEntry::default()
        }
    }

    fn protection(execute_only_key: Option<u32>) -> Result<Protection, &'static str> {
        Protection::of(&MmEntry {
            execute_only_key,
            ..MmEntry::default()
        })
    }

    #[test]
    fn memory_that_can_only_be_executed_is_protected_last() {
        let mut protection = protection(Some(2)).unwrap();
        assert!(protection.check().is_err());
        for vma in [vma(5, None), vma(4, Some(2)), vma(4, None)] {
            protection.note(&vma).unwrap();
        }
        let kernels: Vec<bool> = protection
            .guarded
            .iter()
            .map(|area| area.is_kernels)
            .collect();
        assert_eq!(kernels, [true, false]);
        assert!(protection.check().is_ok());
        assert_eq!((early(&vma(4, None)), early(&vma(3, None))), (5, 3));
    }

    #[test]
    fn keys_that_cannot_be_are_refused() {
        for key in [0, 16, u32::MAX] {
            assert!(protection(Some(key)).is_err());
        }
        let mut protection = protection(Some(2)).unwrap();
        assert!(protection.note(&vma(4, Some(3))).is_err());
        assert!(protection.note(&vma(6, Some(2))).is_err());
    }
}
