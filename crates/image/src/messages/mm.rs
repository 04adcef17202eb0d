//! `mm-*.img`: an address space. Section 8.1 of the format.

use super::VmaEntry;

messages! {
    /// An AIO context, `io_setup(2)`. Section 8.1.
    message AioRingEntry = "aio_ring_entry" {
        /// Address of the ring.
        required uint64 id = 1;
        /// Capacity, requests.
        required uint32 nr_req = 2;
        /// Length of the ring, bytes.
        required uint32 ring_len = 3;
    }

    /// `mm-*.img`: an address space. Section 8.1.
    message MmEntry = "mm_entry" {
        /// Start of code.
        required uint64 mm_start_code = 1 as hex;
        /// End of code.
        required uint64 mm_end_code = 2 as hex;
        /// Start of data.
        required uint64 mm_start_data = 3 as hex;
        /// End of data.
        required uint64 mm_end_data = 4 as hex;
        /// Start of the stack.
        required uint64 mm_start_stack = 5 as hex;
        /// Heap start.
        required uint64 mm_start_brk = 6 as hex;
        /// Program break.
        required uint64 mm_brk = 7 as hex;
        /// Start of the argument strings.
        required uint64 mm_arg_start = 8 as hex;
        /// End of the argument strings.
        required uint64 mm_arg_end = 9 as hex;
        /// Start of the environment strings.
        required uint64 mm_env_start = 10 as hex;
        /// End of the environment strings.
        required uint64 mm_env_end = 11 as hex;
        /// File id of the executable; a `REG` record in `files.img`.
        required uint32 exe_file_id = 12;
        /// The saved auxiliary vector as u64 words: type, value, type, value, … At most 44 words on
        /// x86-64; a longer vector is cut there, so the final zero pair may be missing. Readers
        /// refuse more than 44.
        repeated uint64 mm_saved_auxv = 13;
        /// Areas, sorted by start; guard ranges behind them.
        repeated message VmaEntry vmas = 14;
        /// Value to set with the dumpable prctl: 0 or 1; other values cannot be set and fall back
        /// to 0.
        optional int32 dumpable = 15;
        /// One per AIO context: `id` = ring address, `nr_req` = capacity, `ring_len` = length in
        /// bytes.
        repeated message AioRingEntry aios = 16;
        /// Transparent huge pages disabled for the process.
        optional bool thp_disabled = 17;
        /// gelid's own; CRIU skips it. Bit n: the protection key n is allocated (`pkey_alloc(2)`), 1 to 15; absent
        /// if none is.
        optional uint32 protection_keys = 1000 as hex;
        /// gelid's own: the protection key that the kernel gives to memory that can only be executed, if there is
        /// any.
        optional uint32 execute_only_key = 1001;
    }
}
