//! `gelid check --images`: what is in the way of a restore is said before there is one.

use crate::trial;
use anyhow::{Result, ensure};
use gelid_tests::{Engine, Guest, Started, Verdict, run_to_end};
use libtest_mimic::Trial;
use std::process::Command;
use std::time::Duration;

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("check/images".into(), images)]
}

fn images() -> Result<Verdict> {
    let guest = match Guest::start("regular", None, &[], &[])? {
        Started::Ready(guest) => guest,
        Started::Skip(reason) => return Ok(Verdict::Skipped(reason)),
    };
    let engine = Engine::find()?;
    if engine.is_criu() {
        return Ok(Verdict::Skipped("CRIU has nothing like it".into()));
    }
    let images = guest.images("images");
    let check = || -> Result<_> {
        let mut command = Command::new(engine.program());
        let output = run_to_end(command.arg("check").arg("--images").arg(&images))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), said))
    };
    let root = guest.tree.root();
    engine.dump(root, &images, &["-R"])?.expect("dump")?;
    let (code, said) = check()?;
    ensure!(
        code == Some(1) && said.contains(&format!("pid {root} is taken")),
        "{code:?} {said}"
    );
    engine.dump(root, &images, &[])?.expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    let (code, said) = check()?;
    ensure!(
        code == Some(0) && said == "Looks good.\n",
        "{code:?} {said}"
    );
    Ok(Verdict::Passed)
}
