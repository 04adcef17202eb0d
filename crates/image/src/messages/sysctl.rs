//! Value of a sysctl; neither argument is present where the kernel has no such sysctl. Section 21.1
//! of the format.

enumerations! {
    /// Type of a sysctl value.
    enumeration SysctlType = "SysctlType" {
        /// Text.
        CtlStr = 5 "CTL_STR";
        /// Integer.
        Ctl32 = 6 "CTL_32";
    }
}

messages! {
    /// Value of a sysctl; neither argument is present where the kernel has no such sysctl. Section
    /// 21.1.
    message SysctlEntry = "sysctl_entry" {
        /// [`SysctlType`].
        required enumeration SysctlType r#type = 1;
        /// Integer value.
        optional int32 iarg = 2;
        /// Text value.
        optional string sarg = 3;
    }
}
