//! `cargo xtask dump`: the first command of the README, and the engine on any tree.
//!
//! Without a target it starts the sample program, tells it a nonce, dumps and thereby ends it, restores it and
//! asks for the nonce. Every figure that is printed was measured in this run.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{as_root, output};
use crate::sample::{self, Account, Sample};
use crate::{dist, workspace};

/// Bytes in a page, the unit of `--display-stats`.
const PAGE_SIZE: u64 = 4096;

/// Options of `cargo xtask dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Dump the tree under this process instead of the sample
    #[arg(short, long, value_name = "PID", requires = "images_dir")]
    tree: Option<u32>,
    /// Folder for the images
    #[arg(short = 'D', long, value_name = "DIR", requires = "tree")]
    images_dir: Option<PathBuf>,
    /// More options for `gelid dump`, after `--`
    #[arg(last = true)]
    options: Vec<String>,
}

impl Args {
    /// Dumps the given tree, or the sample.
    pub(crate) fn run(self) -> Result<()> {
        let gelid = dist::build()?;
        match (self.tree, self.images_dir) {
            (Some(pid), Some(images)) => {
                let images = std::path::absolute(images)?;
                fs::create_dir_all(&images).context("creating the folder for the images")?;
                let tasks = count_tasks(pid)?;
                let dump = dump(&gelid, pid, &images, &self.options)?;
                println!("{}", dump.account(tasks, &images)?);
                println!("images    {}", images.display());
                Ok(())
            }
            _ => demonstrate(&gelid, &self.options),
        }
    }
}

/// The whole story with the sample.
fn demonstrate(gelid: &Path, options: &[String]) -> Result<()> {
    let python = sample::python()?;
    let (files, images) = empty_folders()?;
    let mut sample = Sample::start(&python, &files)?;
    let nonce = nonce()?;
    let before = sample.ask(&format!("nonce {nonce}"))?;
    ensure!(
        before.wrong.is_empty(),
        "the sample is wrong before the dump: {:?}",
        before.wrong
    );
    let pid = sample.pid();
    println!(
        "sample    {}, pid {pid}: {} threads, {} descriptors, {} MiB resident",
        python.display(),
        before.threads,
        count_descriptors(pid)?,
        resident_mib(pid)?
    );

    let tasks = count_tasks(pid)?;
    let dump = dump(gelid, pid, &images, options)?;
    println!("{}", dump.account(tasks, &images)?);
    let status = sample.wait()?;
    ensure!(
        status.signal().is_some(),
        "the sample ended by itself: {status}"
    );
    ensure!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "pid {pid} is still there"
    );
    println!("dead      {status}; /proc/{pid} is gone");

    let restore = restore(gelid, &images)?;
    println!("restore   {:.1} ms in all", milliseconds(restore.wall));
    let after = sample.ask("ask")?;
    compare(&before, &after, &nonce)?;
    std::thread::sleep(Duration::from_millis(200));
    let later = sample.ask("ask")?;
    compare(&after, &later, &nonce)?;
    ensure!(
        later.rows > after.rows && later.piped > after.piped,
        "the sample stands still"
    );
    sample.end()?;
    println!(
        "alive     pid {}, nonce {}... from its memory; records {} -> {} -> {}, rows {} -> {} -> {}, \
         piped {} -> {} -> {}, queued {} -> {} -> {}; nothing lost",
        later.pid,
        &nonce[..8],
        before.records,
        after.records,
        later.records,
        before.rows,
        after.rows,
        later.rows,
        before.piped,
        after.piped,
        later.piped,
        before.queued,
        after.queued,
        later.queued,
    );
    println!("images    {}", images.display());
    Ok(())
}

/// The restored sample is the one that was dumped, and has lost nothing.
fn compare(before: &Account, after: &Account, nonce: &str) -> Result<()> {
    ensure!(
        after.nonce.as_deref() == Some(nonce),
        "the nonce is {:?}, not {nonce}",
        after.nonce
    );
    ensure!(
        after.wrong.is_empty(),
        "the sample is wrong: {:?}",
        after.wrong
    );
    ensure!(
        after.pid == before.pid,
        "pid {} became {}",
        before.pid,
        after.pid
    );
    ensure!(
        after.threads == before.threads,
        "{} threads became {}",
        before.threads,
        after.threads
    );
    let counters = |account: &Account| {
        [
            account.records,
            account.rows,
            account.logged,
            account.piped,
            account.queued,
        ]
    };
    let back = counters(before)
        .iter()
        .zip(counters(after))
        .any(|(before, after)| after < *before);
    ensure!(!back, "a counter went back: {before:?} became {after:?}");
    Ok(())
}

/// What a run of gelid told and took.
struct Run {
    wall: Duration,
    statistics: String,
}

