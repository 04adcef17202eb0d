//! runc: a bundle, and each option that changes what is asked of gelid.

use super::{COUNT, CannotStart, Test, Yard, count, counts_on};
use crate::rpc::talk;
use crate::unprivileged;
use anyhow::{Context, Result, bail, ensure};
use gelid_tests::{Engine, build, succeeds_alone};
use rustix::cmsg_space;
use rustix::mount::{UnmountFlags, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

pub(super) const TESTS: &[Test] = &[
    ("checkpoint", |yard| round(yard, &[], &[])),
    ("leave-running", leave_running),
    ("options", options),
    ("mounts", mounts),
    ("cgroups-full", |yard| {
        let mode = ["--manage-cgroups-mode", "full"];
        round(yard, &mode, &mode)
    }),
    ("again", again),
    ("user-namespace", user_namespace),
    ("pod", pod),
    ("inside", inside),
    ("console", console),
];

/// Counts what comes back by a connection of its own network.
const COUNT_BY_TCP: &str = "mkfifo /in; nc -l -p 7000 -e cat & sleep 0.1; \
    nc 127.0.0.1 7000 </in | while read n; do echo $n >/c; mv /c /count; done & \
    exec 3>/in; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.02; done";

/// Counts beside zombies, and tells files of a volume and of a `tmpfs` what it has read of the latter.
const COUNT_AT_MOUNTS: &str = "sh -c 'sh -c \"exit 3\" & exec sleep 1000' & exec 3>>/volume/log 4>/memory/file; \
    echo hello >&4; i=0; \
    while :; do i=$((i+1)); cat /memory/file >&3; echo $i >/c; mv /c /count; sleep 0.02; done";

/// What `runc spec` says, as far as it matters here: namespaces of its own of all kinds but user, the usual mounts,
/// masked and read-only paths.
const CONFIG: &str = r#"{"ociVersion":"1.0.2-dev","process":{"terminal":false,"user":{"uid":0,"gid":0},
"args":["sh","-c","COUNT"],"env":["PATH=/bin","TERM=xterm"],"cwd":"/",
"capabilities":{"bounding":["CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"],
"effective":["CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"],
"permitted":["CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"]},"noNewPrivileges":true},
"root":{"path":"rootfs","readonly":false},"hostname":"gelid-test","mounts":[
{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]},
{"destination":"/etc/hosts","type":"bind","source":"HOSTS","options":["rbind","ro"]}],
"linux":{"cgroupsPath":"/NAME","resources":{"devices":[{"allow":false,"access":"rwm"}]},
"namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}],
"maskedPaths":["/proc/acpi","/proc/kcore","/proc/keys","/proc/timer_list","/sys/firmware"],
"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}}"#;

/// A container that counts, removed when it is dropped.
struct Container<'yard> {
    yard: &'yard Yard,
    count: PathBuf,
}

impl<'yard> Container<'yard> {
    fn start(yard: &'yard Yard) -> Result<Self> {
        let container = Self::make(yard, |config| config.replace("COUNT", COUNT))?;
        container.run(&[])?;
        counts_on(&container.count, 0)?;
        Ok(container)
    }

    /// Makes the bundle, with a configuration that somebody changes.
    fn make(yard: &'yard Yard, change: impl Fn(String) -> String) -> Result<Self> {
        let bundle = yard.at("bundle");
        let root = yard.root("bundle/rootfs")?;
        let hosts = yard.at("hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n")?;
        let config = CONFIG
            .replace("NAME", &yard.name)
            .replace("HOSTS", &hosts.display().to_string());
        fs::write(bundle.join("config.json"), change(config))?;
        Ok(Self {
            yard,
            count: root.join("count"),
        })
    }

    fn run(&self, options: &[&str]) -> Result<()> {
        let run = self.detached(&[&["run", "-d"][..], options, &["-b"]].concat(), &[]);
        run.map_err(|error| CannotStart(format!("runc run: {error:#}")))?;
        Ok(())
    }

