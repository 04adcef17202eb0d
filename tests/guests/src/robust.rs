//! What the kernel does for a thread that ends.
//!
//! `robust-list`: a thread that dies with a robust mutex held; the next owner must be told.
//! `clear-child-tid`: the word that the kernel clears when a thread ends, which `pthread_join` waits
//! for, and its address as the kernel reports it.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, same, wait_blocked};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI32, Ordering};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("robust-list", robust_list),
    Entry("clear-child-tid", clear_child_tid),
];

/// A robust mutex of the C library.
struct Robust(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made to be used by several threads.
unsafe impl Sync for Robust {}

impl Robust {
    fn new() -> Check<Self> {
        let mutex = Self(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        // SAFETY: an attribute object is plain memory until it is set up by the next call.
        let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
        zero(os!(libc::pthread_mutexattr_init(&raw mut attributes))?)?;
        zero(os!(libc::pthread_mutexattr_setrobust(
            &raw mut attributes,
            libc::PTHREAD_MUTEX_ROBUST
        ))?)?;
        zero(os!(libc::pthread_mutex_init(
            mutex.0.get(),
            &raw const attributes
        ))?)?;
        Ok(mutex)
    }

    fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.0.get()
    }
}

/// An error number returned by a pthread function must be 0.
#[track_caller]
fn zero(error: i32) -> Check {
    if error == 0 {
        Ok(())
    } else {
        Err(Failure::new(std::io::Error::from_raw_os_error(error)))
    }
}

fn robust_list(guest: &Guest) -> Check {
    let robust = Robust::new()?;
    let mutex = &robust;
    let waiting = AtomicI32::new(0);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| -> Check {
            zero(os!(libc::pthread_mutex_lock(mutex.raw()))?)?;
            waiting.store(1, Ordering::Release);
            guest.wait();
            Ok(()) // ends with the mutex held
        });
        while waiting.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        // This one is blocked on the mutex while it is dumped.
        let heir = scope.spawn(|| {
            waiting.store(
                rustix::thread::gettid().as_raw_nonzero().get(),
                Ordering::Release,
            );
            os!(libc::pthread_mutex_lock(mutex.raw()))
        });
        while waiting.load(Ordering::Acquire) == 1 {
            std::thread::yield_now();
        }
        wait_blocked(waiting.load(Ordering::Acquire), libc::SYS_futex)?;
        guest.hold()?;
        holder
            .join()
            .map_err(|_| Failure::new("holder panicked"))??;
        let told = heir.join().map_err(|_| Failure::new("heir panicked"))??;
        same!(
            "pthread_mutex_lock after the owner died",
            told,
            libc::EOWNERDEAD
        );
        Ok(())
    })
}

fn clear_child_tid(guest: &Guest) -> Check {
    let address = || -> Check<usize> {
        let mut address = 0_usize;
        os!(libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address))?;
        Ok(address)
    };
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let before = address()?;
                    barrier.wait();
                    guest.wait();
                    same!("address of the tid word in a thread", address()?, before);
                    Ok(())
                })
            })
            .collect();
        let before = address()?;
        barrier.wait();
        guest.hold()?;
        same!(
            "address of the tid word in the main thread",
            address()?,
            before
        );
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })
    })
}
