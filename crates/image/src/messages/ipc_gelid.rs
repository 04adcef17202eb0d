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
}
