//! CRIU's RPC: what its clients send, in their order, and what they count on.

mod clients;
mod console;
mod crun;
mod refusals;
mod service;

use crate::failures::start;
use crate::trial;
use anyhow::{Result, ensure};
use gelid_rpc::messages::{
    CgroupRoot, ExtMount, Features, Options, Request, RequestKind, Response,
};
use gelid_tests::{Client, Engine, Guest, Verdict, request};
use libtest_mimic::Trial;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::console::talk;

/// A test with a name.
type Test = (&'static str, fn() -> Result<Verdict>);

const TESTS: &[Test] = &[
    ("as-runc", as_runc),
    ("configuration", configuration),
    ("log-of-a-check", log_of_a_check),
    ("successor", successor),
];

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tests = TESTS
        .iter()
        .chain(clients::TESTS)
        .chain(crun::TESTS)
        .chain(refusals::TESTS)
        .chain(console::TESTS)
        .chain(service::TESTS);
    let tests = tests.map(|(name, body)| trial(format!("rpc/{name}"), body));
    tests.collect()
}

/// A guest, and folders that a client has open.
struct Scene {
    engine: Engine,
    guest: Guest,
    images: (PathBuf, File),
    work: (PathBuf, File),
}

impl Scene {
    fn new() -> Result<Self> {
        let guest = start("threads", &[])?;
        let folder = |name: &str| -> Result<(PathBuf, File)> {
            let path = guest.images(name);
            fs::create_dir(&path)?;
            let file = File::open(&path)?;
            Ok((path, file))
        };
        Ok(Self {
            engine: Engine::find()?,
            images: folder("images")?,
            work: folder("work-folder")?,
            guest,
        })
    }

    fn swrk(&self) -> Result<Client> {
        Client::swrk(&self.engine, |_| {})
    }

    /// What every client says.
    fn options(&self) -> Options {
        Options {
            images_dir_fd: self.images.1.as_raw_fd(),
            log_level: Some(4),
            ..Options::default()
        }
    }

    fn dump_options(&self) -> Options {
        Options {
            pid: Some(self.guest.tree.root()),
            log_file: Some(b"dump.log".to_vec()),
            ..self.options()
        }
    }

    fn restore_options(&self) -> Options {
        Options {
            log_file: Some(b"restore.log".to_vec()),
            rst_sibling: Some(true),
            ..self.options()
        }
    }

    fn await_death(&mut self) -> Result<()> {
        self.guest.tree.await_death(Duration::from_secs(20))
    }

    /// A dump by a client without peculiarities, and the death of the tree.
    fn dump(&mut self) -> Result<()> {
        let client = self.swrk()?;
        let dump = request(RequestKind::Dump, Some(self.dump_options()));
        client.ask(&dump)?.expect("dump")?;
        ensure!(client.end()? == Some(0));
        self.await_death()
    }

    /// A restore, which must succeed, and the guest's own verdict.
    fn restore_and_check(&mut self) -> Result<()> {
        let client = self.swrk()?;
        let restore = request(RequestKind::Restore, Some(self.restore_options()));
        let reply = client.ask(&restore)?.expect("restore")?;
        ensure!(reply.told.is_empty(), "{:?}", reply.told);
        let root = reply.response.restore.map(|restore| restore.pid);
        ensure!(root == Some(self.guest.tree.root()), "{root:?}");
        ensure!(client.end()? == Some(0));
        self.guest.check()
    }
}

/// A request on a connection of its own, that must succeed.
fn ask_alone(scene: &Scene, request: &Request) -> Result<Response> {
    let client = scene.swrk()?;
    let reply = client.ask(request)?.expect("request")?;
    ensure!(client.end()? == Some(0), "exit code");
    Ok(reply.response)
}

fn version() -> Request {
    request(RequestKind::Version, None)
}

