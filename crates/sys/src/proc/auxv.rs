//! `/proc/PID/auxv`: the auxiliary vector, `getauxval(3)`.

use super::text::{Malformed, Result};
use super::{Error, TaskDir};

/// Reads the vector as words: type, value, type, value, … with the final pair of zeros where the kernel
/// shows it. Empty for a task without an address space.
pub fn read(task: &TaskDir) -> std::result::Result<Vec<u64>, Error> {
    task.parsed_record("auxv", 1024, parse)
}

/// Cuts the bytes of `auxv` into words.
pub fn parse(bytes: &[u8]) -> Result<Vec<u64>> {
    if !bytes.len().is_multiple_of(16) {
        return Err(Malformed("auxiliary vector"));
    }
    let words = bytes.chunks_exact(8).map(|word| {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        u64::from_ne_bytes(value)
    });
    Ok(words.collect())
}

/// The value of the first entry of type `key` (`AT_*` of `linux/auxvec.h`).
pub fn value(words: &[u64], key: u64) -> Option<u64> {
    let pair = words.chunks_exact(2).find(|pair| pair[0] == key)?;
    Some(pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_vector_holds_the_page_size() {
        let words = parse(&std::fs::read("/proc/self/auxv").unwrap()).unwrap();
        assert_eq!(
            value(&words, libc::AT_PAGESZ),
            Some(rustix::param::page_size() as u64)
        );
        assert_eq!(value(&words, 0x1234_5678), None);
    }

    #[test]
    fn odd_lengths_are_refused() {
        assert_eq!(parse(&[0; 24]), Err(Malformed("auxiliary vector")));
        assert_eq!(parse(&[]), Ok(vec![]));
    }
}
