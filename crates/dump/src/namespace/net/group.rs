//! Groups of the link layer that somebody has given to a link (`ip maddr add`), beside those of its sockets.

use std::collections::HashMap;

use super::Error;

/// What the kernel tells of them for the calling thread.
const FILE: &str = "/proc/thread-self/net/dev_mcast";

/// Those of all links, by index.
pub(super) fn all() -> Result<HashMap<u32, Vec<Vec<u8>>>, Error> {
    let text = std::fs::read_to_string(FILE).map_err(|source| {
        let errno = rustix::io::Errno::from_io_error(&source);
        Error::kernel("list", "groups of links")(errno.unwrap_or(rustix::io::Errno::IO))
    })?;
    let mut groups: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
    for (index, group) in text.lines().filter_map(given) {
        groups.entry(index).or_default().push(group);
    }
    for of_link in groups.values_mut() {
        of_link.sort();
    }
    Ok(groups)
}

/// A group, if it was given: index and name of the link, its users, whether it was given, and the group itself.
fn given(line: &str) -> Option<(u32, Vec<u8>)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let &[index, _, _, given, group] = words.as_slice() else {
        return None;
    };
    let digits = group.as_bytes().chunks(2);
    let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok();
    let group = digits.map(byte).collect::<Option<Vec<u8>>>()?;
    let index = index.parse().ok()?;
    (given != "0").then_some((index, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_counts() {
        let one = given("4    v0              1     1     01005e000055").unwrap();
        assert_eq!(one, (4, vec![1, 0, 0x5e, 0, 0, 0x55]));
        assert!(given("4    v0              1     0     01005e000055").is_none());
        assert!(given("4    v0").is_none());
        all().unwrap();
    }
}
