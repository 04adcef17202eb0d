//! `memfd.img`: a memfd object. Shared anonymous memory is one, named `/dev/zero`. Section 16.1 of
//! the format.

use super::FownEntry;

messages! {
    /// An open description of a memfd. Section 16.1.
    message MemfdFileEntry = "memfd_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as flags OPEN;
        /// File position in bytes; `u64::MAX` = do not seek.
        required uint64 pos = 3;
        /// Owner for I/O signals.
        required message FownEntry fown = 4;
        /// Object, key in `memfd.img`.
        required uint32 inode_id = 5;
    }

    /// `memfd.img`: a memfd object. Shared anonymous memory is one, named `/dev/zero`. Section
    /// 16.1.
    message MemfdInodeEntry = "memfd_inode_entry" {
        /// Name given at creation without the `memfd:` prefix; `/dev/zero` for shared anonymous
        /// memory.
        required text name = 1;
        /// Owner.
        required uint32 uid = 2;
        /// Group.
        required uint32 gid = 3;
        /// Size, bytes.
        required uint64 size = 4;
        /// Key of `pagemap-shmem-$shmid.img` with the contents.
        required uint32 shmid = 5;
        /// Seal bits: 1 seal, 2 shrink, 4 grow, 8 write, 16 future-write. Exactly 1 means "created
        /// without permission to seal".
        required uint32 seals = 6 as flags SEALS;
        /// Key.
        required uint64 inode_id = 7;
        /// Creation flags for huge pages (0x4 and size bits), only for hugetlb objects.
        optional uint32 hugetlb_flag = 8;
        /// Mode.
        optional uint32 mode = 9;
    }
}
