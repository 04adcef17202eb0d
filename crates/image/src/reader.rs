//! Reading an image as hostile input.

mod decoded;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;

use crate::dir::Layout;
use crate::kind::{COMMON_MAGIC, Header, SERVICE_MAGIC, Spec};
use crate::messages::InventoryEntry;
use crate::schema::Record;
use crate::source::Source;
use crate::{ImageKind, ReadError, Schema};

/// No file has more records than this; a machine with 16 TiB of alternating pages stays below.
const MAX_RECORDS: u64 = 1 << 31;
/// What is read of a file at once.
const LARGEST_BUFFER: u64 = 64 << 10;

/// Reads the records of one image file. Sizes are checked against the kind's limit and the
/// length of the file before anything is allocated.
#[derive(Debug)]
pub struct ImageReader<R: Read = Source> {
    input: BufReader<R>,
    name: String,
    spec: &'static Spec,
    /// Length of the file where it is known.
    end: Option<u64>,
    offset: u64,
    records: u64,
    /// Bytes of the last payload, padding included, that nobody has read yet.
    pending: u64,
    record: Vec<u8>,
}

impl ImageReader {
    /// Reads a file, whose length bounds every size in it.
    pub fn new(
        file: File,
        kind: ImageKind,
        name: impl Into<String>,
        layout: Layout,
    ) -> Result<Self, ReadError> {
        let name = name.into();
        let len = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(source) => {
                let what = "length";
                return Err(ReadError::Io {
                    file: name,
                    offset: 0,
                    what,
                    source,
                });
            }
        };
        Self::from_source((Source::File(file), len), kind, name, layout)
    }

    /// Reads what has this length.
    pub(crate) fn from_source(
        (source, len): (Source, u64),
        kind: ImageKind,
        name: String,
        layout: Layout,
    ) -> Result<Self, ReadError> {
        Self::start(source, kind, name, layout, Some(len))
    }
}

impl<R: Read> ImageReader<R> {
    /// Reads a stream of unknown length.
    pub fn from_stream(
        stream: R,
        kind: ImageKind,
        name: impl Into<String>,
        layout: Layout,
    ) -> Result<Self, ReadError> {
        Self::start(stream, kind, name.into(), layout, None)
    }

    fn start(
        input: R,
        kind: ImageKind,
        name: String,
        layout: Layout,
        end: Option<u64>,
    ) -> Result<Self, ReadError> {
        // Most images are small.
        let buffer = end.map_or(LARGEST_BUFFER, |end| end.clamp(64, LARGEST_BUFFER));
        let mut reader = Self {
            input: BufReader::with_capacity(buffer as usize, input),
            name,
            spec: kind.spec(),
            end,
            offset: 0,
            records: 0,
            pending: 0,
            record: Vec::new(),
        };
        let magic = reader.spec.magic;
        match reader.spec.header {
            Header::Common if layout == Layout::V1_1 => reader.magics(&[COMMON_MAGIC, magic])?,
            Header::Common | Header::Inventory => reader.magics(&[magic])?,
            Header::Service => reader.magics(&[SERVICE_MAGIC, magic])?,
            Header::Raw => {}
        }
        Ok(reader)
    }

