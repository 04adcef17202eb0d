//! Requests that fail, by their fault or by the will of the client.

use super::{Scene, Test, ask_alone};
use anyhow::{Result, ensure};
use gelid_rpc::messages::{Options, Request, RequestKind};
use gelid_tests::{Client, Reply, Verdict, consent, request, run_to_end};
use std::fs;
use std::process::Command;

pub(super) const TESTS: &[Test] = &[
    ("errors-have-numbers", errors_have_numbers),
    ("what-is-no-request", what_is_no_request),
    ("objections", objections),
    ("objections-to-a-restore", objections_to_a_restore),
];

/// The answer to a request that must fail, and the exit code.
fn refused(client: Client, kind: RequestKind, options: Option<Options>) -> Result<(Reply, i32)> {
    let reply = client.ask(&request(kind, options))?;
    ensure!(!reply.response.success, "{kind:?} succeeded");
    let code = client.end()?;
    Ok((reply, code.unwrap_or(-1)))
}

fn errors_have_numbers() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let gone = Options {
        pid: Some(4_194_303),
        ..scene.dump_options()
    };
    let elsewhere = Options {
        log_file: Some(b"../file.log".to_vec()),
        ..scene.dump_options()
    };
    let nowhere = Options {
        images_dir_fd: 987_654,
        ..scene.dump_options()
    };
    let own_parent = Options {
        pid: None,
        ..scene.dump_options()
    };
    for (options, number, words) in [
        (Some(gone), Some(3), "does not exist"),
        (
            Some(elsewhere),
            Some(56),
            "No subdirs are allowed in log_file name",
        ),
        (Some(nowhere), Some(56), "cannot open"),
        (None, Some(56), "no options"),
        (
            Some(own_parent),
            None,
            "The criu itself is within dumped tree",
        ),
    ] {
        let (reply, code) = refused(scene.swrk()?, RequestKind::Dump, options)?;
        ensure!(reply.response.r#type() == RequestKind::Dump && code == 1);
        ensure!(reply.response.cr_errno == number, "{:?}", reply.response);
        ensure!(reply.message().contains(words), "{}", reply.message());
    }
    let log = fs::read_to_string(scene.images.0.join("dump.log"))?;
    ensure!(
        log.contains("The criu itself is within dumped tree"),
        "{log}"
    );
    // What is there already cannot be restored.
    let still = Options {
        leave_running: Some(true),
        ..scene.dump_options()
    };
    ask_alone(&scene, &request(RequestKind::Dump, Some(still)))?;
    let restore = scene.restore_options();
    let (reply, code) = refused(scene.swrk()?, RequestKind::Restore, Some(restore))?;
    ensure!(
        reply.response.cr_errno == Some(17) && code == 1,
        "{reply:?}"
    );
    ensure!(reply.response.restore.map(|restore| restore.pid) == Some(-1));
    ensure!(reply.message().starts_with("Error (") && reply.message().ends_with('\n'));
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

fn what_is_no_request() -> Result<Verdict> {
    let scene = Scene::new()?;
    for packet in [&[0xff_u8, 0xff][..], &[0x08], &[0x12, 0x05, 0x08]] {
        let client = scene.swrk()?;
        client.send(packet)?;
        ensure!(client.receive()?.is_none(), "{packet:?} is answered");
        ensure!(client.end()? == Some(255), "{packet:?}");
    }
    ensure!(scene.swrk()?.end()? == Some(255), "nobody asks");
    let (reply, code) = refused(scene.swrk()?, RequestKind::Notify, None)?;
    ensure!(reply.response.r#type() == RequestKind::Empty && code == 255);
    let done = run_to_end(Command::new(scene.engine.program()).arg("swrk"))?;
    ensure!(done.status.code() == Some(1), "swrk without a descriptor");
    Ok(Verdict::Passed)
}

/// A client that objects by its answer, or by ending the connection.
fn objections() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let before = scene.guest.snapshot(&["sd"])?;
    for (moment, silent) in [
        ("pre-dump", false),
        ("query-ext-files", false),
        ("post-dump", false),
        ("post-dump", true),
    ] {
        let options = Options {
            notify_scripts: Some(true),
            ..scene.dump_options()
        };
        let client = scene.swrk()?;
        let reply = client.ask_with(&request(RequestKind::Dump, Some(options)), |told| {
            let objects = told.script.as_deref() == Some(moment);
            let answer = Request {
                notify_success: Some(!objects),
                ..consent()
            };
            (!objects || !silent).then_some(answer)
        })?;
        ensure!(!reply.response.success, "{moment}");
        ensure!(reply.names().last() == Some(&moment), "{:?}", reply.told);
        ensure!(reply.message().contains("RPC client reported script error"));
        ensure!(client.end()? == Some(1), "{moment}");
        ensure!(!scene.images.0.join("inventory.img").exists(), "{moment}");
        let after = scene.guest.snapshot(&["sd"])?;
        let changes = gelid_tests::compare(&before, &after);
        ensure!(changes.is_empty(), "{moment}: {changes:#?}");
    }
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

fn objections_to_a_restore() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    scene.dump()?;
    for moment in ["pre-restore", "post-restore"] {
        let options = Options {
            notify_scripts: Some(true),
            ..scene.restore_options()
        };
        let client = scene.swrk()?;
        let reply = client.ask_with(&request(RequestKind::Restore, Some(options)), |told| {
            let objects = told.script.as_deref() == Some(moment);
            Some(Request {
                notify_success: Some(!objects),
                ..consent()
            })
        })?;
        ensure!(!reply.response.success, "{moment}");
        ensure!(client.end()? == Some(1), "{moment}");
        crate::failures::must_be_gone(&scene.guest)?;
    }
    scene.restore_and_check()?;
    Ok(Verdict::Passed)
}
