//! Work that is finished even if the caller is killed meanwhile: by a child of its own, which nothing but
//! `SIGKILL` to itself can stop.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::Pid;
use crate::clone::CloneArgs;
use crate::syscall::{call, last};

/// Runs `job` in a child and waits for it.
///
/// The child has the memory of the caller as it is now, and its descriptors; what it writes is lost unless it is in
/// shared memory. Other threads are not there, so the job must take no memory and no locks: calls, and work on
/// what it has been given.
///
/// # Errors
///
/// Those of the job, and of `fork(2)`.
pub fn aside(job: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = block_all()?;
    let child = fork();
    if child == Ok(0) {
        end(job);
    }
    unblock(&before);
    let child = child?;
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes a number.
        match unsafe { libc::waitpid(child as i32, &raw mut status, libc::__WALL) } {
            -1 if last() == Errno::INTR => {}
            -1 => return Err(last()),
            _ => break,
        }
    }
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        errno if libc::WIFEXITED(status) => Err(Errno::from_raw_os_error(errno)),
        _ => Err(Errno::IO),
    }
}

/// Runs `job` in a child as [`aside`] does, and `meanwhile` in the caller while the child is there and has done it. The
/// child ends then.
///
/// # Errors
///
/// As [`aside`].
pub fn beside(job: impl FnOnce() -> Result<()>, meanwhile: impl FnOnce(Pid)) -> Result<()> {
    let before = block_all()?;
    let child = fork();
    if child == Ok(0) {
        end(|| {
            job()?;
            // SAFETY: a number; nobody can block or catch this.
            unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
            Ok(())
        });
    }
    unblock(&before);
    let child = child? as i32;
    let wait = || loop {
        let mut status = 0;
        // SAFETY: the kernel writes a number.
        match unsafe { libc::waitpid(child, &raw mut status, libc::__WALL | libc::WUNTRACED) } {
            -1 if last() == Errno::INTR => {}
            -1 => return Err(last()),
            _ => return Ok(status),
        }
    };
    let status = wait()?;
    if libc::WIFEXITED(status) {
        return Err(Errno::from_raw_os_error(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSTOPPED(status)
        && let Some(pid) = Pid::from_raw(child)
    {
        meanwhile(pid);
    }
    // SAFETY: numbers; the child has not been waited for, so the number is still its.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait().map(drop)
}

/// As [`aside`], for a job that finds out numbers.
///
/// # Errors
///
/// As [`aside`].
pub fn ask<const N: usize>(job: impl FnOnce() -> Result<[i32; N]>) -> Result<[i32; N]> {
    let mut shared = Shared::<Numbers<N>>::new()?;
    let numbers = &mut *shared;
    aside(|| {
        numbers.0 = job()?;
        Ok(())
    })?;
    let Numbers(numbers) = *shared;
    Ok(numbers)
}

/// Numbers in shared memory.
#[derive(Debug, Clone, Copy)]
struct Numbers<const N: usize>([i32; N]);

// SAFETY: numbers.
unsafe impl<const N: usize> Zeroed for Numbers<N> {}

/// The whole life of the child.
pub(crate) fn end(job: impl FnOnce() -> Result<()>) -> ! {
    // Whatever happens, this must not go on as the caller.
    let done = catch_unwind(AssertUnwindSafe(job)).unwrap_or(Err(Errno::IO));
    let code = done.map_or_else(|errno| errno.raw_os_error() as usize, |()| 0);
    loop {
        // SAFETY: the call takes a number and does not return.
        let _ = unsafe { call(libc::SYS_exit_group as usize, [code, 0, 0, 0, 0, 0]) };
    }
}

/// `fork(2)`, without what libraries do about it.
pub(crate) fn fork() -> Result<usize> {
    let args = CloneArgs::default();
    let size = size_of::<CloneArgs>();
    let args = [(&raw const args) as usize, size, 0, 0, 0, 0];
    // SAFETY: the arguments outlive the call. The child shares no memory with the caller, and what it runs needs no
    // lock that another thread may have held.
    unsafe { call(libc::SYS_clone3 as usize, args) }
}

/// Blocks all signals of this thread, and gives back which were.
pub(crate) fn block_all() -> Result<libc::sigset_t> {
    // SAFETY: a set is plain data, and is filled before it is used; the kernel writes the old one.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) {
            0 => Ok(before),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}

/// Blocks those signals of this thread that were blocked before.
pub(crate) fn unblock(before: &libc::sigset_t) {
    // SAFETY: the mask is one that the kernel has given.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, null_mut()) };
}

/// Of which bytes of zeros are a value.
///
/// # Safety
///
/// That must be so.
pub(crate) unsafe trait Zeroed {}

/// Something in memory that a child shares.
#[derive(Debug)]
pub(crate) struct Shared<T: Zeroed>(NonNull<T>);

impl<T: Zeroed> Shared<T> {
    /// Zeros.
    pub(crate) fn new() -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where nothing is.
        let at = unsafe { mmap_anonymous(null_mut(), size_of::<T>(), prot, MapFlags::SHARED) }?;
        NonNull::new(at.cast()).map(Self).ok_or(Errno::NOMEM)
    }
}

impl<T: Zeroed> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as large as the value, aligned to pages, and lives as long as this; a child that
        // writes it has ended before the caller goes on.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Zeroed> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and nobody else has it.
        unsafe { self.0.as_mut() }
    }
}

impl<T: Zeroed> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody refers to it any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: a number.
    unsafe impl Zeroed for u64 {}

    #[test]
    fn what_is_shared_comes_back() {
        let mut shared = Shared::<u64>::new().unwrap();
        let number = &mut *shared;
        let mut private = 0;
        aside(|| {
            *number = 42;
            private = 42;
            Ok(())
        })
        .unwrap();
        assert_eq!((*shared, private), (42, 0));
    }

    #[test]
    fn a_child_is_there_for_a_while() {
        let mut seen = None;
        beside(|| Ok(()), |child| seen = Some(child)).unwrap();
        let gone = rustix::process::test_kill_process(seen.unwrap());
        assert_eq!(gone, Err(Errno::SRCH));
        assert_eq!(beside(|| Err(Errno::NXIO), drop), Err(Errno::NXIO));
    }

    #[test]
    fn errors_come_back() {
        assert_eq!(aside(|| Err(Errno::NXIO)), Err(Errno::NXIO));
    }
}
