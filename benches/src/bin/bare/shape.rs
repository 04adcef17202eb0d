//! What a restore has to make: processes, their threads, and the calls of each, noted down in one file of words.

use std::ops::Range;

use gelid_tape::{Arg, Host, Tape};

/// The file does not hold what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the shape of the tree is malformed")
    }
}

impl std::error::Error for Malformed {}

type Result<T> = std::result::Result<T, Malformed>;

/// A tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Where tapes may lie: nothing of the tree does.
    pub(crate) zone: Range<u64>,
    /// Files that its dump has made.
    pub(crate) files: u64,
    /// Parents come before their children.
    pub(crate) processes: Vec<Process>,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// The place of its parent; its own if it is the root.
    pub(crate) parent: u64,
    /// Where the vDSO is to be, with the data before it.
    pub(crate) vdso: Range<u64>,
    /// What makes its memory.
    pub(crate) space: Vec<Call>,
    /// What makes its descriptors, and all else.
    pub(crate) state: Vec<Call>,
    /// Threads but the first.
    pub(crate) threads: Vec<Thread>,
    pub(crate) pages: Pages,
}

/// Bytes of tape for a birth.
pub(crate) const BIRTH: usize = 320;
/// Bytes of tape that a first thread has in any case.
const LEAST: usize = 16 << 10;

fn size(calls: &[Call]) -> usize {
    calls.iter().map(Call::size).sum()
}

impl Process {
    /// The bytes of tape that its first thread needs.
    pub(crate) fn room(&self) -> usize {
        let births = self.threads.len() * BIRTH;
        size(&self.space).max(size(&self.state) + births) + LEAST
    }

    /// The same for all of its threads.
    pub(crate) fn rooms(&self) -> usize {
        let threads = self.threads.iter();
        let threads = threads.map(|thread| Host::region_size(thread.room()));
        Host::region_size(self.room()) + threads.sum::<usize>()
    }
}

/// A thread with what it has to do itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) calls: Vec<Call>,
}

impl Thread {
    /// The bytes of tape that it needs.
    pub(crate) fn room(&self) -> usize {
        size(&self.calls)
    }
}

/// Which pages are to be filled, by what is cheapest for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Anonymous memory that is filled by `UFFDIO_COPY`, whole mappings.
    pub(crate) areas: Vec<Range<u64>>,
    /// What is filled in it.
    pub(crate) holes: Vec<Range<u64>>,
    /// Runs in which some pages cannot be written, for `/proc/PID/mem`.
    pub(crate) forced: Vec<Range<u64>>,
    /// All others, for `process_vm_writev(2)`.
    pub(crate) plain: Vec<Range<u64>>,
}

impl Pages {
    /// How many bytes they are.
    pub(crate) fn bytes(&self) -> u64 {
        let all = [&self.holes, &self.forced, &self.plain];
        let all = all.into_iter().flatten();
        all.map(|range| range.end - range.start).sum()
    }
}

/// A system call that must succeed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) nr: u64,
    args: [u64; 6],
    data: Vec<Data>,
}

/// Bytes whose address is an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Data {
    /// Which argument.
    slot: usize,
    bytes: Vec<u8>,
    /// Where the address of more bytes goes.
    link: Option<(usize, Vec<u8>)>,
}

/// More than a call takes on a tape beside its bytes.
const OP: usize = 96;

impl Call {
    /// A call with the first of its arguments.
    pub(crate) fn new<const N: usize>(nr: usize, given: [u64; N]) -> Self {
        let mut args = [0; 6];
        args[..N].copy_from_slice(&given);
        let nr = nr as u64;
        let data = Vec::new();
        Self { nr, args, data }
    }

    /// The same with the address of bytes as argument `slot`, from 0 on.
    pub(crate) fn with(mut self, slot: usize, bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        let link = None;
        self.data.push(Data { slot, bytes, link });
        self
    }

