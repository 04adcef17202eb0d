//! podman over runc: checkpoints in place, and archives that are restored under several names.

use super::{COUNT, CannotStart, Test, Yard, counting, said};
use anyhow::{Context, Result, ensure};
use gelid_tests::run_to_end;
use std::fs;
use std::process::Command;

pub(super) const TESTS: &[Test] = &[("checkpoint", checkpoint), ("archive", archive)];

/// What `checkpointctl` looks for in an archive.
const READ_BY_OTHERS: &[&str] = &[
    "checkpoint/inventory.img",
    "checkpoint/pstree.img",
    "checkpoint/core-1.img",
    "checkpoint/pagemap-1.img",
    "checkpoint/pages-1.img",
    "checkpoint/files.img",
    "config.dump",
    "spec.dump",
    "stats-dump",
    "network.status",
];

/// podman with everything of its own below a yard; its containers are removed when it is dropped.
struct Podman<'yard>(&'yard Yard);

impl<'yard> Podman<'yard> {
    fn start(yard: &'yard Yard) -> Result<Self> {
        let podman = Self(yard);
        let root = yard.root("rootfs")?;
        fs::write(
            yard.at("containers.conf"),
            "[containers]\ndefault_sysctls = []\n[engine]\nlock_type = \"file\"\n",
        )?;
        let archive = yard.at("root.tar");
        let mut tar = yard.command("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
        yard.succeed(&mut tar, &[])?;
        let mut import = podman.command(&["import"]);
        import.arg(&archive).arg("gelid-test:latest");
        let mut run = podman.command(&["run", "-d", "--network", "none"]);
        run.args([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=4096:4096",
        ]);
        run.arg("--cgroup-parent").arg(format!("/{}", yard.name));
        run.args(["--name", "one", "gelid-test:latest", "sh", "-c", COUNT]);
        for command in [&mut import, &mut run] {
            let output = run_to_end(command)?;
            if !output.status.success() {
                return Err(CannotStart(format!("podman: {}", said(&output))).into());
            }
        }
        podman.counts_on("one", 0)?;
        Ok(podman)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.0.command("podman");
        command.env("CONTAINERS_CONF", self.0.at("containers.conf"));
        command.env("TMPDIR", self.0.at(""));
        for (option, folder) in [
            ("--root", "root"),
            ("--runroot", "runroot"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(self.0.at(folder));
        }
        command.args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs"]);
        command.args(["--runtime=runc", "--events-backend=none"]);
        command.args(words);
        command
    }

    fn succeed(&self, words: &[&str]) -> Result<String> {
        let logs = ["dump.log", "restore.log"];
        self.0.succeed(&mut self.command(words), &logs)
    }

    fn count(&self, name: &str) -> Result<u64> {
        let text = self.succeed(&["exec", name, "cat", "/count"])?;
        text.trim().parse().with_context(|| format!("{text:?}"))
    }

    /// Waits until a container counts on.
    fn counts_on(&self, name: &str, from: u64) -> Result<u64> {
        counting(from, || self.count(name)).with_context(|| name.to_owned())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = run_to_end(&mut self.command(&["rm", "-af", "-t0"]));
    }
}

fn checkpoint(yard: &Yard) -> Result<()> {
    let podman = Podman::start(yard)?;
    let before = podman.count("one")?;
    podman.succeed(&["container", "checkpoint", "one"])?;
    podman.succeed(&["container", "restore", "one"])?;
    let before = podman.counts_on("one", before)?;
    podman.succeed(&["container", "checkpoint", "--leave-running", "one"])?;
    podman.counts_on("one", before)?;
    Ok(())
}

fn archive(yard: &Yard) -> Result<()> {
    let podman = Podman::start(yard)?;
    let before = podman.count("one")?;
    let archive = yard.at("checkpoint.tar.zst").display().to_string();
    let words = ["container", "checkpoint", "--print-stats", "--export"];
    let stats = podman.succeed(&[&words[..], &[&archive, "one"]].concat())?;
    ensure!(stats.contains("pages_written"), "{stats}");
    let mut list = yard.command("tar");
    let members = yard.succeed(list.arg("-tf").arg(&archive), &[])?;
    for member in READ_BY_OTHERS {
        ensure!(members.lines().any(|line| line == *member), "no {member}");
    }
    podman.succeed(&["rm", "one"])?;
    podman.succeed(&["container", "restore", "--import", &archive])?;
    podman.counts_on("one", before)?;
    for name in ["two", "three"] {
        let words = ["container", "restore", "--import", &archive, "--name", name];
        let addresses = ["--ignore-static-ip", "--ignore-static-mac"];
        podman.succeed(&[&words[..], &addresses].concat())?;
        podman.counts_on(name, before)?;
    }
    let plain = yard.at("checkpoint.tar").display().to_string();
    let words = ["container", "checkpoint", "-c", "none", "--export", &plain];
    podman.succeed(&[&words[..], &["two"]].concat())?;
    podman.succeed(&["rm", "-f", "-t0", "three"])?;
    podman.succeed(&[
        "container",
        "restore",
        "--import",
        &plain,
        "--name",
        "three",
    ])?;
    podman.counts_on("three", before)?;
    Ok(())
}