impl Run {
    /// A number that `--display-stats` prints after a name and a colon.
    fn statistic(&self, name: &str) -> Result<u64> {
        self.statistics
            .lines()
            .find_map(|line| {
                line.trim()
                    .strip_prefix(name)?
                    .trim_start()
                    .strip_prefix(':')
            })
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("no {name:?} in the statistics: {}", self.statistics))
    }

    /// One line about a dump.
    fn account(&self, tasks: usize, images: &Path) -> Result<String> {
        let pages = self.statistic("Memory pages written")?;
        let frozen = self.statistic("Frozen time")?;
        let (packed, all) = image_bytes(images)?;
        Ok(format!(
            "dump      {tasks} tasks, {pages} pages: {:.1} MiB raw, {:.1} MiB packed, {:.1} MiB with all records; \
             frozen {:.1} ms, {:.1} ms in all",
            mib(pages * PAGE_SIZE),
            mib(packed),
            mib(all),
            frozen as f64 / 1e3,
            milliseconds(self.wall),
        ))
    }
}

fn dump(gelid: &Path, pid: u32, images: &Path, options: &[String]) -> Result<Run> {
    let pid = pid.to_string();
    gelid_run(
        gelid,
        images,
        "dump.log",
        &["dump", "--tree", &pid],
        options,
    )
}

fn restore(gelid: &Path, images: &Path) -> Result<Run> {
    gelid_run(
        gelid,
        images,
        "restore.log",
        &["restore", "--restore-detached"],
        &[],
    )
}

/// Runs gelid with its log beside the images; if it fails, the errors of the log are part of the error.
fn gelid_run(
    gelid: &Path,
    images: &Path,
    log: &str,
    command: &[&str],
    options: &[String],
) -> Result<Run> {
    let start = Instant::now();
    let run = output(
        as_root(gelid)
            .args(command)
            .arg("--images-dir")
            .arg(images)
            .args(["--display-stats", "-v4", "--log-file", log])
            .args(options),
    );
    let wall = start.elapsed();
    match run {
        Ok(statistics) => Ok(Run { wall, statistics }),
        Err(error) => {
            let log = images.join(log);
            let text = fs::read_to_string(&log).unwrap_or_default();
            let said: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("Error ("))
                .collect();
            bail!(
                "{error:#}\n{}\nthe whole log: {}",
                said.join("\n"),
                log.display()
            )
        }
    }
}

/// `target/demo/files` and `target/demo/images`, new and empty.
fn empty_folders() -> Result<(PathBuf, PathBuf)> {
    let metadata = workspace::members(&workspace::root().join("Cargo.toml"))?;
    let demo = metadata.target_directory.join("demo");
    if demo.exists() {
        // The images of a run through sudo belong to root.
        output(as_root("rm").args(["-rf", "--"]).arg(&demo))?;
    }
    let folders = (demo.join("files"), demo.join("images"));
    fs::create_dir_all(&folders.0).context("creating target/demo/files")?;
    fs::create_dir_all(&folders.1).context("creating target/demo/images")?;
    Ok(folders)
}

/// 128 bits that were on no disk, in hexadecimal.
fn nonce() -> Result<String> {
    let mut bytes = [0_u8; 16];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes of the page files, and of all files, of an image folder.
fn image_bytes(images: &Path) -> Result<(u64, u64)> {
    let (mut pages, mut all) = (0, 0);
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = entry.metadata()?.len();
        if !name.as_encoded_bytes().ends_with(b".log") {
            all += bytes;
        }
        if name.as_encoded_bytes().starts_with(b"pages-") {
            pages += bytes;
        }
    }
    Ok((pages, all))
}

/// Threads of all processes of the tree under `pid`.
fn count_tasks(pid: u32) -> Result<usize> {
    let mut tasks = 0;
    let mut processes = vec![pid];
    while let Some(pid) = processes.pop() {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("there is no process {pid}"))?;
        for thread in threads {
            tasks += 1;
            let children = thread?.path().join("children");
            let text = fs::read_to_string(children).unwrap_or_default();
            processes.extend(
                text.split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    Ok(tasks)
}

fn count_descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// `VmRSS` of a process.
fn resident_mib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    Ok(kib.context("no VmRSS in the status")? / 1024)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::Run;

    #[test]
    fn finds_a_statistic() {
        let statistics =
            "Displaying dump stats:\nFrozen time: 25370 us\nMemory pages written: 3141 (0xc45)\n"
                .to_owned();
        let run = Run {
            wall: std::time::Duration::ZERO,
            statistics,
        };
        assert_eq!(run.statistic("Frozen time").unwrap(), 25370);
        assert_eq!(run.statistic("Memory pages written").unwrap(), 3141);
        assert!(run.statistic("Forking time").is_err());
    }
}
