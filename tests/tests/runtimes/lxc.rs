//! LXC: `lxc-checkpoint`, which calls gelid by its command line.

use super::{COUNT, CannotStart, Test, Yard, count, counts_on, remove_everywhere};
use anyhow::Result;
use gelid_tests::{run_to_end, succeeds_alone};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

pub(super) const TESTS: &[Test] = &[("checkpoint", checkpoint)];

/// A container below a yard, ended when it is dropped.
struct Container<'yard>(&'yard Yard);

impl Container<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = self.0.command(program);
        command
            .arg("-P")
            .arg(self.0.at("lxc"))
            .args(["-n", &self.0.name]);
        command
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = run_to_end(self.command("lxc-stop").arg("-k"));
        // LXC's own, on the way to the groups of its containers.
        remove_everywhere("lxc.pivot");
    }
}

fn checkpoint(yard: &Yard) -> Result<()> {
    let folder = format!("lxc/{}", yard.name);
    let root = yard.root(&format!("{folder}/rootfs"))?;
    let init = root.join("bin/init");
    fs::write(&init, format!("#!/bin/sh\n{COUNT}\n"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let config = format!(
        "lxc.uts.name = gelid-test\nlxc.rootfs.path = dir:{}\nlxc.net.0.type = empty\nlxc.tty.max = 0\n\
         lxc.console.path = none\nlxc.mount.auto = proc:mixed sys:ro\nlxc.init.cmd = /bin/init\n\
         lxc.cgroup.dir = {}/c\n",
        root.display(),
        yard.name
    );
    fs::write(yard.at(&folder).join("config"), config)?;
    let container = Container(yard);
    if !succeeds_alone(container.command("lxc-start").arg("-d"))? {
        return Err(CannotStart("lxc-start".to_owned()).into());
    }
    let file = root.join("count");
    counts_on(&file, 0)?;
    let mut dump = container.command("lxc-checkpoint");
    dump.arg("-s").arg("-D").arg(yard.at("images"));
    yard.succeed(&mut dump, &["dump.log"])?;
    let before = count(&file);
    let mut restore = container.command("lxc-checkpoint");
    restore.arg("-r").arg("-D").arg(yard.at("images"));
    yard.succeed(&mut restore, &["restore.log"])?;
    counts_on(&file, before)?;
    Ok(())
}
