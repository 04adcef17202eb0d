//! The boundaries of an address space as the kernel keeps them: `PR_SET_MM` of `prctl(2)`.
//!
//! [`MmMap`] is plain data. A restored task installs it itself, so the usual way to use it is to put its
//! [bytes](MmMap::as_bytes) into the task's memory and `prctl(PR_SET_MM, PR_SET_MM_MAP, address, size)`
//! on the task's tape.

use std::mem::offset_of;

/// `prctl` option that sets one boundary, or all with [`PR_SET_MM_MAP`].
pub const PR_SET_MM: u64 = 35;
/// First address of the code.
pub const PR_SET_MM_START_CODE: u64 = 1;
/// End of the code.
pub const PR_SET_MM_END_CODE: u64 = 2;
/// First address of the initialised data.
pub const PR_SET_MM_START_DATA: u64 = 3;
/// End of the initialised data.
pub const PR_SET_MM_END_DATA: u64 = 4;
/// Bottom of the stack at `execve`.
pub const PR_SET_MM_START_STACK: u64 = 5;
/// Start of the heap.
pub const PR_SET_MM_START_BRK: u64 = 6;
/// Current program break.
pub const PR_SET_MM_BRK: u64 = 7;
/// Start of the argument strings.
pub const PR_SET_MM_ARG_START: u64 = 8;
/// End of the argument strings.
pub const PR_SET_MM_ARG_END: u64 = 9;
/// Start of the environment strings.
pub const PR_SET_MM_ENV_START: u64 = 10;
/// End of the environment strings.
pub const PR_SET_MM_ENV_END: u64 = 11;
/// The auxiliary vector shown in `/proc/PID/auxv`.
pub const PR_SET_MM_AUXV: u64 = 12;
/// The file behind `/proc/PID/exe`, by descriptor.
pub const PR_SET_MM_EXE_FILE: u64 = 13;
/// Everything at once, from a `struct prctl_mm_map`.
pub const PR_SET_MM_MAP: u64 = 14;
/// Asks for the size of `struct prctl_mm_map`.
pub const PR_SET_MM_MAP_SIZE: u64 = 15;

/// Largest auxiliary vector the kernel keeps on this machine, in bytes (`AT_VECTOR_SIZE` words).
pub const AUXV_MAX: usize = 8 * (2 * (3 + 22 + 1));

/// `struct prctl_mm_map` of `linux/prctl.h`. Addresses are those of the task that makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct MmMap {
    /// First address of the code.
    pub start_code: u64,
    /// End of the code.
    pub end_code: u64,
    /// First address of the initialised data.
    pub start_data: u64,
    /// End of the initialised data.
    pub end_data: u64,
    /// Start of the heap.
    pub start_brk: u64,
    /// Current program break.
    pub brk: u64,
    /// Bottom of the stack at `execve`.
    pub start_stack: u64,
    /// Start of the argument strings.
    pub arg_start: u64,
    /// End of the argument strings.
    pub arg_end: u64,
    /// Start of the environment strings.
    pub env_start: u64,
    /// End of the environment strings.
    pub env_end: u64,
    /// Address of the auxiliary vector to copy in, 0 to keep the present one.
    pub auxv: u64,
    /// Length of that vector in bytes, 0 to keep the present one.
    pub auxv_size: u32,
    /// Descriptor of the executable in the calling task, [`KEEP_EXE`](Self::KEEP_EXE) to keep the present one.
    pub exe_fd: u32,
}

const _: () = {
    assert!(size_of::<MmMap>() == MmMap::SIZE);
    assert!(offset_of!(MmMap, brk) == 40);
    assert!(offset_of!(MmMap, env_end) == 80);
    assert!(offset_of!(MmMap, auxv) == 88);
    assert!(offset_of!(MmMap, auxv_size) == 96);
    assert!(offset_of!(MmMap, exe_fd) == 100);
};

#[cfg(test)]
crate::layout::same!(whole MmMap, linux_raw_sys::prctl::prctl_mm_map {
    start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end,
    env_start, env_end, auxv, auxv_size, exe_fd,
});

