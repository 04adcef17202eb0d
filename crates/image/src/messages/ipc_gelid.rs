//! What gelid records of System V IPC beyond the published format. All of it hangs on fields from 1000 on of
//! published messages.

messages! {
    /// A segment of the dumper's own IPC namespace, which may still be there. Field 1000 of `ipc_shm_entry`.
    message GelidSegmentEntry = "gelid_segment_entry" {
        /// When it was made or given other owners, seconds.
        required int64 changed = 1;
        /// Who has made it.
        required int32 creator = 2;
    }

    /// A POSIX message queue. Field 1000 of `ipc_var_entry`.
    message GelidMqueueEntry = "gelid_mqueue_entry" {
        /// Name, without a slash.
        required text name = 1;
        /// Permissions.
        required uint32 mode = 2;
        /// User id.
        required uint32 uid = 3;
        /// Group id.
        required uint32 gid = 4;
        /// The most messages.
        required uint32 most = 5;
        /// The most bytes of a message.
        required uint32 size = 6;
    }

    /// What a semaphore gets back when a process ends (`SEM_UNDO`).
    message GelidUndoEntry = "gelid_undo_entry" {
        /// Id of the set.
        required int32 set = 1;
        /// Number of the semaphore in it.
        required uint32 semaphore = 2;
        /// What is added to it.
        required sint32 change = 3;
    }
}
