//! Netlink messages and their attributes, as bytes: found in what may be hostile, and put together.

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`
const KIND: u16 = 0x3fff;

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// `NLM_F_*`
    pub flags: u16,
    /// That of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
    /// All of it, without what pads it.
    pub whole: &'a [u8],
}

impl Message<'_> {
    /// A number in the body.
    #[must_use]
    pub fn word(&self, at: usize) -> Option<u32> {
        word(self.body, at)
    }
}

/// A number in native order.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// Messages one behind the other, padded to four bytes; `None` ends what is malformed.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    walk(bytes, 4)
}

/// Messages one behind the other, not padded.
pub fn unpadded(bytes: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    walk(bytes, 1)
}

fn walk(mut rest: &[u8], align: usize) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = first(rest);
        rest = match &message {
            Some(message) => {
                let len = message.whole.len().next_multiple_of(align);
                rest.get(len..).unwrap_or_default()
            }
            None => &[],
        };
        Some(message)
    })
}

fn first(bytes: &[u8]) -> Option<Message<'_>> {
    let len = usize::try_from(word(bytes, 0)?).ok()?;
    let whole = bytes.get(..len)?;
    let body = whole.get(HEADER..)?;
    Some(Message {
        kind: half(bytes, 4)?,
        flags: half(bytes, 6)?,
        sequence: word(bytes, 8)?,
        body,
        whole,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

/// Attributes one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them, with their kind and without the bits that go with it; `None` ends what is malformed.
    pub fn iter(self) -> impl Iterator<Item = Option<(u16, &'a [u8])>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let found = Self::first(rest);
            rest = match found {
                Some((_, value)) => {
                    let len = (ATTRIBUTE + value.len()).next_multiple_of(4);
                    rest.get(len..).unwrap_or_default()
                }
                None => &[],
            };
            Some(found)
        })
    }

    fn first(bytes: &'a [u8]) -> Option<(u16, &'a [u8])> {
        let len = half(bytes, 0)?;
        let value = bytes.get(ATTRIBUTE..usize::from(len))?;
        Some((half(bytes, 2)? & KIND, value))
    }

    /// Whether all of them fit into each other.
    #[must_use]
    pub fn are_sound(self) -> bool {
        self.iter().all(|attribute| attribute.is_some())
    }

    /// The value of the first of a kind.
    #[must_use]
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self.iter().flatten();
        all.find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// Those in the first of a kind.
    #[must_use]
    pub fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    /// A number.
    #[must_use]
    pub fn word(self, kind: u16) -> Option<u32> {
        word(self.get(kind)?, 0)
    }

    /// A number of one byte.
    #[must_use]
    pub fn byte(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    /// A number of two bytes.
    #[must_use]
    pub fn half(self, kind: u16) -> Option<u16> {
        half(self.get(kind)?, 0)
    }

    /// Text without the zero that ends it.
    #[must_use]
    pub fn text(self, kind: u16) -> Option<&'a [u8]> {
        self.get(kind)?.split(|byte| *byte == 0).next()
    }
}

/// A request that comes to be: a fixed part, then attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Builder(Vec<u8>);

impl Builder {
    /// With a fixed part.
    #[must_use]
    pub fn new(fixed: &[u8]) -> Self {
        let mut bytes = fixed.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }

    /// Appends an attribute. The kernel takes none longer than 64 KiB, nor does this: it is left out.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(ATTRIBUTE + value.len()) else {
            return self;
        };
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number.
    pub fn word(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends text and the zero that ends it.
    pub fn text(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.put(kind, &[value, &[0]].concat())
    }

    /// Appends attributes that belong to one.
    pub fn nest(&mut self, kind: u16, inner: &Self) -> &mut Self {
        self.put(kind | NESTED, &inner.0)
    }

    /// What has come to be.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_read_back() {
        let mut inner = Builder::default();
        inner.put(1, b"xyz").word(2, 7);
        let mut outer = Builder::new(&[9; 5]);
        outer.text(3, b"lo").nest(4, &inner);
        let all = Attributes(&outer.bytes()[8..]);
        assert!(all.are_sound());
        assert_eq!(all.text(3), Some(&b"lo"[..]));
        let nested = all.nested(4).unwrap();
        assert_eq!(
            (nested.get(1), nested.word(2)),
            (Some(&b"xyz"[..]), Some(7))
        );
        assert_eq!((nested.get(9), nested.byte(1)), (None, Some(b'x')));
    }

    #[test]
    fn messages_follow_each_other() {
        let message = |len: u32, kind: u16| {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.resize(len as usize, 7);
            bytes
        };
        let (one, two) = (message(18, 5), message(16, 6));
        let kinds = |found: Vec<Option<Message<'_>>>| -> Vec<_> {
            found.iter().map(|found| found.map(|m| m.kind)).collect()
        };
        let tight = [one.clone(), two.clone()].concat();
        assert_eq!(kinds(unpadded(&tight).collect()), [Some(5), Some(6)]);
        let wide = [one, vec![0; 2], two].concat();
        assert_eq!(kinds(messages(&wide).collect()), [Some(5), Some(6)]);
        assert_eq!(kinds(messages(&wide[..30]).collect()), [Some(5), None]);
        assert_eq!(kinds(messages(&[0; 16]).collect()), [None]);
    }

    proptest! {
        #[test]
        fn anything_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
            prop_assert!(unpadded(&bytes).count() <= bytes.len());
            prop_assert!(Attributes(&bytes).iter().count() <= bytes.len());
        }
    }
}
