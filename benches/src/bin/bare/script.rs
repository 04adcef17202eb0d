//! System calls that a thread makes itself, one after the other, for each item of a list.
//!
//! All threads of a process have one script in common, each with an area for what it answers, which lies where a register
//! says; so that nothing has to be written for a single one. Each begins by one change of its registers. Only the last
//! one stops at its end, the others sleep: a process is waited for once, whatever its threads are. Who has to bring a tree
//! back whose tracer has died, as a dump does, cannot let threads sleep there; this is the least.

use gelid_sys::arch::UserRegs;

/// Plays a script. `rbp` is its address, `r15` the list, which ends with a negative item, `r13` the area of the first item
/// and `r14` the distance to the next one, `rsp` the address of a word that counts how many threads play.
///
/// ```text
/// next_item: mov r12, [r15]        ; and the address behind it, until r12 < 0
/// next_call: rdi = [rbx+8] + ([rbx+48] & r13) + ([rbx+88] & r12), rsi = [rbx+16] + ([rbx+56] & r13), and so on
///            syscall               ; number [rbx], until it is negative
///            mov [r13+[rbx+96]], rax
///            test rax, [rbx+104]   ; js: the next item
///            add rbx, 112
/// end:       lock dec qword ptr [rsp]
///            jnz sleep
///            int3
/// sleep:     pause(2), again and again
/// ```
const CODE: [u8; 133] = *b"\x4d\x8b\x27\x49\x83\xc7\x08\x4d\x85\xe4\x78\x68\x48\x89\xeb\x48\x8b\x03\x48\x85\xc0\x78\x58\
\x48\x8b\x7b\x30\x4c\x21\xef\x48\x03\x7b\x08\x48\x8b\x4b\x58\x4c\x21\xe1\x48\x01\xcf\x48\x8b\x73\x38\x4c\x21\xee\
\x48\x03\x73\x10\x48\x8b\x53\x40\x4c\x21\xea\x48\x03\x53\x18\x4c\x8b\x53\x48\x4d\x21\xea\x4c\x03\x53\x20\x4c\x8b\x43\
\x50\x4d\x21\xe8\x4c\x03\x43\x28\x0f\x05\x48\x8b\x4b\x60\x49\x89\x44\x0d\x00\x48\x85\x43\x68\x78\x06\x48\x83\xc3\x70\
\xeb\xa0\x4d\x01\xf5\xeb\x8c\xf0\x48\xff\x0c\x24\x75\x01\xcc\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7";

/// Bytes before what follows the code; the word that counts is the last of them.
const HEAD: usize = 256;
const WORD: usize = 8;
/// Words of a call.
const CALL: usize = 14;
const ARGS: usize = 5;
const RESULT: usize = 12;
const GIVES_UP: usize = 13;

/// An argument.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    Value(u64),
    /// The address of a place in the area of the item.
    Space(u64),
    /// The item itself; the first argument only.
    Item,
    /// The address of bytes that are there once for all.
    Bytes(u64),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

/// Calls that are made for each item.
#[derive(Debug, Default)]
pub(crate) struct Script {
    words: Vec<u64>,
    bytes: Vec<u8>,
    /// Which words are places among `bytes`.
    places: Vec<usize>,
    /// Bytes of an area.
    area: u64,
}

impl Script {
    /// Appends a call; where in the area its result comes to.
    pub(crate) fn call<const N: usize>(&mut self, nr: usize, args: [Arg; N]) -> u64 {
        let Arg::Space(result) = self.space(WORD as u64) else {
            return 0;
        };
        let mut words = [0; CALL];
        words[0] = nr as u64;
        for (at, arg) in args.into_iter().enumerate().take(ARGS) {
            match arg {
                Arg::Value(value) => words[1 + at] = value,
                Arg::Space(place) => {
                    words[1 + at] = place;
                    words[1 + ARGS + at] = u64::MAX;
                }
                Arg::Item => words[1 + 2 * ARGS] = u64::MAX,
                Arg::Bytes(place) => {
                    words[1 + at] = place;
                    self.places.push(self.words.len() + 1 + at);
                }
            }
        }
        words[RESULT] = result;
        self.words.extend(words);
        result
    }

