//! Where a process stands in the file system.
//!
//! `cwd`: different in parent and children. `cwd-deleted`: a directory that is gone. `chroot`: another root in a child.

use crate::Entry;
use crate::protocol::{Check, Gate, Guest, ensure, same};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("cwd", cwd),
    Entry("cwd-deleted", cwd_deleted),
    Entry("chroot", chroot),
];

fn cwd(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    for name in ["one", "two", "with space\n"] {
        fs::create_dir(guest.path(name))?;
        kids.push(guest.fork(name.trim(), |guest| {
            std::env::set_current_dir(guest.path(name))?;
            gate.arrive()?;
            guest.wait();
            same!("cwd", std::env::current_dir()?, guest.path(name));
            Ok(fs::write("made here", "")?)
        })?);
    }
    std::env::set_current_dir("/usr")?;
    gate.wait(3)?;
    guest.hold()?;
    same!(
        "cwd of the root",
        std::env::current_dir()?,
        std::path::PathBuf::from("/usr")
    );
    kids.iter().try_for_each(|kid| kid.join(guest))?;
    ensure!(
        guest.path("two/made here").exists(),
        "the child wrote elsewhere"
    );
    Ok(())
}

fn cwd_deleted(guest: &Guest) -> Check {
    let path = guest.path("gone");
    fs::create_dir(&path)?;
    std::env::set_current_dir(&path)?;
    fs::remove_dir(&path)?;
    let before = fs::read_link("/proc/self/cwd")?;
    guest.hold()?;
    same!("cwd", fs::read_link("/proc/self/cwd")?, before);
    ensure!(!path.exists(), "the deleted directory is back");
    same!(
        "cwd by getcwd",
        std::env::current_dir().map_err(|error| error.raw_os_error()),
        Err(Some(libc::ENOENT))
    );
    Ok(())
}

fn chroot(guest: &Guest) -> Check {
    fs::create_dir_all(guest.path("cell/inside"))?;
    let gate = Gate::new()?;
    let kid = guest.fork("prisoner", |guest| {
        // Its way to the protocol's files is a descriptor opened before.
        let outside = rustix::fs::open(
            &guest.dir,
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )?;
        std::os::unix::fs::chroot(guest.path("cell"))?;
        std::env::set_current_dir("/inside")?;
        gate.arrive()?;
        while rustix::fs::accessat(
            &outside,
            "go",
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        )
        .is_err()
        {
            crate::protocol::nap(std::time::Duration::from_millis(5));
        }
        same!(
            "cwd",
            std::env::current_dir()?,
            std::path::PathBuf::from("/inside")
        );
        fs::write("/proof", "")?;
        Ok(fs::write("../other proof", "")?)
    })?;
    gate.wait(1)?;
    guest.hold()?;
    same!(
        "status of the child in the cell",
        crate::protocol::reap(kid.pid)?,
        0
    );
    ensure!(
        guest.path("cell/proof").exists() && guest.path("cell/other proof").exists(),
        "the root is another one"
    );
    Ok(())
}
