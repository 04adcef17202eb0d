//! Who may freeze the processes of others.

use anyhow::bail;
use rustix::process::DumpableBehavior;
use rustix::thread::CapabilitySet;

use crate::args::Invocation;

/// Whether the caller is root, who may change cgroups.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Refuses a caller that lacks the capabilities, or is not root without having said `--unprivileged`.
pub(crate) fn check(invocation: &Invocation) -> anyhow::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    let enough = CapabilitySet::SYS_ADMIN | CapabilitySet::CHECKPOINT_RESTORE;
    if !sets.effective.intersects(enough) {
        let binary = std::env::current_exe().unwrap_or_default();
        println!(
            "{} needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: setcap cap_checkpoint_restore+eip {}",
            invocation.identity.name(),
            binary.display()
        );
        bail!("the capability to checkpoint is missing");
    }
    if is_root() {
        return Ok(());
    }
    if !invocation.options.general.unprivileged {
        println!("Running as non-root requires '--unprivileged'");
        bail!("not root, and --unprivileged is not given");
    }
    // Capabilities that come from the executable take a process its own files in procfs away, which belong to root then.
    // Who has fewer of them still may not trace it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}
