//! Records of internet sockets, checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gelid_image::messages::InetSkEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::sockopt::SocketOption;
use rustix::net::{AddressFamily, SocketType};

use super::super::socket_option::Values;
use super::super::tcp::{State, Stream};
use super::super::{Error, FileOptions, sk_opts};
use super::{Internet, Role, multicast};

const TCP: u32 = 6;
pub(super) const UDP: u32 = 17;
pub(super) const UDPLITE: u32 = 136;
pub(super) const MPTCP: u32 = 262;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
const LISTENING: u32 = 10;
const INET: u32 = 2;
const INET6: u32 = 10;

/// Where records are from, and what is allowed.
#[derive(Clone, Copy)]
pub(in super::super) struct Context<'a> {
    pub(in super::super) dir: &'a Dir,
    pub(in super::super) options: &'a FileOptions,
}

/// Checks a record.
pub(in super::super) fn plan(
    context: Context<'_>,
    object: &str,
    entry: &InetSkEntry,
) -> Result<Internet, Error> {
    let family = match entry.family {
        INET => AddressFamily::INET,
        INET6 => AddressFamily::INET6,
        other => return Err(Error::invalid(object, "family", other, "it is 2 or 10")),
    };
    let (kind, protocol) = kind(object, entry)?;
    let raw = kind == SocketType::RAW;
    // The port of a raw socket is its protocol.
    let port = if raw { 0 } else { entry.src_port };
    let own = address(object, family, "src_addr", &entry.src_addr, port)?;
    let peer = address(object, family, "dst_addr", &entry.dst_addr, entry.dst_port)?;
    let mut shutdown = match entry.shutdown.unwrap_or_default() {
        directions @ 0..=3 => directions.cast_unsigned(),
        other => return Err(Error::invalid(object, "shutdown", other, "it is 0 to 3")),
    };
    let role = match (kind, entry.state) {
        (SocketType::STREAM, LISTENING) => Role::Listening(entry.backlog),
        (SocketType::STREAM, _) if entry.dst_port != 0 => {
            shutdown &= 1;
            stream(context, object, entry, peer, &mut shutdown)?
        }
        (SocketType::STREAM, _) => Role::Alone,
        _ if !peer.ip().is_unspecified() || entry.dst_port != 0 => Role::Connected(peer),
        _ => Role::Alone,
    };
    Ok(Internet {
        inode: entry.ino,
        family,
        kind,
        protocol,
        own: (!own.ip().is_unspecified() || own.port() != 0).then_some(own),
        role,
        interface: entry.ifname.clone().filter(|name| !name.is_empty()),
        options: sk_opts::plan(object, &entry.opts)?,
        values: values(object, entry)?,
        memberships: {
            let gelid = entry.gelid.as_ref();
            multicast::plan(object, gelid.map_or(&[], |gelid| &gelid.membership))?
        },
        shutdown,
        absent: entry.gelid.as_ref().and_then(|gelid| gelid.absent) == Some(true),
        uid: entry.gelid.as_ref().and_then(|gelid| gelid.uid),
    })
}

/// What becomes of a connection.
fn stream(
    context: Context<'_>,
    object: &str,
    entry: &InetSkEntry,
    peer: SocketAddr,
    shutdown: &mut u32,
) -> Result<Role, Error> {
    let Some(state) = State::numbered(entry.state) else {
        let rule = "no connection is in such a state";
        return Err(Error::invalid(object, "state", entry.state, rule));
    };
    if state == State::Closed || state.is_ended() {
        // It goes with the state.
        *shutdown = 0;
    }
    // What is over is recorded, unless its dumper had not the rights to look.
    let recorded = || context.dir.reader_opt(ImageKind::TcpStream, entry.ino);
    if context.options.tcp_close && (state != State::Closed || recorded()?.is_none()) {
        *shutdown = 3;
        return Ok(Role::Parted(peer));
    }
    if state != State::Closed && !context.options.tcp_established {
        return Err(Error::Unsupported {
            object: object.to_owned(),
            what: "a connection of TCP",
            remedy: "use --tcp-established, or --tcp-close to have it closed",
        });
    }
    let stream = Stream::read(context.dir, object, entry, state)?;
    Ok(Role::Stream(peer, Box::new(stream)))
}

