//! `/proc/PID` of live tasks.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use gelid_sys::proc::{self, TaskDir};
use gelid_sys::{Errno, Pid, pidfd};
use rustix::fs::OFlags;

fn own() -> TaskDir {
    proc::task_dir(rustix::process::getpid()).unwrap()
}

#[test]
fn the_own_task_is_described() {
    let task = own();
    let stat = proc::stat::read(&task).unwrap();
    let status = proc::status::read(&task).unwrap();
    let pid = rustix::process::getpid().as_raw_pid();
    assert_eq!((stat.pid, status.pid, status.tgid), (pid, pid, pid));
    assert_eq!(stat.ppid, Pid::as_raw(rustix::process::getppid()));
    assert_eq!(stat.ppid, status.ppid);
    // Both are 0 if the leader lives outside the pid namespace, which rustix does not expect.
    // SAFETY: these calls take no pointer.
    let (pgrp, sid) = unsafe { (libc::getpgrp(), libc::getsid(0)) };
    assert_eq!((stat.pgrp, stat.sid), (pgrp, sid));
    assert_eq!(status.ns_tgid, [pid]);
    assert_eq!(status.uid[1], rustix::process::geteuid().as_raw());
    assert_eq!(stat.comm, proc::scalar::comm(&task).unwrap());
    assert!(
        stat.start_code < stat.end_code && stat.start_stack != 0 && stat.arg_start < stat.arg_end
    );
    assert_eq!(
        proc::scalar::cmdline(&task).unwrap().len() as u64,
        stat.arg_end - stat.arg_start
    );
    let mut words = proc::auxv::read(&task).unwrap();
    assert_eq!(proc::auxv::value(&words, 6), Some(4096));
    assert_eq!(words.split_off(words.len() - 2), [0, 0]);
}

#[test]
fn single_values_are_read() {
    let task = own();
    assert_eq!(proc::scalar::personality(&task).unwrap() & !0x0040000, 0);
    assert!((-1000..=1000).contains(&proc::scalar::oom_score_adj(&task).unwrap()));
    let slack = rustix::thread::current_timer_slack().unwrap();
    let thread = task.thread(rustix::thread::gettid()).unwrap();
    assert_eq!(thread.pid(), rustix::thread::gettid());
    assert!(slack > 0 && proc::scalar::timerslack_ns(&task).unwrap() > 0);
    assert!(proc::scalar::coredump_filter(&task).unwrap().is_some());
    assert!(proc::scalar::setgroups_allowed(&task).is_ok());
    assert!(proc::scalar::environ(&task).is_ok());
    assert!(proc::scalar::security_label(&task).is_ok());
    match proc::scalar::loginuid(&task) {
        Ok(_) => {}
        Err(error) => assert!(error.is_gone(), "{error}"),
    }
}

#[test]
fn namespaces_have_ids() {
    let task = own();
    let ids = proc::ns::read(&task).unwrap();
    for kind in [
        proc::ns::Kind::Mnt,
        proc::ns::Kind::Pid,
        proc::ns::Kind::User,
    ] {
        assert_ne!(ids.get(kind), 0);
        let fd = proc::ns::open(&task, kind).unwrap();
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_ino, ids.get(kind));
    }
    assert!(!proc::ns::uid_map(&task).unwrap().is_empty());
    assert!(!proc::ns::gid_map(&task).unwrap().is_empty());
    assert!(!proc::cgroup::read(&task).unwrap().is_empty());
    assert!(
        proc::mountinfo::read(&task)
            .unwrap()
            .iter()
            .any(|mount| mount.mount_point == b"/")
    );
}

#[test]
fn descriptors_are_listed() {
    let task = own();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let fds = proc::fd::list(&task).unwrap();
    assert!(fds.is_sorted() && fds.contains(&reader.as_raw_fd()));
    let link = proc::fd::link(&task, writer.as_raw_fd()).unwrap();
    assert!(link.as_bytes().starts_with(b"pipe:["));
    let info = proc::fdinfo::read(&task, writer.as_raw_fd()).unwrap();
    assert_eq!(info.flags & 3, OFlags::WRONLY.bits());
    assert!(info.cloexec());
    assert_eq!(info.ino, Some(rustix::fs::fstat(&writer).unwrap().st_ino));
    let missing = proc::fdinfo::read(&task, 12345).unwrap_err();
    assert!(missing.is_gone());
    assert_eq!(
        missing.to_string().split(':').next(),
        Some(&*format!("cannot read /proc/{}/fdinfo/12345", task.pid()))
    );
}