fn as_runc() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let found = ask_alone(&scene, &version())?.version.unwrap_or_default();
    let number = found.major_number * 10_000 + found.minor_number * 100;
    ensure!(number == 40_200 && found.gitid.is_none(), "{found:?}");
    let features = Request {
        features: Some(Features {
            mem_track: Some(true),
            ..Features::default()
        }),
        ..request(RequestKind::FeatureCheck, None)
    };
    let features = ask_alone(&scene, &features)?.features.unwrap_or_default();
    ensure!(features.mem_track.is_some() && features.lazy_pages == Some(false));
    // It must survive.
    fs::write(scene.images.0.join("descriptors.json"), "[]")?;
    let mount = |key: &str, val: &str| ExtMount {
        key: key.into(),
        val: val.into(),
    };
    let shared = |options: Options| Options {
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(6),
        shell_job: Some(false),
        tcp_established: Some(false),
        ext_unix_sk: Some(false),
        file_locks: Some(false),
        empty_ns: Some(0),
        orphan_pts_master: Some(true),
        auto_dedup: Some(false),
        lazy_pages: Some(false),
        config_file: Some(b"/etc/criu/runc.conf".to_vec()),
        work_dir_fd: Some(scene.work.1.as_raw_fd()),
        ..options
    };
    let dump = shared(Options {
        leave_running: Some(false),
        tcp_skip_in_flight: Some(false),
        link_remap: Some(false),
        ext_mnt: vec![
            mount("/etc/hosts", "/etc/hosts"),
            mount("/proc/kcore", "/dev/null"),
        ],
        ..scene.dump_options()
    });
    let restore = shared(Options {
        evasive_devices: Some(true),
        ext_mnt: vec![mount("/etc/hosts", "/x"), mount("/dev/null", "/dev/null")],
        // Of no hierarchy that the tree is in.
        cg_root: vec![CgroupRoot {
            ctrl: Some(b"name=gelid-none".to_vec()),
            path: b"/".to_vec(),
        }],
        ..scene.restore_options()
    });
    let client = scene.swrk()?;
    let reply = client.ask(&request(RequestKind::Dump, Some(dump)))?;
    let reply = reply.expect("dump")?;
    ensure!(
        reply.names() == ["pre-dump", "query-ext-files", "post-dump"],
        "{:?}",
        reply.told
    );
    ensure!(reply.told.iter().all(|(_, pid)| pid.is_none()));
    ensure!(client.end()? == Some(0));
    scene.await_death()?;
    for name in ["dump.log", "stats-dump"] {
        ensure!(scene.work.0.join(name).exists(), "{name}");
    }
    ensure!(scene.images.0.join("descriptors.json").exists());

    let client = scene.swrk()?;
    let reply = client.ask(&request(RequestKind::Restore, Some(restore)))?;
    let reply = reply.expect("restore")?;
    let root = scene.guest.tree.root();
    let told = [
        ("pre-restore", None),
        ("post-restore", Some(root)),
        ("pre-resume", None),
        ("post-resume", None),
    ];
    let told: Vec<_> = told.map(|(name, pid)| (name.to_owned(), pid)).into();
    ensure!(reply.told == told, "{:?}", reply.told);
    ensure!(reply.response.restore.map(|restore| restore.pid) == Some(root));
    ensure!(client.end()? == Some(0));
    ensure!(scene.work.0.join("stats-restore").exists());
    let log = fs::read_to_string(scene.work.0.join("restore.log"))?;
    ensure!(
        log.ends_with("Restore finished successfully. Tasks resumed.\n"),
        "{log}"
    );
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

/// Files: a broken one ends the process before it is asked anything; those of the process lose against a request, that
/// of the request wins.
fn configuration() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let file = scene.guest.images("criu.conf");
    fs::write(&file, "this is no option\n")?;
    let client = Client::swrk(&scene.engine, |command| {
        command.env("CRIU_CONFIG_FILE", &file);
    })?;
    ensure!(client.end()? == Some(1), "a broken file");

    fs::write(&file, "leave-running\nlog-file of-the-process.log\n")?;
    let of_request = scene.guest.images("request.conf");
    fs::write(&of_request, "log-file of-the-request.log\n")?;
    for (config, log) in [(None, "dump.log"), (Some(of_request), "of-the-request.log")] {
        let client = Client::swrk(&scene.engine, |command| {
            command.env("CRIU_CONFIG_FILE", &file);
        })?;
        let options = Options {
            config_file: config.map(|path| path.display().to_string().into()),
            work_dir_fd: Some(scene.work.1.as_raw_fd()),
            ..scene.dump_options()
        };
        client
            .ask(&request(RequestKind::Dump, Some(options)))?
            .expect("dump")?;
        ensure!(client.end()? == Some(0));
        let logs = ["dump.log", "of-the-request.log", "of-the-process.log"];
        for name in logs {
            let there = scene.work.0.join(name).exists();
            ensure!(there == (name == log), "{name}: {there}");
        }
        fs::remove_file(scene.work.0.join(log))?;
    }
    // It was left running by the file of the process.
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

fn log_of_a_check() -> Result<Verdict> {
    let scene = Scene::new()?;
    let plain = scene.swrk()?;
    let reply = plain.ask(&request(RequestKind::Check, None))?;
    ensure!(
        reply.response.success && plain.end()? == Some(0),
        "{reply:?}"
    );
    let logged = Options {
        images_dir_fd: -1,
        log_level: Some(4),
        log_file: Some(b"check.log".to_vec()),
        ..Options::default()
    };
    let client = scene.swrk()?;
    let reply = client.ask(&request(RequestKind::Check, Some(logged.clone())))?;
    ensure!(!reply.response.success && client.end()? == Some(0));
    let in_work = Options {
        work_dir_fd: Some(scene.work.1.as_raw_fd()),
        ..logged
    };
    ask_alone(&scene, &request(RequestKind::Check, Some(in_work)))?;
    ensure!(fs::metadata(scene.work.0.join("check.log"))?.len() > 0);
    Ok(Verdict::Passed)
}

/// A program that swrk becomes after a restore.
fn successor() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    scene.dump()?;
    let words = ["/bin/sh", "-c", "echo the successor speaks; exit 7"];
    let options = Options {
        exec_cmd: words.map(Into::into).into(),
        ..scene.restore_options()
    };
    let client = scene.swrk()?;
    let reply = client.ask(&request(RequestKind::Restore, Some(options)))?;
    reply.expect("restore")?;
    ensure!(client.end()? == Some(7), "the exit code is the program's");
    let log = fs::read_to_string(scene.images.0.join("restore.log"))?;
    ensure!(log.ends_with("the successor speaks\n"), "{log}");
    scene.guest.check()?;
    Ok(Verdict::Passed)
}
