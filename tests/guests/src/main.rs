//! `gelid-guest NAME DIR [ARGS]`: programs that are dumped and restored by the integration tests.
//!
//! Each guest sets up one kernel object, says so in `DIR/ready`, waits for `DIR/go` while it is
//! dumped and restored, looks at the object again with its own eyes, and writes `DIR/result`
//! (see `protocol`). `gelid-guest --list` prints all names. `gelid-guest run DIR PROGRAM [ARGS]`
//! is the launcher for real programs: a session of their own, no inherited descriptors. `gelid-guest inside KINDS` in front
//! of all that starts the guest in namespaces of its own.

mod advice;
mod aio;
mod anon;
mod apart;
mod attributes;
mod automount;
mod below;
mod blocked;
mod bpf;
mod cgroups;
mod cow;
mod cramped;
mod credentials;
mod descriptors;
mod dispatch;
mod epoll;
mod equal;
mod eventfd;
mod fanotify;
mod full_table;
mod generations;
mod headless;
mod idle;
mod inet;
mod inotify;
mod inside;
mod io_uring;
mod ipc_namespace;
mod large_table;
mod leases;
mod locks;
mod mapped;
mod mounts;
mod mqueue;
mod nested;
mod net;
mod netlink;
mod os;
mod owners;
mod packet;
mod pidfd;
mod pipe;
mod place;
mod protection;
mod protocol;
mod pty;
mod pty_session;
mod raw;
mod refusals;
mod refused_sockets;
mod refused_tasks;
mod registers;
mod regular;
mod relay;
mod robust;
mod rseq;
mod seccomp;
mod secret;
mod sem;
mod sharing;
mod shm;
mod signalfd;
mod signals;
mod steady;
mod tcp;
mod tcp_connections;
mod threads;
mod timerfd;
mod timers;
mod tree;
mod tun;
mod udp;
mod unix;
mod unix_datagrams;
mod unix_names;
mod unix_options;
mod unix_rights;
mod unix_senders;
mod user_groups;
mod users;
mod vsock;
mod woken;
mod xstate;

use protocol::{Check, Failure, Guest};
use std::path::Path;

/// The name of a guest and its program.
struct Entry(&'static str, fn(&Guest) -> Check);

/// The guests of every object.
const OBJECTS: &[&[Entry]] = &[
    advice::GUESTS,
    aio::GUESTS,
    anon::GUESTS,
    apart::GUESTS,
    cow::GUESTS,
    refusals::GUESTS,
    refused_sockets::GUESTS,
    refused_tasks::GUESTS,
    attributes::GUESTS,
    automount::GUESTS,
    below::GUESTS,
    blocked::GUESTS,
    bpf::GUESTS,
    cgroups::GUESTS,
    cramped::GUESTS,
    credentials::GUESTS,
    descriptors::GUESTS,
    dispatch::GUESTS,
    epoll::GUESTS,
    equal::GUESTS,
    generations::GUESTS,
    eventfd::GUESTS,
    fanotify::GUESTS,
    full_table::GUESTS,
    headless::GUESTS,
    idle::GUESTS,
    inotify::GUESTS,
    io_uring::GUESTS,
    ipc_namespace::GUESTS,
    large_table::GUESTS,
    leases::GUESTS,
    locks::GUESTS,
    mapped::GUESTS,
    mounts::GUESTS,
    mqueue::GUESTS,
    pidfd::GUESTS,
    nested::GUESTS,
    net::GUESTS,
    netlink::GUESTS,
    owners::GUESTS,
    packet::GUESTS,
    pipe::GUESTS,
    place::GUESTS,
    protection::GUESTS,
    pty::GUESTS,
    pty_session::GUESTS,
    raw::GUESTS,
    registers::GUESTS,
    relay::GUESTS,
    regular::GUESTS,
    robust::GUESTS,
    rseq::GUESTS,
    secret::GUESTS,
    sharing::GUESTS,
    seccomp::GUESTS,
    sem::GUESTS,
    shm::GUESTS,
    signalfd::GUESTS,
    signals::GUESTS,
    steady::GUESTS,
    tcp::GUESTS,
    tcp_connections::GUESTS,
    threads::GUESTS,
    timerfd::GUESTS,
    timers::GUESTS,
    tree::GUESTS,
    udp::GUESTS,
    tun::GUESTS,
    unix::GUESTS,
    unix_datagrams::GUESTS,
    unix_names::GUESTS,
    unix_options::GUESTS,
    unix_rights::GUESTS,
    unix_senders::GUESTS,
    user_groups::GUESTS,
    users::GUESTS,
    vsock::GUESTS,
    woken::GUESTS,
    xstate::GUESTS,
];

/// All guests.
fn guests() -> impl Iterator<Item = &'static Entry> {
    OBJECTS.iter().copied().flatten()
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let code = match words.get(1..).unwrap_or_default() {
        [list] if list == "--list" => {
            guests().for_each(|Entry(name, _)| println!("{name}"));
            0
        }
        [inside, kinds, rest @ ..] if inside == "inside" => match inside::start(kinds, rest) {
            Ok(()) => 0,
            Err(failure) => {
                eprintln!("gelid-guest: {failure}");
                2
            }
        },
        [name, dir, rest @ ..] => start(name, Path::new(dir), rest),
        _ => {
            eprintln!("usage: gelid-guest NAME DIR [ARGS], gelid-guest --list");
            2
        }
    };
    std::process::exit(code);
}

/// Runs a guest in a session of its own, with descriptors 0 to 2 alone.
fn start(name: &str, dir: &Path, rest: &[String]) -> i32 {
    let _ = rustix::process::setsid();
    // SAFETY: nothing in this process owns a descriptor above 2 yet.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    if name == "run" {
        return launch(rest);
    }
    let Some(Entry(_, body)) = guests().find(|entry| entry.0 == name) else {
        eprintln!("gelid-guest: no guest is called {name}");
        return 2;
    };
    match Guest::new(dir, rest.to_vec()) {
        Ok(guest) => {
            let result = body(&guest);
            guest.finish(&result)
        }
        Err(failure) => {
            eprintln!("gelid-guest: {failure}");
            2
        }
    }
}

/// Replaces this process by a program.
fn launch(words: &[String]) -> i32 {
    use std::os::unix::process::CommandExt;
    let Some((program, args)) = words.split_first() else {
        return 2;
    };
    let error = std::process::Command::new(program).args(args).exec();
    eprintln!(
        "gelid-guest: {}",
        Failure::new(format!("{program}: {error}"))
    );
    2
}
