//! How memory is protected beyond its permissions, by keys and seals. That comes last of all, when nobody has to put
//! anything there any more.

use std::ops::Range;

use gelid_image::messages::{MmEntry, VmaEntry};
use gelid_sys::pkey;

use super::space::prot;

/// The protection key of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryKey {
    /// What the kernel gives to it, according to its permissions.
    Usual,
    /// The one that the kernel gives to memory which can only be executed.
    ExecuteOnly,
    /// What the program has given to it.
    Own(u32),
}

/// Memory that is protected when everything else is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guarded {
    pub(crate) range: Range<u64>,
    /// `PROT_*`
    pub(crate) prot: u32,
    pub(crate) key: MemoryKey,
    /// Nobody is to change it any more.
    pub(crate) sealed: bool,
}

/// The protection of an address space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Protection {
    /// Bit n: the program has key n.
    pub(crate) allocated: u32,
    /// The key of memory that can only be executed, if its number is known and this machine has keys.
    pub(crate) execute_only: Option<u32>,
    /// Ascending.
    pub(crate) guarded: Vec<Guarded>,
}

impl Protection {
    /// What an image says of keys; areas are still to be [noted](Self::note).
    pub(crate) fn of(mm: &MmEntry) -> Result<Self, &'static str> {
        let allocated = mm.protection_keys.unwrap_or(0);
        let execute_only = mm.execute_only_key;
        let is_there = |key: u32| (1..=pkey::LAST).contains(&key);
        if (0..u32::BITS).any(|key| allocated & 1 << key != 0 && !is_there(key))
            || execute_only.is_some_and(|key| !is_there(key) || allocated & 1 << key != 0)
        {
            return Err("there are keys that cannot be");
        }
        Ok(Self {
            allocated,
            execute_only,
            guarded: Vec::new(),
        })
    }

    /// Takes an area.
    pub(crate) fn note(&mut self, vma: &VmaEntry) -> Result<(), &'static str> {
        let key = match vma.protection_key {
            None => MemoryKey::Usual,
            Some(_) if vma.protection_key == self.execute_only => MemoryKey::ExecuteOnly,
            Some(key) => MemoryKey::Own(key),
        };
        match key {
            MemoryKey::Own(key) if !(1..=pkey::LAST).contains(&key) => {
                return Err("an area has a key that cannot be");
            }
            MemoryKey::ExecuteOnly if vma.prot != prot::EXEC => {
                return Err("an area has a key that its permissions do not go with");
            }
            _ => {}
        }
        if is_guarded(vma) {
            self.guarded.push(Guarded {
                range: vma.start..vma.end,
                prot: vma.prot,
                key,
                sealed: vma.sealed == Some(true),
            });
        }
        Ok(())
    }

    /// Says that all areas are there.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self.execute_only {
            Some(_) if self.executable().is_none() => Err("there is a key without memory"),
            _ => Ok(()),
        }
    }

    /// Some memory that can only be executed, by its key.
    pub(crate) fn executable(&self) -> Option<&Guarded> {
        let mut guarded = self.guarded.iter();
        guarded.find(|area| area.key == MemoryKey::ExecuteOnly)
    }

    /// Keys that the program has, or some memory still has.
    pub(crate) fn own(&self) -> u32 {
        self.guarded
            .iter()
            .fold(self.allocated, |keys, area| match area.key {
                MemoryKey::Own(key) => keys | 1 << key,
                MemoryKey::Usual | MemoryKey::ExecuteOnly => keys,
            })
    }

    /// Whether any memory is sealed.
    pub(crate) fn has_seals(&self) -> bool {
        self.guarded.iter().any(|area| area.sealed)
    }

    /// Leaves all keys to the kernel, of a machine without any.
    pub(crate) fn forget_keys(&mut self) {
        self.execute_only = None;
        for area in &mut self.guarded {
            area.key = MemoryKey::Usual;
        }
    }
}

/// Whether an area gets its protection last.
pub(crate) fn is_guarded(vma: &VmaEntry) -> bool {
    vma.prot == prot::EXEC || vma.protection_key.is_some() || vma.sealed == Some(true)
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

    fn protection(
        protection_keys: Option<u32>,
        execute_only_key: Option<u32>,
    ) -> Result<Protection, &'static str> {
        Protection::of(&MmEntry {
            protection_keys,
            execute_only_key,
            ..MmEntry::default()
        })
    }

    #[test]
    fn memory_that_can_only_be_executed_is_protected_last() {
        let mut protection = protection(None, Some(2)).unwrap();
        assert!(protection.check().is_err());
        for vma in [vma(5, None), vma(4, Some(2)), vma(4, None)] {
            protection.note(&vma).unwrap();
        }
        let keys: Vec<MemoryKey> = protection.guarded.iter().map(|area| area.key).collect();
        assert_eq!(keys, [MemoryKey::ExecuteOnly, MemoryKey::Usual]);
        assert!(protection.check().is_ok());
        assert_eq!(protection.own(), 0);
        assert_eq!((early(&vma(4, None)), early(&vma(3, None))), (5, 3));
    }

    #[test]
    fn keys_are_those_of_the_program_and_of_its_memory() {
        let mut protection = protection(Some(0b1010), None).unwrap();
        let sealed = VmaEntry {
            sealed: Some(true),
            ..vma(1, None)
        };
        for vma in [vma(3, Some(3)), vma(0, Some(5)), vma(3, None), sealed] {
            protection.note(&vma).unwrap();
        }
        assert_eq!(protection.own(), 0b10_1010, "one was freed too early");
        let seals: Vec<bool> = protection.guarded.iter().map(|area| area.sealed).collect();
        assert_eq!(seals, [false, false, true]);
        assert!(protection.has_seals() && protection.check().is_ok());
    }

    #[test]
    fn keys_that_cannot_be_are_refused() {
        for key in [0, 16, 40, u32::MAX] {
            assert!(protection(None, Some(key)).is_err());
            let mut protection = protection(None, Some(2)).unwrap();
            assert!(protection.note(&vma(3, Some(key))).is_err());
        }
        for keys in [1, 1 << 16, u32::MAX] {
            assert!(protection(Some(keys), None).is_err());
        }
        assert!(protection(Some(4), Some(2)).is_err());
        let mut protection = protection(None, Some(2)).unwrap();
        assert!(protection.note(&vma(6, Some(2))).is_err());
    }
}