    /// The same with the address of more bytes at an offset of the bytes before.
    pub(crate) fn linked(mut self, at: usize, bytes: &[u8]) -> Self {
        if let Some(last) = self.data.last_mut() {
            last.link = Some((at, bytes.to_vec()));
        }
        self
    }

    /// The most that it takes on a tape.
    pub(crate) fn size(&self) -> usize {
        let more = |data: &Data| data.link.as_ref().map_or(0, |(_, bytes)| bytes.len() + 16);
        let data = self.data.iter();
        let data = data.map(|data| data.bytes.len() + 16 + more(data));
        data.sum::<usize>() + OP
    }

    /// Appends it to a tape.
    pub(crate) fn write(&self, tape: &mut Tape) {
        let mut args = self.args.map(Arg::Value);
        for Data { slot, bytes, link } in &self.data {
            let from = tape.bytes(bytes);
            if let Some((at, more)) = link {
                let to = tape.bytes(more);
                tape.link(from, *at, to);
            }
            args[*slot] = from.into();
        }
        tape.must(self.nr as usize, args);
    }
}

impl Shape {
    /// As it is in the file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.range(&self.zone);
        out.0.extend([self.files, self.processes.len() as u64]);
        for process in &self.processes {
            out.0.extend([process.pid as u64, process.parent]);
            out.range(&process.vdso);
            out.calls(&process.space);
            out.calls(&process.state);
            out.0.push(process.threads.len() as u64);
            for thread in &process.threads {
                out.0.push(thread.tid as u64);
                out.calls(&thread.calls);
            }
            let pages = &process.pages;
            for ranges in [&pages.areas, &pages.holes, &pages.forced, &pages.plain] {
                out.0.push(ranges.len() as u64);
                ranges.iter().for_each(|range| out.range(range));
            }
        }
        let words = out.0.iter();
        words.flat_map(|word| word.to_le_bytes()).collect()
    }

    /// From what is in the file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut from = Reader(words);
        let zone = from.range()?;
        let files = from.word()?;
        let processes = from.list(Reader::process)?;
        let shape = Self {
            zone,
            files,
            processes,
        };
        let parents = shape.processes.iter().enumerate();
        let mut parents = parents.map(|(place, process)| (place as u64, process.parent));
        let first = |(place, parent): (u64, u64)| parent < place || (place, parent) == (0, 0);
        match rest.is_empty() && from.0.is_empty() && parents.all(first) {
            true => Ok(shape),
            false => Err(Malformed),
        }
    }
}

struct Writer(Vec<u64>);

impl Writer {
    fn range(&mut self, range: &Range<u64>) {
        self.0.extend([range.start, range.end]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.push(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0.push(u64::from_le_bytes(word));
        }
    }

    fn calls(&mut self, calls: &[Call]) {
        self.0.push(calls.len() as u64);
        for call in calls {
            self.0.push(call.nr);
            self.0.extend(call.args);
            self.0.push(call.data.len() as u64);
            for Data { slot, bytes, link } in &call.data {
                self.0.push(*slot as u64);
                self.bytes(bytes);
                self.0.push(link.is_some().into());
                if let Some((at, more)) = link {
                    self.0.push(*at as u64);
                    self.bytes(more);
                }
            }
        }
    }
}

struct Reader<'a>(&'a [[u8; 8]]);

