//! `pstree.img`: a task of the tree. Section 6.1 of the format.

messages! {
    /// `pstree.img`: a task of the tree. Section 6.1.
    message PstreeEntry = "pstree_entry" {
        /// Virtual pid.
        required uint32 pid = 1;
        /// Pid of the parent in the tree; 0 for the root task (exactly one record).
        required uint32 ppid = 2;
        /// Process group as a number of the root pid namespace; 0 if outside it.
        required uint32 pgid = 3;
        /// Session as a number of the root pid namespace; 0 if outside it.
        required uint32 sid = 4;
        /// Tids, the leader first. The list of a zombie holds one meaningless number.
        repeated uint32 threads = 5;
    }
}
