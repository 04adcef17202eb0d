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
        /// gelid: of a task in a pid namespace below the root's, what it is called there.
        optional message GelidPlaceEntry place = 1000;
        /// gelid: the pid namespace that children are born into, if it is not that of the task; 0 for one that has no
        /// process yet.
        optional uint32 pid_ns_for_children = 1001;
    }

    /// The place of a task in nested pid namespaces. Field 1000 of `pstree_entry`.
    message GelidPlaceEntry = "gelid_place_entry" {
        /// Its pid namespace.
        required uint32 pid_ns = 1;
        /// Numbers of its threads, the leader's first.
        repeated message GelidNumbersEntry threads = 2;
        /// Numbers of its group, as below; 0 where it is not seen.
        repeated uint32 pgid = 3;
        /// Numbers of its session.
        repeated uint32 sid = 4;
    }

    /// Numbers in the namespaces below the root's, down to the own one.
    message GelidNumbersEntry = "gelid_numbers_entry" {
        /// The outermost first.
        repeated uint32 number = 1;
    }
}
