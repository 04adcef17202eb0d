//! Who may freeze the processes of others.

use anyhow::bail;
use rustix::thread::CapabilitySet;

use crate::args::Invocation;

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
    if !rustix::process::geteuid().is_root() && !invocation.options.general.unprivileged {
        println!("Running as non-root requires '--unprivileged'");
        bail!("not root, and --unprivileged is not given");
    }
    Ok(())
}
