//! Files that are not what they were, found without opening them for anything but a look.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

use super::regular::{Job, Regular};
use super::{Error, FilesPlan, Kind};

impl FilesPlan {
    /// Compares all files that have a path with what was recorded of them.
    pub(crate) fn changed(&self, root: &OwnedFd) -> Vec<Error> {
        let descriptions = self.descriptions.values();
        let files = descriptions.filter_map(|description| match &description.kind {
            Kind::Regular(file) if file.remap.is_none() && file.process.is_none() => Some(Job {
                id: description.id,
                flags: description.flags,
                file,
            }),
            _ => None,
        });
        let inherited = |file: &Regular| {
            let path = file.name.relative();
            let mut given = self.options.inherit.iter();
            given.any(|given| {
                given.key.strip_prefix("fd[").is_some() || given.key.as_bytes() == path
            })
        };
        let files = files.filter(|job| !inherited(job.file));
        files
            .filter_map(|job| self.look(root, &job).err())
            .collect()
    }

    fn look(&self, root: &OwnedFd, job: &Job<'_>) -> Result<(), Error> {
        let object = job.object();
        let kind = job.file.mode.map(FileType::from_raw_mode);
        // Whatever else is opened may notice.
        let flags = match kind {
            Some(FileType::RegularFile) => OFlags::RDONLY | OFlags::NONBLOCK,
            _ => OFlags::PATH,
        };
        let path = job.file.name.relative();
        let opened = openat(root, path, flags | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.map_err(Error::system("open", &*object))?;
        let stat = fstat(&opened).map_err(Error::system("examine", &*object))?;
        let file = job.file;
        file.check(
            opened.as_fd(),
            &stat,
            job.flags,
            &|| object.clone(),
            &self.options,
        )
    }
}
