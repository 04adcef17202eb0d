//! ffmpeg while it encodes without loss: what is in the file in the end is compared with what it was made from.

use super::{LIMIT, cycle, until};
use anyhow::{Context, Result, ensure};
use gelid_tests::{Tree, Verdict, output, rounds, succeeds};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Pictures with a counter, and a tone.
const PICTURES: &str = "testsrc=size=320x240:rate=100";
const TONE: &str = "sine=frequency=440:sample_rate=48000";

/// It is to write so many bytes between two rounds.
const MORE: u64 = 256 << 10;

/// Goes round while it encodes, asks it to end, and looks at the file.
pub(super) fn run() -> Result<Verdict> {
    if !succeeds(Command::new("ffmpeg").arg("-version")) {
        return Ok(Verdict::Skipped("ffmpeg is not installed".into()));
    }
    let dir = tempfile::Builder::new().prefix("gelid-server.").tempdir()?;
    let file = dir.path().join("video.mkv");
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let mut tree = start(dir.path(), &file)?;
    until(|| size(&file) > 0).with_context(log)?;
    for round in 1..=rounds() as u64 {
        let before = size(&file);
        cycle(&mut tree, dir.path(), round, &[])?;
        // It writes more.
        until(|| size(&file) > before + MORE).with_context(log)?;
    }
    let root = Pid::from_raw(tree.root()).context("no root")?;
    kill_process(root, Signal::INT)?;
    let status = tree.await_root(LIMIT).with_context(log)?;
    // What it says when it was asked to end.
    ensure!(status == 255 << 8, "status {status:#x}\n{}", log());
    let found = hashes(&["-i", &file.display().to_string()], "0:v", None)?;
    ensure!(found.len() > 10, "{} pictures", found.len());
    let wanted = hashes(&["-f", "lavfi", "-i", PICTURES], "0:v", Some(found.len()))?;
    ensure!(found == wanted, "other pictures than those that were made");
    let sound = hashes(&["-i", &file.display().to_string()], "0:a", None)?;
    ensure!(sound.len() > 3, "{} pieces of sound", sound.len());
    Ok(Verdict::Passed)
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |data| data.len())
}

fn start(dir: &Path, file: &Path) -> Result<Tree> {
    let log = File::create(dir.join("log"))?;
    let mut command = Command::new("setsid");
    command.args(["ffmpeg", "-nostdin", "-loglevel", "error"]);
    for source in [PICTURES, TONE] {
        // As fast as it would be seen, and no faster.
        command.args(["-re", "-f", "lavfi", "-i", source]);
    }
    command.args(["-c:v", "ffv1", "-c:a", "flac", "-flush_packets", "1"]);
    command.arg(file).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let child = command.current_dir("/").spawn()?;
    Ok(Tree::new(child.id().cast_signed()))
}

/// A hash of each picture or piece of sound, as they are seen and heard.
fn hashes(source: &[&str], stream: &str, count: Option<usize>) -> Result<Vec<String>> {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-loglevel", "error"])
        .args(source);
    command.args(["-map", stream]);
    if let Some(count) = count {
        command.arg("-frames:v").arg(count.to_string());
    }
    if stream.ends_with('v') {
        command.args(["-pix_fmt", "yuv444p"]);
    }
    command.args(["-f", "framemd5", "-"]);
    let text = output(&mut command)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let hashes = lines.filter_map(|line| Some(line.rsplit(',').next()?.trim().to_owned()));
    Ok(hashes.collect())
}