    /// If the last call fails there are no others for this item.
    pub(crate) fn or_none(&mut self) {
        if let Some(call) = self.words.last_chunk_mut::<CALL>() {
            call[GIVES_UP] = 1 << 63;
        }
    }

    /// A place in the area.
    pub(crate) fn space(&mut self, bytes: u64) -> Arg {
        let place = self.area;
        self.area += bytes.next_multiple_of(WORD as u64);
        Arg::Space(place)
    }

    /// Bytes that all calls can have.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Arg {
        let place = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(WORD), 0);
        Arg::Bytes(place)
    }

    /// Bytes of the area of one item.
    pub(crate) fn area(&self) -> u64 {
        self.area
    }

    fn lay_out(&self, base: u64, out: &mut Vec<u8>) -> u64 {
        let at = base + out.len() as u64;
        let bytes = at + ((self.words.len() + 1) * WORD) as u64;
        let mut words = self.words.clone();
        for place in &self.places {
            words[*place] += bytes;
        }
        // No number of a call.
        words.push(u64::MAX);
        out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        out.extend_from_slice(&self.bytes);
        at
    }
}

/// What is written into a process: code, scripts, lists.
#[derive(Debug)]
pub(crate) struct Sheet {
    base: u64,
    bytes: Vec<u8>,
}

/// A script with its list and its areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    script: u64,
    list: u64,
    /// Address of the area of its first item.
    pub(crate) area: u64,
    stride: u64,
}

impl Sheet {
    /// One for so many threads at the same time.
    pub(crate) fn new(base: u64, threads: u64) -> Self {
        let mut bytes = CODE.to_vec();
        bytes.resize(HEAD - WORD, 0);
        bytes.extend(threads.to_ne_bytes());
        Self { base, bytes }
    }

    /// Appends a script and a list for it; its areas begin at `area`.
    pub(crate) fn add(&mut self, script: &Script, items: &[u64], area: u64) -> Run {
        let (base, stride) = (self.base, script.area);
        let script = script.lay_out(base, &mut self.bytes);
        let list = base + self.bytes.len() as u64;
        let items = items.iter().chain(&[u64::MAX]);
        self.bytes.extend(items.flat_map(|item| item.to_ne_bytes()));
        Run {
            script,
            list,
            area,
            stride,
        }
    }

    /// Where it goes.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes a sheet with such scripts and lists has.
    pub(crate) fn size(scripts: &[(&Script, usize)]) -> u64 {
        let one = |(script, items): &(&Script, usize)| {
            (script.words.len() + items + 2) * WORD + script.bytes.len()
        };
        (HEAD + scripts.iter().map(one).sum::<usize>()) as u64
    }

    /// Registers with which a thread begins.
    pub(crate) fn begin(&self, regs: &UserRegs, run: Run) -> UserRegs {
        UserRegs {
            rip: self.base,
            rsp: self.base + (HEAD - WORD) as u64,
            rbp: run.script,
            r13: run.area,
            r14: run.stride,
            r15: run.list,
            orig_rax: u64::MAX,
            rax: 0,
            ..*regs
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_behind_the_calls() {
        let mut script = Script::default();
        let bytes = script.bytes(b"abc");
        let space = script.space(4);
        let result = script.call(7, [Arg::Item, bytes, space]);
        script.or_none();
        assert_eq!((result, script.area()), (8, 16));
        let mut sheet = Sheet::new(0x1000, 1);
        let run = sheet.add(&script, &[5], 0x2000);
        assert_eq!(sheet.bytes().len() as u64, Sheet::size(&[(&script, 1)]));
        let word = |at: u64| {
            let at = (at - 0x1000) as usize;
            u64::from_ne_bytes(*sheet.bytes()[at..].first_chunk().unwrap())
        };
        assert_eq!(run.script, 0x1100);
        assert_eq!(word(run.script), 7);
        let text = word(run.script + 16);
        assert_eq!(word(text), u64::from_ne_bytes(*b"abc\0\0\0\0\0"));
        assert_eq!((word(run.list), word(run.list + 8)), (5, u64::MAX));
        assert_eq!(word(run.script + 112), u64::MAX, "the end");
    }
}
