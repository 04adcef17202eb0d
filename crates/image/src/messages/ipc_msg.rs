//! `ipcns-msg-*.img`: a message queue; `qnum` messages follow. Section 19.5 of the format.

use super::IpcDescEntry;

messages! {
    /// A queued message; its bytes follow, padded with zeros to a multiple of 8. Section 19.5.
    message IpcMsg = "ipc_msg" {
        /// Message type.
        required uint64 mtype = 1;
        /// Length, bytes.
        required uint32 msize = 2;
    }

    /// `ipcns-msg-*.img`: a message queue; `qnum` messages follow. Section 19.5.
    message IpcMsgEntry = "ipc_msg_entry" {
        /// Identity and owner.
        required message IpcDescEntry desc = 1;
        /// Capacity, bytes.
        required uint32 qbytes = 2;
        /// Number of messages that follow.
        required uint32 qnum = 3;
    }
}
