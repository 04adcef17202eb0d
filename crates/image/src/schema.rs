//! What a message looks like on the wire, as data.
//!
//! prost cannot tell an absent required field from a zero one and drops fields it does not know.
//! The schema closes both gaps: [`Schema::check`] walks the wire form of a record before it is
//! decoded, and [`Schema::to_json`] prints it, unknown fields included.

use prost::Message;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

pub(crate) mod fields;
mod json;
mod wire;

pub use wire::WireError;

/// A message that has a schema, that is, any record of an image.
pub trait Record: Message + Default {
    /// The message's schema.
    fn schema() -> &'static Schema;
}

/// One message type: its name in the published definitions and its [fields](Self::fields).
#[derive(Debug)]
pub struct Schema {
    /// Name in the published definitions, for example `core_entry`.
    pub name: &'static str,
    pub(crate) fields: fields::Fields,
    /// Which of them are required, a bit for each.
    pub(crate) required: u64,
    /// Decodes the message and encodes it again.
    pub(crate) reencode: fn(&[u8]) -> Result<Vec<u8>, prost::DecodeError>,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Field number on the wire.
    pub number: u32,
    /// Name in the published definitions.
    pub name: &'static str,
    /// How often the field occurs.
    pub label: Label,
    /// Its type.
    pub kind: Kind,
    /// How a human wants to see it.
    pub show: Show,
}

/// proto2's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Exactly once; a record without it is invalid.
    Required,
    /// Presence is significant.
    Optional,
    /// A list; the packed form is accepted where the type allows it.
    Repeated,
}

/// Type of a field.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `int32` and `int64`: varint of the two's complement.
    Int,
    /// `sint32` and `sint64`: zig-zag varint.
    Sint,
    /// `uint32` and `uint64`.
    Uint,
    /// `fixed64`: eight bytes, little-endian.
    Fixed64,
    /// `string`, valid UTF-8.
    String,
    /// `string` in the published definitions, but of bytes that only the kernel has seen (paths,
    /// names of tasks).
    Text,
    /// `bytes`.
    Bytes,
    /// An enumeration with its values' names.
    Enum(&'static [(i32, &'static str)]),
    /// A nested message.
    Message(fn() -> &'static Schema),
}

/// Display option of a field. It never changes what is stored.
#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// As its type suggests.
    Plain,
    /// `0x…`.
    Hex,
    /// Names of bits joined with ` | `, the rest in hexadecimal.
    Flags(&'static [(u64, &'static str)]),
    /// Name of the value.
    Dict(&'static [(u64, &'static str)]),
    /// `major:minor`, kernel encoding (`major << 20 | minor`).
    Dev,
    /// `major:minor`, the encoding of `st_rdev`.
    Odev,
    /// Words of an IPv4 or IPv6 address.
    Ip,
    /// Name of a unix socket; `@` stands for the zero byte of an abstract one.
    SocketName,
}

/// Which of these fields are required, a bit for each; a test sees to it that no message has more than 64.
pub(crate) const fn required(fields: &[Field]) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while at < fields.len() {
        if matches!(fields[at].label, Label::Required) {
            bits |= 1 << (at % 64);
        }
        at += 1;
    }
    bits
}

impl Schema {
    /// Fields in the order of their definition.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field> + '_ {
        (0..self.fields.len()).map(|index| self.fields.get(index))
    }

    /// Checks the wire form of a record: well-formed, every known field of the expected wire type,
    /// every required field present, at all levels, nesting bounded. Unknown fields are skipped.
    pub fn check(&self, bytes: &[u8]) -> Result<(), WireError> {
        wire::check(self, bytes, 0)
    }

    /// Decodes and encodes again, which gives the same bytes for what a canonical encoder wrote
    /// and leaves unknown fields out. Call [`check`](Self::check) first: decoding alone takes an
    /// absent required field for a zero one.
    pub fn canonical(&self, bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
        (self.reencode)(bytes)
    }

    /// Renders the wire form of a record, fields in wire order, unknown ones as `unknown_N`.
    pub fn to_json(&self, bytes: &[u8]) -> Result<serde_json::Value, WireError> {
        json::message(self, bytes, 0).map(serde_json::Value::Object)
    }
}

/// Serializes any record by its schema, so that every printer shows the same.
pub(crate) fn serialize<R: Record, S: Serializer>(record: &R, to: S) -> Result<S::Ok, S::Error> {
    let value = R::schema().to_json(&record.encode_to_vec());
    value.map_err(S::Error::custom)?.serialize(to)
}

/// Value of a varint field found without looking at anything else but what stands before it.
pub(crate) fn first_varint(
    bytes: &[u8],
    wanted: u32,
    message: &'static str,
) -> Result<u64, WireError> {
    let mut fields = wire::Fields {
        rest: bytes,
        message,
    };
    while let Some((number, value)) = fields.next()? {
        if let (true, wire::Value::Varint(value)) = (number == wanted, value) {
            return Ok(value);
        }
    }
    Err(WireError::Malformed { message })
}

/// Strips the prefix of a raw identifier.
pub(crate) const fn unraw(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}
