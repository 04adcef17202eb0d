//! Packets of CRIU's RPC.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gelid_fuzz::request(input));
