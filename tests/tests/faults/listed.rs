//! Containers in a world of their own, of which everything is listed before and after a fault in every phase: a failed
//! dump leaves the container as it was, and a failed restore nothing of it.

use super::{CONNECTED, OF_DUMP, OF_RESTORE, must_fail_in};
use anyhow::{Context, Result, bail, ensure};
use gelid_tests::{Engine, Outcome, Verdict, furnish, output, run_to_end, spawn, succeeds_alone};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A phase that only trees with namespaces of their own go through.
const NAMESPACES: &str = "namespaces";

/// Where groups may be made.
const HIERARCHIES: [&str; 4] = [
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/freezer",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];

/// A container.
pub(super) struct Container {
    pub(super) name: &'static str,
    guest: &'static str,
    argument: &'static str,
    kinds: &'static str,
    /// What its network is furnished with, and what for that is outside.
    inside: &'static str,
    outside: &'static str,
    /// Of both commands, and of the restore alone.
    options: &'static [&'static str],
    of_restore: &'static [&'static str],
}

/// All of them.
pub(super) const CONTAINERS: &[Container] = &[BOXED, CONNECTIONS, BELOW];

const BOXED: Container = Container {
    name: "boxed",
    guest: "cgroup-mounted",
    argument: "alone",
    kinds: "pid user mnt uts ipc net cgroup box",
    inside: "ip link set lo up; ip link add br0 type bridge; ip link add v0 type veth peer name v1
        ip link set v0 master br0 up; ip link set br0 up; ip addr add 10.4.0.1/24 dev br0
        ip addr add fd04::1/64 dev br0 nodad; ip route add 10.5.0.0/16 via 10.4.0.9
        ip route add 10.6.0.0/16 via 10.4.0.9 table 77; ip rule add from 10.6.0.0/16 lookup 77 pref 500
        ip addr add 10.7.0.2/24 dev eth0; ip link set eth0 up
        nft add table inet kept; nft add set inet kept some '{ type ipv4_addr; }'
        iptables -A INPUT -p tcp --dport 81 -j DROP; true",
    outside: "ip link add gw0 type bridge; ip link set gw0 up; ip addr add 10.7.0.1/24 dev gw0
        ip link add out0 type veth peer name eth0 netns $NETWORK; ip link set out0 master gw0 up",
    options: &[],
    of_restore: &["--external", "veth[eth0]:out0@gw0"],
};

/// Connections in a namespace that the guest makes itself, which are locked meanwhile.
const CONNECTIONS: Container = Container {
    name: "connections",
    guest: "net-sockets",
    argument: "",
    kinds: "pid time",
    // Whoever locks by iptables leaves its table behind, without rules.
    inside: "for at in INPUT OUTPUT; do iptables -A $at -j ACCEPT; iptables -D $at -j ACCEPT; done; true",
    outside: "ip link set lo up",
    options: CONNECTED,
    of_restore: &[],
};

/// User namespaces below that of the root, with everything that makes them.
const BELOW: Container = Container {
    name: "below",
    guest: "users-levels",
    argument: "",
    kinds: "pid user",
    inside: "true",
    outside: "true",
    options: &[],
    of_restore: &[],
};

/// Everything fails once.
pub(super) fn run(container: &Container) -> Result<Verdict> {
    let Some(engine) = super::engine()? else {
        return Ok(super::not_criu());
    };
    match World::new(engine)? {
        Some(mut world) => world.run(container),
        None => Ok(Verdict::Skipped("no namespaces, or no ip".into())),
    }
}

/// Namespaces that nobody else is in, and groups.
struct World {
    holder: Child,
    /// Its procfs, as seen from outside.
    proc: PathBuf,
    dir: TempDir,
    engine: Engine,
    groups: Vec<PathBuf>,
}

impl Drop for World {
    fn drop(&mut self) {
        // All that is in the pid namespace goes with the first process there.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for group in &self.groups {
            remove(group);
        }
    }
}