/// A shell that reads its input, so that it stays until told.
fn shell(script: &str) -> Child {
    let mut child = Command::new("sh");
    child
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    child.spawn().unwrap()
}

#[test]
fn children_and_threads_are_listed() {
    let mut child = shell("sleep 60 & echo $!; read x; kill $!");
    let mut line = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    let sleeper: i32 = std::str::from_utf8(&line).unwrap().trim().parse().unwrap();
    let task = proc::task_dir(Pid::from_child(&child)).unwrap();
    let children = proc::tasks::children(&task).unwrap();
    assert_eq!(
        children
            .iter()
            .map(|pid| pid.as_raw_pid())
            .collect::<Vec<_>>(),
        [sleeper]
    );
    assert_eq!(
        proc::tasks::threads(&task).unwrap(),
        [Pid::from_child(&child)]
    );
    assert!(
        proc::tasks::threads(&own())
            .unwrap()
            .contains(&rustix::thread::gettid())
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_directory_outlives_its_task_without_naming_another() {
    let mut child = shell("read x");
    let task = proc::task_dir(Pid::from_child(&child)).unwrap();
    assert_eq!(proc::stat::read(&task).unwrap().comm, b"sh");
    let fd = pidfd::open(task.pid()).unwrap();
    drop(child.stdin.take());
    while !pidfd::has_exited(&fd).unwrap() {
        std::thread::yield_now();
    }
    let stat = proc::stat::read(&task).unwrap();
    assert!(stat.state.is_dead(), "{stat:?}");
    let status = proc::status::read(&task).unwrap();
    assert_eq!((status.umask, status.vm_rss), (None, 0));
    assert_eq!(proc::maps::read(&task).unwrap(), []);
    assert_eq!(proc::fd::list(&task).unwrap(), []);
    child.wait().unwrap();
    for error in [
        proc::stat::read(&task).unwrap_err(),
        proc::smaps::read(&task).unwrap_err(),
        proc::ns::read(&task).unwrap_err(),
        proc::fd::list(&task).unwrap_err(),
    ] {
        assert!(error.is_gone(), "{error}");
        assert!(matches!(error.errno(), Errno::SRCH | Errno::NOENT));
    }
}

#[test]
fn odd_names_are_read() {
    let child = std::thread::spawn(|| {
        rustix::thread::set_name(c"a) R (\n\\b").unwrap();
        let task = own().thread(rustix::thread::gettid()).unwrap();
        assert_eq!(proc::stat::read(&task).unwrap().comm, b"a) R (\n\\b");
        assert_eq!(proc::scalar::comm(&task).unwrap(), b"a) R (\n\\b");
        assert_eq!(proc::status::read(&task).unwrap().name, b"a) R (\\n\\\\b");
    });
    child.join().unwrap();
}

/// How long a file takes with and without parsing; printed, for it depends on the machine.
#[test]
fn parsing_costs_little_beside_the_kernel() {
    const ROUNDS: u32 = 20;
    fn time<T>(mut work: impl FnMut() -> T) -> std::time::Duration {
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                std::hint::black_box(work());
            }
            best = best.min(start.elapsed() / ROUNDS);
        }
        best
    }
    let task = own();
    let raw = |name: &str| time(|| task.read(name, 4096).unwrap());
    println!(
        "stat    {:?} of which read {:?}",
        time(|| proc::stat::read(&task).unwrap()),
        raw("stat")
    );
    println!(
        "status  {:?} of which read {:?}",
        time(|| proc::status::read(&task).unwrap()),
        raw("status")
    );
    println!(
        "maps    {:?} of which read {:?}",
        time(|| proc::maps::read(&task).unwrap()),
        raw("maps")
    );
    println!(
        "smaps   {:?} of which read {:?}",
        time(|| proc::smaps::read(&task).unwrap()),
        raw("smaps")
    );
    println!(
        "limits  {:?} of which read {:?}",
        time(|| proc::limits::read(&task).unwrap()),
        raw("limits")
    );
    println!(
        "fdinfo  {:?} of which read {:?}",
        time(|| proc::fdinfo::read(&task, 1).unwrap()),
        raw("fdinfo/1")
    );
    println!("ns      {:?}", time(|| proc::ns::read(&task).unwrap()));
    println!("open    {:?}", time(own));
}
