//! Identity and owner of a System V IPC object. Section 19.5 of the format.

messages! {
    /// Identity and owner of a System V IPC object. Section 19.5.
    message IpcDescEntry = "ipc_desc_entry" {
        /// Key, `ftok(3)`.
        required uint32 key = 1;
        /// User id.
        required uint32 uid = 2;
        /// Group id.
        required uint32 gid = 3;
        /// User id of the creator.
        required uint32 cuid = 4;
        /// Group id of the creator.
        required uint32 cgid = 5;
        /// Permissions.
        required uint32 mode = 6;
        /// Object id, to be reproduced.
        required uint32 id = 7;
    }
}
