//! An open BPF map and how it was created, `bpf(2)`. Section 16.5 of the format.

use super::FownEntry;

messages! {
    /// An open BPF map and how it was created, `bpf(2)`. Section 16.5.
    message BpfmapFileEntry = "bpfmap_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as flags OPEN;
        /// File position in bytes; `u64::MAX` = do not seek.
        required uint64 pos = 3;
        /// Owner for I/O signals.
        required message FownEntry fown = 4;
        /// Map type.
        required uint32 map_type = 5;
        /// Size of a key, bytes.
        required uint32 key_size = 6;
        /// Size of a value, bytes.
        required uint32 value_size = 7;
        /// Kernel map id, key of the data record.
        required uint32 map_id = 8;
        /// Capacity.
        required uint32 max_entries = 9;
        /// Creation flags.
        required uint32 map_flags = 10;
        /// Locked memory charged, bytes.
        required uint64 memlock = 11;
        /// Whether the map is frozen.
        required bool frozen = 12;
        /// Name of the map.
        required string map_name = 13;
        /// Interface the map is offloaded to; 0 none.
        required uint32 ifindex = 14;
        /// Mount id, if mount namespaces are dumped.
        optional sint32 mnt_id = 15 default "-1";
        /// Extra creation argument.
        optional uint64 map_extra = 16;
    }
}
