//! The protobuf wire format, read without trust.

use super::{Kind, Label, Schema};

/// Nested messages deeper than this are refused; prost stops at the same depth.
pub(super) const MAX_DEPTH: u32 = 100;

/// Why the wire form of a record was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("{message}: field cut short")]
    Truncated {
        /// Message being read.
        message: &'static str,
    },
    /// A varint longer than ten bytes, field number 0, or a wire type that proto2 images never use.
    #[error("{message}: malformed field tag or number")]
    Malformed {
        /// Message being read.
        message: &'static str,
    },
    /// A known field has the wrong wire type.
    #[error("{message}.{field}: wrong wire type {found}")]
    WrongType {
        /// Message being read.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// Wire type found.
        found: u8,
    },
    /// A required field is absent.
    #[error("{message}.{field}: required field missing")]
    Missing {
        /// Message being read.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Messages are nested too deeply.
    #[error("{message}: nested too deeply")]
    TooDeep {
        /// Message being read.
        message: &'static str,
    },
}

/// A field's value as found on the wire.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    pub(super) fn wire_type(&self) -> u8 {
        match self {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        }
    }
}

/// Reads the fields of a message in wire order.
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
    pub(super) message: &'static str,
}

impl<'a> Fields<'a> {
    /// The next field, or `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        // Field numbers have 29 bits and start at 1.
        let number = match u32::try_from(tag >> 3) {
            Ok(number @ 1..0x2000_0000) => number,
            _ => return Err(self.malformed()),
        };
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed64()?),
            2 => Value::Bytes(self.bytes()?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(self.malformed()),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        // Most numbers are small.
        match self.rest.split_first() {
            Some((byte @ ..0x80, rest)) => {
                self.rest = rest;
                Ok((*byte).into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            // The tenth byte holds one bit only.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(self.truncated())?;
        self.rest = rest;
        Ok(*array)
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| self.truncated())?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(self.truncated())?;
        self.rest = rest;
        Ok(bytes)
    }

    fn truncated(&self) -> WireError {
        WireError::Truncated {
            message: self.message,
        }
    }

    fn malformed(&self) -> WireError {
        WireError::Malformed {
            message: self.message,
        }
    }
}

impl Schema {
    /// Place of a field, looked for where it is if all numbers are taken, and then from that of another on.
    #[inline]
    pub(super) fn find(&self, number: u32, from: usize) -> Option<usize> {
        let is_it = |index: &usize| self.fields.number(*index) == Some(number);
        let plain = (number as usize).wrapping_sub(1);
        let mut likely = [plain, from, from + 1].into_iter();
        likely
            .find(is_it)
            .or_else(|| (0..self.fields.len()).find(is_it))
    }
}

/// See [`Schema::check`].
pub(super) fn check(schema: &Schema, bytes: &[u8], depth: u32) -> Result<(), WireError> {
    let message = schema.name;
    if depth >= MAX_DEPTH {
        return Err(WireError::TooDeep { message });
    }
    // One bit per field.
    let mut seen = 0u64;
    let mut fields = Fields {
        rest: bytes,
        message,
    };
    // Fields mostly come in order, and lists at one piece.
    let mut last = 0;
    while let Some((number, value)) = fields.next()? {
        if let Some(index) = schema.find(number, last) {
            last = index;
            seen |= 1 << (index % 64);
            check_value(schema, index, value, depth)?;
        }
    }
    let missing = schema.required & !seen;
    match missing {
        0 => Ok(()),
        _ => Err(WireError::Missing {
            message,
            field: schema.fields.name(missing.trailing_zeros() as usize),
        }),
    }
}

fn check_value(
    schema: &Schema,
    index: usize,
    value: Value<'_>,
    depth: u32,
) -> Result<(), WireError> {
    use Kind::{Bool, Bytes, Enum, Fixed64, Int, Message, Sint, String, Text, Uint};
    match (schema.fields.kind(index), value) {
        (Message(nested), Value::Bytes(bytes)) => check(nested(), bytes, depth + 1),
        (String | Text | Bytes, Value::Bytes(_)) => Ok(()),
        (Fixed64, Value::Fixed64(_)) => Ok(()),
        (Bool | Int | Sint | Uint | Enum(_), Value::Varint(_)) => Ok(()),
        // The packed form of a repeated number; prost validates its inside.
        (Bool | Int | Sint | Uint | Enum(_) | Fixed64, Value::Bytes(_))
            if schema.fields.label(index) == Label::Repeated =>
        {
            Ok(())
        }
        _ => Err(WireError::WrongType {
            message: schema.name,
            field: schema.fields.name(index),
            found: value.wire_type(),
        }),
    }
}
