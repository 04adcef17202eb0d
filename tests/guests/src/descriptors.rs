//! Descriptor tables: who points to which open file description, and with which flags.
//!
//! `dup`: several descriptors of one task share a position. `dup-forked`: so do parent and children, until one closes.
//! `cloexec`: the flag, by descriptor. `high-descriptors`: large numbers, and a table with holes. `owner-signal`: `F_SETOWN`
//! and `F_SETSIG`. `devices`: null, zero, full, random, urandom. `many-files`: a thousand of them.
//! `of-processes`: what `/proc` shows of oneself and of the parent. `of-the-dead`: of a child that has ended.
//! `of-networks`: files that lose their names in the kernel all the time. `of-a-stranger` is refused. `open-namespaces`: files of `/proc/PID/ns`.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Gate, Guest, ensure, same, until};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("dup", dup),
    Entry("dup-forked", dup_forked),
    Entry("cloexec", cloexec),
    Entry("high-descriptors", high_descriptors),
    Entry("owner-signal", owner_signal),
    Entry("devices", devices),
    Entry("many-files", many_files),
    Entry("no-stdio", no_stdio),
    Entry("of-processes", of_processes),
    Entry("of-networks", of_networks),
    Entry("of-the-dead", of_the_dead),
    Entry("of-a-stranger", of_a_stranger),
    Entry("open-namespaces", namespaces),
];

/// Position of a descriptor.
pub(crate) fn position(fd: i32) -> Check<i64> {
    os!(libc::lseek(fd, 0, libc::SEEK_CUR))
}

/// Opens a file of ten bytes for reading and writing.
pub(crate) fn digits(guest: &Guest, name: &str) -> Check<File> {
    fs::write(guest.path(name), b"0123456789")?;
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .open(guest.path(name))?)
}

fn dup(guest: &Guest) -> Check {
    let file = digits(guest, "data")?;
    let copies = [
        os!(libc::dup(file.as_raw_fd()))?,
        os!(libc::dup2(file.as_raw_fd(), 77))?,
    ];
    let separate = OpenOptions::new()
        .read(true)
        .write(true)
        .open(guest.path("data"))?;
    (&file).seek(SeekFrom::Start(3))?;
    guest.hold()?;
    os!(libc::lseek(copies[1], 2, libc::SEEK_CUR))?;
    same!(
        "positions",
        (position(file.as_raw_fd())?, position(copies[0])?),
        (5, 5)
    );
    same!(
        "position of the file opened again",
        position(separate.as_raw_fd())?,
        0
    );
    let kind = 0; // KCMP_FILE
    let me = std::process::id();
    let compare = |other: i32| {
        os!(libc::syscall(
            libc::SYS_kcmp,
            me,
            me,
            kind,
            file.as_raw_fd(),
            other
        ))
    };
    ensure!(
        compare(copies[0])? == 0 && compare(77)? == 0,
        "copies are no longer one description"
    );
    ensure!(
        compare(separate.as_raw_fd())? != 0,
        "files opened twice are now one description"
    );
    Ok(())
}

fn dup_forked(guest: &Guest) -> Check {
    let (shared, closed) = (digits(guest, "shared")?, digits(guest, "closed")?);
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    for index in 0..3_i32 {
        kids.push(guest.fork(&format!("child-{index}"), |guest| {
            // At another number in one of them, and the other file closed.
            os!(libc::close(closed.as_raw_fd()))?;
            let fd = os!(libc::dup2(shared.as_raw_fd(), 50 + index))?;
            let own = digits(guest, &format!("own-{index}"))?;
            os!(libc::lseek(
                own.as_raw_fd(),
                i64::from(index),
                libc::SEEK_SET
            ))?;
            gate.arrive()?;
            guest.wait();
            os!(libc::lseek(fd, 1, libc::SEEK_CUR))?;
            same!(
                "position of the own file",
                position(own.as_raw_fd())?,
                i64::from(index)
            );
            ensure!(
                os!(libc::fcntl(closed.as_raw_fd(), libc::F_GETFD)).is_err()
                    || closed.as_raw_fd() == own.as_raw_fd(),
                "closed file is back"
            );
            Ok(())
        })?);
    }
    gate.wait(3)?;
    guest.hold()?;
    kids.iter().try_for_each(|kid| kid.join(guest))?;
    same!(
        "position moved by three children",
        position(shared.as_raw_fd())?,
        3
    );
    same!(
        "position of the file they closed",
        position(closed.as_raw_fd())?,
        0
    );
    Ok(())
}

