//! Options of requests, and the command lines that they stand for.

use super::*;
use crate::messages::{CgroupRoot, ExtMount, InheritFd, JoinNamespace, PageServer, UnixSocket};

const SWRK: Connection = Connection {
    peer: Some(1),
    service: false,
};

fn options() -> Options {
    Options {
        images_dir_fd: 5,
        ..Options::default()
    }
}

fn line(kind: RequestKind, options: &Options) -> Vec<String> {
    let words = words(kind, options, SWRK).unwrap();
    let text = |word: OsString| word.into_string().unwrap();
    words.options.into_iter().map(text).collect()
}

#[test]
fn a_checkpoint_of_runc() {
    let mounts = ["/etc/hosts", "/dev/null"].map(|path| ExtMount {
        key: path.into(),
        val: path.into(),
    });
    let asked = Options {
        pid: Some(42),
        log_level: Some(4),
        log_file: Some(b"dump.log".to_vec()),
        root: Some(b"/bundle/rootfs".to_vec()),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(6),
        notify_scripts: Some(true),
        shell_job: Some(false),
        leave_running: Some(false),
        tcp_established: Some(true),
        empty_ns: Some(NEW_NET),
        orphan_pts_master: Some(true),
        work_dir_fd: Some(6),
        config_file: Some(b"/etc/criu/runc.conf".to_vec()),
        external: vec![b"net[7]:extRootNetNS".to_vec()],
        freeze_cgroup: Some(b"/f".to_vec()),
        ext_mnt: mounts.to_vec(),
        ..options()
    };
    assert_eq!(
        line(RequestKind::Dump, &asked),
        [
            "--images-dir=/proc/1/fd/5",
            "--work-dir=/proc/1/fd/6",
            "--tree=42",
            "--tcp-established",
            "--no-shell-job",
            "--orphan-pts-master",
            "--log-file=dump.log",
            "--root=/bundle/rootfs",
            "--freeze-cgroup=/f",
            "--external=net[7]:extRootNetNS",
            "--manage-cgroups=soft",
            "--empty-ns=net",
            "--external=mnt[/etc/hosts]:/etc/hosts",
            "--external=mnt[/dev/null]:/dev/null",
        ]
    );
    let words = words(RequestKind::Dump, &asked, SWRK).unwrap();
    assert_eq!(
        words.config_file.as_deref(),
        Some("/etc/criu/runc.conf".as_ref())
    );
    assert_eq!(words.log_level, 4);
}

#[test]
fn a_restore_of_runc() {
    let asked = Options {
        rst_sibling: Some(true),
        inherit_fd: vec![InheritFd {
            key: b"pipe:[9]".to_vec(),
            fd: 1,
        }],
        cg_root: vec![
            CgroupRoot {
                ctrl: Some(b"name=systemd".to_vec()),
                path: b"/c".to_vec(),
            },
            CgroupRoot {
                ctrl: Some(Vec::new()),
                path: b"/".to_vec(),
            },
            CgroupRoot {
                ctrl: None,
                path: b"/all".to_vec(),
            },
        ],
        join_ns: vec![JoinNamespace {
            ns: b"ipc".to_vec(),
            ns_file: b"/proc/3/ns/ipc".to_vec(),
            extra_opt: None,
        }],
        // Of no meaning here.
        pid: Some(42),
        ..options()
    };
    assert_eq!(
        line(RequestKind::Restore, &asked),
        [
            "--images-dir=/proc/1/fd/5",
            "--restore-detached",
            "--restore-sibling",
            "--cgroup-root=name=systemd:/c",
            "--cgroup-root=:/",
            "--cgroup-root=/all",
            "--inherit-fd=fd[1]:pipe:[9]",
            "--join-ns=ipc:/proc/3/ns/ipc",
        ]
    );
}

#[test]
fn the_client_is_dumped_if_nobody_else_is_named() {
    assert!(line(RequestKind::Dump, &options()).contains(&"--tree=1".to_owned()));
    let unseen = Connection { peer: None, ..SWRK };
    let by_path = Options {
        images_dir_fd: -1,
        images_dir: Some(b"/i".to_vec()),
        ..Options::default()
    };
    assert_eq!(
        words(RequestKind::Dump, &by_path, unseen),
        Err(Refusal::UnseenPeer { field: "pid" })
    );
    assert_eq!(
        words(RequestKind::Restore, &options(), unseen),
        Err(Refusal::UnseenPeer {
            field: "images_dir_fd"
        })
    );
}

#[test]
fn sockets_and_servers() {
    let socket = UnixSocket { inode: 7 };
    let asked = Options {
        ext_unix_sk: Some(true),
        unix_sk_ino: vec![socket, socket],
        ps: Some(PageServer {
            address: Some(b"127.0.0.1".to_vec()),
            port: Some(0x1_3039),
            pid: None,
            fd: Some(4),
        }),
        cpu_cap: Some(u32::MAX),
        ..options()
    };
    let words = line(RequestKind::Restore, &asked);
    for word in [
        "--ext-unix-sk=7,7",
        "--page-server",
        "--address=127.0.0.1",
        "--ps-socket=4",
        "--port=12345",
        "--cpu-cap=none,fpu,cpu,ins",
    ] {
        assert!(words.contains(&word.to_owned()), "{word}: {words:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |change: &dyn Fn(&mut Options)| {
        let mut asked = options();
        change(&mut asked);
        words(RequestKind::Dump, &asked, SWRK)
            .unwrap_err()
            .to_string()
    };
    for (change, said) in [
        (
            (&|o: &mut Options| o.images_dir_fd = -1) as &dyn Fn(&mut Options),
            "neither images_dir_fd nor images_dir",
        ),
        (
            &|o| o.log_file = Some(b"../file.log".to_vec()),
            "No subdirs are allowed in log_file name",
        ),
        (
            &|o| o.manage_cgroups_mode = Some(7),
            "manage_cgroups_mode: 7",
        ),
        (&|o| o.network_lock = Some(0), "network_lock: 0"),
        (&|o| o.pre_dump_mode = Some(-1), "pre_dump_mode: -1"),
        (&|o| o.empty_ns = Some(1), "empty_ns: 1"),
        (&|o| o.mntns_compat_mode = Some(true), "only for restore"),
    ] {
        let words = refused(change);
        assert!(words.contains(said), "{words}");
    }
}

#[test]
fn clients_of_the_service_hand_over_nothing() {
    let service = Connection {
        service: true,
        ..SWRK
    };
    let sibling = Options {
        rst_sibling: Some(true),
        ..options()
    };
    let refused = words(RequestKind::Restore, &sibling, service);
    assert_eq!(
        refused,
        Err(Refusal::Service {
            field: "rst_sibling"
        })
    );
    assert!(words(RequestKind::Restore, &options(), service).is_ok());
}

#[test]
fn a_check_needs_a_folder_for_its_log_alone() {
    let nowhere = Options {
        images_dir_fd: -1,
        ..Options::default()
    };
    let in_work = Options {
        work_dir_fd: Some(3),
        ..nowhere.clone()
    };
    assert!(words(RequestKind::Check, &nowhere, SWRK).is_err());
    assert!(words(RequestKind::Check, &in_work, SWRK).is_ok());
    assert!(words(RequestKind::Dump, &in_work, SWRK).is_err());
}