impl Reader<'_> {
    fn word(&mut self) -> Result<u64> {
        let (word, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*word))
    }

    /// A number of things of a word at least each, of which there can be no more than words.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let len = self.count(self.0.len())?;
        let mut all = Vec::with_capacity(len);
        for _ in 0..len {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn count(&mut self, most: usize) -> Result<usize> {
        let len = usize::try_from(self.word()?).map_err(|_| Malformed)?;
        if len <= most { Ok(len) } else { Err(Malformed) }
    }

    /// A number below another.
    fn index(&mut self, end: usize) -> Result<usize> {
        self.count(end.checked_sub(1).ok_or(Malformed)?)
    }

    fn id(&mut self) -> Result<i32> {
        i32::try_from(self.word()?).map_err(|_| Malformed)
    }

    fn range(&mut self) -> Result<Range<u64>> {
        let (start, end) = (self.word()?, self.word()?);
        if start <= end {
            Ok(start..end)
        } else {
            Err(Malformed)
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let len = self.count(self.0.len().saturating_mul(8))?;
        let (words, rest) = self.0.split_at_checked(len.div_ceil(8)).ok_or(Malformed)?;
        self.0 = rest;
        let mut bytes = words.as_flattened().to_vec();
        bytes.truncate(len);
        Ok(bytes)
    }

    fn data(&mut self) -> Result<Data> {
        let slot = self.index(6)?;
        let bytes = self.bytes()?;
        let link = match self.word()? {
            0 => None,
            _ => Some((self.index(bytes.len().saturating_sub(7))?, self.bytes()?)),
        };
        Ok(Data { slot, bytes, link })
    }

    fn call(&mut self) -> Result<Call> {
        let nr = self.word()?;
        let mut args = [0; 6];
        for arg in &mut args {
            *arg = self.word()?;
        }
        let data = self.list(Self::data)?;
        Ok(Call { nr, args, data })
    }

    fn thread(&mut self) -> Result<Thread> {
        Ok(Thread {
            tid: self.id()?,
            calls: self.list(Self::call)?,
        })
    }

    fn process(&mut self) -> Result<Process> {
        Ok(Process {
            pid: self.id()?,
            parent: self.word()?,
            vdso: self.range()?,
            space: self.list(Self::call)?,
            state: self.list(Self::call)?,
            threads: self.list(Self::thread)?,
            pages: Pages {
                areas: self.list(Self::range)?,
                holes: self.list(Self::range)?,
                forced: self.list(Self::range)?,
                plain: self.list(Self::range)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let calls = vec![
            Call::new(39, []),
            Call::new(9, [7, u64::MAX, 0]).with(2, b"nine bytes"),
            Call::new(157, [1]).with(1, &[1; 24]).linked(16, &[2; 3]),
        ];
        let root = Process {
            pid: 4,
            vdso: 0x3000..0x5000,
            state: calls.clone(),
            threads: vec![Thread { tid: 5, calls }],
            ..Process::default()
        };
        let mut child = root.clone();
        child.pages.forced.push(0x1000..0x3000);
        child.pages.plain.push(0x8000..0x9000);
        Shape {
            zone: 0x1000..0x2000,
            files: 3,
            processes: vec![root, child],
        }
    }

    #[test]
    fn a_shape_comes_back_as_it_was() {
        let shape = shape();
        assert_eq!(Shape::from_bytes(&shape.to_bytes()), Ok(shape.clone()));
        assert_eq!(shape.processes[1].pages.bytes(), 3 << 12);
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let bytes = shape().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Shape::from_bytes(&bytes[..len]), Err(Malformed), "{len}");
        }
        let more = [&bytes[..], &[0; 8]].concat();
        assert_eq!(Shape::from_bytes(&more), Err(Malformed));
    }

    #[test]
    fn no_word_makes_it_panic_or_take_memory() {
        let bytes = shape().to_bytes();
        for at in 0..bytes.len() / 8 {
            let mut wrong = bytes.clone();
            wrong[at * 8..][..8].fill(0xff);
            // Addresses and values may be anything.
            let _ = Shape::from_bytes(&wrong);
        }
    }

    #[test]
    fn nobody_is_the_child_of_those_who_come_later() {
        let mut shape = shape();
        shape.processes[1].parent = 1;
        assert_eq!(Shape::from_bytes(&shape.to_bytes()), Err(Malformed));
    }

    #[test]
    fn calls_are_no_larger_than_they_say() {
        for call in &shape().processes[0].state {
            let mut tape = Tape::new();
            call.write(&mut tape);
            assert!(tape.size() <= call.size());
        }
    }
}
