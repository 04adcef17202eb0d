//! Numbers and fields in the text that procfs prints.

/// A text that is not what `proc(5)` describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(
    /// The field that is missing or wrong.
    pub &'static str,
);

pub(super) type Result<T> = std::result::Result<T, Malformed>;

/// The value of `digits` in `radix` (at most 16); nothing else may be in it.
pub(super) fn number(digits: &[u8], radix: u8, what: &'static str) -> Result<u64> {
    if digits.is_empty() {
        return Err(Malformed(what));
    }
    let mut value = 0u64;
    for byte in digits {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return Err(Malformed(what)),
        };
        if digit >= radix {
            return Err(Malformed(what));
        }
        value = value
            .checked_mul(u64::from(radix))
            .and_then(|value| value.checked_add(u64::from(digit)))
            .ok_or(Malformed(what))?;
    }
    Ok(value)
}

/// A decimal number that fits `T`.
pub(super) fn decimal<T: TryFrom<u64>>(digits: &[u8], what: &'static str) -> Result<T> {
    T::try_from(number(digits, 10, what)?).map_err(|_| Malformed(what))
}

/// A decimal number with an optional minus sign that fits `T`.
pub(super) fn signed<T: TryFrom<i64>>(digits: &[u8], what: &'static str) -> Result<T> {
    let value = match digits.strip_prefix(b"-") {
        Some(digits) => 0i64.checked_sub_unsigned(number(digits, 10, what)?),
        None => 0i64.checked_add_unsigned(number(digits, 10, what)?),
    };
    T::try_from(value.ok_or(Malformed(what))?).map_err(|_| Malformed(what))
}

/// A hexadecimal number, with or without `0x`.
pub(super) fn hex(digits: &[u8], what: &'static str) -> Result<u64> {
    number(digits.strip_prefix(b"0x").unwrap_or(digits), 16, what)
}

/// The pieces of `text` between blanks (space and tab), without empty ones.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field, which must be there.
    pub(super) fn need(&mut self, what: &'static str) -> Result<&'a [u8]> {
        self.next().ok_or(Malformed(what))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = trim_start(self.0);
        if rest.is_empty() {
            self.0 = rest;
            return None;
        }
        let end = rest.iter().position(|b| is_blank(*b)).unwrap_or(rest.len());
        let (field, rest) = rest.split_at(end);
        self.0 = rest;
        Some(field)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

/// `text` without leading blanks.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|b| !is_blank(*b))
        .unwrap_or(text.len());
    &text[start..]
}

/// `text` without its final newline.
pub(super) fn chomp(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

/// The first line of `text`, without its newline, and what follows; `None` if it does not end.
pub(super) fn cut(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'\n', text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The lines of `text`, without their newlines. A final newline ends a line and begins none.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = chomp(text);
    let mut rest = (!text.is_empty()).then_some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr(b'\n', text) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// Where `byte` first stands in `text`.
pub(super) fn memchr(byte: u8, text: &[u8]) -> Option<usize> {
    text.iter().position(|b| *b == byte)
}

/// `text` before and after the first `byte`.
pub(super) fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(byte, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// `text` with each `\ooo` of three octal digits replaced by its byte, if `only` is that byte or `None`.
pub(super) fn unescape(text: &[u8], only: Option<u8>) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match escaped(rest) {
            Some(byte) if only.is_none_or(|only| only == byte) => {
                plain.push(byte);
                rest = &rest[4..];
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

fn escaped(text: &[u8]) -> Option<u8> {
    let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = text else {
        return None;
    };
    Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        assert_eq!(decimal::<u32>(b"4294967295", "x"), Ok(u32::MAX));
        assert_eq!(decimal::<u32>(b"4294967296", "x"), Err(Malformed("x")));
        assert_eq!(decimal::<u64>(b"18446744073709551615", "x"), Ok(u64::MAX));
        assert_eq!(
            decimal::<u64>(b"18446744073709551616", "x"),
            Err(Malformed("x"))
        );
        assert_eq!(signed::<i32>(b"-2147483648", "x"), Ok(i32::MIN));
        assert_eq!(signed::<i64>(b"-9223372036854775808", "x"), Ok(i64::MIN));
        assert_eq!(signed::<i32>(b"--1", "x"), Err(Malformed("x")));
        assert_eq!(hex(b"0xfF", "x"), Ok(255));
        assert_eq!(number(b"8", 8, "x"), Err(Malformed("x")));
        assert_eq!(number(b"", 10, "x"), Err(Malformed("x")));
    }

    #[test]
    fn text_is_cut() {
        assert_eq!(
            Fields(b" a  b\tc\n").collect::<Vec<_>>(),
            [b"a", b"b", b"c"]
        );
        assert_eq!(
            lines(b"a\n\nb\n").collect::<Vec<_>>(),
            [&b"a"[..], b"", b"b"]
        );
        assert_eq!(lines(b"").count(), 0);
        assert_eq!(split_once(b"a:b:c", b':'), Some((&b"a"[..], &b"b:c"[..])));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(b"/a\\040b\\012c\\d\\04", None), b"/a b\nc\\d\\04");
        assert_eq!(unescape(b"/a\\040b\\012", Some(b'\n')), b"/a\\040b\n");
        assert_eq!(unescape(b"\\777\\377", None), b"\\777\xff");
    }
}
