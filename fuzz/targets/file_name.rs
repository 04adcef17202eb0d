//! Names of image files.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gelid_fuzz::name(input));
