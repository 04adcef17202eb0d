//! Contexts of kernel AIO, `io_setup(2)`: their rings, and requests on tapes.

/// Bytes of a ring's header.
pub const HEADER: usize = 32;
/// Bytes of an event.
pub const EVENT: usize = 32;
/// Bytes of a request, `struct iocb`.
pub const REQUEST: usize = 64;

const MAGIC: u32 = 0xa10a_10a1;

/// The head of a ring, `struct aio_ring` of the kernel. It lies in memory that the program can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kernel's number of the context.
    pub id: u32,
    /// Events that fit.
    pub nr: u32,
    /// Next event to be taken.
    pub head: u32,
    /// Where the next event goes.
    pub tail: u32,
}

impl Header {
    /// Understands the first bytes of a ring; `None` if it is none, or makes no sense.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let word = bytes.get(index * 4..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*word))
        };
        let header = Self {
            id: word(0)?,
            nr: word(1)?,
            head: word(2)?,
            tail: word(3)?,
        };
        let length = word(7)? as usize;
        let fits = word(4)? == MAGIC && length == HEADER && header.nr > 2;
        let inside = header.head < header.nr && header.tail < header.nr;
        (fits && inside).then_some(header)
    }

    /// Bytes that a ring takes with its events.
    #[must_use]
    pub fn size(&self) -> u64 {
        let bytes = HEADER as u64 + u64::from(self.nr) * EVENT as u64;
        bytes.next_multiple_of(crate::PAGE_SIZE as u64)
    }

    /// A number of requests for `io_setup` that gives a ring of the same size.
    #[must_use]
    pub fn requests(&self) -> u32 {
        // The kernel doubles it, and adds two.
        (self.nr - 2) / 2
    }

    /// Events that nobody has taken.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        match self.tail.checked_sub(self.head) {
            Some(waiting) => waiting,
            None => self.nr - (self.head - self.tail),
        }
    }
}

/// `struct iocb`: reads nothing from a file, which is done at once.
#[must_use]
pub fn idle(fd: i32) -> [u8; REQUEST] {
    /// Offset of `aio_fildes`. The operation is number 0, `IOCB_CMD_PREAD`.
    const FD: usize = 20;
    let mut bytes = [0; REQUEST];
    bytes[FD..FD + 4].copy_from_slice(&fd.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: [u32; 8]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_header_is_understood() {
        let header = Header::read(&bytes([5, 127, 120, 3, MAGIC, 1, 0, 32])).unwrap();
        assert_eq!((header.id, header.nr), (5, 127));
        assert_eq!(
            (header.size(), header.requests(), header.waiting()),
            (4096, 62, 10)
        );
        let header = Header {
            tail: 121,
            ..header
        };
        assert_eq!(header.waiting(), 1);
    }

    #[test]
    fn others_are_refused() {
        for words in [
            [5, 127, 127, 3, MAGIC, 1, 0, 32],
            [5, 127, 0, 127, MAGIC, 1, 0, 32],
            [5, 2, 0, 0, MAGIC, 1, 0, 32],
            [5, 127, 0, 0, MAGIC + 1, 1, 0, 32],
            [5, 127, 0, 0, MAGIC, 1, 0, 64],
        ] {
            assert_eq!(Header::read(&bytes(words)), None);
        }
        assert_eq!(Header::read(&[0; 16]), None);
    }
}