/// What a socket is to be made as.
fn kind(object: &str, entry: &InetSkEntry) -> Result<(SocketType, u32), Error> {
    let mptcp = entry
        .gelid
        .as_ref()
        .is_some_and(|gelid| gelid.mptcp == Some(true));
    match (entry.r#type, entry.proto) {
        (1, TCP) if mptcp => Ok((SocketType::STREAM, MPTCP)),
        // 0 is the usual one.
        (1, TCP | 0) => Ok((SocketType::STREAM, TCP)),
        (2, 0) => Ok((SocketType::DGRAM, UDP)),
        (2, protocol @ (UDP | UDPLITE | ICMP | ICMPV6)) => Ok((SocketType::DGRAM, protocol)),
        (3, protocol @ 0..=0xffff) => Ok((SocketType::RAW, protocol)),
        (1..=3, other) => {
            let rule = "it is one of TCP, UDP, UDP-Lite, ICMP, or a raw one";
            Err(Error::invalid(object, "proto", other, rule))
        }
        (other, _) => Err(Error::invalid(object, "type", other, "it is 1, 2 or 3")),
    }
}

/// An address from its words; missing ones are zero.
fn address(
    object: &str,
    family: AddressFamily,
    field: &'static str,
    words: &[u32],
    port: u32,
) -> Result<SocketAddr, Error> {
    let rule = "a port has 16 bits";
    let port = u16::try_from(port).map_err(|_| Error::invalid(object, field, port, rule))?;
    let mut bytes = [0u8; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let [a, b, c, d, ..] = bytes;
    let ip: IpAddr = match family {
        AddressFamily::INET => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(bytes).into(),
    };
    Ok(SocketAddr::new(ip, port))
}

/// Everything that is recorded of options beside those of the socket layer.
fn values(object: &str, entry: &InetSkEntry) -> Result<Values, Error> {
    let mut values: BTreeMap<SocketOption, Vec<u8>> = published(entry)
        .into_iter()
        .map(|(option, value)| (option, value.to_ne_bytes().to_vec()))
        .collect();
    if let Some(words) = entry.ip_opts.as_ref().and_then(|ip| ip.raw.as_ref()) {
        let option = match (entry.family, entry.proto) {
            (INET6, ICMPV6) => Some(SocketOption::ICMPV6_FILTER),
            (INET, ICMP) => Some(SocketOption::ICMP_FILTER),
            _ => None,
        };
        let words = words
            .icmpv_filter
            .iter()
            .flat_map(|word| word.to_ne_bytes());
        let bytes: Vec<u8> = words.collect();
        if let Some(option) = option.filter(|option| option.room() == bytes.len()) {
            values.insert(option, bytes);
        }
    }
    let gelid = entry.gelid.as_ref().map_or(&[][..], |gelid| &gelid.option);
    Values::plan(object, values, gelid)
}

/// Numbers of the published format; those that are off are missing.
fn published(entry: &InetSkEntry) -> Vec<(SocketOption, u32)> {
    let ip = entry.ip_opts.clone().unwrap_or_default();
    let raw = ip.raw.clone().unwrap_or_default();
    let tcp = entry.tcp_opts.clone().unwrap_or_default();
    let is_v6 = entry.family == INET6;
    let (freebind, pktinfo) = match is_v6 {
        true => (SocketOption::IPV6_FREEBIND, SocketOption::IPV6_RECVPKTINFO),
        false => (SocketOption::IP_FREEBIND, SocketOption::IP_PKTINFO),
    };
    let on = |value: Option<bool>| value.filter(|on| *on).map(u32::from);
    let all = [
        (freebind, on(ip.freebind)),
        (pktinfo, on(ip.pktinfo)),
        (SocketOption::IP_TOS, ip.tos),
        (SocketOption::IP_TTL, ip.ttl),
        (SocketOption::IP_HDRINCL, on(raw.hdrincl)),
        (SocketOption::IP_NODEFRAG, on(raw.nodefrag)),
        (SocketOption::IP_CHECKSUM, on(raw.checksum)),
        (SocketOption::TCP_NODELAY, on(tcp.nodelay)),
        (SocketOption::TCP_CORK, on(tcp.cork)),
        (
            SocketOption::TCP_KEEPCNT,
            tcp.keepcnt.or(entry.opts.tcp_keepcnt),
        ),
        (
            SocketOption::TCP_KEEPIDLE,
            tcp.keepidle.or(entry.opts.tcp_keepidle),
        ),
        (
            SocketOption::TCP_KEEPINTVL,
            tcp.keepintvl.or(entry.opts.tcp_keepintvl),
        ),
        // Of IPv6 alone, where it is as often off as it is said.
        (
            SocketOption::IPV6_V6ONLY,
            entry.v6only.filter(|_| is_v6).map(u32::from),
        ),
    ];
    let set = all.into_iter();
    set.filter_map(|(option, value)| Some((option, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::{
        GelidInetSkEntry, GelidSocketOptionEntry, IpOptsEntry, TcpOptsEntry,
    };

    fn planned(entry: &InetSkEntry) -> Result<Internet, Error> {
        let scratch = tempfile::tempdir().unwrap();
        let (dir, options) = (Dir::open(scratch.path()).unwrap(), FileOptions::default());
        let (dir, options) = (&dir, &options);
        plan(Context { dir, options }, "it", entry)
    }

    fn udp() -> InetSkEntry {
        InetSkEntry {
            family: INET,
            r#type: 2,
            proto: UDP,
            state: 7,
            src_port: 53,
            src_addr: vec![0x0100_007f],
            dst_addr: vec![0],
            ..InetSkEntry::default()
        }
    }

    #[test]
    fn addresses_are_understood() {
        let it = planned(&udp()).unwrap();
        assert_eq!(it.own, "127.0.0.1:53".parse().ok());
        assert_eq!(it.role, Role::Alone);
        let six = InetSkEntry {
            family: INET6,
            src_addr: vec![0, 0, 0, 0x0100_0000],
            dst_addr: vec![0, 0, 0xffff_0000, 0x0100_007f],
            dst_port: 9,
            v6only: Some(false),
            ..udp()
        };
        let it = planned(&six).unwrap();
        assert_eq!(it.own, "[::1]:53".parse().ok());
        assert_eq!(
            it.role,
            Role::Connected("[::ffff:127.0.0.1]:9".parse().unwrap())
        );
    }

    #[test]
    fn options_come_in_their_order() {
        let option = |level, name, value: &[u8]| GelidSocketOptionEntry {
            level,
            name,
            value: value.to_vec(),
        };
        let entry = InetSkEntry {
            r#type: 1,
            proto: TCP,
            ip_opts: Some(IpOptsEntry {
                ttl: Some(9),
                tos: Some(8),
                ..IpOptsEntry::default()
            }),
            tcp_opts: Some(TcpOptsEntry {
                nodelay: Some(true),
                ..TcpOptsEntry::default()
            }),
            gelid: Some(GelidInetSkEntry {
                option: vec![option(6, 13, b"cubic"), option(0, 2, &[7, 0, 0, 0])],
                ..GelidInetSkEntry::default()
            }),
            ..udp()
        };
        let it = planned(&entry).unwrap();
        let all = it.values.all();
        let values: Vec<_> = all
            .iter()
            .map(|(option, value)| (*option, value.len(), value[0]))
            .collect();
        assert_eq!(
            values,
            [
                ((0, 1), 4, 8),
                ((0, 2), 4, 7),
                ((6, 1), 4, 1),
                ((6, 13), 5, b'c')
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut InetSkEntry)| {
            let mut entry = udp();
            change(&mut entry);
            planned(&entry).unwrap_err().to_string()
        };
        assert!(with(|it| it.family = 1).contains("family"));
        assert!(with(|it| it.r#type = 5).contains("type"));
        assert!(with(|it| it.proto = 33).contains("proto"));
        assert!(with(|it| it.src_port = 65_536).contains("src_addr"));
        assert!(with(|it| it.shutdown = Some(4)).contains("shutdown"));
        let odd = |level, name, len| {
            let value = vec![0; len];
            let option = vec![GelidSocketOptionEntry { level, name, value }];
            let mut entry = udp();
            entry.gelid = Some(GelidInetSkEntry {
                option,
                ..GelidInetSkEntry::default()
            });
            planned(&entry).unwrap_err().to_string()
        };
        // One that the kernel has, but that is none of these: it takes an address in memory.
        assert!(odd(1, 26, 16).contains("no option is like that"));
        assert!(odd(6, 13, 17).contains("no option is like that"));
        assert!(odd(u32::MAX, u32::MAX, 4).contains("no option is like that"));
    }
}