fn cloexec(guest: &Guest) -> Check {
    let file = digits(guest, "data")?;
    for number in 60..68 {
        os!(libc::dup3(
            file.as_raw_fd(),
            number,
            if number % 2 == 0 { libc::O_CLOEXEC } else { 0 }
        ))?;
    }
    guest.hold()?;
    for number in 60..68 {
        same!(
            format!("flags of descriptor {number}"),
            os!(libc::fcntl(number, libc::F_GETFD))?,
            i32::from(number % 2 == 0)
        );
    }
    // An exec sees what is left.
    let list = std::process::Command::new("/bin/ls")
        .arg("/proc/self/fd")
        .output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let left: Vec<&str> = list
        .split_whitespace()
        .filter(|word| word.len() == 2)
        .collect();
    same!("descriptors after exec", left, ["61", "63", "65", "67"]);
    Ok(())
}

fn high_descriptors(guest: &Guest) -> Check {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    os!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    limit.rlim_cur = limit.rlim_max;
    os!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    let highest = i32::try_from(limit.rlim_max.min(100_000)).unwrap_or(1024) - 1;
    let numbers = [3, 63, 64, 255, 256, 1023, 1024.min(highest - 1), highest];
    let file = digits(guest, "data")?;
    for number in numbers.iter().filter(|number| **number != file.as_raw_fd()) {
        os!(libc::dup2(file.as_raw_fd(), *number))?;
    }
    os!(libc::lseek(file.as_raw_fd(), 6, libc::SEEK_SET))?;
    // Lowered afterwards: the descriptor above the limit stays usable.
    limit.rlim_cur = 512;
    os!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    guest.hold()?;
    for number in numbers {
        same!(
            format!("position of descriptor {number}"),
            position(number)?,
            6
        );
    }
    same!(
        "descriptors between",
        (os!(libc::fcntl(100, libc::F_GETFD)).is_err(), errno()),
        (true, libc::EBADF)
    );
    Ok(())
}

fn owner_signal(guest: &Guest) -> Check {
    const GETOWN_EX: i32 = 16;
    const SETOWN_EX: i32 = 15;
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    let (me, group) = (
        std::process::id().cast_signed(),
        rustix::process::getpgrp().as_raw_nonzero().get(),
    );
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    let (file, other, third) = (
        digits(guest, "data")?,
        digits(guest, "other")?,
        digits(guest, "third")?,
    );
    os!(libc::fcntl(ends[0], libc::F_SETOWN, me))?;
    os!(libc::fcntl(ends[0], 10, 40))?; // F_SETSIG
    os!(libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, -group))?;
    os!(libc::fcntl(other.as_raw_fd(), 10, libc::SIGUSR2))?;
    let thread = [0, tid]; // F_OWNER_TID
    os!(libc::fcntl(third.as_raw_fd(), SETOWN_EX, thread.as_ptr()))?;
    let look = |fd: i32| -> Check<([i32; 2], i32)> {
        let mut owner = [-1, -1];
        os!(libc::fcntl(fd, GETOWN_EX, owner.as_mut_ptr()))?;
        Ok((owner, os!(libc::fcntl(fd, 11))?))
    };
    let all = || -> Check<Vec<_>> {
        [
            ends[0],
            ends[1],
            file.as_raw_fd(),
            other.as_raw_fd(),
            third.as_raw_fd(),
        ]
        .into_iter()
        .map(look)
        .collect()
    };
    let before = all()?;
    guest.hold()?;
    same!("owners and signals", all()?, before);
    // And it works: the pipe tells its owner when there is something to read.
    crate::signals::mask(Some(crate::signals::bit(40)))?;
    os!(libc::fcntl(
        ends[0],
        libc::F_SETFL,
        libc::O_ASYNC | libc::O_NONBLOCK
    ))?;
    os!(libc::write(ends[1], c"!".as_ptr().cast(), 1))?;
    let (set, limit) = (
        crate::signals::bit(40),
        libc::timespec {
            tv_sec: 5,
            tv_nsec: 0,
        },
    );
    let none = std::ptr::null_mut::<u8>();
    same!(
        "signal",
        os!(libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            none,
            &raw const limit,
            8
        ))?,
        40
    );
    Ok(())
}

