//! `bpfmap-data.img`: contents of a BPF map; keys, then values follow the record. Section 16.5 of
//! the format.

messages! {
    /// `bpfmap-data.img`: contents of a BPF map; keys, then values follow the record. Section 16.5.
    message BpfmapDataEntry = "bpfmap_data_entry" {
        /// Kernel map id.
        required uint32 map_id = 1;
        /// Length of the keys that follow, bytes.
        required uint32 keys_bytes = 2;
        /// Length of the values behind them, bytes.
        required uint32 values_bytes = 3;
        /// Number of keys.
        required uint32 count = 4;
    }
}
