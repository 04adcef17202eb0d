//! `ipcns-shm-*.img`: a shared memory segment. Section 19.5 of the format.

use super::{GelidSegmentEntry, IpcDescEntry};

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
        /// gelid's own: what tells whether it is still the same one. Only of the dumper's own namespace.
        optional message GelidSegmentEntry gelid = 1000;
        /// The key of its memory, if that is not its id: another namespace may have one with the same id. Not in the
        /// published format.
        optional uint32 pages = 1001;
    }
}