fn devices(guest: &Guest) -> Check {
    let open = |name: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/dev/{name}"))
    };
    let (mut null, mut zero, mut full) = (open("null")?, open("zero")?, open("full")?);
    let (mut random, mut urandom) = (File::open("/dev/random")?, File::open("/dev/urandom")?);
    guest.hold()?;
    let mut bytes = [1; 16];
    null.write_all(b"gone")?;
    same!("read from null", null.read(&mut bytes)?, 0);
    zero.read_exact(&mut bytes)?;
    same!("read from zero", bytes, [0; 16]);
    same!(
        "write to full",
        full.write(b"x").map_err(|error| error.raw_os_error()),
        Err(Some(libc::ENOSPC))
    );
    for device in [&mut random, &mut urandom] {
        bytes = [0; 16];
        device.read_exact(&mut bytes)?;
        ensure!(bytes != [0; 16], "no random bytes");
    }
    Ok(())
}

fn many_files(guest: &Guest) -> Check {
    let count = guest.number(0, 400)?;
    let mut files = Vec::new();
    for index in 0..count {
        let file = digits(guest, &format!("file-{index}"))?;
        os!(libc::lseek(
            file.as_raw_fd(),
            (index % 10) as i64,
            libc::SEEK_SET
        ))?;
        files.push(file);
    }
    guest.hold()?;
    for (index, file) in files.iter().enumerate() {
        same!(
            format!("position of file {index}"),
            position(file.as_raw_fd())?,
            (index % 10) as i64
        );
        let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        same!("name", name, guest.path(&format!("file-{index}")));
    }
    Ok(())
}

fn no_stdio(guest: &Guest) -> Check {
    for number in 0..3 {
        os!(libc::close(number))?;
    }
    guest.hold()?;
    let open: Vec<_> = fs::read_dir("/proc/self/fd")?.collect();
    same!("open descriptors (one lists them)", open.len(), 1);
    Ok(())
}

