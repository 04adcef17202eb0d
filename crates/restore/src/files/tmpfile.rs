//! Files that never had a name (`O_TMPFILE`): made without one again, so that they can still be given one.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::open::Opener;
use super::regular::Job;
use super::{Error, Flags};

/// Makes a ghost in the way that one of its descriptions made it, and opens the others of that. False if none
/// of them did, or the file system does not know how to.
pub(super) fn open(opener: &mut Opener<'_>, id: u32, jobs: &[Job<'_>]) -> Result<bool, Error> {
    let plan = opener.plan;
    let regular = plan.ghosts.get(&id);
    let regular = regular.filter(|ghost| ghost.file_type() == FileType::RegularFile);
    let maker = jobs.iter().find(|job| job.flags.is_tmpfile());
    let (Some(ghost), Some(maker)) = (regular, maker) else {
        return Ok(false);
    };
    let object = maker.object();
    let entry = opener.names.entry(&maker.file.name, true);
    let entry = entry.map_err(Error::system("make again", &*object))?;
    let flags = maker.flags.to_open() | OFlags::TMPFILE;
    let made = match rustix::fs::openat(&entry.dir, ".", flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::OPNOTSUPP | Errno::INVAL) => return Ok(false),
        made => made.map_err(|errno| opener.failed("make again", &object, errno))?,
    };
    let fd = opener.raise(made, &object)?;
    let writer = opener.reopen(fd.as_fd(), Flags(OFlags::WRONLY.bits()), &object)?;
    ghost.furnish(&plan.dir, writer, &object)?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::system("examine", &*object))?;
    for job in jobs.iter().filter(|job| job.id != maker.id) {
        let other = opener.reopen(fd.as_fd(), job.flags, job.object())?;
        job.settle(opener, other, &stat)?;
    }
    maker.settle(opener, fd, &stat)?;
    Ok(true)
}
