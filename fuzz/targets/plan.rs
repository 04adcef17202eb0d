//! The plan of a restore, from damaged image sets.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gelid_fuzz::plan(input));
