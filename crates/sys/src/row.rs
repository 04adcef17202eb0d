//! Many descriptors that are closed together.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::syscall::call;

/// Descriptors with ascending numbers. Dropped, those whose numbers follow each other are closed by one call.
#[derive(Debug, Default)]
pub struct Row(Vec<OwnedFd>);

impl Row {
    /// Takes one more.
    pub fn push(&mut self, fd: OwnedFd) {
        self.0.push(fd);
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let numbers: Vec<RawFd> = self.0.drain(..).map(IntoRawFd::into_raw_fd).collect();
        for run in numbers.chunk_by(|one, next| one + 1 == *next) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let args = [*first as usize, *last as usize, 0, 0, 0, 0];
            // SAFETY: all numbers from the first to the last are those of descriptors that were given to us to keep, and
            // nobody else can have them.
            let closed = unsafe { call(libc::SYS_close_range as usize, args) };
            if closed.is_err() {
                // SAFETY: as above, and nothing has been closed.
                run.iter()
                    .for_each(|fd| drop(unsafe { OwnedFd::from_raw_fd(*fd) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{Errno, dup, fcntl_getfd};
    use std::os::fd::AsRawFd;
    use std::os::fd::BorrowedFd;

    #[test]
    fn all_are_closed_and_no_other() {
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let high = |number| rustix::io::fcntl_dupfd_cloexec(&zero, number).unwrap();
        let mut row = Row::default();
        let (one, two, between, three) = (high(700), high(701), high(702), high(703));
        let numbers = [&one, &two, &three].map(AsRawFd::as_raw_fd);
        [one, two, three].into_iter().for_each(|fd| row.push(fd));
        drop(row);
        for number in numbers {
            // SAFETY: it is only asked whether there is such a descriptor.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            assert_eq!(fcntl_getfd(fd).err(), Some(Errno::BADF));
        }
        dup(&between).unwrap();
    }
}
