//! What the fuzz targets do with their input. A finding is a panic, an endless loop, or memory out
//! of proportion.
#![forbid(unsafe_code)]

mod plan;

pub use plan::plan;

use gelid_image::{ImageKind, ImageReader, Layout, Walk, show};

/// Reads the records of an image of one kind: the input is what follows the header, so the fuzzer
/// need not find the magic.
pub fn records(kind: ImageKind, input: &[u8]) {
    let mut image = gelid_image::header(kind);
    image.extend_from_slice(input);
    walk(kind, &image, Layout::V1_1);
}

/// Reads an image of any kind in either layout, header included: byte 0 picks the kind, byte 1 the
/// layout.
pub fn any(input: &[u8]) {
    let [kind, layout, image @ ..] = input else {
        return;
    };
    let kind = ImageKind::ALL[usize::from(*kind) % ImageKind::ALL.len()];
    let layout = match layout % 2 {
        0 => Layout::V1_1,
        _ => Layout::V1_0,
    };
    walk(kind, image, layout);
}

/// Finds kind and key of a file name, and the name again.
pub fn name(input: &[u8]) {
    if let Ok(name) = std::str::from_utf8(input)
        && let Some((kind, key)) = ImageKind::from_file_name(name)
    {
        assert_eq!(kind.file_name(key).as_deref(), Some(name));
    }
}

/// Reads a manifest.
pub fn manifest(input: &[u8]) {
    if let Ok(manifest) = gelid_image::manifest::Manifest::parse(input) {
        assert!(manifest.names().all(|name| manifest.get(name).is_some()));
    }
}

/// Takes a packet for a request, and turns its options into a command line.
pub fn request(input: &[u8]) {
    let Ok(request) = gelid_rpc::messages::Request::parse(input) else {
        return;
    };
    let (Some(kind), Some(options)) = (request.kind(), &request.opts) else {
        return;
    };
    for service in [false, true] {
        let connection = gelid_rpc::Connection {
            peer: Some(1),
            service,
        };
        if let Ok(words) = gelid_rpc::words(kind, options, connection) {
            let long = |word: &std::ffi::OsString| word.as_encoded_bytes().starts_with(b"--");
            assert!(words.options.iter().all(long));
        }
    }
}

fn walk(kind: ImageKind, image: &[u8], layout: Layout) {
    let Ok(reader) = ImageReader::from_stream(image, kind, "fuzzed", layout) else {
        return;
    };
    for entry in Walk::new(reader) {
        let Ok(entry) = entry else {
            return;
        };
        show::value(&entry);
        // What decodes is written in one way, and that way is read again.
        if let Ok(canonical) = entry.schema.canonical(&entry.bytes) {
            assert_eq!(entry.schema.check(&canonical), Ok(()));
            assert_eq!(entry.schema.canonical(&canonical).as_ref(), Ok(&canonical));
        }
    }
}
