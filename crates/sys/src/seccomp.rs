//! `seccomp(2)`, for calls on tapes and programs that were read by ptrace.

/// Forbids everything but reading, writing, ending and returning from a signal.
pub const SET_MODE_STRICT: u32 = libc::SECCOMP_SET_MODE_STRICT;
/// Installs a filter.
pub const SET_MODE_FILTER: u32 = libc::SECCOMP_SET_MODE_FILTER;
/// For all threads of the process.
pub const FLAG_TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
/// With that: fails if a thread has another filter, instead of telling which.
pub const FLAG_TSYNC_ESRCH: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH as u32;
/// What it forbids is logged.
pub const FLAG_LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;

/// Instructions of the longest filter (`BPF_MAXINSNS`).
pub const MOST: usize = 4096;

/// Bytes of `struct sock_fprog`.
pub const PROGRAM_SIZE: usize = size_of::<libc::sock_fprog>();
/// Offset of the address of the instructions in it.
pub const INSTRUCTIONS: usize = std::mem::offset_of!(libc::sock_fprog, filter);

/// `struct sock_fprog` for so many instructions, whose address has yet to be set.
#[must_use]
pub fn program(len: u16) -> [u8; PROGRAM_SIZE] {
    let mut bytes = [0; PROGRAM_SIZE];
    bytes[..2].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// Whether an instruction makes a filter ask a supervisor (`SECCOMP_RET_USER_NOTIF`).
#[must_use]
pub fn asks_supervisor(code: u16, k: u32) -> bool {
    /// `BPF_RET | BPF_K`
    const RETURN: u16 = 0x06;
    code == RETURN && k & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_USER_NOTIF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisors_are_noticed() {
        assert!(asks_supervisor(6, 0x7fc0_0000));
        assert!(asks_supervisor(6, 0x7fc0_0001));
        assert!(!asks_supervisor(6, 0x7fff_0000));
        assert!(!asks_supervisor(0x20, 0x7fc0_0000));
    }

    #[test]
    fn a_program_has_its_length_first() {
        assert_eq!(program(0x0201)[..4], [1, 2, 0, 0]);
        assert_eq!((PROGRAM_SIZE, INSTRUCTIONS), (16, 8));
    }
}
