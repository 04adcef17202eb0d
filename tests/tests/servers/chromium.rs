//! A browser without a screen: a page whose script counts goes on counting, and is the same page.

use super::{Client, close, cycle, free_port, until};
use anyhow::{Context, Result, ensure};
use gelid_tests::{Tree, Verdict, rounds, succeeds};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// What it needs on both ways.
const OPTIONS: &[&str] = &["--tcp-established", "--file-locks"];

/// It counts in its title, after a number that it has from when it was opened.
const PAGE: &str = "<title>-</title><script>\n\
    const born = Math.random(); let count = 0;\n\
    setInterval(() => { document.title = `page ${born} ${++count}`; }, 20);\n\
    </script>\n";

/// A parent that waits for whoever comes to it, as `init` does: the handler of crashes leaves the browser.
const PARENT: &str = include_str!("parent.py");

/// Goes round while the script runs.
pub(super) fn run() -> Result<Verdict> {
    if !succeeds(Command::new("iptables-restore").arg("--version")) {
        return Ok(Verdict::Skipped("iptables is not installed".into()));
    }
    if !succeeds(Command::new("python3").arg("--version")) {
        return Ok(Verdict::Skipped("Python is not installed".into()));
    }
    if !succeeds(Command::new("chromium").arg("--version")) {
        return Ok(Verdict::Skipped("chromium is not installed".into()));
    }
    let dir = tempfile::Builder::new().prefix("gelid-server.").tempdir()?;
    let client = Client { port: free_port()? };
    let mut tree = start(dir.path(), client.port)?;
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let found = until(|| matches!(title(&client), Ok((_, 10..))));
    tree.look();
    found.with_context(log)?;
    let (born, mut last) = title(&client)?;
    for round in 1..=rounds() as u64 {
        cycle(&mut tree, dir.path(), round, OPTIONS).with_context(log)?;
        let (now, count) = title(&client).with_context(log)?;
        ensure!(now == born, "another page: {now} instead of {born}");
        ensure!(count >= last, "{count} after {last}");
        let goes_on = until(|| matches!(title(&client), Ok((_, later)) if later > count + 5));
        goes_on.with_context(|| format!("round {round}: it counts no more"))?;
        (_, last) = title(&client)?;
    }
    Ok(Verdict::Passed)
}

fn start(dir: &Path, port: u16) -> Result<Tree> {
    let (page, parent) = (dir.join("page.html"), dir.join("parent.py"));
    fs::write(&page, PAGE)?;
    fs::write(&parent, PARENT)?;
    let log = File::create(dir.join("log"))?;
    let mut command = Command::new("setsid");
    command.arg("python3").arg(parent).arg("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu"]);
    command.args(["--disable-quic", "--no-first-run", "--disable-sync"]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
    ]);
    command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    command.arg(format!("--remote-debugging-port={port}"));
    command.arg(format!("file://{}", page.display()));
    command.stdin(Stdio::null()).stdout(log.try_clone()?);
    let child = command.stderr(log).current_dir("/").spawn()?;
    Ok(Tree::new(child.id().cast_signed()))
}

/// What the page has in its title, as the browser tells: its number, and how far it has counted.
fn title(client: &Client) -> Result<(String, u64)> {
    let mut stream = client.connect()?;
    stream.write_all(b"GET /json/list HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = BufReader::new(&stream);
    let (mut line, mut len) = (String::new(), 0);
    // It keeps the connection.
    while !matches!(line.as_str(), "\r\n" | "\n") {
        line.clear();
        ensure!(answer.read_line(&mut line)? > 0, "no answer");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            len = value.trim().parse()?;
        }
    }
    let mut list = String::new();
    answer.take(len).read_to_string(&mut list)?;
    close(stream)?;
    let (_, title) = list.split_once("\"title\": \"page ").context("no page")?;
    let (title, _) = title.split_once('"').context("no end of the title")?;
    let (born, count) = title.split_once(' ').context("no count")?;
    Ok((born.to_owned(), count.parse()?))
}
