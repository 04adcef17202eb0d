//! Who gets signals about a file, `F_SETOWN` and `F_SETSIG` of `fcntl(2)`. All zero when unset.
//! Section 11.3 of the format.

messages! {
    /// Who gets signals about a file, `F_SETOWN` and `F_SETSIG` of `fcntl(2)`. All zero when unset.
    /// Section 11.3.
    message FownEntry = "fown_entry" {
        /// User id of the setter.
        required uint32 uid = 1;
        /// Effective user id of the setter.
        required uint32 euid = 2;
        /// Signal; 0 = default.
        required uint32 signum = 3;
        /// 0 thread, 1 process, 2 process group.
        required uint32 pid_type = 4;
        /// Virtual pid; 0 = no owner.
        required uint32 pid = 5;
    }
}
