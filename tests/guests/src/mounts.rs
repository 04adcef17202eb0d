//! Mount namespaces of their own.
//!
//! `mounts`: mounts of many kinds, what is in them, and files open there. `mounts-nested`: a child in a namespace beyond
//! that. `mounts-covered`: a file that is open below what was mounted over it. `mounts-sockets`: files of sockets that
//! nobody has any more. `mounts-shared-directories`: processes in a namespace beyond that which share root and working
//! directory. `mounts-mapped`: mounts that show files with other owners. `mounts-formats`: formats of programs,
//! which a user namespace has registered. `mounts-unknown`: a file system that is not dumped.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("mounts", mounts),
    Entry("mounts-nested", nested),
    Entry("mounts-covered", covered),
    Entry("mounts-sockets", sockets),
    Entry("mounts-shared-directories", shared_directories),
    Entry("mounts-mapped", mapped),
    Entry("mounts-formats", formats),
    Entry("mounts-unknown", unknown),
];

pub(crate) fn fresh() -> Check {
    os!(libc::unshare(libc::CLONE_NEWNS))?;
    change(Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)
}

/// Lets what is mounted from now on be nobody else's.
pub(crate) fn private() -> Check {
    change(Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)
}

/// Mounts the processes of this pid namespace.
pub(crate) fn procfs() -> Check {
    mount(Path::new("proc"), Path::new("/proc"), "proc", 0, "")
}

fn c(text: &[u8]) -> Check<CString> {
    Ok(CString::new(text)?)
}

pub(crate) fn mount(source: &Path, at: &Path, kind: &str, flags: u64, options: &str) -> Check {
    fs::create_dir_all(at)?;
    let (source, kind) = (c(source.as_os_str().as_bytes())?, c(kind.as_bytes())?);
    let (at, options) = (c(at.as_os_str().as_bytes())?, c(options.as_bytes())?);
    let data = options.as_ptr().cast();
    os!(libc::mount(
        source.as_ptr(),
        at.as_ptr(),
        kind.as_ptr(),
        flags,
        data
    ))?;
    Ok(())
}

pub(crate) fn tmpfs(name: &str, at: &Path, flags: u64, options: &str) -> Check {
    mount(Path::new(name), at, "tmpfs", flags, options)
}

fn bind(from: &Path, at: &Path) -> Check {
    mount(from, at, "", libc::MS_BIND, "")
}

/// Changes the flags or the propagation of a mount.
fn change(at: &Path, flags: u64) -> Check {
    let at = c(at.as_os_str().as_bytes())?;
    let none = std::ptr::null();
    os!(libc::mount(none, at.as_ptr(), none, flags, none.cast()))?;
    Ok(())
}

pub(crate) fn unmount(at: &Path) -> Check {
    let at = c(at.as_os_str().as_bytes())?;
    os!(libc::umount2(at.as_ptr(), 0))?;
    Ok(())
}

/// All mounts, by what does not depend on their numbers.
fn seen() -> Check<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let point = |id: &str| {
        let found = lines.iter().find(|line| line[0] == id);
        found.map_or("nowhere", |line| line[4])
    };
    let mut sorted: Vec<&Vec<&str>> = lines.iter().collect();
    sorted.sort_by_key(|line| (line[4], point(line[1]), line[3]));
    let mut groups: HashMap<&str, usize> = HashMap::new();
    let mut seen = Vec::new();
    for line in sorted {
        let mut words = vec![point(line[1]).to_owned()];
        words.extend(line[3..6].iter().map(|word| (*word).to_owned()));
        let mut rest = line[6..].iter();
        for tag in rest.by_ref().take_while(|word| **word != "-") {
            let (kind, group) = tag.split_once(':').unwrap_or((*tag, ""));
            let next = groups.len();
            words.push(format!("{kind}:{}", groups.entry(group).or_insert(next)));
        }
        words.extend(rest.map(|word| (*word).to_owned()));
        seen.push(words.join(" "));
    }
    Ok(seen)
}

/// What is in the file system with contents.
fn fill(at: &Path) -> Check {
    fs::create_dir(at.join("sub"))?;
    fs::write(at.join("sub/file"), "0123456789")?;
    chown(at.join("sub/file"), Some(5), Some(6))?;
    fs::hard_link(at.join("sub/file"), at.join("again"))?;
    symlink("sub/file", at.join("link"))?;
    let fifo = c(at.join("fifo").as_os_str().as_bytes())?;
    os!(libc::mkfifo(fifo.as_ptr(), 0o620))?;
    let sparse = File::create(at.join("sparse"))?;
    sparse.set_len(300_000)?;
    (&sparse).seek(SeekFrom::Start(200_000))?;
    (&sparse).write_all(b"x")?;
    Ok(())
}

