//! Rules of the firewall, as the programs tell them that take them again: `iptables-save(8)`, `nft(8)`.
//!
//! The programs are asked only if the kernel has rules, since starting each costs more than all of the rest.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use gelid_image::ImageKind;
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, messages};
use rustix::io::Errno;

use super::Error;

/// Where programs of the firewall are, beside where others are.
const PLACES: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`
const GET_TABLE: u16 = (10 << 8) | 1;
/// `NFTA_TABLE_NAME`
const NAME: u16 = 1;
/// Bytes of `struct nfgenmsg`.
const FIXED: usize = 4;
/// `NFPROTO_INET`, `..._ARP`, `..._NETDEV`, `..._BRIDGE`, beside IPv4 and IPv6.
const FAMILIES: [(u8, &str); 6] = [
    (1, "inet"),
    (2, "ip"),
    (3, "arp"),
    (5, "netdev"),
    (7, "bridge"),
    (10, "ip6"),
];

/// Rule sets and the images they go into.
pub(super) type Rules = Vec<(ImageKind, Vec<u8>)>;

/// All rules of the namespace that the calling thread is in.
pub(super) fn rules() -> Result<Rules, Error> {
    let tables = tables()?;
    let mut owned = Vec::new();
    let mut found = Vec::new();
    for (kind, program, family, legacy) in [
        (
            ImageKind::Iptables,
            "iptables-save",
            "ip",
            "ip_tables_names",
        ),
        (
            ImageKind::Ip6tables,
            "ip6tables-save",
            "ip6",
            "ip6_tables_names",
        ),
    ] {
        let has_legacy = std::fs::read(format!("/proc/thread-self/net/{legacy}"));
        let has_legacy = has_legacy.is_ok_and(|names| !names.is_empty());
        let of_family = tables.iter().any(|(found, _)| *found == family);
        let mut text = Vec::new();
        if has_legacy || of_family {
            // The tables of the older interface are those of a program of its own, where there are two.
            let older = program.replace("tables-", "tables-legacy-");
            let told = match has_legacy {
                true => run(&older, &[])?.or(run(program, &[])?),
                false => run(program, &[])?,
            };
            match told {
                Some(told) => text = told,
                None if has_legacy => return Err(Error::Missing { program }),
                None => {}
            }
        }
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(table) = line.strip_prefix(b"*") {
                owned.push((family, table.to_vec()));
            }
        }
        found.push((kind, stripped(&text)));
    }
    let mut text = Vec::new();
    for (family, name) in &tables {
        if !owned.contains(&(*family, name.clone())) {
            text.extend_from_slice(&table(family, name)?);
        }
    }
    found.push((ImageKind::Nftables, text));
    Ok(found)
}

/// Text without the lines that tell when it was made: same state, same bytes.
fn stripped(text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.starts_with(b"#"))
        .flatten()
        .copied()
        .collect()
}

/// A table of nftables, as text.
fn table(family: &str, name: &[u8]) -> Result<Vec<u8>, Error> {
    let program = "nft";
    let name = String::from_utf8_lossy(name);
    let told = run(program, &["list", "table", family, &name])?;
    told.ok_or(Error::Missing { program })
}

/// Families and names of the tables of nftables.
fn tables() -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let failed = Error::kernel("list", "the tables of nftables");
    let channel = match Channel::netfilter() {
        // A kernel without.
        Err(Errno::PROTONOSUPPORT) => return Ok(Vec::new()),
        channel => channel.map_err(&failed)?,
    };
    let all = match channel.dump(GET_TABLE, &[0; FIXED]) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Vec::new()),
        all => all.map_err(&failed)?,
    };
    let mut found = Vec::new();
    for message in messages(&all) {
        let message = message.ok_or(Errno::BADMSG).map_err(&failed)?;
        let family = message.body.first().copied().unwrap_or_default();
        let attributes = Attributes(message.body.get(FIXED..).unwrap_or_default());
        let family = FAMILIES.iter().find(|(number, _)| *number == family);
        if let (Some((_, family)), Some(name)) = (family, attributes.text(NAME)) {
            found.push((*family, name.to_vec()));
        }
    }
    Ok(found)
}

/// Runs a program in the namespace of the calling thread; `None` if there is no such program.
fn run(program: &str, arguments: &[&str]) -> Result<Option<Vec<u8>>, Error> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:{PLACES}"))
        .current_dir("/")
        .stdin(Stdio::null())
        .output();
    let program = program.to_owned();
    match output {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Run { program, source }),
        Ok(output) if output.status.success() => Ok(Some(output.stdout)),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr);
            let message = message.lines().next().unwrap_or("it did not say why");
            let message = message.to_owned();
            Err(Error::Failed { program, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_left_out() {
        let text = b"# Generated by x on Monday\n*filter\nCOMMIT\n# Completed on Monday\n";
        assert_eq!(stripped(text), b"*filter\nCOMMIT\n");
    }

    #[test]
    fn programs_that_are_missing_are_none() {
        assert_eq!(run("gelid-no-such-program", &[]).unwrap(), None);
        assert!(run("false", &[]).is_err());
        assert_eq!(run("printf", &["x"]).unwrap(), Some(b"x".to_vec()));
    }
}
