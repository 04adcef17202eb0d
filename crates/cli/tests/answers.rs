//! What the executable prints and returns, as its callers see it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GELID: &str = env!("CARGO_BIN_EXE_gelid");

/// Runs `gelid` without the configuration of whoever runs the tests.
fn run(program: &Path, words: &[&str]) -> (i32, String, String) {
    let output = Command::new(program)
        .args(words)
        .env_remove("CRIU_CONFIG_FILE")
        .env("HOME", "/nonexistent")
        .output()
        .expect("gelid was built");
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    (
        status.code().expect("gelid was not killed"),
        String::from_utf8(stdout).expect("text"),
        String::from_utf8(stderr).expect("text"),
    )
}

fn gelid(words: &[&str]) -> (i32, String, String) {
    run(Path::new(GELID), words)
}

/// A link called `criu` in a folder of its own.
fn criu(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let link = folder.join("criu");
    symlink(GELID, &link).expect("the folder is new");
    link
}

fn golden(name: &str) -> String {
    format!(
        "{}/../image/tests/golden/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

#[test]
fn version_and_help() {
    let (code, out, err) = gelid(&["--version"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with("gelid ") && out.ends_with("(CRIU 4.2)\n"),
        "{out}"
    );
    assert_eq!(
        run(&criu("version"), &["-V"]),
        (0, "Version: 4.2\n".to_owned(), String::new())
    );
    let (code, out, _) = gelid(&["dump", "--tree", "--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("Usage: gelid COMMAND [OPTIONS]"), "{out}");
}

#[test]
fn usage_errors_return_one() {
    for words in [
        &[][..],
        &["-R"],
        &["frobnicate"],
        &["dump", "--tree"],
        &["dump", "-t", "1", "x"],
    ] {
        let (code, out, _) = gelid(words);
        assert_eq!(code, 1, "{words:?}");
        assert!(out.starts_with("Usage: gelid"), "{words:?}: {out}");
    }
    let (_, _, err) = run(&criu("usage"), &["check", "--nope"]);
    assert_eq!(err, "criu: unrecognized option '--nope'\n");
}

#[test]
fn refusals_are_one_error_line() {
    for words in [
        &["pre-dump", "-t", "1"][..],
        &["dump"],
        &["dump", "-t", "1", "--lazy-pages"],
    ] {
        let (code, out, err) = gelid(words);
        assert_eq!((code, out.as_str()), (1, ""), "{words:?}");
        assert!(
            err.starts_with("Error (cli/") && err.lines().count() == 1,
            "{words:?}: {err}"
        );
        let quiet: Vec<&str> = words.iter().copied().chain(["-v0"]).collect();
        assert_eq!(
            gelid(&quiet),
            (1, String::new(), String::new()),
            "{quiet:?}"
        );
    }
}

#[test]
fn removed_commands_return_255() {
    let criu = criu("removed");
    for command in ["show", "exec"] {
        let (code, out, err) = run(&criu, &[command]);
        assert_eq!((code, out.as_str()), (255, ""), "{command}");
        assert!(err.starts_with("Error ("), "{err}");
    }
}

#[test]
fn a_feature_is_checked() {
    let criu = criu("feature");
    let words = ["check", "--no-default-config", "-verbosity=0", "--feature"];
    let check = |name| run(&criu, &[&words[..], &[name]].concat());
    assert_eq!(check("external_net_ns").0, 0);
    assert_eq!(check("no_such_feature"), (1, String::new(), String::new()));
    let (_, _, err) = run(&criu, &["check", "--feature", "no_such_feature"]);
    assert!(err.ends_with("Unknown feature no_such_feature\n"), "{err}");
}

#[test]
fn configuration_comes_before_the_command_line() {
    let folder = criu("config");
    let file = folder.with_file_name("criu.conf");
    std::fs::write(
        &file,
        "verbosity 0\n# nothing\nfeature \"no_such_feature\"\n",
    )
    .unwrap();
    let config = format!("--config={}", file.display());
    assert_eq!(
        gelid(&["check", &config]),
        (1, String::new(), String::new())
    );
    assert_eq!(
        gelid(&["check", &config, "--feature", "external_net_ns"]).0,
        0
    );
    std::fs::write(&file, "feature a b\n").unwrap();
    let (code, _, err) = gelid(&["check", &config]);
    assert_eq!(code, 1);
    assert!(
        err.contains("Unsupported configuration file format"),
        "{err}"
    );
}

#[test]
fn images_of_criu_are_shown() {
    let tree = golden("criu-4.2-tree");
    let (code, out, err) = gelid(&["show", &tree]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.lines()
            .any(|line| line.starts_with("inventory.img") && line.ends_with("1 record")),
        "{out}"
    );
    let (code, out, _) = gelid(&["show", &tree, "pstree.img"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("- record: 0\n  pid: "), "{out}");
    let (code, out, _) = gelid(&["show", &tree, "inventory.img", "--json"]);
    assert_eq!(code, 0);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["magic"], "INVENTORY");
    let (code, out, err) = gelid(&["show", &tree, "what.img"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("what.img"), "{err}");
}

#[test]
fn the_log_is_truncated_in_place() {
    let folder = criu("log").parent().unwrap().to_owned();
    let log = folder.join("check.log");
    std::fs::write(&log, "old ".repeat(100)).unwrap();
    let before = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&log).unwrap());
    let folder = folder.to_str().unwrap();
    let words = [
        "check",
        "-D",
        folder,
        "-o",
        "check.log",
        "-v4",
        "--feature",
        "no_such_feature",
    ];
    let (code, out, err) = gelid(&words);
    if out.contains("CAP_SYS_ADMIN") || out.contains("--unprivileged") {
        return; // Without privileges no command gets as far as the log.
    }
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", ""));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(
        text.starts_with("(00.0") && text.contains(") Error (cli/"),
        "{text}"
    );
    assert!(!text.contains("old "), "{text}");
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&log).unwrap()),
        before
    );
}
