//! The tape itself: ops and the data that their arguments point at, as plain values.

use std::ops::Range;

use crate::arch::{OP_ARGS, OP_BIRTH, OP_EACH, OP_MUST, OP_RESULT, OP_SIZE};

/// Words of an op.
const OP_WORDS: usize = OP_SIZE / 8;

/// An argument of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number, or an address in the task.
    Value(u64),
    /// The address of a piece of the tape's own data.
    Data(Data),
    /// What an earlier op has returned.
    Result(Op),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Value(value as i64 as u64)
    }
}

impl From<Data> for Arg {
    fn from(data: Data) -> Self {
        Self::Data(data)
    }
}

impl From<Op> for Arg {
    fn from(op: Op) -> Self {
        Self::Result(op)
    }
}

/// A piece of a tape's data: offset and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// An op of a tape, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op(pub(crate) usize);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    nr: usize,
    args: [Arg; 6],
    flags: u64,
    /// Where a call that is made for many numbers leaves what each has returned.
    into: Option<Data>,
}

/// A batch of system calls, in order, with the bytes that they read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    calls: Vec<Call>,
    data: Vec<u8>,
    /// Offsets in the data where the address of another piece goes.
    links: Vec<(usize, Data)>,
}

impl Tape {
    /// An empty tape.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of ops.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// True without any op.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Bytes the tape takes in the task's memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.calls.len() * OP_SIZE + self.data.len()
    }

    /// Number of the system call at `op`.
    #[must_use]
    pub fn nr(&self, op: Op) -> usize {
        self.calls[op.0].nr
    }

    /// Numbers of all system calls, in order.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        self.calls.iter().map(|call| call.nr)
    }

    /// Appends a system call whose failure does not end the tape.
    pub fn call<const N: usize>(&mut self, nr: usize, args: [Arg; N]) -> Op {
        self.push(nr, &args, 0)
    }

    /// Appends a system call whose failure ends the tape.
    pub fn must<const N: usize>(&mut self, nr: usize, args: [Arg; N]) -> Op {
        self.push(nr, &args, OP_MUST)
    }

    /// Appends a `clone(2)`, `fork(2)` or the like for a child that is born traced and is never to run code of the
    /// program: should its tracer die, it ends at once. A failure ends the tape.
    pub fn birth<const N: usize>(&mut self, nr: usize, args: [Arg; N]) -> Op {
        self.push(nr, &args, OP_MUST | OP_BIRTH)
    }

    fn push(&mut self, nr: usize, given: &[Arg], flags: u64) -> Op {
        let mut args = [Arg::Value(0); 6];
        for (slot, arg) in args.iter_mut().zip(given) {
            *slot = *arg;
        }
        self.calls.push(Call {
            nr,
            args,
            flags,
            into: None,
        });
        Op(self.calls.len() - 1)
    }

    /// Appends a system call that is made once for each of these numbers as its first argument, with `second` behind
    /// that. The piece gets the lowest byte of what each returns: of small numbers, or errnos as they are.
    pub fn each(&mut self, nr: usize, numbers: Range<u32>, second: u64) -> Data {
        let into = self.space(numbers.len());
        if !numbers.is_empty() {
            let (first, end) = (u64::from(numbers.start), u64::from(numbers.end));
            let args = [first, second, 0, 0, 0, end].map(Arg::Value);
            self.push(nr, &args, OP_EACH);
            if let Some(call) = self.calls.last_mut() {
                call.into = Some(into);
            }
        }
        into
    }

    /// Adds bytes for arguments to point at, aligned to 16.
    pub fn bytes(&mut self, bytes: &[u8]) -> Data {
        let data = self.space(bytes.len());
        self.data[data.offset..data.offset + data.len].copy_from_slice(bytes);
        data
    }

    /// Adds `len` zero bytes for the kernel to write to, aligned to 16.
    pub fn space(&mut self, len: usize) -> Data {
        let offset = self.data.len().next_multiple_of(16);
        self.data.resize(offset + len, 0);
        Data { offset, len }
    }

    /// Puts the address of `to` into the eight bytes at `offset` of `from`, for structures that point at
    /// others.
    pub fn link(&mut self, from: Data, offset: usize, to: Data) {
        debug_assert!(offset + 8 <= from.len, "inside the piece");
        self.links.push((from.offset + offset, to));
    }

    /// Bytes of the ops.
    pub(crate) fn ops_len(&self) -> usize {
        self.calls.len() * OP_SIZE
    }

    /// Lays the tape out for address `at` and appends that: ops, then data. A result that two later ops want is copied
    /// to the last of them by the op itself; the format has one such pointer an op.
    pub(crate) fn lay_out(&self, at: u64, bytes: &mut Vec<u8>) {
        let (start, ops_len) = (bytes.len(), self.ops_len());
        let data_at = at + ops_len as u64;
        bytes.resize(start + ops_len, 0);
        let (words, _) = bytes[start..].as_chunks_mut::<8>();
        for (index, call) in self.calls.iter().enumerate() {
            let op = index * OP_WORDS;
            words[op] = (call.nr as u64).to_ne_bytes();
            words[op + 9] = call.flags.to_ne_bytes();
            if let Some(into) = call.into {
                words[op + 8] = (data_at + into.offset as u64).to_ne_bytes();
            }
            for (slot, arg) in call.args.iter().enumerate() {
                let word = &mut words[op + 1 + slot];
                match *arg {
                    Arg::Value(value) => *word = value.to_ne_bytes(),
                    Arg::Data(data) => *word = (data_at + data.offset as u64).to_ne_bytes(),
                    Arg::Result(from) => {
                        let reader = &mut words[from.0 * OP_WORDS + 8];
                        debug_assert!(from.0 < index && *reader == [0; 8], "one reader, later on");
                        let to = index * OP_SIZE + OP_ARGS + slot * 8;
                        *reader = (at + to as u64).to_ne_bytes();
                    }
                }
            }
        }
        bytes.extend_from_slice(&self.data);
        let data = &mut bytes[start + ops_len..];
        for (offset, to) in &self.links {
            let address = data_at + to.offset as u64;
            data[*offset..offset + 8].copy_from_slice(&address.to_ne_bytes());
        }
    }
}