    fn runc(&self, words: &[&str]) -> Command {
        let mut command = self.yard.command("runc");
        command.arg("--root").arg(self.yard.at("state")).args(words);
        command
    }

    /// Paths for runc, which has another current folder where it is given a bundle.
    fn folders(&self, images: &str) -> [String; 4] {
        let path = |name: &str| self.yard.at(name).display().to_string();
        [
            "--image-path".into(),
            path(images),
            "--work-path".into(),
            path("work"),
        ]
    }

    fn checkpoint(&self, images: &str, options: &[&str]) -> Result<u64> {
        let mut command = self.runc(&["checkpoint"]);
        command.args(self.folders(images));
        command.args(options).arg(&self.yard.name);
        self.yard.succeed(&mut command, &["dump.log"])?;
        let images = self.yard.at(images);
        for name in ["inventory.img", "descriptors.json"] {
            ensure!(images.join(name).exists(), "{name}");
        }
        Ok(count(&self.count))
    }

    fn restore(&self, images: &str, options: &[&str]) -> Result<()> {
        let folders = self.folders(images);
        let folders = folders.each_ref().map(String::as_str);
        let words = [&["restore", "-d"][..], &folders, options, &["-b"]].concat();
        self.detached(&words, &["restore.log"])
    }

    /// Starts the container, which keeps the descriptors that runc has: none of a file outside.
    fn detached(&self, words: &[&str], logs: &[&str]) -> Result<()> {
        let log = self.yard.at("runc.log");
        let mut command = self.yard.command("runc");
        command.arg("--log").arg(&log);
        command.arg("--root").arg(self.yard.at("state")).args(words);
        command.arg(self.yard.at("bundle")).arg(&self.yard.name);
        if succeeds_alone(&mut command)? {
            return Ok(());
        }
        let excerpts: String = logs.iter().map(|log| self.yard.excerpt(log)).collect();
        bail!(
            "{command:?}: {}\n{excerpts}",
            fs::read_to_string(log).unwrap_or_default()
        )
    }

    fn status(&self) -> Result<String> {
        self.yard
            .succeed(self.runc(&["state"]).arg(&self.yard.name), &[])
    }

