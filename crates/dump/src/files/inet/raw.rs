//! Raw sockets: what the kernel tells of them in `/proc/net`.

use gelid_image::messages::{InetSkEntry, IpOptsEntry, IpOptsRawEntry};
use gelid_sys::sockopt::SocketOption;

use super::super::{Error, Object};
use super::{CLOSED, CONNECTED, ICMP, INET6, Make};

/// Fills in what a raw socket does not tell itself: with whom it is connected, as there need not be a port.
pub(super) fn complete(
    object: &Object<'_>,
    make: Make,
    entry: &mut InetSkEntry,
) -> Result<(), Error> {
    let file = match make.family {
        INET6 => "/proc/thread-self/net/raw6",
        _ => "/proc/thread-self/net/raw",
    };
    entry.src_port = make.protocol;
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|error| {
        let errno = gelid_sys::Errno::from_io_error(&error).unwrap_or(gelid_sys::Errno::IO);
        object.failed("ask for the peer of")(errno)
    })?;
    if let Some((words, port)) = remote(&text, entry.ino) {
        let connected = words.iter().any(|word| *word != 0);
        entry.state = if connected { CONNECTED } else { CLOSED };
        (entry.dst_addr, entry.dst_port) = (words, port);
    }
    let on =
        |option: SocketOption| Some(true).filter(|_| option.int(object.file).unwrap_or(0) != 0);
    let raw = IpOptsRawEntry {
        hdrincl: on(SocketOption::IP_HDRINCL),
        nodefrag: on(SocketOption::IP_NODEFRAG),
        checksum: on(SocketOption::IP_CHECKSUM),
        icmpv_filter: filter(object, make),
    };
    entry.ip_opts.get_or_insert_with(IpOptsEntry::default).raw = Some(raw);
    Ok(())
}

/// Words of the filter of ICMP messages, of sockets that have one.
fn filter(object: &Object<'_>, make: Make) -> Vec<u32> {
    let option = match (make.family, make.protocol) {
        (INET6, super::ICMPV6) => SocketOption::ICMPV6_FILTER,
        (INET6, _) => return Vec::new(),
        (_, ICMP) => SocketOption::ICMP_FILTER,
        _ => return Vec::new(),
    };
    let bytes = option.get(object.file).unwrap_or_default();
    let words = bytes.chunks_exact(4);
    words
        .filter_map(|word| word.try_into().ok().map(u32::from_ne_bytes))
        .collect()
}

/// Address and port in the column `rem_address` of the line of a socket.
fn remote(text: &str, inode: u32) -> Option<(Vec<u32>, u32)> {
    /// Columns, counted from 0.
    const REMOTE: usize = 2;
    const INODE: usize = 9;
    let line = text.lines().skip(1).find(|line| {
        let found = line.split_whitespace().nth(INODE);
        found.and_then(|found| found.parse().ok()) == Some(inode)
    })?;
    let (address, port) = line.split_whitespace().nth(REMOTE)?.split_once(':')?;
    let words = address.as_bytes().chunks(8);
    let words = words.map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    Some((
        words.collect::<Option<_>>()?,
        u32::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_kernel_is_understood() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                    \x20  1: 0100007F:0001 0200007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 4711 2 ffff 0\n\
                    \x20  6: 00000000000000000000000000000000:0006 00000000000000000000000001000000:0007 07 0:0 00:0 0 0 0 12 2 ffff 0\n";
        assert_eq!(remote(text, 4711), Some((vec![0x0200_007f], 0)));
        assert_eq!(remote(text, 12), Some((vec![0, 0, 0, 0x0100_0000], 7)));
        assert_eq!(remote(text, 1), None);
    }
}
