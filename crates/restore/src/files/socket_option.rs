//! Options of sockets beyond the published format, whatever their level.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use gelid_image::messages::GelidSocketOptionEntry;
use gelid_sys::sockopt::{OPTIONS, SocketOption};
use rustix::io::Errno;

use super::Error;

/// Options and their values as the kernel has them, in the order in which they are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values(Vec<(SocketOption, Vec<u8>)>);

impl Values {
    /// Checks records; they prevail over `others`.
    pub(super) fn plan(
        object: &str,
        mut others: BTreeMap<SocketOption, Vec<u8>>,
        entries: &[GelidSocketOptionEntry],
    ) -> Result<Self, Error> {
        for given in entries {
            others.insert(known(object, given)?, given.value.clone());
        }
        let ordered = OPTIONS.iter();
        let values = ordered.filter_map(|option| others.remove_entry(option));
        Ok(Self(values.collect()))
    }

    /// Sets some of the options that are not as wanted.
    pub(super) fn set(
        &self,
        fd: BorrowedFd<'_>,
        object: &str,
        wanted: impl Fn(SocketOption) -> bool,
    ) -> Result<(), Error> {
        for (option, value) in &self.0 {
            if !wanted(*option) {
                continue;
            }
            match option.get(fd) {
                Ok(found) if found == *value => continue,
                // What a kind of sockets does not have is off.
                Err(Errno::NOPROTOOPT | Errno::OPNOTSUPP) if value.iter().all(|it| *it == 0) => {
                    continue;
                }
                _ => {}
            }
            let set = option.set(fd, value);
            set.map_err(|errno| Error::Option {
                object: object.to_owned(),
                level: option.numbers().0,
                name: option.numbers().1,
                errno,
            })?;
        }
        Ok(())
    }

    /// Level, number and value of each.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<((i32, i32), &[u8])> {
        let all = self.0.iter();
        all.map(|(option, value)| (option.numbers(), &value[..]))
            .collect()
    }
}

/// The option that a record is about, if there is one and it has room for the value.
fn known(object: &str, given: &GelidSocketOptionEntry) -> Result<SocketOption, Error> {
    let number = |number| i32::try_from(number).ok();
    let option = number(given.level)
        .zip(number(given.name))
        .and_then(|(level, name)| SocketOption::find(level, name));
    let fits = |option: &SocketOption| given.value.len() <= option.room();
    option.filter(fits).ok_or_else(|| {
        let found = format!(
            "{}/{} of {} bytes",
            given.level,
            given.name,
            given.value.len()
        );
        Error::invalid(object, "gelid.option", found, "no option is like that")
    })
}
