//! Records of network links.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gelid_fuzz::records(
    gelid_image::ImageKind::Netdev,
    input
));
