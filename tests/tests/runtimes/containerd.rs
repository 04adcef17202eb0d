//! containerd: `ctr` checkpoints a container to an image, and restores another one from it.

use super::{COUNT, CannotStart, Test, Yard, counting, said};
use anyhow::{Context, Result};
use gelid_tests::{Running, run_to_end};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const TESTS: &[Test] = &[("checkpoint", checkpoint)];

const IMAGE: &str = "gelid.test/root:latest";
const CHECKPOINT: &str = "gelid.test/checkpoint:latest";

/// A daemon of its own, ended with its containers when it is dropped.
struct Containerd<'yard> {
    yard: &'yard Yard,
    daemon: Option<Running>,
}

impl<'yard> Containerd<'yard> {
    fn start(yard: &'yard Yard) -> Result<Self> {
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n",
            yard.at("root"),
            yard.at("state"),
            yard.at("c.sock")
        );
        fs::write(yard.at("config.toml"), config)?;
        let mut command = yard.command("containerd");
        command.arg("-c").arg(yard.at("config.toml"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let daemon = Running::start(&mut command).context("containerd")?;
        let containerd = Self {
            yard,
            daemon: Some(daemon),
        };
        let start = Instant::now();
        while !run_to_end(&mut containerd.ctr(&["version"]))?
            .status
            .success()
        {
            if start.elapsed() > super::LIMIT {
                return Err(CannotStart("containerd does not come up".to_owned()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(containerd)
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let mut command = self.yard.command("ctr");
        command.arg("-a").arg(self.yard.at("c.sock")).args(words);
        command
    }

    fn succeed(&self, words: &[&str]) -> Result<String> {
        let logs = ["dump.log", "criu-dump.log", "restore.log"];
        self.yard.succeed(&mut self.ctr(words), &logs)
    }

    fn count(&self, name: &str) -> Result<u64> {
        let words = ["t", "exec", "--exec-id", "look", name, "cat", "/count"];
        let text = self.succeed(&words)?;
        text.trim().parse().with_context(|| format!("{text:?}"))
    }

    fn counts_on(&self, name: &str, from: u64) -> Result<u64> {
        counting(from, || self.count(name)).with_context(|| name.to_owned())
    }

    fn remove(&self, name: &str) {
        let _ = run_to_end(&mut self.ctr(&["t", "kill", "-s", "9", name]));
        let start = Instant::now();
        while run_to_end(&mut self.ctr(&["t", "delete", name]))
            .is_ok_and(|done| !done.status.success())
            && start.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = run_to_end(&mut self.ctr(&["c", "delete", name]));
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        self.remove("one");
        self.remove("two");
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
        }
    }
}

/// The root file system as an image in the layout of OCI, in one archive.
fn image(yard: &Yard) -> Result<PathBuf> {
    let blobs = yard.at("oci/blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = yard.at("layer.tar");
    let mut tar = yard.command("tar");
    tar.arg("-C")
        .arg(yard.root("rootfs")?)
        .arg("-cf")
        .arg(&layer)
        .arg(".");
    yard.succeed(&mut tar, &[])?;
    let blob = |file: &Path| -> Result<(String, u64)> {
        let sum = yard.succeed(yard.command("sha256sum").arg(file), &[])?;
        let sum = sum.split(' ').next().context("sha256sum")?.to_owned();
        let size = fs::copy(file, blobs.join(&sum))?;
        Ok((sum, size))
    };
    let text = |name: &str, text: String| -> Result<(String, u64)> {
        fs::write(yard.at(name), text)?;
        blob(&yard.at(name))
    };
    let (layer, layer_size) = blob(&layer)?;
    let kind = "application/vnd.oci.image";
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
    );
    let (config, config_size) = text("config", config)?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json",
        "config":{{"mediaType":"{kind}.config.v1+json","digest":"sha256:{config}","size":{config_size}}},
        "layers":[{{"mediaType":"{kind}.layer.v1.tar","digest":"sha256:{layer}","size":{layer_size}}}]}}"#
    );
    let (manifest, size) = text("manifest", manifest)?;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}.manifest.v1+json",
        "digest":"sha256:{manifest}","size":{size},"platform":{{"architecture":"amd64","os":"linux"}},
        "annotations":{{"io.containerd.image.name":"{IMAGE}"}}}}]}}"#
    );
    fs::write(yard.at("oci/index.json"), index)?;
    fs::write(
        yard.at("oci/oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let archive = yard.at("image.tar");
    let mut tar = yard.command("tar");
    tar.arg("-C").arg(yard.at("oci")).arg("-cf").arg(&archive);
    yard.succeed(tar.args(["oci-layout", "index.json", "blobs"]), &[])?;
    Ok(archive)
}

fn checkpoint(yard: &Yard) -> Result<()> {
    let archive = image(yard)?;
    let containerd = Containerd::start(yard)?;
    let mut import = containerd.ctr(&["i", "import", "--snapshotter", "native"]);
    let words = ["run", "-d", "--null-io", "--snapshotter", "native"];
    let mut run = containerd.ctr(&words);
    run.arg("--cgroup").arg(format!("/{}/one", yard.name));
    run.args([IMAGE, "one", "sh", "-c", COUNT]);
    for command in [import.arg(archive), &mut run] {
        let output = run_to_end(command)?;
        if !output.status.success() {
            return Err(CannotStart(format!("ctr: {}", said(&output))).into());
        }
    }
    let before = containerd.counts_on("one", 0)?;
    containerd.succeed(&["c", "checkpoint", "--rw", "--task", "one", CHECKPOINT])?;
    // It runs on.
    containerd.counts_on("one", before)?;
    containerd.remove("one");
    containerd.succeed(&["c", "restore", "--rw", "--live", "two", CHECKPOINT])?;
    containerd.counts_on("two", before)?;
    Ok(())
}
