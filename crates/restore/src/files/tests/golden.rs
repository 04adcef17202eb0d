//! Images that CRIU wrote.

use super::*;

fn golden(name: &str) -> Dir {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/tests/golden");
    Dir::open(crates.join(name)).unwrap()
}

fn describe(name: &str, tables: &[u32]) -> Vec<String> {
    let plan = FilesPlan::read(&golden(name), tables, &FileOptions::default()).unwrap();
    plan.describe().collect()
}

#[test]
fn files_of_one_task() {
    let lines = describe("criu-4.2-single", &[2]);
    let expected = [
        "file 2: /tmp/golden/regular, flags 0o0",
        "file 5: /tmp/golden/regular, flags 0o102002, at 7",
        "file 6: /tmp/golden/deleted from ghost 1, flags 0o100002, at 22",
        "file 10: pipe 630344 with 11 bytes, flags 0o4001",
        "file 11: /tmp/golden/fifo, FIFO 10010758 with 11 bytes, flags 0o100002",
        "table 2: descriptor 3 -> file 5, closed on exec",
        "table 2: descriptor 77 -> file 5",
    ];
    for line in expected {
        assert!(
            lines.iter().any(|found| found == line),
            "{line}\n{lines:#?}"
        );
    }
    // The path of a FIFO is no file of its own.
    assert!(!lines.iter().any(|line| line.starts_with("file 12:")));
    let plan = FilesPlan::read(&golden("criu-4.2-single"), &[2], &FileOptions::default());
    let directories = plan.unwrap().fs(17359).unwrap();
    assert_eq!(
        (directories.cwd, directories.root, directories.umask),
        (13, 14, 0o27)
    );
}

#[test]
fn files_of_a_tree() {
    let lines = describe("criu-4.2-tree", &[2, 3, 4, 5]);
    let expected = [
        "file 2: memfd golden memfd of 12288 bytes, flags 0o0",
        "file 3: shared memory 630 of 16384 bytes, flags 0o0",
        "file 6: memfd golden memfd of 12288 bytes, flags 0o100002",
    ];
    for line in expected {
        assert!(
            lines.iter().any(|found| found == line),
            "{line}\n{lines:#?}"
        );
    }
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("table 5: descriptor 0"))
    );
}

#[test]
fn descriptors_of_every_kind_are_planned() {
    let lines = describe("criu-4.2-fds", &[2]);
    for expected in [
        "file 4: counter at 17, flags 0o4002",
        "file 9: stream socket, a pair with file 10, flags 0o2",
        "file 14: TCP socket 127.0.0.1:17923, listening, backlog 9, flags 0o2",
        "table 2: descriptor 6 -> file 7, closed on exec",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{lines:#?}");
    }
}
