//! `gelid service`: several clients at a time, and those who may ask for nothing.

use super::{Scene, Test, version};
use anyhow::{Context, Result, ensure};
use gelid_rpc::messages::{Options, RequestKind};
use gelid_tests::{Client, Tree, Verdict, request, spawn, succeeds};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const TESTS: &[Test] = &[
    ("service", service),
    ("service-knows-its-clients", service_knows_its_clients),
    ("service-dumps-its-client", service_dumps_its_client),
];

/// A service in the background, ended when it is dropped.
pub(super) struct Service {
    pub(super) address: PathBuf,
    pid: Pid,
}

impl Service {
    pub(super) fn start(scene: &Scene) -> Result<Self> {
        let folder = &scene.work.0;
        let mut command = Command::new(scene.engine.program());
        command
            .args(["service", "-v4", "-d", "--address", "gelid.sock"])
            .args(["--pidfile", "service.pid", "-o", "service.log", "-W"])
            .arg(folder)
            .current_dir(folder);
        ensure!(succeeds(&mut command), "the service does not start");
        let start = Instant::now();
        let pid = loop {
            let text = fs::read_to_string(folder.join("service.pid")).unwrap_or_default();
            match text.parse().ok().and_then(Pid::from_raw) {
                Some(pid) => break pid,
                None => ensure!(start.elapsed() < Duration::from_secs(10), "no pidfile"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Ok(Self {
            address: folder.join("gelid.sock"),
            pid,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::TERM);
    }
}

fn service() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let service = Service::start(&scene)?;
    let mode = fs::metadata(&service.address)?.permissions().mode();
    ensure!(mode & 0o777 == 0o666, "{mode:o}");
    // One who says nothing keeps nobody waiting.
    let silent = Client::connect(&service.address)?;
    let client = Client::connect(&service.address)?;
    client.ask(&version())?.expect("version")?;

    let client = Client::connect(&service.address)?;
    let sibling = request(RequestKind::Restore, Some(scene.restore_options()));
    let reply = client.ask(&sibling)?;
    ensure!(
        !reply.response.success && reply.response.cr_errno == Some(56),
        "{reply:?}"
    );
    ensure!(
        reply.message().contains("rst_sibling"),
        "{}",
        reply.message()
    );

    let client = Client::connect(&service.address)?;
    let dump = request(RequestKind::Dump, Some(scene.dump_options()));
    client.ask(&dump)?.expect("dump")?;
    scene.await_death()?;
    let client = Client::connect(&service.address)?;
    let restore = Options {
        rst_sibling: None,
        notify_scripts: Some(true),
        ..scene.restore_options()
    };
    let restore = request(RequestKind::Restore, Some(restore));
    let reply = client.ask(&restore)?.expect("restore")?;
    ensure!(reply.told.len() == 4, "{:?}", reply.told);
    // The requests have logs of their own, the service has its own.
    let log = fs::read_to_string(scene.work.0.join("service.log"))?;
    ensure!(!log.contains("Restore finished"), "{log}");
    drop(silent);
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

/// Other users may ask what this is and what it can do, and no more.
fn service_knows_its_clients() -> Result<Verdict> {
    let scene = Scene::new()?;
    if !succeeds(Command::new("python3").arg("--version")) {
        return Ok(Verdict::Skipped("no python3".into()));
    }
    let service = Service::start(&scene)?;
    for path in [scene.work.0.parent(), Some(scene.work.0.as_path())] {
        let path = path.context("a folder has a parent")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    for (packet, expected) in [
        // VERSION
        ("080a", "1"),
        // CHECK
        ("0803", "1"),
        // DUMP of process 1, RESTORE, CHECK with a log, PAGE_SERVER
        ("0801120408001001", "0"),
        ("080212020800", "0"),
        ("08031206080052027878", "0"),
        ("080512020800", "0"),
    ] {
        let script = format!(
            "import os, socket, sys\n\
             os.setgid(65534); os.setuid(65534)\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
             s.connect(sys.argv[1])\n\
             s.send(bytes.fromhex('{packet}'))\n\
             answer = s.recv(4096)\n\
             sys.exit(0 if answer[2:4] == bytes([0x10, {expected}]) else 9)\n"
        );
        let mut stranger = Command::new("python3");
        stranger.arg("-c").arg(script).arg(&service.address);
        ensure!(succeeds(&mut stranger), "{packet}: {expected} was expected");
    }
    Ok(Verdict::Passed)
}

/// A program that asks for its own dump: it is told so, but after its restore only.
fn service_dumps_its_client() -> Result<Verdict> {
    const CLIENT: &str = "import os, socket, sys\n\
        images = os.open(sys.argv[2], os.O_RDONLY)\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
        s.connect(sys.argv[1])\n\
        opts = bytes([8, images, 0x48, 4])\n\
        s.send(bytes([8, 1, 0x12, len(opts)]) + opts)\n\
        answer = s.recv(4096)\n\
        open(sys.argv[2] + '/answer', 'w').write(answer.hex())\n\
        sys.exit(3 if answer[4:8] == bytes([0x1a, 2, 8, 1]) else 9)\n";
    let scene = Scene::new()?;
    if !succeeds(Command::new("python3").arg("--version")) {
        return Ok(Verdict::Skipped("no python3".into()));
    }
    let service = Service::start(&scene)?;
    let mut client = Command::new("setsid");
    client.args(["python3", "-c", CLIENT]).arg(&service.address);
    client.arg(&scene.images.0).current_dir("/");
    client
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut tree = Tree::new(spawn(&mut client)?.id().cast_signed());
    tree.look();
    tree.await_death(Duration::from_secs(20))?;
    let answer = fs::read_to_string(scene.images.0.join("answer"));
    ensure!(answer.is_err(), "it was answered: {answer:?}");
    let restore = scene
        .engine
        .restore(&scene.images.0, &["--restore-sibling"])?;
    restore.expect("restore")?;
    let status = tree.await_root(Duration::from_secs(20))?;
    ensure!(status == 3 << 8, "wait status {status:#x}");
    Ok(Verdict::Passed)
}