fn check(at: &Path) -> Check {
    let file = fs::metadata(at.join("again"))?;
    same!("owner", (file.uid(), file.gid(), file.nlink()), (5, 6, 2));
    same!("text", fs::read_to_string(at.join("link"))?, "0123456789");
    let fifo = fs::metadata(at.join("fifo"))?;
    ensure!(fifo.file_type().is_fifo(), "no FIFO any more");
    let sparse = fs::metadata(at.join("sparse"))?;
    same!("sparse", (sparse.len(), sparse.blocks()), (300_000, 8));
    same!("byte", fs::read(at.join("sparse"))?[200_000], b'x');
    Ok(())
}

fn mounts(guest: &Guest) -> Check {
    fresh()?;
    let at = |name: &str| guest.path(name);
    tmpfs("one", &at("a"), libc::MS_NOSUID, "size=1m,mode=750")?;
    change(&at("a"), libc::MS_SHARED)?;
    fill(&at("a"))?;
    bind(&at("a/sub"), &at("b"))?;
    let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOATIME;
    change(&at("b"), read_only)?;
    bind(&at("a"), &at("c"))?;
    change(&at("c"), libc::MS_SLAVE)?;
    change(&at("c"), libc::MS_SHARED)?;
    tmpfs("under", &at("d"), 0, "")?;
    fs::write(at("d/text"), "under")?;
    tmpfs("over", &at("d"), libc::MS_RDONLY, "")?;
    fs::create_dir(at("gone"))?;
    bind(&at("gone"), &at("e"))?;
    fs::remove_dir(at("gone"))?;
    mount(Path::new("proc"), &at("p"), "proc", libc::MS_NODEV, "")?;
    mount(
        Path::new("pts"),
        &at("q"),
        "devpts",
        0,
        "mode=620,ptmxmode=666",
    )?;
    tmpfs("alone", &at("u"), 0, "")?;
    change(&at("u"), libc::MS_UNBINDABLE)?;
    let mut file = File::open(at("b/file"))?;
    file.seek(SeekFrom::Start(3))?;
    let nameless = at("a/nameless");
    let mut deleted = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&nameless)?;
    deleted.write_all(b"no name")?;
    fs::remove_file(nameless)?;
    std::env::set_current_dir(at("c/sub"))?;
    let before = seen()?;
    guest.hold()?;
    same!("mounts", seen()?, before);
    check(&at("a"))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    same!("rest", text, "3456789");
    deleted.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    deleted.read_to_string(&mut text)?;
    same!("text without a name", text, "no name");
    same!("directory", std::env::current_dir()?, at("c/sub"));
    same!("read-only", fs::write(at("b/new"), "").is_err(), true);
    // What is mounted in a group is seen by its slaves.
    tmpfs("new", &at("a/new"), 0, "")?;
    ensure!(is_mounted(&at("c/new"))?, "a slave is told nothing");
    unmount(&at("d"))?;
    same!("below", fs::read_to_string(at("d/text"))?, "under");
    Ok(())
}

fn is_mounted(at: &Path) -> Check<bool> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let at = at.to_str().unwrap_or_default();
    Ok(text.lines().any(|line| line.split(' ').nth(4) == Some(at)))
}

fn nested(guest: &Guest) -> Check {
    fresh()?;
    let (both, inner) = (guest.path("both"), guest.path("inner"));
    tmpfs("both", &both, 0, "")?;
    change(&both, libc::MS_SHARED)?;
    fs::write(both.join("text"), "both")?;
    fs::create_dir(&inner)?;
    let kid = guest.fork("inner", |guest| {
        os!(libc::unshare(libc::CLONE_NEWNS))?;
        tmpfs("inner", &inner, 0, "")?;
        fs::write(inner.join("text"), "inner")?;
        let mut file = File::open(inner.join("text"))?;
        std::env::set_current_dir(&inner)?;
        let before = seen()?;
        fs::write(guest.path("there"), "")?;
        guest.wait();
        same!("mounts", seen()?, before);
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        same!("text", text, "inner");
        same!("by name", fs::read_to_string("text")?, "inner");
        // The one outside is told.
        tmpfs("told", &both.join("told"), 0, "")?;
        fs::write(guest.path("told"), "")?;
        Ok(())
    })?;
    until_there(&guest.path("there"))?;
    fs::remove_file(guest.path("there"))?;
    let before = seen()?;
    guest.hold()?;
    same!("outer", fs::read_dir(&inner)?.count(), 0);
    same!("text", fs::read_to_string(both.join("text"))?, "both");
    kid.join(guest)?;
    ensure!(is_mounted(&both.join("told"))?, "a peer is told nothing");
    unmount(&both.join("told"))?;
    same!("mounts", seen()?, before);
    Ok(())
}