/// Files of `/proc` with contents read half-way, some by descriptors that others have as well.
fn of_processes(guest: &Guest) -> Check {
    const HIGH: i32 = 200;
    let me = std::process::id();
    let mut maps = File::open("/proc/self/maps")?;
    let mut head = [0; 40];
    maps.read_exact(&mut head)?;
    let whole = fs::read("/proc/self/maps")?;
    let comm = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/comm")?;
    os!(libc::dup2(comm.as_raw_fd(), HIGH))?;
    let tasks = File::open("/proc/self/task")?;
    let gate = Gate::new()?;
    let kid = guest.fork("reader", |guest| {
        let mut of_parent = File::open(format!("/proc/{me}/stat"))?;
        gate.arrive()?;
        guest.wait();
        let mut text = String::new();
        of_parent.read_to_string(&mut text)?;
        ensure!(text.starts_with(&format!("{me} (")), "parent: {text}");
        same!("flags", os!(libc::fcntl(HIGH, libc::F_GETFD))?, 0);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    kid.join(guest)?;
    os!(libc::write(HIGH, b"renamed".as_ptr().cast(), 7))?;
    let mut rest = Vec::new();
    maps.read_to_end(&mut rest)?;
    same!("start of the rest", rest.get(..400), whole.get(40..440));
    same!("name", fs::read_to_string("/proc/self/comm")?, "renamed\n");
    let found = fs::read_dir(format!("/proc/self/fd/{}", tasks.as_raw_fd()))?.count();
    same!("tasks", found, 1);
    Ok(())
}

fn of_the_dead(guest: &Guest) -> Check {
    let child = guest.fork("child", |guest| {
        until("the end", || Ok(guest.path("end").exists()))
    })?;
    let path = format!("/proc/{}", child.pid);
    let mut stat = File::open(format!("{path}/stat"))?;
    let comm = OpenOptions::new()
        .write(true)
        .open(format!("{path}/comm"))?;
    let dir = File::open(&path)?;
    let other = guest.fork("other", |guest| {
        std::env::set_current_dir(&path)?;
        fs::write(guest.path("there"), "")?;
        guest.wait();
        same!("name", std::env::current_dir().is_err(), true);
        let here = fs::read_link("/proc/self/cwd")?;
        same!(
            "here",
            here.display().to_string(),
            format!("{path} (deleted)")
        );
        Ok(())
    })?;
    until("the other", || Ok(guest.path("there").exists()))?;
    fs::write(guest.path("end"), "")?;
    child.join(guest)?;
    guest.hold()?;
    let mut text = String::new();
    let gone = Some(libc::ESRCH);
    same!(
        "stat",
        stat.read_to_string(&mut text)
            .map_err(|error| error.raw_os_error()),
        Err(gone)
    );
    let written = (&comm).write(b"x").map_err(|error| error.raw_os_error());
    same!("comm", written, Err(gone));
    let found = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    same!(
        "directory",
        found.is_ok_and(|mut found| found.next().is_some_and(|entry| entry.is_ok())),
        false
    );
    other.join(guest)
}

fn of_a_stranger(guest: &Guest) -> Check {
    let parent = std::os::unix::process::parent_id();
    let mut stat = File::open(format!("/proc/{parent}/stat"))?;
    // That of the first process is another thing.
    let first = File::open("/proc/1/stat")?;
    guest.hold()?;
    let mut text = String::new();
    stat.read_to_string(&mut text)?;
    ensure!(text.starts_with(&format!("{parent} (")), "stranger: {text}");
    drop(first);
    Ok(())
}

fn namespaces(guest: &Guest) -> Check {
    let kinds = ["mnt", "net", "uts", "ipc", "pid", "user", "cgroup"];
    let open = |kind: &&str| File::open(format!("/proc/self/ns/{kind}"));
    let files: Vec<File> = kinds.iter().map(open).collect::<Result<_, _>>()?;
    let copy = files[1].try_clone()?;
    guest.hold()?;
    for (kind, file) in kinds.iter().zip(&files) {
        let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        same!(
            "namespace",
            link,
            fs::read_link(format!("/proc/self/ns/{kind}"))?
        );
    }
    // One's own can be entered.
    os!(libc::setns(copy.as_raw_fd(), libc::CLONE_NEWNET))?;
    Ok(())
}

/// Files of networks, each of which the kernel takes for deleted when somebody looks for it again.
fn of_networks(guest: &Guest) -> Check {
    let names = ["/proc/self/net/tcp", "/proc/1/net/dev", "/proc/1/net/stat"];
    let files: Vec<File> = names.iter().map(File::open).collect::<Result<_, _>>()?;
    let look = || -> Check<Vec<u64>> {
        let pairs = files.iter().zip(names);
        let same = pairs.map(|(file, name)| {
            let (own, named) = (file.metadata()?.ino(), std::fs::metadata(name)?.ino());
            same!(name, own, named);
            Ok(own)
        });
        same.collect()
    };
    let before = look()?;
    guest.hold()?;
    same!("files", look()?, before);
    let mut text = String::new();
    (&files[0]).read_to_string(&mut text)?;
    ensure!(text.contains("local_address"), "{text}");
    Ok(())
}
