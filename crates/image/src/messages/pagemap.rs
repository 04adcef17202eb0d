//! A run of pages with equal flags. Section 9.1 of the format.

messages! {
    /// First record of a pagemap. Section 9.1.
    message PagemapHead = "pagemap_head" {
        /// Key of `pages-*.img`.
        required uint32 pages_id = 1;
    }

    /// A run of pages with equal flags. Section 9.1.
    message PagemapEntry = "pagemap_entry" {
        /// Start address (task) or byte offset in the object (shmem); page aligned.
        required uint64 vaddr = 1 as hex;
        /// Required by the message; 0 in current images, carries the count in old ones.
        required uint32 compat_nr_pages = 2;
        /// Obsolete form of PARENT.
        optional bool in_parent = 3;
        /// 1 PARENT, 2 LAZY, 4 PRESENT.
        optional uint32 flags = 4 as flags PAGEMAP;
        /// Number of pages.
        optional uint64 nr_pages = 5;
        /// gelid's own: the task whose images hold these pages, since both have them in common, or equal ones. With PRESENT
        /// this one's images hold them, too, for those who know nothing of it.
        optional uint32 same_as = 1000;
        /// gelid's own, with `same_as`: where that task has the pages, if not at the same addresses. It may be the same task.
        optional uint64 same_at = 1001 as hex;
    }
}
