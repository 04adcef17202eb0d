//! Real servers, dumped and restored again and again while a client of theirs looks on.
//!
//! Whatever a server knows it has been told by its client, which keeps count: a server that was started anew would
//! not know it. `GELID_ROUNDS` sets how often each goes round.

mod chromium;
mod ffmpeg;
mod postgresql;
mod sshd;
mod stress;

use crate::trial;
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Tree, Verdict, rounds, succeeds};
use libtest_mimic::Trial;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A server may take this long to start, or to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A server, and how its client speaks.
struct Server {
    name: &'static str,
    probe: &'static [&'static str],
    /// Program and arguments; `{dir}` stands for its folder, `{port}` for where it listens.
    words: &'static [&'static str],
    /// Files in its folder, with the same words replaced.
    files: &'static [(&'static str, &'static str)],
    /// What a client asks that stays connected, and how the answer begins.
    kept: Option<(&'static str, &'static str)>,
    /// It is connected to itself.
    connected: bool,
    /// Tells the server a number, and finds that it has kept what it was told before.
    talk: fn(&mut Client, u64) -> Result<()>,
}

const SERVERS: &[Server] = &[
    Server {
        name: "redis",
        probe: &["redis-server", "--version"],
        words: &[
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            "{port}",
            "--dir",
            "{dir}",
            "--save",
            "",
            "--appendonly",
            "yes",
        ],
        files: &[],
        kept: Some(("PING\r\n", "+PONG")),
        connected: false,
        talk: redis,
    },
    Server {
        name: "memcached",
        probe: &["memcached", "-V"],
        words: &[
            "memcached",
            "-u",
            "root",
            "-l",
            "127.0.0.1",
            "-p",
            "{port}",
            "-U",
            "0",
        ],
        files: &[],
        kept: Some(("version\r\n", "VERSION")),
        connected: false,
        talk: memcached,
    },
    Server {
        name: "nginx",
        probe: &["nginx", "-v"],
        words: &["nginx", "-p", "{dir}", "-c", "{dir}/nginx.conf"],
        files: &[("nginx.conf", include_str!("servers/nginx.conf"))],
        kept: Some(("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200")),
        connected: false,
        talk: nginx,
    },
    Server {
        name: "etcd",
        probe: &["etcd", "--version"],
        words: &[
            "etcd",
            "--data-dir",
            "{dir}/data",
            "--listen-client-urls",
            "http://127.0.0.1:{port}",
            "--advertise-client-urls",
            "http://127.0.0.1:{port}",
            "--listen-peer-urls",
            "http://127.0.0.1:0",
        ],
        files: &[],
        kept: Some((
            "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "HTTP/1.1 200",
        )),
        connected: true,
        talk: etcd,
    },
    Server {
        name: "node",
        probe: &["node", "--version"],
        words: &["node", "{dir}/serve.js", "{port}"],
        files: &[("serve.js", include_str!("servers/serve.js"))],
        kept: None,
        connected: false,
        talk: counter,
    },
    Server {
        name: "jvm-http",
        probe: &["javac", "-version"],
        words: &[
            "java",
            "-Xmx128m",
            "-XX:-UsePerfData",
            "{dir}/Serve.java",
            "{port}",
        ],
        files: &[("Serve.java", include_str!("servers/Serve.java"))],
        kept: None,
        connected: false,
        talk: counter,
    },
    Server {
        name: "python-http",
        probe: &["python3", "-c", "import http.server"],
        words: &["python3", "{dir}/serve.py", "{port}"],
        files: &[("serve.py", include_str!("servers/serve.py"))],
        kept: None,
        connected: false,
        talk: counter,
    },
];

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tests = SERVERS.iter();
    let tests = tests.flat_map(|server| {
        let alone = trial(format!("server/{}", server.name), || server.run(None));
        let kept = server.kept.map(|kept| {
            let name = format!("server/{}-connected", server.name);
            trial(name, move || server.run(Some(kept)))
        });
        [alone].into_iter().chain(kept)
    });
    let database = trial("server/postgresql".into(), postgresql::run);
    let session = trial("server/sshd".into(), sshd::run);
    let video = trial("server/ffmpeg".into(), ffmpeg::run);
    let browser = trial("server/chromium".into(), chromium::run);
    let sets = stress::SETS.iter();
    let sets = sets.map(|set| trial(format!("stress/{}", set.0), move || stress::run(set)));
    let others = [database, session, video, browser];
    tests.chain(others).chain(sets).collect()
}

