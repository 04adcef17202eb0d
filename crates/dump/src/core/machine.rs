//! What holds for all threads alike on the machine of the dumper: looked at while the tree still runs, as a processor
//! takes its time to say what it has (`cpuid` is answered by the host of a virtual machine).

use gelid_sys::arch::XLayout;
use gelid_sys::lsm::{self, Module};

use super::Error;
use super::sched::Defaults;

/// The machine, as the dumper sees it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) defaults: Defaults,
    /// Where vector registers are in what the kernel tells of them.
    pub(super) vectors: XLayout,
    /// The security module that is at work.
    pub(super) module: Option<Module>,
}

impl Machine {
    /// Looks at it.
    ///
    /// # Errors
    ///
    /// If the dumper is not told how it is scheduled itself.
    pub(crate) fn look() -> Result<Self, Error> {
        Ok(Self {
            defaults: Defaults::look()?,
            vectors: XLayout::look(),
            module: lsm::active(),
        })
    }
}