/// What a tape has left behind: results and data.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of each op. Nothing else of it is kept: thousands of outcomes may be waiting.
    results: Vec<i64>,
    data: Vec<u8>,
    /// Ops that were played; the last of them has failed if this is less than the tape is long.
    played: usize,
    /// The op that ended the tape by failing.
    failed: Option<Op>,
}

impl Outcome {
    /// What is left in the room of a tape whose ops have so many bytes, after so many ops.
    pub(crate) fn collect(bytes: &[u8], ops_len: usize, played: usize) -> Self {
        let (ops, data) = bytes.split_at(ops_len);
        let (words, _) = ops.as_chunks::<8>();
        let results = words.iter().skip(OP_RESULT / 8).step_by(OP_WORDS);
        let results: Vec<i64> = results.map(|word| i64::from_ne_bytes(*word)).collect();
        let played = played.min(results.len());
        Self {
            failed: (played < results.len()).then_some(Op(played)),
            results,
            data: data.to_vec(),
            played,
        }
    }

    /// What the op returned: a negative errno on failure. An op that was not played gives 0.
    #[must_use]
    pub fn result(&self, op: Op) -> i64 {
        self.results[op.0]
    }

    /// What the op returned.
    ///
    /// # Errors
    ///
    /// The errno with which the call failed.
    pub fn ok(&self, op: Op) -> rustix::io::Result<u64> {
        match self.result(op) {
            raw @ -4095..=-1 => Err(rustix::io::Errno::from_raw_os_error(-raw as i32)),
            value => Ok(value as u64),
        }
    }

    /// A piece of the tape's data as the calls have left it.
    #[must_use]
    pub fn data(&self, data: Data) -> &[u8] {
        &self.data[data.offset..data.offset + data.len]
    }

    /// Ops that were played.
    #[must_use]
    pub fn played(&self) -> usize {
        self.played
    }

    /// The op that had to succeed and did not, if any, with its errno.
    #[must_use]
    pub fn failure(&self) -> Option<(Op, rustix::io::Errno)> {
        let op = self.failed?;
        let raw = self.result(op);
        Some((op, rustix::io::Errno::from_raw_os_error(-raw as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_aligned_and_addressed_behind_the_ops() {
        let mut tape = Tape::new();
        let path = tape.bytes(b"/tmp\0");
        let out = tape.space(8);
        tape.link(out, 0, path);
        let open = tape.must(2, [path.into(), Arg::Value(0)]);
        tape.call(3, [open.into(), out.into()]);
        let mut bytes = b"before".to_vec();
        tape.lay_out(0x1000, &mut bytes);
        assert_eq!(tape.ops_len(), 2 * OP_SIZE);
        assert_eq!(bytes.len(), 6 + tape.size());
        let word = |at: usize| u64::from_ne_bytes(bytes[6 + at..][..8].try_into().unwrap());
        assert_eq!(word(8), 0x1000 + 160);
        assert_eq!(
            word(64),
            0x1000 + 80 + 8,
            "the result of the first goes to the second's argument"
        );
        assert_eq!(word(80 + 16), 0x1000 + 160 + 16);
        assert_eq!((word(72), word(80 + 72)), (OP_MUST, 0));
        assert_eq!(word(160 + 16), 0x1000 + 160, "a link");
    }

    #[test]
    fn a_call_for_many_numbers_is_one_op() {
        let mut tape = Tape::new();
        tape.bytes(&[0; 16]);
        let none = tape.each(72, 5..5, 1);
        assert!(tape.is_empty() && none.len == 0);
        let into = tape.each(72, 3..9, 1);
        assert_eq!((tape.len(), into.len), (1, 6));
        let mut bytes = Vec::new();
        tape.lay_out(0x1000, &mut bytes);
        let word = |at: usize| u64::from_ne_bytes(bytes[at..][..8].try_into().unwrap());
        assert_eq!((word(8), word(16), word(48)), (3, 1, 9));
        assert_eq!(word(64), 0x1000 + 80 + 16);
        assert_eq!(word(72), OP_EACH);
    }

    #[test]
    fn results_and_data_are_taken_out_of_the_room() {
        let mut bytes = vec![0xaa; 2 * OP_SIZE];
        for (op, result) in [7_i64, -2].into_iter().enumerate() {
            let at = op * OP_SIZE + OP_RESULT;
            bytes[at..at + 8].copy_from_slice(&result.to_ne_bytes());
        }
        bytes.extend_from_slice(b"data");
        let outcome = Outcome::collect(&bytes, 2 * OP_SIZE, 1);
        assert_eq!((outcome.result(Op(0)), outcome.result(Op(1))), (7, -2));
        assert_eq!(outcome.data(Data { offset: 1, len: 3 }), b"ata");
        assert_eq!(
            (outcome.played(), outcome.failure().map(|it| it.0)),
            (1, Some(Op(1)))
        );
        let whole = Outcome::collect(&bytes, 2 * OP_SIZE, 9);
        assert_eq!((whole.played(), whole.failure()), (2, None));
    }
}
