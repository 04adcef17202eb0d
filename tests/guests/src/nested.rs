//! Namespaces that tasks deeper in a tree have and its root has not.
//!
//! `nested-names`: a child on a host of another name, a child of that on a third, and one that has gone back.
//! `nested-clocks`: a child whose children have other clocks, two of them, and a child of one of these with still other ones.
//! `nested-cgroups`: a child that sees its own group as the root of all. `nested-shown`: a child with mounts that show the
//! network and the message queues of its own namespaces, and open queues.

use crate::Entry;
use crate::cgroups::Groups;
use crate::os::os;
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same};
use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("nested-names", names),
    Entry("nested-clocks", clocks),
    Entry("nested-cgroups", cgroups),
    Entry("nested-shown", shown),
];

fn leave(kind: i32) -> Check {
    os!(libc::unshare(kind))?;
    Ok(())
}

fn link(kind: &str) -> Check<String> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}"))?;
    Ok(link.to_string_lossy().into_owned())
}

fn host() -> Check<String> {
    let mut name = [0; 65];
    os!(libc::gethostname(name.as_mut_ptr().cast(), name.len()))?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or_default();
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

fn call(name: &std::ffi::CStr) -> Check {
    let len = name.count_bytes();
    os!(libc::sethostname(name.as_ptr(), len))?;
    os!(libc::setdomainname(name.as_ptr(), len))?;
    Ok(())
}

fn names(guest: &Guest) -> Check {
    let outer = fs::File::open("/proc/self/ns/uts")?.into_raw_fd();
    let gate = Gate::new()?;
    let before = host()?;
    let kid = guest.fork("second", |guest| {
        leave(libc::CLONE_NEWUTS)?;
        call(c"gelid-second")?;
        let back = guest.fork("back", |guest| {
            os!(libc::setns(outer, libc::CLONE_NEWUTS))?;
            os!(libc::close(outer))?;
            gate.arrive()?;
            guest.wait();
            same!("back", host()?, before);
            Ok(())
        })?;
        os!(libc::close(outer))?;
        let third = guest.fork("third", |guest| {
            leave(libc::CLONE_NEWUTS)?;
            call(c"gelid-third")?;
            gate.arrive()?;
            guest.wait();
            same!("third", host()?, "gelid-third");
            Ok(())
        })?;
        let same = guest.fork("same", |guest| {
            gate.arrive()?;
            guest.wait();
            same!("same", host()?, "gelid-second");
            call(c"gelid-changed")
        })?;
        guest.wait();
        for kid in [third, same, back] {
            kid.join(guest)?;
        }
        same!("second", host()?, "gelid-changed");
        let domain = fs::read_to_string("/proc/sys/kernel/domainname")?;
        same!("domain", domain.trim_end(), "gelid-changed");
        Ok(())
    })?;
    os!(libc::close(outer))?;
    gate.wait(3)?;
    guest.hold()?;
    same!("first", host()?, before);
    kid.join(guest)
}

/// What both clocks show, in milliseconds.
fn reading() -> Check<[i64; 2]> {
    let mut shown = [0; 2];
    for (shown, clock) in shown
        .iter_mut()
        .zip([libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME])
    {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        os!(libc::clock_gettime(clock, &raw mut time))?;
        *shown = time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
    }
    Ok(shown)
}

/// The clocks go on from what they showed.
fn go_on(guest: &Guest, gate: &Gate) -> Check {
    /// Milliseconds that a dump and a restore take at most.
    const LONG: i64 = 60_000;
    let before = reading()?;
    gate.arrive()?;
    guest.wait();
    for (now, before) in reading()?.into_iter().zip(before) {
        ensure!(
            (before..before + LONG).contains(&now),
            "a clock shows {now}, and showed {before}"
        );
    }
    Ok(())
}

/// Gives children other clocks.
fn set_clocks(hours: i64) -> Check {
    leave(libc::CLONE_NEWTIME).map_err(|error| Failure::skip(error.to_string()))?;
    let (one, other) = (hours * 3600, hours * 7200);
    let text = format!("monotonic {one} 5\nboottime {other} 6\n");
    Ok(fs::write("/proc/self/timens_offsets", text)?)
}

fn clocks(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let started = Instant::now();
    let giver = guest.fork("giver", |guest| {
        set_clocks(1000)?;
        let first = guest.fork("first", |guest| {
            set_clocks(5000)?;
            let deeper = guest.fork("deeper", |guest| go_on(guest, &gate))?;
            go_on(guest, &gate)?;
            deeper.join(guest)
        })?;
        let second = guest.fork("second", |guest| go_on(guest, &gate))?;
        guest.wait();
        // Numbers of namespaces that have gone are given again.
        let own = link("time")?;
        let of_children = link("time_for_children")?;
        ensure!(own != of_children, "children have no other clocks");
        let third = guest.fork("third", |_| {
            same!("clocks", link("time")?, of_children);
            same!("clocks", link("time_for_children")?, of_children);
            Ok(())
        })?;
        for kid in [first, second, third] {
            kid.join(guest)?;
        }
        Ok(())
    })?;
    gate.wait(3)?;
    guest.hold()?;
    same!("clocks", link("time")?, link("time_for_children")?);
    ensure!(started.elapsed() < Duration::from_secs(3600), "time flies");
    giver.join(guest)
}

fn cgroups(guest: &Guest) -> Check {
    let groups = Groups::make(&[
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ])?;
    let gate = Gate::new()?;
    let read = || fs::read_to_string("/proc/self/cgroup");
    let kid = guest.fork("inner", |guest| {
        for group in &groups.0 {
            fs::create_dir(group.join("inner"))?;
            fs::write(group.join("cgroup.procs"), "0")?;
        }
        leave(libc::CLONE_NEWCGROUP)?;
        let below = guest.fork("below", |guest| {
            for group in &groups.0 {
                fs::write(group.join("inner/cgroup.procs"), "0")?;
            }
            let before = read()?;
            ensure!(before.contains(":/inner\n"), "{before}");
            gate.arrive()?;
            guest.wait();
            same!("below", read()?, before);
            Ok(())
        })?;
        let before = read()?;
        ensure!(!before.contains("gelid-guest"), "{before}");
        gate.arrive()?;
        guest.wait();
        same!("groups", read()?, before);
        below.join(guest)
    })?;
    gate.wait(2)?;
    let before = read()?;
    guest.hold()?;
    same!("outer", read()?, before);
    kid.join(guest)?;
    groups.leave()
}

/// Gives the loopback device another size of packets, by which its network is recognized.
fn resize_packets(mtu: i32) -> Check {
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..20].copy_from_slice(&mtu.to_ne_bytes());
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    os!(libc::ioctl(
        socket.as_raw_fd(),
        libc::SIOCSIFMTU,
        request.as_mut_ptr()
    ))?;
    Ok(())
}