    fn magics(&mut self, expected: &[u32]) -> Result<(), ReadError> {
        for &expected in expected {
            let mut word = [0; 4];
            self.exact(&mut word, "magic")?;
            let found = u32::from_le_bytes(word);
            if found != expected {
                return Err(ReadError::Magic {
                    file: self.name.clone(),
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// Kind of the image.
    pub fn kind(&self) -> ImageKind {
        self.spec.kind
    }

    /// Byte offset of what is read next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, or `None` at the end of the file. What is left of the payload before it
    /// is skipped.
    #[expect(clippy::should_implement_trait, reason = "the type is chosen per call")]
    pub fn next<M: Record>(&mut self) -> Result<Option<M>, ReadError> {
        self.must_hold(M::schema())?;
        match self.load()? {
            Some(offset) => decode(&self.name, offset, &self.record).map(Some),
            None => Ok(None),
        }
    }

    /// Refuses messages that images of this kind do not have.
    fn must_hold(&self, schema: &Schema) -> Result<(), ReadError> {
        match self.spec.kind.holds(schema) {
            true => Ok(()),
            false => Err(ReadError::WrongMessage {
                file: self.name.clone(),
                kind: self.spec.kind,
                message: schema.name,
            }),
        }
    }

    /// The next record, which must be there.
    pub fn read_one<M: Record>(&mut self) -> Result<M, ReadError> {
        self.next()?.ok_or_else(|| self.no_record(M::schema()))
    }

    /// All further records. The iteration ends after the first error.
    pub fn records<M: Record>(&mut self) -> Records<'_, R, M> {
        Records {
            reader: self,
            done: false,
            message: PhantomData,
        }
    }

    /// The next record as stored, checked against a schema, with its offset.
    pub fn next_checked(
        &mut self,
        schema: &'static Schema,
    ) -> Result<Option<(u64, &[u8])>, ReadError> {
        let Some(offset) = self.load()? else {
            return Ok(None);
        };
        check(&self.name, offset, schema, &self.record)?;
        Ok(Some((offset, &self.record)))
    }

    /// The `len` bytes behind the last record. They need not be read to the end.
    pub fn payload(&mut self, len: u64) -> Result<Payload<'_, R>, ReadError> {
        self.payload_padded(len, 1)
    }

    /// The `len` bytes behind the last record, followed by padding up to a multiple of `align`.
    pub fn payload_padded(&mut self, len: u64, align: u64) -> Result<Payload<'_, R>, ReadError> {
        self.skip()?;
        let padded = len.checked_next_multiple_of(align);
        let needed = padded.unwrap_or(u64::MAX);
        self.available("payload", needed)?;
        self.pending = needed;
        Ok(Payload {
            reader: self,
            left: len,
        })
    }

    /// Everything up to the end of the file, for the contents of small ghost files.
    pub fn rest(mut self) -> Result<impl Read, ReadError> {
        self.skip()?;
        Ok(self.input)
    }

    /// Whether the file ends here.
    pub fn at_end(&mut self) -> Result<bool, ReadError> {
        self.skip()?;
        let (file, offset) = (&self.name, self.offset);
        match self.input.fill_buf() {
            Ok(buffer) => Ok(buffer.is_empty()),
            Err(source) => Err(ReadError::Io {
                file: file.clone(),
                offset,
                what: "record",
                source,
            }),
        }
    }

    /// Field 1 of the first record; see [`Dir::version`](crate::Dir::version).
    pub(crate) fn version(&mut self) -> Result<u64, ReadError> {
        let Some(offset) = self.load()? else {
            return Err(self.no_record(InventoryEntry::schema()));
        };
        let version = crate::schema::first_varint(&self.record, 1, "inventory_entry");
        version.map_err(|source| ReadError::Record {
            file: self.name.clone(),
            offset,
            source,
        })
    }

    /// Loads the next record into the buffer and tells its offset.
    fn load(&mut self) -> Result<Option<u64>, ReadError> {
        if self.at_end()? {
            return Ok(None);
        }
        let at = self.offset;
        let mut word = [0; 4];
        self.exact(&mut word, "record size")?;
        let size = u32::from_le_bytes(word);
        let limit = self.spec.max_record;
        if size > limit {
            return Err(ReadError::TooLarge {
                file: self.name.clone(),
                offset: at,
                size,
                limit,
            });
        }
        self.records += 1;
        if self.records > MAX_RECORDS {
            return Err(ReadError::TooMany {
                file: self.name.clone(),
                limit: MAX_RECORDS,
            });
        }
        let offset = self.offset;
        self.fill(size.into())?;
        Ok(Some(offset))
    }

    /// Reads a record of `size` bytes, allocating no more than the input really holds.
    fn fill(&mut self, size: u64) -> Result<(), ReadError> {
        self.available("record", size)?;
        self.record.clear();
        if let Some(record) = self.input.buffer().get(..size as usize) {
            self.record.extend_from_slice(record);
            self.input.consume(record.len());
            self.offset += size;
            return Ok(());
        }
        let read = (&mut self.input).take(size).read_to_end(&mut self.record);
        let available = read.map_err(|source| self.io("record", source))? as u64;
        if available < size {
            return Err(self.truncated("record", size, available));
        }
        self.offset += size;
        Ok(())
    }

    fn exact(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), ReadError> {
        let needed = buffer.len() as u64;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => return Err(self.truncated(what, needed, filled as u64)),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io(what, source)),
            }
        }
        self.offset += needed;
        Ok(())
    }

    /// Skips what is left of the last payload.
    fn skip(&mut self) -> Result<(), ReadError> {
        let needed = std::mem::take(&mut self.pending);
        if needed == 0 {
            return Ok(());
        }
        let copied = io::copy(&mut (&mut self.input).take(needed), &mut io::sink());
        let available = copied.map_err(|source| self.io("payload", source))?;
        if available < needed {
            return Err(self.truncated("payload", needed, available));
        }
        self.offset += needed;
        Ok(())
    }

    /// Refuses what the file cannot hold, where its length is known.
    fn available(&self, what: &'static str, needed: u64) -> Result<(), ReadError> {
        match self.end.map(|end| end.saturating_sub(self.offset)) {
            Some(available) if needed > available => Err(self.truncated(what, needed, available)),
            _ => Ok(()),
        }
    }

    fn truncated(&self, what: &'static str, needed: u64, available: u64) -> ReadError {
        ReadError::Truncated {
            file: self.name.clone(),
            offset: self.offset,
            what,
            needed,
            available,
        }
    }

    pub(crate) fn no_record(&self, schema: &Schema) -> ReadError {
        ReadError::NoRecord {
            file: self.name.clone(),
            offset: self.offset,
            message: schema.name,
        }
    }

    pub(crate) fn decode(&self, offset: u64, source: prost::DecodeError) -> ReadError {
        ReadError::Decode {
            file: self.name.clone(),
            offset,
            source,
        }
    }

    fn io(&self, what: &'static str, source: io::Error) -> ReadError {
        ReadError::Io {
            file: self.name.clone(),
            offset: self.offset,
            what,
            source,
        }
    }
}

