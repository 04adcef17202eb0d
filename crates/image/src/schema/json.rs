//! JSON from the wire form of a record.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value as Json};

use super::wire::{Fields, MAX_DEPTH, Value};
use super::{Field, Kind, Label, Schema, Show, WireError};
use crate::symbols::Table;

/// See [`Schema::to_json`].
pub(super) fn message(
    schema: &Schema,
    bytes: &[u8],
    depth: u32,
) -> Result<Map<String, Json>, WireError> {
    let message = schema.name;
    if depth >= MAX_DEPTH {
        return Err(WireError::TooDeep { message });
    }
    let mut object = Map::new();
    let mut fields = Fields {
        rest: bytes,
        message,
    };
    let mut last = 0;
    while let Some((number, value)) = fields.next()? {
        match schema.find(number, last) {
            Some(index) => {
                last = index;
                insert(&mut object, schema, schema.fields.get(index), value, depth)?;
            }
            None => append(&mut object, format!("unknown_{number}"), unknown(value)),
        }
    }
    for field in schema.fields() {
        if let (Show::Ip, Some(Json::Array(words))) = (field.show, object.get_mut(field.name)) {
            let text = ip(words);
            object.insert(field.name.into(), text);
        }
    }
    Ok(object)
}

fn insert(
    object: &mut Map<String, Json>,
    schema: &Schema,
    field: Field,
    value: Value<'_>,
    depth: u32,
) -> Result<(), WireError> {
    if field.label != Label::Repeated {
        object.insert(field.name.into(), one(schema, field, value, depth)?);
        return Ok(());
    }
    match (field.kind, value) {
        (Kind::Message(_) | Kind::String | Kind::Text | Kind::Bytes, _) => {}
        (kind, Value::Bytes(packed)) => return unpack(object, schema, field, kind, packed),
        _ => {}
    }
    append(object, field.name.into(), one(schema, field, value, depth)?);
    Ok(())
}

/// Elements of a packed field.
fn unpack(
    object: &mut Map<String, Json>,
    schema: &Schema,
    field: Field,
    kind: Kind,
    packed: &[u8],
) -> Result<(), WireError> {
    let mut items = Fields {
        rest: packed,
        message: schema.name,
    };
    while !items.rest.is_empty() {
        let value = match kind {
            Kind::Fixed64 => Value::Fixed64(items.fixed64()?),
            _ => Value::Varint(items.varint()?),
        };
        append(object, field.name.into(), one(schema, field, value, 0)?);
    }
    Ok(())
}

fn append(object: &mut Map<String, Json>, name: String, value: Json) {
    match object
        .entry(name)
        .or_insert_with(|| Json::Array(Vec::new()))
    {
        Json::Array(items) => items.push(value),
        // Only lists are ever appended to.
        other => *other = value,
    }
}

fn one(schema: &Schema, field: Field, value: Value<'_>, depth: u32) -> Result<Json, WireError> {
    Ok(match (field.kind, value) {
        (Kind::Message(nested), Value::Bytes(bytes)) => {
            Json::Object(message(nested(), bytes, depth + 1)?)
        }
        (Kind::String | Kind::Text, Value::Bytes(bytes)) => Json::String(text(bytes)),
        (Kind::Bytes, Value::Bytes(bytes)) => match field.show {
            Show::SocketName => Json::String(socket_name(bytes)),
            _ => Json::String(hex(bytes)),
        },
        (Kind::Bool, Value::Varint(v)) => Json::Bool(v != 0),
        (Kind::Int, Value::Varint(v)) => Json::from(v.cast_signed()),
        (Kind::Sint, Value::Varint(v)) => {
            Json::from((v >> 1).cast_signed() ^ -(v & 1).cast_signed())
        }
        (Kind::Uint, Value::Varint(v)) | (Kind::Fixed64, Value::Fixed64(v)) => {
            number(v, field.show)
        }
        (Kind::Enum(names), Value::Varint(v)) => {
            // The wire holds the value sign-extended to 64 bits; prost keeps the low half.
            let value = v as i32;
            match names.iter().find(|(known, _)| *known == value) {
                Some((_, name)) => Json::from(*name),
                None => Json::from(value),
            }
        }
        _ => {
            return Err(WireError::WrongType {
                message: schema.name,
                field: field.name,
                found: value.wire_type(),
            });
        }
    })
}

fn unknown(value: Value<'_>) -> Json {
    match value {
        Value::Varint(v) | Value::Fixed64(v) => Json::from(v),
        Value::Fixed32(v) => Json::from(v),
        Value::Bytes(bytes) => Json::String(hex(bytes)),
    }
}

fn number(v: u64, show: Show) -> Json {
    match show {
        Show::Plain | Show::Ip | Show::SocketName => Json::from(v),
        Show::Hex => Json::String(format!("{v:#x}")),
        Show::Flags(table) => Json::String(flags(v, table)),
        Show::Dict(table) => match table.iter().find(|(value, _)| *value == v) {
            Some((_, name)) => Json::from(*name),
            None => Json::from(v),
        },
        Show::Dev => Json::String(format!("{}:{}", v >> 20, v & 0xf_ffff)),
        Show::Odev => {
            let (major, minor) = (v >> 8 & 0xfff, v & 0xff | v >> 12 & 0xf_ff00);
            Json::String(format!("{major}:{minor}"))
        }
    }
}

fn flags(v: u64, table: &Table) -> String {
    let mut rest = v;
    let mut text = String::new();
    for (bit, name) in table {
        if v & bit == *bit {
            rest &= !bit;
            let separator = if text.is_empty() { "" } else { " | " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{name}");
        }
    }
    match (rest, text.is_empty()) {
        (0, false) => text,
        (rest, true) => format!("{rest:#x}"),
        (rest, false) => format!("{text} | {rest:#x}"),
    }
}

/// One word is IPv4, four are IPv6; each holds four address bytes in memory order.
fn ip(words: &[Json]) -> Json {
    let bytes: Vec<u8> = words
        .iter()
        .filter_map(Json::as_u64)
        .flat_map(|word| (word as u32).to_le_bytes())
        .collect();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        Json::String(Ipv4Addr::from(v4).to_string())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes.as_slice()) {
        Json::String(Ipv6Addr::from(v6).to_string())
    } else {
        Json::Array(words.to_vec())
    }
}

fn socket_name(bytes: &[u8]) -> String {
    match bytes {
        [0, name @ ..] => format!("@{}", text(name)),
        [name @ .., 0] => text(name),
        name => text(name),
    }
}

/// Text with what is not UTF-8 as `\xNN`; a backslash stays itself, the form is for reading only.
fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}
