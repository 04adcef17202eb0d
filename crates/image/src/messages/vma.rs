//! A virtual memory area. Section 8.2 of the format.

messages! {
    /// A virtual memory area. Section 8.2.
    message VmaEntry = "vma_entry" {
        /// First byte.
        required uint64 start = 1 as hex;
        /// Byte behind the last.
        required uint64 end = 2 as hex;
        /// Offset into the object in bytes.
        required uint64 pgoff = 3;
        /// Object reference (section 8.4).
        required uint64 shmid = 4;
        /// 1 read, 2 write, 4 exec.
        required uint32 prot = 5 as flags PROT;
        /// Mmap flags to recreate it: 1 shared, 2 private, 8 droppable (then without 2), 0x20
        /// anonymous, 0x100 grows down, 0x2000 locked, 0x4000 no-reserve, 0x40000 hugetlb with page
        /// size log2 in bits 26…31.
        required uint32 flags = 6 as flags MAP;
        /// Bits of section 8.3.
        required uint32 status = 7 as flags STATUS;
        /// Always -1 in images.
        required sint64 fd = 8;
        /// Bit n set = advice number n is in force; absent if 0. Bits used: 1 random, 2 sequential,
        /// 10 dont-fork, 12 mergeable, 14 hugepage, 15 no-hugepage, 16 dont-dump, 18 wipe-on-fork.
        optional uint64 madv = 9 as hex;
        /// Access mode 0/1/2 with which the file behind the area must be reopened; present for
        /// file, SysV and AIO areas, absent for anonymous ones.
        optional uint32 fdflags = 10 as hex;
        /// gelid's own; CRIU skips it. A private area that cannot be written, but could once: the
        /// kernel counts it as memory that may be needed.
        optional bool accounted = 1000;
        /// gelid's own: the name of anonymous memory (`PR_SET_VMA_ANON_NAME`).
        optional bytes name = 1001;
        /// gelid's own: its protection key (`pkey_mprotect(2)`), 1 to 15; absent for 0.
        optional uint32 protection_key = 1002;
        /// gelid's own: nobody may change it any more (`mseal(2)`).
        optional bool sealed = 1003;
    }
}
