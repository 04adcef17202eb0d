//! `ipcns-sem-*.img`: a semaphore set; `nsems` 16-bit values follow, padded to a multiple of 8
//! bytes. Section 19.5 of the format.

use super::IpcDescEntry;

messages! {
    /// `ipcns-sem-*.img`: a semaphore set; `nsems` 16-bit values follow, padded to a multiple of 8
    /// bytes. Section 19.5.
    message IpcSemEntry = "ipc_sem_entry" {
        /// Identity and owner.
        required message IpcDescEntry desc = 1;
        /// Number of semaphores.
        required uint32 nsems = 2;
    }
}