impl Server {
    /// Goes round, with a client that stays connected all the while or without one.
    fn run(&self, kept: Option<(&str, &str)>) -> Result<Verdict> {
        let connected = self.connected || kept.is_some();
        if connected && !succeeds(Command::new("iptables-restore").arg("--version")) {
            return Ok(Verdict::Skipped("iptables is not installed".into()));
        }
        let [program, words @ ..] = self.probe else {
            return Ok(Verdict::Skipped("no probe".into()));
        };
        if !succeeds(Command::new(program).args(words)) {
            return Ok(Verdict::Skipped(format!(
                "`{}` fails here",
                self.probe.join(" ")
            )));
        }
        let dir = tempfile::Builder::new().prefix("gelid-server.").tempdir()?;
        let port = free_port()?;
        let mut tree = self.start(dir.path(), port)?;
        let engine = Engine::find()?;
        let mut client = Client { port };
        let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        until(|| client.line("").is_ok()).with_context(log)?;
        (self.talk)(&mut client, 0)?;
        let kept = kept.map(|kept| Kept::new(&client, kept)).transpose()?;
        let options: &[&str] = match (connected, self.connected) {
            (false, _) => &[],
            (true, false) => &["--tcp-established"],
            (true, true) => &["--tcp-established", "--file-locks"],
        };
        for round in 1..=rounds() as u64 {
            let images = dir.path().join(format!("images-{round}"));
            let before = tree.look();
            let words = [&[format(round)], options].concat();
            engine.dump(tree.root(), &images, &words)?.expect("dump")?;
            tree.await_death(LIMIT)?;
            kept.as_ref().map(Kept::ask).transpose()?;
            engine.restore(&images, options)?.expect("restore")?;
            kept.as_ref().map(Kept::hear).transpose()?;
            ensure!(tree.look() == before, "other processes than before");
            (self.talk)(&mut client, round).with_context(|| format!("round {round}"))?;
            fs::remove_dir_all(&images)?;
        }
        Ok(Verdict::Passed)
    }

    fn start(&self, dir: &Path, port: u16) -> Result<Tree> {
        let fill = |word: &str| {
            let dir = dir.display().to_string();
            word.replace("{dir}", &dir)
                .replace("{port}", &port.to_string())
        };
        for (name, text) in self.files {
            fs::write(dir.join(name), fill(text))?;
        }
        let log = File::create(dir.join("log"))?;
        // In a session of its own, as daemons are.
        let mut command = Command::new("setsid");
        command.args(self.words.iter().map(|word| fill(word)));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.current_dir("/").spawn()?;
        Ok(Tree::new(child.id().cast_signed()))
    }
}

/// How the pages of a round are written.
fn format(round: u64) -> &'static str {
    match round % 2 {
        0 => "--compress=none",
        _ => "--compress=zstd",
    }
}

