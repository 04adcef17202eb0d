//! `binfmt-misc.img`: a registered binary format. Section 20.5 of the format.

messages! {
    /// `binfmt-misc.img`: a registered binary format. Section 20.5.
    message BinfmtMiscEntry = "binfmt_misc_entry" {
        /// Name of the format.
        required string name = 1;
        /// Whether it is enabled.
        required bool enabled = 2;
        /// Path of the interpreter.
        required string interpreter = 3;
        /// Flags as the kernel prints them.
        optional string flags = 4;
        /// File name extension without its dot.
        optional string extension = 5;
        /// Magic as hexadecimal text.
        optional string magic = 6;
        /// Mask as hexadecimal text.
        optional string mask = 7;
        /// Offset of the magic, bytes.
        optional int32 offset = 8;
    }
}
