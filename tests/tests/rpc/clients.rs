//! What libcriu, go-criu and pycriu send, each in its order, and what they count on.

use super::service::Service;
use super::{Scene, Test, ask_alone, version};
use anyhow::{Context, Result, ensure};
use gelid_rpc::messages::{Features, JoinNamespace, Options, PageServer, Request, RequestKind};
use gelid_tests::{Client, Verdict, consent, request, succeeds};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::Command;

pub(super) const TESTS: &[Test] = &[
    ("as-libcriu", as_libcriu),
    ("as-go-criu", as_go_criu),
    ("as-pycriu", as_pycriu),
];

/// Names of notifications of a dump, and of a restore, of a tree without namespaces.
const OF_DUMP: [&str; 3] = ["pre-dump", "query-ext-files", "post-dump"];
const OF_RESTORE: [&str; 4] = ["pre-restore", "post-restore", "pre-resume", "post-resume"];

fn features(asked: Features, options: Option<Options>) -> Request {
    Request {
        features: Some(asked),
        ..request(RequestKind::FeatureCheck, options)
    }
}

/// Each call by a binary of its own, with all options that were set so far; then the same by a service, and by a descriptor that is
/// connected with it.
fn as_libcriu() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    ask_alone(&scene, &request(RequestKind::Check, None))?;
    let attached = scene.dump_options();
    let told = ask_alone(
        &scene,
        &request(RequestKind::Version, Some(attached.clone())),
    )?;
    let told = told.version.context("no version")?;
    let number = told.major_number * 10_000 + told.minor_number * 100;
    ensure!(number + told.sublevel.unwrap_or_default() >= 31_400);
    let asked = Features {
        mem_track: Some(true),
        lazy_pages: Some(true),
        pidfd_store: Some(true),
    };
    let found = ask_alone(&scene, &features(asked, Some(attached)))?.features;
    let found = found.context("no features")?;
    for (name, found) in [
        ("mem_dirty_track", found.mem_track),
        ("uffd-noncoop", found.lazy_pages),
        ("pidfd_store", found.pidfd_store),
    ] {
        let mut check = Command::new(scene.engine.program());
        let there = succeeds(check.args(["check", "--feature", name]));
        ensure!(
            found == Some(there),
            "{name}: {found:?}, and check says {there}"
        );
    }

    // criu_dump_iters and criu_pre_dump, which nobody can have yet; then criu_dump and criu_restore_child.
    for kind in [RequestKind::PreDump, RequestKind::SinglePreDump] {
        let client = scene.swrk()?;
        let reply = client.ask(&request(kind, Some(scene.dump_options())))?;
        ensure!(reply.response.r#type() == kind && !reply.response.success);
    }
    let dump = request(RequestKind::Dump, Some(scene.dump_options()));
    let dumped = ask_alone(&scene, &dump)?
        .dump
        .and_then(|dump| dump.restored);
    ensure!(dumped == Some(false), "{dumped:?}");
    scene.await_death()?;
    let client = scene.swrk()?;
    let restore = request(RequestKind::Restore, Some(scene.restore_options()));
    client.ask(&restore)?.expect("restore")?;
    ensure!(client.end()? == Some(0));

    // criu_dump and criu_restore by a service.
    let service = Service::start(&scene)?;
    let again = scene.guest.images("again");
    fs::create_dir(&again)?;
    let again = File::open(again)?;
    let client = Client::connect(&service.address)?;
    let dump = Options {
        leave_running: Some(true),
        images_dir_fd: again.as_raw_fd(),
        ..scene.dump_options()
    };
    client
        .ask(&request(RequestKind::Dump, Some(dump)))?
        .expect("dump")?;
    // criu_add_join_ns, of a process.
    let plain = Options {
        rst_sibling: None,
        join_ns: vec![JoinNamespace {
            ns: b"uts".to_vec(),
            ns_file: std::process::id().to_string().into(),
            extra_opt: None,
        }],
        images_dir_fd: again.as_raw_fd(),
        ..scene.restore_options()
    };
    let restore = request(RequestKind::Restore, Some(plain));
    let client = Client::connect(&service.address)?;
    let still = client.ask(&restore)?.response;
    ensure!(!still.success && still.cr_errno == Some(17), "{still:?}");
    scene.guest.tree.kill();
    scene.await_death()?;
    let client = Client::connect(&service.address)?;
    let restored = client.ask(&restore)?.expect("restore")?.response;
    let root = restored.restore.map(|restore| restore.pid);
    ensure!(root == Some(scene.guest.tree.root()), "{root:?}");
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

/// `Prepare` keeps one connection; without it each call has its own. Handlers are told of all, those who fail say nothing.
fn as_go_criu() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let client = scene.swrk()?;
    for first in [version(), features(Features::default(), None)] {
        let kept = Request {
            keep_open: Some(true),
            ..first
        };
        client.ask(&kept)?.expect("a first request")?;
    }
    let tracked = Options {
        track_mem: Some(true),
        ..scene.dump_options()
    };
    let reply = client.ask(&request(RequestKind::PreDump, Some(tracked)))?;
    ensure!(reply.response.r#type() == RequestKind::PreDump && !reply.response.success);
    let message = reply.message();
    ensure!(message.contains("not there yet"), "{message}");
    ensure!(client.end()? == Some(255));
    // The side that memory is to travel to.
    let client = scene.swrk()?;
    let server = Options {
        ps: Some(PageServer {
            fd: Some(0),
            ..PageServer::default()
        }),
        ..scene.options()
    };
    let reply = client.ask(&request(RequestKind::PageServerChild, Some(server)))?;
    ensure!(!reply.response.success && !reply.message().is_empty());
    drop(client);

    // Without handlers nobody is told; with them, and one that fails, nothing is done.
    let told = |options: Options| Options {
        notify_scripts: Some(true),
        ..options
    };
    let objected = scene.swrk()?.ask_with(
        &request(RequestKind::Dump, Some(told(scene.dump_options()))),
        |told| (told.script.as_deref() != Some("post-dump")).then(consent),
    )?;
    ensure!(!objected.response.success && objected.names() == OF_DUMP);
    let client = scene.swrk()?;
    let kept = Request {
        keep_open: Some(true),
        ..version()
    };
    client.ask(&kept)?.expect("version")?;
    let dump = request(RequestKind::Dump, Some(scene.dump_options()));
    let reply = client.ask(&dump)?.expect("dump")?;
    ensure!(reply.told.is_empty() && client.end()? == Some(0));
    scene.await_death()?;
    let client = scene.swrk()?;
    let restore = told(scene.restore_options());
    let reply = client.ask(&request(RequestKind::Restore, Some(restore)))?;
    let reply = reply.expect("restore")?;
    ensure!(reply.names() == OF_RESTORE, "{:?}", reply.told);
    ensure!(client.end()? == Some(0));
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

/// Without descriptors 0 to 2; with what `zdtm.py --rpc` makes of a command line.
fn as_pycriu() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let alone = |request: &Request, scene: &Scene| {
        let client = Client::swrk_alone(&scene.engine)?;
        let reply = client.ask(request)?;
        let message = reply.message();
        Ok::<_, anyhow::Error>((reply.response, message, client.end()?))
    };
    let (checked, message, code) = alone(&request(RequestKind::Check, None), &scene)?;
    ensure!(checked.success && code == Some(0), "{message}");
    let dump = Options {
        timeout: Some(10),
        tcp_established: Some(true),
        ..scene.dump_options()
    };
    let parent = Options {
        parent_img: Some(b"../none".to_vec()),
        track_mem: Some(true),
        ..dump.clone()
    };
    let (refused, message, _) = alone(&request(RequestKind::SinglePreDump, Some(parent)), &scene)?;
    ensure!(refused.r#type() == RequestKind::SinglePreDump && !refused.success);
    ensure!(message.contains("not there yet"), "{message}");
    // A page server, and what it has ended with.
    let client = Client::swrk_alone(&scene.engine)?;
    let server = Request {
        keep_open: Some(true),
        ..request(RequestKind::PageServerChild, Some(scene.options()))
    };
    let reply = client.ask(&server)?;
    ensure!(!reply.response.success && !reply.message().is_empty());
    drop(client);

    let (dumped, message, code) = alone(&request(RequestKind::Dump, Some(dump)), &scene)?;
    ensure!(dumped.success && code == Some(0), "{message}");
    scene.await_death()?;
    let restore = Options {
        tcp_established: Some(true),
        mntns_compat_mode: Some(true),
        ..scene.restore_options()
    };
    let (restored, message, code) = alone(&request(RequestKind::Restore, Some(restore)), &scene)?;
    ensure!(restored.success && code == Some(0), "{message}");
    let root = restored.restore.map(|restore| restore.pid);
    ensure!(root == Some(scene.guest.tree.root()), "{root:?}");
    let log = fs::read_to_string(scene.images.0.join("restore.log"))?;
    ensure!(log.contains("Restore finished successfully"), "{log}");
    scene.guest.check()?;
    Ok(Verdict::Passed)
}