/// A dump, the death of the tree, and its restore. What passes by itself may refuse a dump once or twice.
fn cycle(tree: &mut Tree, dir: &Path, round: u64, options: &[&str]) -> Result<()> {
    const TRIES: usize = 5;
    let engine = Engine::find()?;
    let images = dir.join(format!("images-{round}"));
    let words = [&[format(round)], options].concat();
    for last in (0..TRIES).rev() {
        tree.look();
        let outcome = engine.dump(tree.root(), &images, &words)?;
        let passes = ["let the program", "let the other program", "try again"];
        if outcome.ok() || last == 0 || !passes.iter().any(|text| outcome.log.contains(text)) {
            outcome.expect("dump")?;
            break;
        }
        eprintln!("refused for now:\n{}", outcome.log);
        std::thread::sleep(Duration::from_millis(100));
    }
    tree.await_death(LIMIT)?;
    engine.restore(&images, options)?.expect("restore")?;
    Ok(fs::remove_dir_all(&images)?)
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn until(mut test: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !test() {
        ensure!(start.elapsed() < LIMIT, "not ready after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Speaks with a server, each time by a connection that is closed again.
struct Client {
    port: u16,
}

impl Client {
    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// Sends a line, unless it is empty, and reads one.
    fn line(&self, line: &str) -> Result<String> {
        let mut stream = self.connect()?;
        let mut answer = String::new();
        if !line.is_empty() {
            stream.write_all(line.as_bytes())?;
            stream.write_all(b"\r\n")?;
            BufReader::new(&stream).read_line(&mut answer)?;
        }
        close(stream)?;
        Ok(answer.trim_end().to_owned())
    }

    /// Sends a line and data, and reads as many lines.
    fn lines(&self, text: &str, count: usize) -> Result<Vec<String>> {
        let mut stream = self.connect()?;
        stream.write_all(text.as_bytes())?;
        let lines = BufReader::new(&stream).lines().take(count);
        let lines = lines.collect::<std::io::Result<_>>()?;
        close(stream)?;
        Ok(lines)
    }

    /// The body of a page.
    fn page(&self, path: &str) -> Result<String> {
        self.request(&format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    /// The body of what is answered to a request.
    fn request(&self, text: &str) -> Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no header")?;
        Ok(body.trim_end().to_owned())
    }
}

/// A client that stays connected, and asks while nobody is there.
struct Kept {
    stream: TcpStream,
    question: String,
    answer: String,
}

impl Kept {
    fn new(client: &Client, (question, answer): (&str, &str)) -> Result<Self> {
        let kept = Self {
            stream: client.connect()?,
            question: question.to_owned(),
            answer: answer.to_owned(),
        };
        kept.ask()?;
        kept.hear()?;
        Ok(kept)
    }

    fn ask(&self) -> Result<()> {
        Ok((&self.stream).write_all(self.question.as_bytes())?)
    }

    /// Reads whatever comes at once.
    fn hear(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let got = (&self.stream).read(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..got]);
        ensure!(
            answer.starts_with(&self.answer),
            "who stays hears {answer:?}"
        );
        Ok(())
    }
}

/// Ends a connection and waits until the server has closed it too.
fn close(mut stream: TcpStream) -> Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn redis(client: &mut Client, round: u64) -> Result<()> {
    if round == 0 {
        let command = |thousand: u64| {
            let keys = thousand * 1000..(thousand + 1) * 1000;
            let pairs: String = keys.map(|key| format!(" key:{key} value-{key}")).collect();
            format!("MSET{pairs}\r\n")
        };
        let commands: String = (0..100).map(command).collect();
        let answers = client.lines(&commands, 100)?;
        ensure!(answers.iter().all(|answer| answer == "+OK"), "MSET");
    }
    let keys = 100_000 + u64::from(round > 0);
    ensure!(client.line("DBSIZE")? == format!(":{keys}"), "DBSIZE");
    let value = client.lines("GET key:4711\r\n", 2)?;
    ensure!(value == ["$10", "value-4711"], "{value:?}");
    ensure!(
        client.line("INCR count")? == format!(":{}", round + 1),
        "INCR"
    );
    Ok(())
}

fn memcached(client: &mut Client, round: u64) -> Result<()> {
    if round == 0 {
        for command in ["set word 0 0 5\r\nhello\r\n", "set count 0 0 1\r\n0\r\n"] {
            ensure!(client.lines(command, 1)? == ["STORED"], "{command}");
        }
    }
    let lines = client.lines("get word\r\n", 3)?;
    ensure!(lines == ["VALUE word 0 5", "hello", "END"], "{lines:?}");
    let count = client.line("incr count 1")?;
    ensure!(count == (round + 1).to_string(), "incr: {count}");
    Ok(())
}

/// Its workers count their requests: together they must have had all of them.
fn nginx(client: &mut Client, round: u64) -> Result<()> {
    let page = client.page("/")?;
    let count = page.strip_prefix("hello ").context(page.clone())?;
    let count: u64 = count.parse()?;
    // Each page is a connection, and so is the one that saw the server listen.
    ensure!(count > round, "{count} connections in round {round}");
    Ok(())
}

/// Each write is a revision, which etcd counts itself; the key has a version.
fn etcd(client: &mut Client, round: u64) -> Result<()> {
    let ask = |what: &str, body: &str| {
        client.request(&format!(
            "POST /v3/kv/{what} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let has = |answer: &str, name: &str, value: u64| {
        let wanted = format!("\"{name}\":\"{value}\"");
        ensure!(answer.contains(&wanted), "no {wanted} in {answer}");
        Ok(())
    };
    // key: value
    let put = ask("put", r#"{"key":"a2V5","value":"dmFsdWU="}"#)?;
    has(&put, "revision", round + 2)?;
    let got = ask("range", r#"{"key":"a2V5"}"#)?;
    has(&got, "version", round + 1)
}

/// Servers that say how often they were asked since they were started.
fn counter(client: &mut Client, round: u64) -> Result<()> {
    let page = client.page("/")?;
    ensure!(page == format!("asked {} times", round + 1), "{page}");
    Ok(())
}
