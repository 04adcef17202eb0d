//! Sysctls of a network namespace, read by a thread that is in it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gelid_image::device_sysctls::{IPV4, IPV6, STABLE_SECRET};
use gelid_image::messages::{GelidSysctlEntry, SysctlEntry, SysctlType};

use super::Error;

const ROOT: &str = "/proc/sys/net";

/// What begins to work when it is written, or is told in its own field.
const NOT_STATE: [&str; 4] = [
    "ipv4/route/flush",
    "ipv6/route/flush",
    "ipv4/ping_group_range",
    "unix/max_dgram_qlen",
];

/// Groups that may send pings unless something else is said: none.
const NO_PING: &[u8] = b"1\t0";

/// Values of the IPv4 list for a device, `all` or `default`.
pub(super) fn ipv4(device: &str) -> Result<Vec<SysctlEntry>, Error> {
    list("ipv4", device, &IPV4)
}

/// Values of the IPv6 list.
pub(super) fn ipv6(device: &str) -> Result<Vec<SysctlEntry>, Error> {
    list("ipv6", device, &IPV6)
}

fn list(family: &str, device: &str, names: &[&str]) -> Result<Vec<SysctlEntry>, Error> {
    let entry = |name: &&str| {
        let value = read(&format!("{family}/conf/{device}/{name}"))?;
        Ok(match *name == STABLE_SECRET {
            true => text(value),
            false => number(value),
        })
    };
    names.iter().map(entry).collect()
}

fn text(value: Option<Vec<u8>>) -> SysctlEntry {
    SysctlEntry {
        r#type: SysctlType::CtlStr.into(),
        iarg: None,
        sarg: value.and_then(|value| String::from_utf8(value).ok()),
    }
}

fn number(value: Option<Vec<u8>>) -> SysctlEntry {
    let digits = value.and_then(|value| String::from_utf8(value).ok());
    SysctlEntry {
        r#type: SysctlType::Ctl32.into(),
        // Some of them are unsigned.
        iarg: digits.and_then(|digits| digits.parse::<i64>().ok().map(|number| number as i32)),
        sarg: None,
    }
}

/// How long a queue of datagrams may become.
pub(super) fn unix() -> Result<SysctlEntry, Error> {
    Ok(number(read("unix/max_dgram_qlen")?))
}

/// Which groups may send pings.
pub(super) fn ping() -> Result<SysctlEntry, Error> {
    let value = read("ipv4/ping_group_range")?;
    Ok(text(value.filter(|value| value != NO_PING)))
}

/// Whatever else can be set in the namespace and is not of a device.
pub(super) fn others() -> Result<Vec<GelidSysctlEntry>, Error> {
    let mut found = Vec::new();
    walk("", &mut found)?;
    for family in ["ipv4", "ipv6"] {
        for place in ["all", "default"] {
            for (name, value) in unlisted(family, "conf", place)? {
                let name = format!("{family}/conf/{place}/{name}");
                found.push(GelidSysctlEntry { name, value });
            }
        }
        let place = "default";
        for (name, value) in unlisted(family, "neigh", place)? {
            let name = format!("{family}/neigh/{place}/{name}");
            found.push(GelidSysctlEntry { name, value });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Whatever else can be set for a device, and differs from what a new one has.
pub(super) fn of_device(device: &str) -> Result<Vec<GelidSysctlEntry>, Error> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        for kind in ["conf", "neigh"] {
            let usual = unlisted(family, kind, "default")?;
            for (name, value) in unlisted(family, kind, device)? {
                if usual.contains(&(name.clone(), value.clone())) {
                    continue;
                }
                let name = format!("{family}/{kind}/{name}");
                found.push(GelidSysctlEntry { name, value });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Sysctls of a device that the lists of the format lack.
fn unlisted(family: &str, kind: &str, device: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let listed: &[&str] = match (family, kind) {
        ("ipv4", "conf") => &IPV4,
        (_, "conf") => &IPV6,
        _ => &[],
    };
    let mut found = Vec::new();
    for (name, is_directory, writable) in entries(&format!("{family}/{kind}/{device}"))? {
        if is_directory || !writable || listed.contains(&name.as_str()) {
            continue;
        }
        // The same time in a coarser unit.
        let finer = ["retrans_time", "base_reachable_time"];
        if finer.contains(&name.as_str()) {
            continue;
        }
        if let Some(value) = read(&format!("{family}/{kind}/{device}/{name}"))? {
            found.push((name, value));
        }
    }
    Ok(found)
}

fn walk(directory: &str, found: &mut Vec<GelidSysctlEntry>) -> Result<(), Error> {
    for (name, is_directory, writable) in entries(directory)? {
        let name = match directory {
            "" => name,
            _ => format!("{directory}/{name}"),
        };
        if is_directory {
            if !name.ends_with("/conf") && !name.ends_with("/neigh") {
                walk(&name, found)?;
            }
        } else if writable
            && !NOT_STATE.contains(&name.as_str())
            && let Some(value) = read(&name)?
        {
            found.push(GelidSysctlEntry { name, value });
        }
    }
    Ok(())
}

/// What a directory below `/proc/sys/net` holds: names, which are directories, and which can be written.
fn entries(directory: &str) -> Result<Vec<(String, bool, bool)>, Error> {
    let path = Path::new(ROOT).join(directory);
    let failed = |source| Error::Sysctl {
        name: directory.to_owned(),
        source,
    };
    let mut found = Vec::new();
    let directory = match fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        directory => directory.map_err(failed)?,
    };
    for entry in directory {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        let writable = metadata.permissions().mode() & 0o222 != 0;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, metadata.is_dir(), writable));
        }
    }
    Ok(found)
}

/// The value of a sysctl without the end of its line; `None` if there is none, or it has no value.
fn read(name: &str) -> Result<Option<Vec<u8>>, Error> {
    /// No value is longer.
    const LONGEST: u64 = 64 << 10;
    let mut value = Vec::new();
    let file = fs::File::open(Path::new(ROOT).join(name));
    let taken = file.and_then(|file| file.take(LONGEST).read_to_end(&mut value));
    match taken {
        Ok(_) => {
            if value.last() == Some(&b'\n') {
                value.pop();
            }
            Ok(Some(value))
        }
        // A secret that was never set; what can only be written.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(source) => {
            let name = name.to_owned();
            Err(Error::Sysctl { name, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_a_place_for_each_name() {
        let (four, six) = (ipv4("lo").unwrap(), ipv6("lo").unwrap());
        assert_eq!((four.len(), six.len()), (30, 42));
        assert!(four[12].iarg.is_some());
        assert_eq!(ipv4("no-such-device").unwrap()[12].iarg, None);
        assert!(unix().unwrap().iarg.unwrap() > 0);
    }

    #[test]
    fn the_rest_is_found_by_a_walk() {
        let found = others().unwrap();
        let has = |name: &str| found.iter().any(|entry| entry.name == name);
        assert!(has("ipv4/ip_local_port_range") && has("ipv6/conf/default/addr_gen_mode"));
        assert!(has("ipv4/neigh/default/gc_stale_time"));
        assert!(!has("ipv4/route/flush") && !has("ipv4/conf/all/forwarding"));
    }
}
