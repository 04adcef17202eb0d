//! What crun sends by libcriu, of a container as it makes them: bound and masked files, a network of others, a group of its
//! own.

use super::{Test, version};
use crate::networks::{await_word, child_of, tool};
use crate::runtimes::{Yard, find, remove_everywhere};
use anyhow::{Context, Result, ensure};
use gelid_rpc::messages::{CgroupRoot, ExtMount, InheritFd, JoinNamespace, Options, RequestKind};
use gelid_tests::{Client, Engine, Reply, Tree, Verdict, request, spawn};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(super) const TESTS: &[Test] = &[("as-crun", as_crun)];

/// Makes the container of the root `$0`, and of what lies in `$1`: it counts, and tells it by its output.
const CONTAINER: &str = r#"
    mount --bind "$0" "$0" && mount -t proc proc "$0/proc" &&
    mount -t tmpfs tmpfs "$0/dev" && mknod "$0/dev/null" c 1 3 &&
    exec <"$0/dev/null" 2<&0 &&
    mount --bind "$1/hosts" "$0/etc/hosts" &&
    mount --bind /dev/null "$0/proc/timer_list" && mount --bind -r "$1/empty" "$0/proc/irq" &&
    cd "$0" && pivot_root . . && exec bin/busybox sh -c '
        bin/busybox umount -l . && cd / && i=0
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}; if [ $fd -gt 2 ]; then eval "exec $fd<&-"; fi
        done
        while :; do i=$((i+1)); echo $i; sleep 0.01; done'
"#;

/// Enters the group `$0` before that.
const IN_GROUP: &str =
    r#"echo 0 >"$0/cgroup.procs" && exec unshare --cgroup setsid sh -c "$1" "$2" "$3""#;

/// Namespaces that the container joins when it is restored.
const JOINED: [&str; 3] = ["time", "ipc", "uts"];

struct Container {
    yard: Yard,
    rootfs: PathBuf,
    group: PathBuf,
    /// Somebody in a network that is not the container's own, and in what it joins later.
    holder: Child,
    inner: String,
    parent: Child,
    tree: Tree,
    output: BufReader<PipeReader>,
    input: PipeWriter,
    images: (PathBuf, File),
    work: File,
}

impl Container {
    fn start() -> Result<Self> {
        let yard = Yard::new()?;
        let rootfs = yard.root("rootfs")?;
        for file in [rootfs.join("etc/hosts"), yard.at("hosts")] {
            fs::write(file, "127.0.0.1 before\n")?;
        }
        fs::write(yard.at("new-hosts"), "127.0.0.1 after\n")?;
        for folder in ["empty", "criu-root", "images", "work"] {
            fs::create_dir(yard.at(folder))?;
        }
        let hierarchy = Path::new("/sys/fs/cgroup");
        let freezer = hierarchy.join("freezer");
        let hierarchy = if freezer.is_dir() {
            &freezer
        } else {
            hierarchy
        };
        let group = hierarchy.join(&yard.name);
        fs::create_dir(&group)?;
        let words = [
            "--net",
            "--uts",
            "--ipc",
            "--time",
            "--fork",
            "--kill-child",
        ];
        let words = [&words[..], &["sh", "-c", "echo there; exec sleep 300"]].concat();
        let mut holder = spawn(tool("unshare", &words).stdout(Stdio::piped()))?;
        await_word(&mut holder)?;
        let inner = child_of(holder.id())?;
        let (output, input) = std::io::pipe()?;
        let words = ["-t", &inner, "-n", "unshare", "--pid", "--mount", "--uts"];
        let words = [&words[..], &["--ipc", "--fork", "--kill-child"]].concat();
        let mut command = tool("nsenter", &words);
        command.args(["sh", "-c", IN_GROUP]).arg(&group);
        command.arg(CONTAINER).arg(&rootfs).arg(yard.at(""));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(input.try_clone()?);
        let parent = spawn(&mut command)?;
        drop(command);
        let mut output = BufReader::new(output);
        count(&mut output)?;
        let tree = Tree::new(child_of(parent.id())?.parse()?);
        let images = yard.at("images");
        Ok(Self {
            images: (images.clone(), File::open(images)?),
            work: File::open(yard.at("work"))?,
            yard,
            rootfs,
            group,
            holder,
            inner,
            parent,
            tree,
            output,
            input,
        })
    }

    /// What it says at every time.
    fn options(&self, log: &str) -> Options {
        Options {
            images_dir_fd: self.images.1.as_raw_fd(),
            work_dir_fd: Some(self.work.as_raw_fd()),
            log_level: Some(4),
            log_file: Some(log.into()),
            ext_unix_sk: Some(false),
            shell_job: Some(false),
            tcp_established: Some(false),
            file_locks: Some(false),
            orphan_pts_master: Some(true),
            manage_cgroups: Some(true),
            manage_cgroups_mode: Some(3),
            ..Options::default()
        }
    }

    fn mounts(&self, hosts: &str, masked: &str) -> Vec<ExtMount> {
        let empty = self.yard.at("empty").display().to_string();
        let all = [
            ("/etc/hosts", hosts),
            ("/proc/timer_list", masked),
            ("/proc/irq", &empty),
            (&empty, &empty),
            // Of no mount at all.
            ("/proc/none", masked),
        ];
        let mount = |(key, val): (&str, &str)| ExtMount {
            key: key.into(),
            val: val.into(),
        };
        all.map(mount).into()
    }

    fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.inner).into()
    }

    fn dump_options(&self) -> Result<Options> {
        Ok(Options {
            pid: Some(self.tree.root()),
            root: Some(self.rootfs.display().to_string().into()),
            ext_mnt: self.mounts("/etc/hosts", "/proc/timer_list"),
            external: vec![
                format!("net[{}]:extRootNetNS", self.network().metadata()?.ino()).into(),
            ],
            freeze_cgroup: Some(self.group.display().to_string().into()),
            leave_running: Some(false),
            ..self.options("dump.log")
        })
    }

    /// The container has a group of this name now.
    fn restore_options(&self, pipe: &str) -> Options {
        let join = |kind: &str| JoinNamespace {
            ns: kind.into(),
            ns_file: format!("/proc/{}/ns/{kind}", self.inner).into(),
            extra_opt: None,
        };
        let inherited = [("extRootNetNS", 4), (pipe, 1)];
        let inherited = inherited.map(|(key, fd)| InheritFd {
            key: key.into(),
            fd,
        });
        Options {
            inherit_fd: inherited.into(),
            ext_mnt: self.mounts(
                &self.yard.at("new-hosts").display().to_string(),
                "/dev/null",
            ),
            root: Some(self.yard.at("criu-root").display().to_string().into()),
            join_ns: JOINED.map(join).into(),
            notify_scripts: Some(true),
            tcp_close: Some(false),
            cg_root: vec![CgroupRoot {
                // None of crun, which makes a group in each hierarchy.
                ctrl: self.group.parent().and_then(controller),
                path: format!("/{}", self.yard.name).into(),
            }],
            rst_sibling: Some(true),
            ..self.options("restore.log")
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.yard.at("work").join(name)).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.tree.kill();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = self.parent.kill();
        let _ = self.parent.wait();
        remove_everywhere(&self.yard.name);
    }
}

/// The controller of a hierarchy, if it has a name.
fn controller(hierarchy: &Path) -> Option<Vec<u8>> {
    let name = hierarchy.file_name()?.to_str()?;
    (name == "freezer").then(|| name.into())
}

/// The next number.
fn count(output: &mut BufReader<PipeReader>) -> Result<u64> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    line.trim().parse().with_context(|| format!("{line:?}"))
}

/// A request on a connection of its own, with an answer that must be of success.
fn ask(client: Client, kind: RequestKind, options: Options) -> Result<Reply> {
    let reply = client.ask(&request(kind, Some(options)))?;
    let reply = reply.expect("request")?;
    ensure!(client.end()? == Some(0), "{kind:?}");
    Ok(reply)
}

fn as_crun() -> Result<Verdict> {
    for needed in ["busybox", "unshare", "nsenter"] {
        if find(needed).is_none() {
            return Ok(Verdict::Skipped(format!("no {needed}")));
        }
    }
    let engine = Engine::find()?;
    let mut container = Container::start()?;
    let swrk = |prepare: &dyn Fn(&mut Command)| Client::swrk(&engine, prepare);
    let client = swrk(&|_| {})?;
    let told = client.ask(&version())?.expect("version")?.response.version;
    let told = told.context("no version")?;
    ensure!(told.major_number * 10_000 + told.minor_number * 100 >= 31_500);
    ensure!(client.end()? == Some(0));

    let link = fs::read_link(format!("/proc/{}/fd/1", container.tree.root()))?;
    let pipe = link.display().to_string();
    let list = format!(r#"["/dev/null","{pipe}","/dev/null"]"#);
    fs::write(container.images.0.join("descriptors.json"), &list)?;
    let reply = ask(swrk(&|_| {})?, RequestKind::Dump, container.dump_options()?);
    let reply = reply.with_context(|| container.log("dump.log"))?;
    ensure!(reply.told.is_empty(), "{:?}", reply.told);
    container.tree.await_death(Duration::from_secs(20))?;
    // Whoever looks for orphans may have seen its end first.
    let _ = container.parent.wait();
    let kept = fs::read_to_string(container.images.0.join("descriptors.json"))?;
    ensure!(kept == list, "{kept}");
    let mut last = 0;
    while container.output.buffer().contains(&b'\n') {
        last = count(&mut container.output)?;
    }

    let places = (container.rootfs.as_path(), &*container.yard.at("criu-root"));
    // It inherits what crun has; whoever else is started meanwhile must not.
    let network = container.network();
    let output = container.input.try_clone()?;
    let client = Client::swrk_at(&engine, places, &network, |command| {
        command.stdout(output);
    })?;
    let options = container.restore_options(&pipe);
    let reply = ask(client, RequestKind::Restore, options);
    let reply = reply.with_context(|| container.log("restore.log"))?;
    let root = reply.response.restore.as_ref().map(|restore| restore.pid);
    let root = root.filter(|root| *root > 0).context("no pid")?;
    container.tree.again(root);
    let names = reply.names();
    ensure!(names.first() == Some(&"pre-restore") && names.last() == Some(&"post-resume"));
    ensure!(!names.contains(&"orphan-pts-master"), "{names:?}");
    ensure!(reply.told.contains(&("post-restore".into(), Some(root))));

    let now = count(&mut container.output)?;
    ensure!(now >= last && now < last + 1000, "{now} after {last}");
    let hosts = fs::read_to_string(format!("/proc/{root}/root/etc/hosts"))?;
    ensure!(hosts.contains("after"), "{hosts}");
    for kind in JOINED.iter().chain(&["net"]) {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        ensure!(of(&root.to_string())? == of(&container.inner)?, "{kind}");
    }
    let groups = fs::read_to_string(format!("/proc/{root}/cgroup"))?;
    ensure!(groups.contains(&container.yard.name), "{groups}");
    Ok(Verdict::Passed)
}