/// Removes a group and what is below it, once those have ended that were in it.
fn remove(group: &Path) {
    for _ in 0..500 {
        let _ = fs::remove_dir(group.join("inner"));
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("{} stays", group.display());
}

impl World {
    fn new(engine: Engine) -> Result<Option<Self>> {
        // Whoever is the first there takes orphans, and waits for them.
        let first = "ip link show lo >/dev/null && echo there; sleep 600 & wait";
        let words = "--pid --fork --kill-child --mount-proc --net --ipc --uts sh -c";
        let mut unshare = tool("unshare");
        unshare.args(words.split(' ')).arg(first);
        let holder = spawn(unshare.stdout(Stdio::piped()));
        let Ok(mut holder) = holder else {
            return Ok(None);
        };
        let mut said = holder.stdout.take().context("output")?;
        let is_there = said.read_exact(&mut [0; 6]).is_ok();
        let own = holder.id();
        let inner = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let inner = inner.unwrap_or_default();
        let mut world = Self {
            proc: PathBuf::from(format!("/proc/{}/root/proc", inner.trim())),
            dir: tempfile::Builder::new().prefix("gelid-world.").tempdir()?,
            engine,
            holder,
            groups: Vec::new(),
        };
        if !is_there {
            return Ok(None);
        }
        let name = world.dir.path().file_name().context("a name")?;
        let groups = HIERARCHIES.map(|at| Path::new(at).join(name));
        let made = groups.into_iter().filter(|group| {
            let is_one = group.with_file_name("cgroup.procs").exists();
            is_one && fs::create_dir(group).is_ok()
        });
        world.groups = made.collect();
        Ok(Some(world))
    }

    /// A command there.
    fn command(&self, words: &[&str]) -> Command {
        let own = self.proc.join("1/ns");
        let mut command = tool("nsenter");
        for kind in ["pid", "mnt", "net", "ipc", "uts"] {
            let option = if kind == "mnt" { "mount" } else { kind };
            command.arg(format!("--{option}={}", own.join(kind).display()));
        }
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Has a shell do something in the network namespace of a process.
    fn network(&self, of: &str, script: &str) -> Result<String> {
        let network = self.proc.join(of).join("ns/net");
        let mut command = tool("nsenter");
        command.arg(format!("--net={}", network.display()));
        command.args(["sh", "-c", script]);
        output(&mut command).with_context(|| script.to_owned())
    }

    fn gelid(&self, phase: Option<&str>, words: &[&str]) -> Result<Outcome> {
        let start = Instant::now();
        let program = self.engine.program().display().to_string();
        let mut command = self.command(&[&[program.as_str()], words].concat());
        if let Some(phase) = phase {
            command.env("GELID_FAULT", phase);
        }
        let done = run_to_end(&mut command)?;
        let text = [done.stdout, done.stderr].concat();
        Ok(Outcome {
            code: done.status.code(),
            output: String::from_utf8_lossy(&text).into_owned(),
            log: String::new(),
            time: start.elapsed(),
        })
    }

    fn run(&mut self, container: &Container) -> Result<Verdict> {
        let is_boxed = container.kinds.ends_with("box");
        let place = self.dir.path().join("box");
        let work = place.join("work");
        fs::create_dir_all(&work)?;
        let program = gelid_tests::build()?.join("gelid-guest");
        if is_boxed {
            furnish(&place, &program)?;
        }
        let Some(root) = self.start(container, &program, &work)? else {
            let said = fs::read_to_string(work.join("ready"))?;
            return Ok(Verdict::Skipped(said));
        };
        let network = self.proc.join(&root).join("ns/net");
        let outside = format!("NETWORK={}; {}", network.display(), container.outside);
        for of in ["1", &root] {
            self.network(of, NO_DOUBTS)?;
        }
        self.network("1", &outside)?;
        self.network(&root, container.inside)?;
        self.fail_to_dump(&root, container)?;
        let images = self.images("whole")?;
        let mut words = vec!["dump", "-t", &root, "-D", &images];
        words.extend(container.options);
        self.gelid(None, &words)?.expect("dump")?;
        self.gone()?;
        self.groups.iter().for_each(|group| remove(group));
        let mut words = vec!["restore", "-d", "-D", &images];
        words.extend([container.options, container.of_restore].concat());
        let place = place.display().to_string();
        if is_boxed {
            words.extend(["--root", &place]);
        }
        self.fail_to_restore(&words)?;
        self.gelid(None, &words)?.expect("restore")?;
        fs::write(work.join("go"), "")?;
        let result = await_file(&work.join("result"))?;
        ensure!(result.starts_with("ok"), "the guest says {result}");
        Ok(Verdict::Passed)
    }

    /// Starts the guest in its group; its number there, unless it cannot run here.
    fn start(&self, container: &Container, program: &Path, work: &Path) -> Result<Option<String>> {
        use std::os::unix::fs::PermissionsExt;
        for dir in [self.dir.path(), work] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?;
        }
        let enter = self.groups.iter();
        let enter = enter.map(|group| format!("echo $$ >{}/cgroup.procs; ", group.display()));
        let script = format!(
            "umask 0; {}{} inside '{}' {} {w} {} >{w}/log 2>&1",
            enter.collect::<String>(),
            program.display(),
            container.kinds,
            container.guest,
            container.argument,
            w = work.display()
        );
        let started = succeeds_alone(&mut self.command(&["sh", "-c", &script]))?;
        let log = || fs::read_to_string(work.join("log")).unwrap_or_default();
        ensure!(started, "the guest: {}", log());
        let ready = await_file(&work.join("ready")).with_context(log)?;
        if ready.starts_with("skip") {
            return Ok(None);
        }
        let root = fs::read_to_string(work.join("root"))?;
        for group in &self.groups {
            // Below where its cgroup namespace begins.
            fs::create_dir(group.join("inner"))?;
            let enter = format!("echo {root} >{}/inner/cgroup.procs", group.display());
            let entered = succeeds_alone(&mut self.command(&["sh", "-c", &enter]))?;
            ensure!(entered, "the guest cannot enter its group");
        }
        Ok(Some(root))
    }

    fn images(&self, name: &str) -> Result<String> {
        let images = self.dir.path().join(name);
        fs::create_dir_all(&images)?;
        Ok(images.display().to_string())
    }

    fn fail_to_dump(&self, root: &str, container: &Container) -> Result<()> {
        let before = self.settled(Some(root))?;
        for phase in OF_DUMP.iter().chain([&NAMESPACES]) {
            let images = self.images(&format!("dump-{phase}"))?;
            let mut words = vec!["dump", "-t", root, "-D", &images];
            words.extend(container.options);
            must_fail_in(&self.gelid(Some(phase), &words)?, phase)?;
            let told = || format!("a dump that failed in {phase}");
            self.must_be(Some(root), &before).with_context(told)?;
        }
        Ok(())
    }

    fn fail_to_restore(&self, words: &[&str]) -> Result<()> {
        let before = self.settled(None)?;
        for phase in OF_RESTORE.iter().chain([&NAMESPACES]) {
            must_fail_in(&self.gelid(Some(phase), words)?, phase)?;
            let told = || format!("a restore that failed in {phase}");
            self.must_be(None, &before).with_context(told)?;
        }
        Ok(())
    }

    /// Waits until nobody but the holder is there.
    fn gone(&self) -> Result<()> {
        for _ in 0..500 {
            // The first process, and the one that keeps it waiting.
            if self.processes()?.len() == 2 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("somebody is left: {:?}", self.processes()?)
    }

    /// What is listed, once two lists agree.
    fn settled(&self, tree: Option<&str>) -> Result<BTreeSet<String>> {
        let mut last = self.listed(tree)?;
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(10));
            let next = self.listed(tree)?;
            if next == last {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    /// What was listed before must be listed again; what goes may take a moment for it.
    fn must_be(&self, tree: Option<&str>, before: &BTreeSet<String>) -> Result<()> {
        let mut after = self.listed(tree)?;
        for _ in 0..200 {
            if after == *before {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
            after = self.listed(tree)?;
        }
        let more: Vec<_> = after.difference(before).collect();
        let less: Vec<_> = before.difference(&after).collect();
        bail!("more is listed: {more:#?}\nless is listed: {less:#?}")
    }

    fn processes(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.proc)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Processes with their namespaces, mounts and groups; networks with links, addresses, routes and rules; groups.
    fn listed(&self, tree: Option<&str>) -> Result<BTreeSet<String>> {
        let mut lines = BTreeSet::new();
        for pid in self.processes()? {
            let process = self.proc.join(&pid);
            // Who has ended meanwhile is looked for again.
            for entry in fs::read_dir(process.join("ns")).into_iter().flatten() {
                let link = fs::read_link(entry?.path()).unwrap_or_default();
                lines.insert(format!("process {pid} in {}", link.display()));
            }
            for file in ["mountinfo", "cgroup"] {
                let text = fs::read_to_string(process.join(file)).unwrap_or_default();
                lines.extend(text.lines().map(|line| format!("process {pid}: {line}")));
            }
            lines.insert(format!("process {pid}"));
        }
        for of in ["1"].into_iter().chain(tree) {
            let text = self.network(of, NETWORK)?;
            lines.extend(text.lines().map(|line| format!("network of {of}: {line}")));
        }
        for group in &self.groups {
            for dir in [group.clone(), group.join("inner")] {
                let text = fs::read_to_string(dir.join("cgroup.procs"));
                let members = text.map(|text| text.lines().count());
                lines.extend(members.map(|count| format!("{}: {count}", dir.display())));
            }
        }
        Ok(lines)
    }
}

/// Has addresses be there at once: later ones would be listed differently.
const NO_DOUBTS: &str = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; true";

/// Tells everything of a network. What counts on by itself is left out.
const NETWORK: &str = "ip -d link | sed 's/_timer *[0-9.]*//g'; ip addr; ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule
    nft -s list ruleset 2>/dev/null; iptables-save 2>/dev/null | grep -v '^[#:]'; ip6tables-save 2>/dev/null | grep -v '^[#:]'
    true";

fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// The text of a file that is to appear whole.
fn await_file(path: &Path) -> Result<String> {
    for _ in 0..2000 {
        if let Ok(text) = fs::read_to_string(path) {
            return Ok(text);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("no {}", path.display())
}
