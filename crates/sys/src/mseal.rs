//! Sealed memory, `mseal(2)`.

use rustix::io::Result;

use crate::syscall::{call, nr};

/// Asks whether this kernel has it (since Linux 6.10).
///
/// # Errors
///
/// `ENOSYS` if it has not.
pub fn is_there() -> Result<()> {
    // SAFETY: no memory is sealed, as the range is empty.
    unsafe { call(nr::mseal, [0; 6]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn the_kernel_knows_it_or_not() {
        assert!([Ok(()), Err(Errno::NOSYS)].contains(&is_there()));
    }
}