impl MmMap {
    /// Bytes of the structure, the `arg4` of the call.
    pub const SIZE: usize = 104;
    /// Value of [`exe_fd`](Self::exe_fd) that leaves `/proc/PID/exe` alone.
    pub const KEEP_EXE: u32 = u32::MAX;

    /// The boundaries that `/proc/PID/stat` shows, with `brk` (which it does not show) as given. The
    /// auxiliary vector and the executable are kept.
    pub fn from_stat(stat: &crate::proc::stat::Stat, brk: u64) -> Self {
        Self {
            start_code: stat.start_code,
            end_code: stat.end_code,
            start_data: stat.start_data,
            end_data: stat.end_data,
            start_brk: stat.start_brk,
            brk,
            start_stack: stat.start_stack,
            arg_start: stat.arg_start,
            arg_end: stat.arg_end,
            env_start: stat.env_start,
            env_end: stat.env_end,
            auxv: 0,
            auxv_size: 0,
            exe_fd: Self::KEEP_EXE,
        }
    }

    /// The structure as the kernel reads it.
    pub fn as_bytes(&self) -> [u8; Self::SIZE] {
        let words = [
            self.start_code,
            self.end_code,
            self.start_data,
            self.end_data,
            self.start_brk,
            self.brk,
            self.start_stack,
            self.arg_start,
            self.arg_end,
            self.env_start,
            self.env_end,
            self.auxv,
        ];
        let mut bytes = [0; Self::SIZE];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[96..100].copy_from_slice(&self.auxv_size.to_ne_bytes());
        bytes[100..104].copy_from_slice(&self.exe_fd.to_ne_bytes());
        bytes
    }
}

/// The size of `struct prctl_mm_map` in this kernel.
///
/// # Errors
///
/// `EINVAL` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn map_size() -> rustix::io::Result<u32> {
    let mut size = 0u32;
    let address = &raw mut size as usize;
    let args = [
        PR_SET_MM as usize,
        PR_SET_MM_MAP_SIZE as usize,
        address,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes one 32-bit number at that address.
    unsafe { crate::syscall::call(libc::SYS_prctl as usize, args) }?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine() -> MmMap {
        let dir = crate::proc::task_dir(rustix::process::getpid()).unwrap();
        let stat = crate::proc::stat::read(&dir).unwrap();
        // SAFETY: brk(0) only answers.
        let brk = unsafe { crate::syscall::call(libc::SYS_brk as usize, [0; 6]) }.unwrap();
        MmMap::from_stat(&stat, brk as u64)
    }

    /// Installs the boundaries in this process. Not for use elsewhere: with a wrong `brk` the C library
    /// unmaps memory that is not its heap.
    fn install(map: &MmMap) -> rustix::io::Result<()> {
        let bytes = map.as_bytes();
        let address = bytes.as_ptr() as usize;
        let args = [
            PR_SET_MM as usize,
            PR_SET_MM_MAP as usize,
            address,
            bytes.len(),
            0,
            0,
        ];
        // SAFETY: the kernel reads one `prctl_mm_map` at that address and, as `auxv` is 0, nothing else;
        // the callers leave `brk` as it is.
        unsafe { crate::syscall::call(libc::SYS_prctl as usize, args) }.map(drop)
    }

    #[test]
    fn bytes_are_the_memory() {
        let map = MmMap {
            auxv_size: 7,
            ..mine()
        };
        let bytes = map.as_bytes();
        assert_eq!(bytes[..8], map.start_code.to_ne_bytes());
        assert_eq!(bytes[40..48], map.brk.to_ne_bytes());
        assert_eq!(bytes[96..], [7, 0, 0, 0, 255, 255, 255, 255]);
    }

    #[test]
    fn the_kernel_agrees_on_the_size() {
        assert_eq!(map_size(), Ok(MmMap::SIZE as u32));
    }

    #[test]
    fn own_boundaries_can_be_set_again() {
        let map = mine();
        assert_eq!(install(&map), Ok(()));
        let bad = MmMap {
            start_code: 1,
            ..map
        };
        assert_eq!(install(&bad), Err(rustix::io::Errno::INVAL));
    }
}
