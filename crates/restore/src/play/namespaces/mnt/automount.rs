//! Automounters. One is made with a pipe of the restorer's, and asks nobody any more as soon as what is in it is there,
//! so that nobody waits for a daemon that is not there yet. When all are born, one of the daemon's process group gives it
//! the pipe.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::mount::autofs;
use gelid_sys::syscall::nr;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::pipe::PipeFlags;

use super::{Leader, Place, failed};
use crate::Error;
use crate::files::{Mounted, OpenFiles};
use crate::plan::Plan;
use crate::plan::births::Who;
use crate::plan::namespaces::mnt::{Automount, New, Origin};
use crate::play::crew::Crew;
use crate::play::script::{Object, Script};

const O_CLOEXEC: u64 = 0o2_000_000;

/// Makes one that asks nobody: its mount, and its root directory.
pub(super) fn make(
    new: &New,
    automount: &Automount,
    place: &mut impl Place,
    label: &str,
) -> Result<(OwnedFd, OwnedFd), Error> {
    let leader = place.lead()?;
    let made = made(new, leader, label);
    let filled = made.and_then(|(mount, root)| {
        for part in &automount.parts {
            let mut script = Script::default();
            let name = script.bytes(&[&*part.path, b"\0"].concat());
            let dir = root.as_raw_fd().into();
            match &part.target {
                Some(target) => {
                    let target = script.bytes(&[target, &b"\0"[..]].concat());
                    let args = [target.into(), dir, name.into()];
                    script.must(Object::Itself, nr::symlinkat, args);
                }
                None => {
                    let args = [dir, name.into(), u64::from(part.mode).into()];
                    script.must(Object::Itself, nr::mkdirat, args);
                }
            }
            place.by(leader, script)?;
        }
        let calmed = autofs::set_timeout(&root, automount.timeout.into())
            .and_then(|()| autofs::make_catatonic(&root));
        calmed.map_err(failed("set up", label))?;
        Ok((mount, root))
    });
    place.dismiss(leader)?;
    filled
}

fn made(new: &New, leader: Leader, label: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    let make = || {
        let (_reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let fs = fsopen(&*new.name, FsOpenFlags::FSOPEN_CLOEXEC)?;
        if !new.source.is_empty() {
            fsconfig_set_string(&fs, "source", new.source.as_slice())?;
        }
        fsconfig_set_string(&fs, "fd", writer.as_raw_fd().to_string())?;
        fsconfig_set_string(&fs, "pgrp", leader.pid.as_raw_pid().to_string())?;
        for (key, value) in &new.options {
            match value {
                Some(value) => fsconfig_set_string(&fs, &**key, &**value)?,
                None => fsconfig_set_flag(&fs, &**key)?,
            }
        }
        fsconfig_create(&fs)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let root = openat(&mount, ".", flags, Mode::empty())?;
        Ok((mount, root))
    };
    make().map_err(failed("make", label))
}

/// Automounters whose daemons are yet to be told that they are.
#[derive(Debug, Default)]
pub(crate) struct Automounters {
    device: Option<OwnedFd>,
    /// Descriptors of those in the tree.
    asleep: Vec<Asleep>,
    /// Descriptors up to here are of nobody in the tree by now.
    base: i32,
}

#[derive(Debug)]
struct Asleep {
    daemon: usize,
    root: i32,
    pipe: OwnedFd,
    /// What number the pipe is to have meanwhile.
    number: Option<i32>,
    /// It asks nobody, and goes on so.
    is_silent: bool,
}

/// Opens what daemons need, before they are born and inherit it, at descriptors from `base` on.
pub(crate) fn connect(
    plan: &Plan,
    mounted: Option<&Mounted>,
    files: &OpenFiles,
    base: i32,
) -> Result<Automounters, Error> {
    let mut automounters = Automounters {
        base,
        ..Automounters::default()
    };
    let made = mounted.map_or(&[][..], |mounted| &mounted.automounters);
    let Some(mounts) = &plan.namespaces.mounts else {
        return Ok(automounters);
    };
    for (index, root) in made {
        let Some(Origin::New(new)) = mounts.filesystems.get(*index).map(|one| &one.origin) else {
            continue;
        };
        let Some(automount) = &new.automount else {
            continue;
        };
        let lost = || failed("find the daemon of", "an automounter")(Errno::SRCH);
        let daemon = match plan.daemon(automount) {
            Some(daemon) => daemon,
            None if automount.is_asked => return Err(lost()),
            // Its group is nobody's any more.
            None => continue,
        };
        let opened = match automount.is_asked {
            true => {
                let end = plan.pipe_of(automount);
                let end = end.and_then(|pipe| plan.files.end_of(pipe));
                let (end, flags) = end.ok_or_else(lost)?;
                writer(files.fd(end).ok_or_else(lost)?, flags.access() == 1)
            }
            false => rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map(|(_, writer)| writer),
        };
        let opened =
            opened.and_then(|opened| rustix::io::fcntl_dupfd_cloexec(opened, automounters.base));
        automounters.asleep.push(Asleep {
            daemon,
            root: root.as_raw_fd(),
            pipe: opened.map_err(failed("open the pipe of", "an automounter"))?,
            number: automount.number,
            is_silent: !automount.is_asked,
        });
    }
    if !automounters.asleep.is_empty() {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let device = openat(CWD, "/dev/autofs", flags, Mode::empty());
        let device = device.and_then(|device| rustix::io::fcntl_dupfd_cloexec(device, base));
        automounters.device = Some(device.map_err(failed("open", "/dev/autofs"))?);
    }
    Ok(automounters)
}

/// A descriptor to write to a pipe by.
fn writer(end: BorrowedFd<'_>, writes: bool) -> Result<OwnedFd, Errno> {
    if writes {
        return rustix::io::fcntl_dupfd_cloexec(end, 0);
    }
    let path = format!("/proc/self/fd/{}", end.as_raw_fd());
    let access = OFlags::WRONLY | OFlags::CLOEXEC;
    openat(CWD, path, access, Mode::empty())
}

impl Automounters {
    /// Has daemons be asked. Those who have been born have no descriptors yet but what they have inherited.
    pub(crate) fn wake(self, crew: &mut Crew) -> Result<(), Error> {
        let Some(device) = &self.device else {
            return Ok(());
        };
        for asleep in &self.asleep {
            let mut script = Script::default();
            let mut pipe = asleep.pipe.as_raw_fd();
            // The kernel shows the number.
            if let Some(number) = asleep.number.filter(|number| *number < self.base) {
                let args = [pipe.into(), number.into(), O_CLOEXEC.into()];
                script.must(Object::Itself, nr::dup3, args);
                pipe = number;
            }
            let argument = script.bytes(&autofs::pipe_argument(asleep.root, pipe));
            let args = [
                device.as_raw_fd().into(),
                (autofs::SET_PIPE as u64).into(),
                argument.into(),
            ];
            script.must(Object::Itself, nr::ioctl, args);
            if asleep.is_silent {
                let args = [
                    asleep.root.into(),
                    (autofs::CATATONIC as u64).into(),
                    0.into(),
                ];
                script.must(Object::Itself, nr::ioctl, args);
            }
            crew.play(&[(Who::Task(asleep.daemon), script)])?;
        }
        Ok(())
    }
}
