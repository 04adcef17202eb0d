//! `ipcns-shm-*.img`: a shared memory segment. Section 19.5 of the format.

use super::IpcDescEntry;

messages! {
    /// `ipcns-shm-*.img`: a shared memory segment. Section 19.5.
    message IpcShmEntry = "ipc_shm_entry" {
        /// Identity and owner.
        required message IpcDescEntry desc = 1;
        /// Size, bytes.
        required uint64 size = 2;
        /// Contents are in `pagemap-shmem-$id.img`; always, now.
        optional bool in_pagemaps = 3;
        /// Huge page flags.
        optional uint32 hugetlb_flag = 4;
    }
}