fn until_there(path: &Path) -> Check {
    crate::protocol::until("the child", || Ok(path.exists()))
}

fn covered(guest: &Guest) -> Check {
    fresh()?;
    let at = guest.path("a");
    tmpfs("under", &at, 0, "")?;
    fs::write(at.join("text"), "under")?;
    let file = File::open(at.join("text"))?;
    tmpfs("over", &at, 0, "")?;
    guest.hold()?;
    same!("size", file.metadata()?.len(), 5);
    Ok(())
}

/// What a socket without anybody who has it looks like.
fn look(at: &Path) -> Check<(bool, u32, u32, u32, i64, i64)> {
    let found = fs::symlink_metadata(at)?;
    let is_socket = found.file_type().is_socket();
    let times = (found.mtime(), found.mtime_nsec());
    Ok((
        is_socket,
        found.mode(),
        found.uid(),
        found.gid(),
        times.0,
        times.1,
    ))
}

fn sockets(guest: &Guest) -> Check {
    fresh()?;
    let at = guest.path("a");
    tmpfs("one", &at, 0, "")?;
    fs::create_dir(at.join("sub"))?;
    drop(UnixListener::bind(at.join("sub/left"))?);
    fs::set_permissions(at.join("sub/left"), fs::Permissions::from_mode(0o1640))?;
    chown(at.join("sub/left"), Some(5), Some(6))?;
    drop(UnixListener::bind(at.join("with a space"))?);
    let listens = UnixListener::bind(at.join("sub/had"))?;
    let both = || Ok::<_, Failure>((look(&at.join("sub/left"))?, look(&at.join("with a space"))?));
    let before = both()?;
    guest.hold()?;
    same!("sockets", both()?, before);
    ensure!(
        UnixStream::connect(at.join("sub/left")).is_err(),
        "somebody has it"
    );
    let _calls = UnixStream::connect(at.join("sub/had"))?;
    listens.accept()?;
    Ok(())
}

/// A child in a namespace of its own, with a child that shares its directories, and one that does not and has gone back.
fn shared_directories(guest: &Guest) -> Check {
    fresh()?;
    let inner = guest.path("inner");
    fs::create_dir(&inner)?;
    let outer = format!("/proc/{}/ns/mnt", std::process::id());
    let home = guest.path("home");
    fs::create_dir(&home)?;
    let kid = guest.fork("inner", |guest| {
        os!(libc::unshare(libc::CLONE_NEWNS))?;
        tmpfs("inner", &inner, 0, "")?;
        fs::create_dir(inner.join("sub"))?;
        std::env::set_current_dir(&inner)?;
        let back = guest.fork("back", |guest| {
            let outer = File::open(&outer)?;
            os!(libc::setns(outer.as_raw_fd(), libc::CLONE_NEWNS))?;
            drop(outer);
            std::env::set_current_dir(&home)?;
            fs::write(guest.path("back"), "")?;
            guest.wait();
            same!("home", std::env::current_dir()?, home);
            same!("outer", fs::read_dir(&inner)?.count(), 0);
            Ok(())
        })?;
        until_there(&guest.path("back"))?;
        fs::remove_file(guest.path("back"))?;
        let flags = libc::CLONE_FS | libc::SIGCHLD;
        let twin = os!(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0))?;
        if twin == 0 {
            guest.wait();
            let moved = std::env::set_current_dir("sub");
            std::process::exit(i32::from(moved.is_err()));
        }
        fs::write(guest.path("there"), "")?;
        guest.wait();
        let mut status = 0;
        os!(libc::waitpid(twin as i32, &raw mut status, 0))?;
        same!("twin", status, 0);
        // It has gone there for both.
        same!("directory", std::env::current_dir()?, inner.join("sub"));
        back.join(guest)
    })?;
    until_there(&guest.path("there"))?;
    fs::remove_file(guest.path("there"))?;
    guest.hold()?;
    same!("outer", fs::read_dir(&inner)?.count(), 0);
    kid.join(guest)
}