/// Names in a directory.
fn listed(at: &Path) -> Check<Vec<String>> {
    let names = fs::read_dir(at)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into()));
    names.collect()
}

fn shown(guest: &Guest) -> Check {
    let terminals = fs::metadata("/dev/pts/ptmx")?;
    let owner = |of: &fs::Metadata| (of.uid(), of.gid(), of.mode());
    let gate = Gate::new()?;
    let [network, queues] = ["network", "queues"].map(|name| guest.path(name));
    let kid = guest.fork("elsewhere", |guest| {
        leave(libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC)?;
        resize_packets(1234)?;
        // Where all others are hidden, no new one may be mounted either.
        let is_mounted = crate::mounts::mount(&network, &network, "sysfs", 0, "").is_ok();
        crate::mounts::mount(&queues, &queues, "mqueue", 0, "")?;
        let open = |flags| {
            os!(libc::mq_open(
                c"/there".as_ptr(),
                flags,
                0o600,
                std::ptr::null::<libc::mq_attr>()
            ))
        };
        let queue = open(libc::O_RDWR | libc::O_CREAT)?;
        let file = fs::File::open(queues.join("there"))?;
        gate.arrive()?;
        guest.wait();
        if is_mounted {
            let mtu = fs::read_to_string(network.join("class/net/lo/mtu"))?;
            same!("network", mtu.trim_end(), "1234");
        }
        same!("queues", listed(&queues)?, ["there"]);
        os!(libc::mq_send(open(libc::O_WRONLY)?, c"x".as_ptr(), 1, 1))?;
        let told = std::io::read_to_string(&file)?;
        ensure!(told.starts_with("QSIZE:1 "), "the file says {told}");
        let mut text = [0; 8192];
        let (room, none) = (text.len(), std::ptr::null_mut());
        let got = os!(libc::mq_receive(queue, text.as_mut_ptr(), room, none))?;
        same!("message", got, 1);
        Ok(())
    })?;
    gate.wait(1)?;
    guest.hold()?;
    kid.join(guest)?;
    let now = fs::metadata("/dev/pts/ptmx")?;
    same!("terminals", owner(&now), owner(&terminals));
    Ok(())
}
