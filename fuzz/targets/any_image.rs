//! Images of any kind, header included.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gelid_fuzz::any(input));
