//! Images as JSON, for people and scripts.
//!
//! Fields come in wire order under their published names. Numbers are numbers; those that the
//! format marks as bits, addresses or devices are strings a reader can make sense of. Bytes are
//! hexadecimal. Payloads are shown by their lengths.

use serde_json::{Map, Value, json};

use crate::{Dir, Entry, ImageKind, ImageReader, Key, ReadError, Structure, Walk};

/// Iterator over the records of an image as JSON; nothing but the current record is held.
#[derive(Debug)]
pub struct Entries {
    walk: Walk,
}

impl Iterator for Entries {
    type Item = Result<Value, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.walk.next()?.map(|entry| value(&entry)))
    }
}

/// The records of an image, by the name of its file.
pub fn entries(dir: &Dir, name: &str) -> Result<Entries, ReadError> {
    let (kind, key) = identify(name)?;
    let reader: ImageReader = dir.reader(kind, key)?;
    Ok(Entries {
        walk: Walk::new(reader),
    })
}

/// A whole image: its type, its version for the inventory, and all records.
pub fn file(dir: &Dir, name: &str) -> Result<Value, ReadError> {
    let (kind, _) = identify(name)?;
    let spec = kind.spec();
    if spec.structure == Structure::Raw {
        let file = dir.raw(name)?;
        let length = file.metadata().map_err(|source| ReadError::Io {
            file: name.into(),
            offset: 0,
            what: "length",
            source,
        })?;
        return Ok(json!({ "magic": spec.symbol, "raw_bytes": length.len() }));
    }
    let entries: Result<Vec<Value>, ReadError> = entries(dir, name)?.collect();
    Ok(json!({ "magic": spec.symbol, "entries": entries? }))
}

/// One record as JSON, its payload under `payload`.
pub fn value(entry: &Entry) -> Value {
    let shown = entry.schema.to_json(&entry.bytes);
    // The walk has checked the record; what remains is a packed list broken inside.
    let mut shown = shown.unwrap_or_else(|error| json!({ "malformed": error.to_string() }));
    if let (Value::Object(fields), false) = (&mut shown, entry.payload.is_empty()) {
        let parts = entry.payload.iter().map(|part| {
            let len = part.len.map_or(json!("to end of file"), Value::from);
            (part.name.to_owned(), len)
        });
        let parts: Map<String, Value> = parts.collect();
        fields.insert("payload".into(), parts.into());
    }
    shown
}

fn identify(name: &str) -> Result<(ImageKind, Key), ReadError> {
    ImageKind::from_file_name(name).ok_or_else(|| ReadError::UnknownKind { file: name.into() })
}