/// Checks the wire form of a record.
fn check(file: &str, offset: u64, schema: &Schema, record: &[u8]) -> Result<(), ReadError> {
    schema.check(record).map_err(|source| ReadError::Record {
        file: file.to_owned(),
        offset,
        source,
    })
}

/// Decodes a record, if its wire form is right.
fn decode<M: Record>(file: &str, offset: u64, record: &[u8]) -> Result<M, ReadError> {
    check(file, offset, M::schema(), record)?;
    M::decode(record).map_err(|source| ReadError::Decode {
        file: file.to_owned(),
        offset,
        source,
    })
}

/// Iterator over records; see [`ImageReader::records`].
#[derive(Debug)]
pub struct Records<'a, R: Read, M> {
    reader: &'a mut ImageReader<R>,
    done: bool,
    message: PhantomData<M>,
}

impl<R: Read, M: Record> Iterator for Records<'_, R, M> {
    type Item = Result<M, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.reader.next().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Bytes behind a record; see [`ImageReader::payload`].
#[derive(Debug)]
pub struct Payload<'a, R: Read = Source> {
    reader: &'a mut ImageReader<R>,
    left: u64,
}

impl<R: Read> Payload<'_, R> {
    /// The whole payload, refused if longer than `limit` bytes.
    pub fn bytes(mut self, limit: u64) -> Result<Vec<u8>, ReadError> {
        if self.left > limit {
            return Err(ReadError::TooLarge {
                file: self.reader.name.clone(),
                offset: self.reader.offset,
                size: u32::try_from(self.left).unwrap_or(u32::MAX),
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            });
        }
        let needed = self.left;
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes);
        match read.map_err(|source| self.reader.io("payload", source))? as u64 {
            available if available < needed => {
                Err(self.reader.truncated("payload", needed, available))
            }
            _ => Ok(bytes),
        }
    }
}

impl<R: Read> Read for Payload<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if len == 0 {
            return Ok(0);
        }
        let read = self.reader.input.read(&mut buffer[..len])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        self.reader.pending -= read as u64;
        self.reader.offset += read as u64;
        Ok(read)
    }
}
