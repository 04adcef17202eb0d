//! `ipcns-var-*.img`: sysctls of an IPC namespace. Section 19.5 of the format.

use super::GelidMqueueEntry;

messages! {
    /// `ipcns-var-*.img`: sysctls of an IPC namespace. Section 19.5.
    message IpcVarEntry = "ipc_var_entry" {
        /// The four numbers of `kernel.sem`.
        repeated uint32 sem_ctls = 1;
        /// `kernel.msgmax`.
        required uint32 msg_ctlmax = 2;
        /// `kernel.msgmnb`.
        required uint32 msg_ctlmnb = 3;
        /// `kernel.msgmni`.
        required uint32 msg_ctlmni = 4;
        /// `kernel.auto_msgmni`.
        required uint32 auto_msgmni = 5;
        /// `kernel.shmmax`.
        required uint64 shm_ctlmax = 6;
        /// `kernel.shmall`.
        required uint64 shm_ctlall = 7;
        /// `kernel.shmmni`.
        required uint32 shm_ctlmni = 8;
        /// `kernel.shm_rmid_forced`.
        required uint32 shm_rmid_forced = 9;
        /// `fs.mqueue.queues_max`.
        required uint32 mq_queues_max = 10;
        /// `fs.mqueue.msg_max`.
        required uint32 mq_msg_max = 11;
        /// `fs.mqueue.msgsize_max`.
        required uint32 mq_msgsize_max = 12;
        /// `fs.mqueue.msg_default`.
        optional uint32 mq_msg_default = 13;
        /// `fs.mqueue.msgsize_default`.
        optional uint32 mq_msgsize_default = 14;
        /// `kernel.msg_next_id`; absent when -1.
        optional uint32 msg_next_id = 15;
        /// `kernel.sem_next_id`; absent when -1.
        optional uint32 sem_next_id = 16;
        /// `kernel.shm_next_id`; absent when -1.
        optional uint32 shm_next_id = 17;
        /// gelid's own; CRIU skips it. POSIX message queues, all of them empty.
        repeated message GelidMqueueEntry mqueue = 1000;
    }
}