    /// Its first process.
    fn pid(&self) -> Result<u32> {
        let status = self.status()?;
        let (_, rest) = status.split_once(r#""pid": "#).context("a pid")?;
        let digits = rest.split(|letter: char| !letter.is_ascii_digit());
        digits
            .into_iter()
            .next()
            .context("a pid")?
            .parse()
            .context("a pid")
    }

    fn remove(&self) -> Result<()> {
        let mut command = self.runc(&["delete", "-f"]);
        self.yard.succeed(command.arg(&self.yard.name), &[])?;
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Checkpoint and restore.
fn round(yard: &Yard, dump: &[&str], restore: &[&str]) -> Result<()> {
    let container = Container::start(yard)?;
    let before = container.checkpoint("images", dump)?;
    container.restore("images", restore)?;
    counts_on(&container.count, before)?;
    ensure!(container.status()?.contains(r#""status": "running""#));
    Ok(())
}

fn leave_running(yard: &Yard) -> Result<()> {
    let container = Container::start(yard)?;
    let before = container.checkpoint("images", &["--leave-running"])?;
    let before = counts_on(&container.count, before)?;
    let early = container.checkpoint("early", &["--pre-dump"]);
    ensure!(early.is_err(), "a pre-dump, of which gelid knows nothing");
    counts_on(&container.count, before)?;
    container.remove()?;
    container.restore("images", &[])?;
    fs::remove_file(&container.count).ok();
    // From where it was when it was written down, whatever it counted since.
    counts_on(&container.count, 0)?;
    Ok(())
}

/// With a connection that both ends of are inside.
fn options(yard: &Yard) -> Result<()> {
    let container = Container::make(yard, |config| config.replace("COUNT", COUNT_BY_TCP))?;
    container.run(&[])?;
    counts_on(&container.count, 0)?;
    let options = ["--tcp-established", "--file-locks", "--ext-unix-sk"];
    let before = container.checkpoint("images", &options)?;
    container.restore("images", &options)?;
    counts_on(&container.count, before)?;
    Ok(())
}

/// An overlay, unmounted in the end.
struct Overlay(PathBuf);

impl Overlay {
    /// Over a folder, so that this is the lower layer of itself.
    fn over(yard: &Yard, folder: PathBuf) -> Result<Self> {
        for layer in ["upper", "work"] {
            fs::create_dir(yard.at(layer))?;
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            folder.display(),
            yard.at("upper").display(),
            yard.at("work").display()
        );
        let mut mount = yard.command("mount");
        mount.args(["-t", "overlay", "-o", &layers, "overlay"]);
        let mounted = yard.succeed(mount.arg(&folder), &[]);
        mounted.map_err(|error| CannotStart(format!("{error:#}")))?;
        Ok(Self(folder))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

/// On an overlay, with a volume and a `tmpfs` that are in use, and zombies.
fn mounts(yard: &Yard) -> Result<()> {
    let volume = yard.at("volume");
    fs::create_dir(&volume)?;
    let root = yard.root("bundle/rootfs")?;
    for folder in ["volume", "memory"] {
        fs::create_dir(root.join(folder))?;
    }
    let _overlay = Overlay::over(yard, root)?;
    let container = Container::make(yard, |config| {
        let mounts = format!(
            r#""mounts":[
{{"destination":"/volume","type":"bind","source":"{}","options":["rbind","rw"]}},
{{"destination":"/memory","type":"tmpfs","source":"tmpfs","options":["size=1m"]}},"#,
            volume.display()
        );
        let script = COUNT_AT_MOUNTS.replace('"', r#"\""#);
        config
            .replace("COUNT", &script)
            .replace(r#""mounts":["#, &mounts)
    })?;
    container.run(&[])?;
    counts_on(&container.count, 0)?;
    let before = container.checkpoint("images", &[])?;
    fs::write(volume.join("log"), "")?;
    container.restore("images", &[])?;
    counts_on(&container.count, before)?;
    let log = fs::read_to_string(volume.join("log"))?;
    ensure!(log.starts_with("hello\n"), "{log:?}");
    Ok(())
}

/// What was restored is as good as the first one.
fn again(yard: &Yard) -> Result<()> {
    let container = Container::start(yard)?;
    for images in ["first", "second", "third"] {
        let before = container.checkpoint(images, &[])?;
        container.restore(images, &[])?;
        counts_on(&container.count, before)?;
    }
    Ok(())
}

/// Its root is nobody outside.
fn user_namespace(yard: &Yard) -> Result<()> {
    let mapping = r#"[{"containerID":0,"hostID":100000,"size":65536}]"#;
    let container = Container::make(yard, |config| {
        let maps = format!(
            r#""uidMappings":{mapping},"gidMappings":{mapping},"namespaces":[{{"type":"user"}},"#
        );
        config
            .replace("COUNT", COUNT)
            .replace(r#""namespaces":["#, &maps)
    })?;
    let mut chown = yard.command("chown");
    chown
        .args(["-hR", "100000:100000"])
        .arg(yard.at("bundle/rootfs"));
    yard.succeed(&mut chown, &[])?;
    container.run(&[])?;
    counts_on(&container.count, 0)?;
    let before = container.checkpoint("images", &[])?;
    container.restore("images", &[])?;
    counts_on(&container.count, before)?;
    Ok(())
}

/// In namespaces of another container, as those of a pod are. That one goes on all the time.
fn pod(yard: &Yard) -> Result<()> {
    const SHARED: [(&str, &str); 4] = [
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
    ];
    let first_yard = Yard::new()?;
    let first = Container::start(&first_yard)?;
    let namespaces = format!("/proc/{}/ns", first.pid()?);
    let container = Container::make(yard, |config| {
        let config = config.replace("COUNT", &format!("(while :; do sleep 0.3; done) & {COUNT}"));
        let config = config.replace(r#""hostname":"gelid-test","#, "");
        SHARED.iter().fold(config, |config, (kind, file)| {
            let own = format!(r#"{{"type":"{kind}"}}"#);
            let given = format!(r#"{{"type":"{kind}","path":"{namespaces}/{file}"}}"#);
            config.replace(&own, &given)
        })
    })?;
    container.run(&[])?;
    counts_on(&container.count, 0)?;
    for images in ["first", "second", "third"] {
        let going = count(&first.count);
        let root = container.pid()?;
        let before = container.checkpoint(images, &[])?;
        // An orphan of the test's that nobody has waited for keeps its number among the others.
        let _ = waitpid(Pid::from_raw(root.cast_signed()), WaitOptions::empty());
        container.restore(images, &[])?;
        counts_on(&container.count, before)?;
        counts_on(&first.count, going)?;
        let pid = container.pid()?;
        for (_, file) in SHARED {
            let own = fs::read_link(format!("/proc/{pid}/ns/{file}"))?;
            let wanted = fs::read_link(format!("{namespaces}/{file}"))?;
            ensure!(own == wanted, "{own:?} instead of {wanted:?}");
        }
    }
    Ok(())
}

/// Dump and restore by somebody in a plain container, which has been given one capability more.
fn inside(yard: &Yard) -> Result<()> {
    let libraries = fs::symlink_metadata("/lib64")?;
    if !libraries.is_symlink() {
        bail!(CannotStart("libraries are not in /usr".into()));
    }
    let programs = [("GELID", Engine::find()?.program().to_owned())];
    let programs = programs
        .into_iter()
        .chain([("GUEST", build()?.join("gelid-guest"))]);
    let mut variables = format!(r#""DIR=/work","NAMES={}","#, unprivileged::GUESTS);
    let root = yard.root("bundle/rootfs")?;
    for (name, program) in programs {
        fs::copy(program, root.join("bin").join(name))?;
        variables += &format!(r#""{name}=/bin/{name}","#);
    }
    for folder in ["lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    fs::write(root.join("script"), unprivileged::SCRIPT)?;
    let container = Container::make(yard, |config| {
        let mount = r#""mounts":[
{"destination":"/usr","type":"bind","source":"/usr","options":["rbind","ro"]},"#;
        config
            .replace(r#""-c","COUNT""#, r#""/script""#)
            .replace(
                r#""env":["PATH=/bin","#,
                &format!(r#""env":["PATH=/bin:/usr/bin",{variables}"#),
            )
            .replace(r#""CAP_KILL","#, r#""CAP_KILL","CAP_CHECKPOINT_RESTORE","#)
            .replace(r#""mounts":["#, mount)
    })?;
    let mut run = container.runc(&["run", "-b"]);
    run.arg(yard.at("bundle")).arg(&yard.name);
    unprivileged::all_came_back(&yard.succeed(&mut run, &[])?)
}

/// A container with a terminal, the master of which is given to whoever listens.
fn console(yard: &Yard) -> Result<()> {
    const ANSWER: &str = "while read word; do echo got $word; done";
    let container = Container::make(yard, |config| {
        let terminal = config.replace(r#""terminal":false"#, r#""terminal":true"#);
        terminal.replace("COUNT", ANSWER)
    })?;
    let address = yard.at("console.sock");
    let listener = UnixListener::bind(&address)?;
    let address = address.display().to_string();
    let options = ["--console-socket", &*address];
    container.run(&options)?;
    let master = accept(&listener)?;
    talk(&master, "before")?;
    container.checkpoint("images", &[])?;
    drop(master);
    container.restore("images", &options)?;
    talk(&accept(&listener)?, "after")
}

/// The descriptor that runc sends.
fn accept(listener: &UnixListener) -> Result<OwnedFd> {
    let (connection, _) = listener.accept()?;
    let (mut name, mut room) = (
        [0; 4096],
        [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))],
    );
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let buffers = &mut [IoSliceMut::new(&mut name)];
    recvmsg(&connection, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let master = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    master.context("runc sent no descriptor")
}
