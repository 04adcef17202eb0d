//! Memory protection keys, `pkeys(7)`.

use rustix::io::Errno;

use crate::PAGE_SIZE;
use crate::syscall::{call, nr};

/// The largest key. All memory has the key 0 at first.
pub const LAST: u32 = 15;

/// A page that no task can ever have. `pkey_mprotect(2)` says `ENOMEM` of it for a key that a program has allocated,
/// and `EINVAL` for one that it has not, or that the kernel gives to memory that can only be executed.
pub const NOWHERE: u64 = 0xffff_8000_0000_0000;

/// Whether processor and kernel have protection keys.
#[must_use]
pub fn are_there() -> bool {
    let args = [NOWHERE as usize, PAGE_SIZE, 0, 0, 0, 0];
    // SAFETY: there is never a mapping, so nothing is changed.
    let said = unsafe { call(nr::pkey_mprotect, args) };
    said == Err(Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_the_processor_can() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let said = text.split_whitespace().any(|word| word == "ospke");
        assert_eq!(are_there(), said);
    }
}
