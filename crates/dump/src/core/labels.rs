//! Labels of security modules: AppArmor profiles, SELinux contexts.

use gelid_image::messages::{CoreEntry, Lsmtype};
use gelid_sys::lsm::{self, Module};
use gelid_sys::{Pid, proc};

use super::{Cores, Error};

/// Adds the labels of all threads to their records.
pub(super) fn add(cores: &mut [Cores], module: Module) -> Result<(), Error> {
    for cores in cores {
        let process = proc::task_dir(cores.pid)?;
        let label = |tid: Pid, core: &mut CoreEntry| {
            let labels = lsm::labels(&process.thread(tid)?, module)?;
            let thread = core.thread_core.as_mut();
            if let Some(creds) = thread.and_then(|thread| thread.creds.as_mut()) {
                (creds.lsm_profile, creds.lsm_sockcreate) = (labels.own, labels.sockets);
            }
            Ok::<_, Error>(())
        };
        label(cores.pid, &mut cores.leader)?;
        for (tid, core) in &mut cores.threads {
            label(*tid, core)?;
        }
    }
    Ok(())
}

/// What the inventory says of the module.
pub(crate) fn module() -> Lsmtype {
    match lsm::active() {
        None => Lsmtype::NoLsm,
        Some(Module::AppArmor) => Lsmtype::Apparmor,
        Some(Module::Selinux) => Lsmtype::Selinux,
    }
}
