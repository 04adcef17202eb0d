//! Network namespaces.
//!
//! `net-links`: bridge, pairs, tunnel, addresses, neighbours, routes of two tables, rules, sysctls. `net-firewall`: rules
//! of both kinds. `net-sockets`: sockets of all families, a connection among them. `net-nested`: a child in a namespace of
//! its own, a pair of links between both, a socket left behind, and the other namespace open. `net-tun`: a device that
//! goes with its file. `net-traffic`: queueing disciplines, and groups that a link was given. `net-classes`, `net-secured`:
//! a discipline with classes, and a policy of IPsec.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, Kid, ensure, same, until};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("net-links", links),
    Entry("net-firewall", firewall),
    Entry("net-sockets", sockets),
    Entry("net-nested", nested),
    Entry("net-tun", tun),
    Entry("net-traffic", traffic),
    Entry("net-classes", classes),
    Entry("net-secured", secured),
];

/// Leaves the network namespace of the test.
fn leave() -> Check {
    os!(libc::unshare(libc::CLONE_NEWNET))?;
    Ok(())
}

/// Has a program read `input`; what it has said.
fn run(words: &str, input: &str) -> Check<String> {
    let mut words = words.split(' ');
    let program = words.next().unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(program)
        .args(words)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| Failure::skip(format!("{program}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Has `ip` do several things.
fn ip(lines: &str) -> Check {
    run("ip -batch -", lines).map(drop)
}

/// What `ip` shows, without what passes, in one order.
fn shown(what: &str) -> Check<Vec<String>> {
    let shown = run(&format!("ip {what}"), "")?;
    let passing = ["gc_timer", "forward_delay_timer", "state", "valid_lft"];
    let words = |line: &str| {
        let words = line.split_whitespace();
        let mut words: Vec<&str> = words.collect();
        for name in passing {
            if let Some(at) = words.iter().position(|word| *word == name) {
                words.drain(at..words.len().min(at + 2));
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<String> = shown.lines().map(words).collect();
    lines.sort();
    Ok(lines)
}

const LINKS: &str = "\
link set lo up
link add br0 type bridge ageing_time 1234
link add v0 txqueuelen 77 mtu 1400 type veth peer name v1
link set v0 master br0 alias somewhere
link property add dev v1 altname other-name
addr add 10.1.1.1/24 dev br0
addr add 10.1.1.2/24 dev br0
addr add fd00::1/64 dev v1 nodad
link set br0 up
link set v0 up
link set v1 up
neigh add 10.1.1.9 lladdr 02:00:00:00:00:02 dev br0
route add 10.9.0.0/16 via 10.1.1.9 metric 7
route add unreachable 10.10.0.0/16
route add 10.8.0.0/16 nexthop via 10.1.1.7 weight 1 nexthop via 10.1.1.8 weight 2
route add 10.8.0.0/16 via 10.1.1.9 table 77
rule add from 10.8.0.0/16 lookup 77 pref 500
rule del pref 32767
route del 10.1.1.0/24 dev br0 src 10.1.1.1
route add 10.1.1.0/24 dev br0 src 10.1.1.2
";

/// What a namespace is told by.
const SHOWN: [&str; 6] = [
    "-d link show",
    "addr show to 10.0.0.0/8",
    "addr show to fd00::/16",
    "-4 route show table 0",
    "rule show",
    "neigh show nud permanent",
];

/// Sysctls that are set, and to what.
const SYSCTLS: [(&str, &str); 6] = [
    ("ipv4/ip_local_port_range", "20000\t30000"),
    ("ipv4/conf/all/forwarding", "1"),
    ("ipv4/conf/v1/rp_filter", "2"),
    ("ipv6/conf/v1/hop_limit", "33"),
    ("ipv4/neigh/v1/gc_stale_time", "99"),
    ("unix/max_dgram_qlen", "123"),
];

fn links(guest: &Guest) -> Check {
    leave()?;
    ip(LINKS)?;
    for (name, value) in SYSCTLS {
        fs::write(format!("/proc/sys/net/{name}"), value)?;
    }
    let before: Vec<_> = SHOWN.into_iter().map(shown).collect::<Check<_>>()?;
    guest.hold()?;
    for (what, before) in SHOWN.into_iter().zip(before) {
        same!(what, shown(what)?, before);
    }
    for (name, value) in SYSCTLS {
        let now = fs::read_to_string(format!("/proc/sys/net/{name}"))?;
        same!(name, now.trim_end(), value);
    }
    let v6 = UdpSocket::bind("[fd00::1]:7")?;
    drop(v6);
    Ok(())
}

const TABLE: &str = "\
table inet kept {
    set some { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.7 } }
    chain input { type filter hook input priority 5; policy accept; ip saddr @some drop; }
}
";

fn firewall(guest: &Guest) -> Check {
    leave()?;
    run("nft -f -", TABLE)?;
    run("iptables -A INPUT -p tcp --dport 81 -j DROP", "")?;
    let look = || -> Check<[String; 2]> {
        let all = [
            run("nft list table inet kept", "")?,
            run("iptables -S", "")?,
        ];
        Ok(all)
    };
    let before = look()?;
    guest.hold()?;
    same!("rules", look()?, before);
    Ok(())
}

/// An abstract name that is free in each new namespace.
fn unix() -> Check<UnixDatagram> {
    let name = SocketAddr::from_abstract_name("the same everywhere")?;
    Ok(UnixDatagram::bind_addr(&name)?)
}

fn sockets(guest: &Guest) -> Check {
    leave()?;
    ip("link set lo up\n")?;
    let listener = TcpListener::bind("127.0.0.1:4000")?;
    let mut client = TcpStream::connect("127.0.0.1:4000")?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"on its way")?;
    let udp = UdpSocket::bind("127.0.0.1:4000")?;
    let named = unix()?;
    guest.hold()?;
    let mut bytes = [0; 10];
    server.read_exact(&mut bytes)?;
    same!("unread", &bytes, b"on its way");
    server.write_all(b"0123456789")?;
    client.read_exact(&mut bytes)?;
    same!("answer", &bytes, b"0123456789");
    // Another one still has a way in, the same name does not.
    drop(TcpStream::connect("127.0.0.1:4000")?);
    ensure!(unix().is_err(), "the name is free");
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    sender.send_to(b"x", udp.local_addr()?)?;
    same!("datagram", udp.recv(&mut bytes)?, 1);
    drop(named);
    Ok(())
}

/// Inode of the network namespace of the caller.
fn own() -> Check<std::path::PathBuf> {
    Ok(fs::read_link("/proc/self/ns/net")?)
}

fn nested(guest: &Guest) -> Check {
    leave()?;
    ip("link set lo up\n")?;
    let here = unix()?;
    let outer = fs::File::open("/proc/self/ns/net")?;
    let parent = std::process::id();
    let kid: Kid = guest.fork("inner", |guest| {
        leave()?;
        ip(&format!(
            "link set lo up\nlink add in0 type veth peer name out0 netns {parent}\n\
             addr add 10.5.0.2/24 dev in0\nlink set in0 up\n"
        ))?;
        let named = unix()?;
        let udp = UdpSocket::bind("10.5.0.2:9")?;
        // One that stays there when its owner is elsewhere.
        let left = UdpSocket::bind("127.0.0.1:10")?;
        fs::write(guest.path("inner-is-up"), "")?;
        guest.wait();
        ensure!(unix().is_err(), "the name is free");
        let mut bytes = [0; 4];
        same!("datagram", udp.recv(&mut bytes)?, 4);
        os!(libc::setns(outer.as_raw_fd(), libc::CLONE_NEWNET))?;
        ensure!(
            UdpSocket::bind("10.5.0.2:11").is_err(),
            "it is in the other"
        );
        drop((named, left));
        Ok(())
    })?;
    until("inner namespace", || Ok(guest.path("inner-is-up").exists()))?;
    ip("addr add 10.5.0.1/24 dev out0\nlink set out0 up\n")?;
    let before = shown("-d link show dev out0")?;
    let mine = own()?;
    guest.hold()?;
    same!("link", shown("-d link show dev out0")?, before);
    ensure!(unix().is_err(), "the name is free");
    let theirs = fs::read_link(format!("/proc/{}/ns/net", kid.pid))?;
    ensure!(theirs != own()?, "both are in one namespace: {mine:?}");
    let udp = UdpSocket::bind("10.5.0.1:0")?;
    udp.send_to(b"ping", "10.5.0.2:9")?;
    kid.join(guest)?;
    drop(here);
    Ok(())
}

fn tun(guest: &Guest) -> Check {
    leave()?;
    let name = "fleeting0";
    let file = crate::tun::fleeting_device(name)?;
    ip("addr add 10.6.0.1/24 dev fleeting0\nlink set fleeting0 up\n")?;
    let before = shown("-d link show dev fleeting0")?;
    guest.hold()?;
    same!("link", shown("-d link show dev fleeting0")?, before);
    drop(file);
    ensure!(shown("link show dev fleeting0").is_err(), "it has stayed");
    Ok(())
}

fn traffic(guest: &Guest) -> Check {
    leave()?;
    ip("link add v0 type veth peer name v1\nmaddr add 33:33:00:00:00:55 dev v0\nlink set v0 up\n")?;
    run(
        "tc -batch -",
        "qdisc add dev v0 root handle 1: tbf rate 1mbit burst 5k latency 20ms\n\
         qdisc add dev v0 parent 1: handle 10: pfifo limit 77\n\
         qdisc add dev v1 root handle 3: bfifo limit 5000\n",
    )?;
    let disciplines = || -> Check<Vec<String>> {
        let told = run("tc qdisc show", "")?;
        let mut lines: Vec<String> = told.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    };
    let look = || -> Check<_> { Ok((disciplines()?, shown("maddr show dev v0")?)) };
    let before = look()?;
    same!("disciplines", before.0.len(), 3);
    guest.hold()?;
    same!("traffic", look()?, before);
    Ok(())
}

fn classes(guest: &Guest) -> Check {
    leave()?;
    let added = run("tc qdisc add dev lo root handle 1: htb", "");
    added.map_err(|error| Failure::skip(error.to_string()))?;
    let before = run("tc qdisc show", "")?;
    guest.hold()?;
    same!("disciplines", run("tc qdisc show", "")?, before);
    Ok(())
}

fn secured(guest: &Guest) -> Check {
    leave()?;
    let added = run(
        "ip xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out action block",
        "",
    );
    added.map_err(|error| Failure::skip(error.to_string()))?;
    let before = run("ip xfrm policy", "")?;
    guest.hold()?;
    same!("policies", run("ip xfrm policy", "")?, before);
    Ok(())
}
