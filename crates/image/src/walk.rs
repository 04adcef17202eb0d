//! Walking any image record by record, whatever its kind.

use std::io::Read;

use prost::Message;

use crate::kind::{Payload, Structure};
use crate::messages::*;
use crate::{ImageReader, ReadError, Schema, Source};

/// A record as stored, and what follows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record's message type.
    pub schema: &'static Schema,
    /// Byte offset of the message in the file, behind its size word.
    pub offset: u64,
    /// The message as stored, checked against the schema.
    pub bytes: Vec<u8>,
    /// The payload that follows, in order.
    pub payload: Vec<Part>,
}

/// A run of bytes behind a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Its length in bytes; `None` = up to the end of the file.
    pub len: Option<u64>,
    /// Padding behind it, bytes.
    pub padding: u64,
}

/// Iterator over the records of an image of any kind. Payloads are skipped, not read.
#[derive(Debug)]
pub struct Walk<R: Read = Source> {
    reader: ImageReader<R>,
    next: Next,
}

/// What the next record is.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The first message of the kind.
    First,
    /// The second message of the kind, any number of times.
    Second,
    /// The second message this many times, then the first again.
    Nested(u32),
    /// Nothing.
    End,
}

impl<R: Read> Walk<R> {
    /// Walks the records from where the reader stands: the start of a file.
    pub fn new(reader: ImageReader<R>) -> Self {
        let next = match reader.kind().spec().structure {
            Structure::Raw => Next::End,
            Structure::One | Structure::Many | Structure::Headed => Next::First,
        };
        Self { reader, next }
    }

    fn step(&mut self) -> Result<Option<Entry>, ReadError> {
        let spec = self.reader.kind().spec();
        let index = match self.next {
            Next::End => return Ok(None),
            Next::First | Next::Nested(0) => 0,
            Next::Second | Next::Nested(_) => 1,
        };
        let schema = spec.messages[index]();
        let Some((offset, record)) = self.reader.next_checked(schema)? else {
            return match (self.next, spec.structure) {
                (Next::First, Structure::One | Structure::Headed) => {
                    Err(self.reader.no_record(schema))
                }
                (Next::Nested(1..), _) => Err(self.reader.no_record(schema)),
                _ => Ok(None),
            };
        };
        let bytes = record.to_vec();
        let follow = follow(spec.payload, index, &bytes);
        let (payload, nested) = follow.map_err(|source| self.reader.decode(offset, source))?;
        for part in &payload {
            self.pass(part)?;
        }
        self.next = match (spec.structure, self.next, spec.payload) {
            (Structure::One | Structure::Raw, _, _) => Next::End,
            (Structure::Headed, _, _) | (_, _, Payload::Ghost) => Next::Second,
            (_, Next::Nested(left @ 1..), _) => Next::Nested(left - 1),
            _ => Next::Nested(nested),
        };
        if payload.iter().any(|part| part.len.is_none()) {
            self.next = Next::End;
        }
        Ok(Some(Entry {
            schema,
            offset,
            bytes,
            payload,
        }))
    }

    fn pass(&mut self, part: &Part) -> Result<(), ReadError> {
        match part.len {
            Some(len) => self
                .reader
                .payload(len.saturating_add(part.padding))
                .map(drop),
            None => Ok(()),
        }
    }
}

impl<R: Read> Iterator for Walk<R> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.next = Next::End;
        }
        item
    }
}

/// What follows a record: its payload, and the number of second messages.
fn follow(
    payload: Payload,
    index: usize,
    bytes: &[u8],
) -> Result<(Vec<Part>, u32), prost::DecodeError> {
    let mut nested = 0;
    let parts = match (payload, index) {
        (Payload::None, _) => vec![],
        (Payload::Pipe, _) => vec![part("data", PipeDataEntry::decode(bytes)?.bytes)],
        (Payload::Packet, _) => vec![part("data", SkPacketEntry::decode(bytes)?.length)],
        (Payload::TcpStream, _) => {
            let stream = TcpStreamEntry::decode(bytes)?;
            vec![part("inq", stream.inq_len), part("outq", stream.outq_len)]
        }
        (Payload::Ghost, 0) if GhostFileEntry::decode(bytes)?.chunks() => vec![],
        (Payload::Ghost, 0) => vec![Part {
            name: "contents",
            len: None,
            padding: 0,
        }],
        (Payload::Ghost, _) => vec![part("contents", GhostChunkEntry::decode(bytes)?.len)],
        (Payload::Shm, _) => {
            let segment = IpcShmEntry::decode(bytes)?;
            match segment.in_pagemaps() {
                true => vec![],
                false => vec![padded("contents", segment.size, 4)],
            }
        }
        (Payload::Msg, 0) => {
            nested = IpcMsgEntry::decode(bytes)?.qnum;
            vec![]
        }
        (Payload::Msg, _) => vec![padded("text", IpcMsg::decode(bytes)?.msize, 8)],
        (Payload::Sem, _) => {
            let nsems = u64::from(IpcSemEntry::decode(bytes)?.nsems);
            vec![padded("values", nsems * 2, 8)]
        }
        (Payload::Bpf, _) => {
            let map = BpfmapDataEntry::decode(bytes)?;
            vec![
                part("keys", map.keys_bytes),
                part("values", map.values_bytes),
            ]
        }
    };
    Ok((parts, nested))
}

fn part(name: &'static str, len: impl Into<u64>) -> Part {
    padded(name, len, 1)
}

fn padded(name: &'static str, len: impl Into<u64>, align: u64) -> Part {
    let len = len.into();
    Part {
        name,
        len: Some(len),
        padding: (align - len % align) % align,
    }
}