/// A user namespace with these maps.
fn users(uids: &str, gids: &str) -> Check<File> {
    let (mut left, leaving) = std::io::pipe()?;
    // SAFETY: the child calls nothing but what a signal handler may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::unshare(libc::CLONE_NEWUSER);
            libc::write(leaving.as_raw_fd(), c"x".as_ptr().cast(), 1);
            libc::pause();
            libc::_exit(0);
        }
    }
    left.read_exact(&mut [0])?;
    fs::write(format!("/proc/{pid}/uid_map"), uids)?;
    fs::write(format!("/proc/{pid}/gid_map"), gids)?;
    let made = File::open(format!("/proc/{pid}/ns/user"))?;
    os!(libc::kill(pid, libc::SIGKILL))?;
    os!(libc::waitpid(pid, std::ptr::null_mut(), 0))?;
    Ok(made)
}

/// Mounts what is at a path elsewhere, with other owners of files.
fn bind_mapped(from: &Path, at: &Path, users: &File) -> Check {
    const CLONE: u32 = 1;
    const EMPTY_PATH: i32 = libc::AT_EMPTY_PATH;
    fs::create_dir_all(at)?;
    let (from, at) = (
        c(from.as_os_str().as_bytes())?,
        c(at.as_os_str().as_bytes())?,
    );
    let here = libc::AT_FDCWD;
    let tree = os!(libc::syscall(
        libc::SYS_open_tree,
        here,
        from.as_ptr(),
        CLONE
    ))?;
    let attributes = [0x10_0000_u64, 0, 0, users.as_raw_fd() as u64];
    let empty = c"".as_ptr();
    let size = size_of_val(&attributes);
    let set = os!(libc::syscall(
        libc::SYS_mount_setattr,
        tree,
        empty,
        EMPTY_PATH,
        attributes.as_ptr(),
        size
    ));
    set.map_err(|error| Failure::skip(error.to_string()))?;
    os!(libc::syscall(
        libc::SYS_move_mount,
        tree,
        empty,
        here,
        at.as_ptr(),
        4
    ))?;
    os!(libc::close(tree as i32))?;
    Ok(())
}

fn mapped(guest: &Guest) -> Check {
    fresh()?;
    let (a, b, gone, d) = (
        guest.path("a"),
        guest.path("b"),
        guest.path("gone"),
        guest.path("d"),
    );
    tmpfs("one", &a, 0, "")?;
    fs::create_dir(a.join("sub"))?;
    fs::write(a.join("sub/text"), "seen twice")?;
    chown(a.join("sub/text"), Some(5), Some(6))?;
    let both = users("0 100000 1000\n2000 300000 10\n", "0 200000 1000\n")?;
    bind_mapped(&a.join("sub"), &b, &both)?;
    change(&b, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY)?;
    // All of this one is seen with other owners only.
    tmpfs("two", &gone, 0, "")?;
    fs::write(gone.join("text"), "seen once")?;
    chown(gone.join("text"), Some(2005), Some(7))?;
    bind_mapped(&gone, &d, &both)?;
    unmount(&gone)?;
    drop(both);
    let mut file = File::open(b.join("text"))?;
    file.seek(SeekFrom::Start(5))?;
    let owners = || -> Check<_> {
        let of = |path: &Path| {
            let found = fs::metadata(path)?;
            Ok::<_, Failure>((found.uid(), found.gid()))
        };
        Ok([
            of(&a.join("sub/text"))?,
            of(&b.join("text"))?,
            of(&d.join("text"))?,
        ])
    };
    let expected = [(5, 6), (100_005, 200_006), (300_005, 200_007)];
    same!("owners", owners()?, expected);
    let before = seen()?;
    guest.hold()?;
    same!("mounts", seen()?, before);
    same!("owners", owners()?, expected);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    same!("rest", text, "twice");
    // Whom the mount does not know cannot make anything.
    ensure!(fs::write(d.join("new"), "").is_err(), "nobody makes a file");
    Ok(())
}

fn formats(guest: &Guest) -> Check {
    fresh()?;
    let at = guest.path("a");
    mount(Path::new("none"), &at, "binfmt_misc", 0, "")
        .map_err(|error| Failure::skip(format!("{error}")))?;
    fs::write(at.join("register"), ":gelid:E::gelid::/bin/true:")
        .map_err(|error| Failure::skip(format!("{error}")))?;
    let before = fs::read_to_string(at.join("gelid"))?;
    guest.hold()?;
    same!("format", fs::read_to_string(at.join("gelid"))?, before);
    Ok(())
}

fn unknown(guest: &Guest) -> Check {
    fresh()?;
    let at = guest.path("a");
    mount(Path::new("none"), &at, "ramfs", 0, "")
        .map_err(|error| Failure::skip(format!("{error}")))?;
    guest.hold()?;
    Ok(())
}
