//! Sysctls of a network namespace and of its links.

use gelid_image::ImageKind;
use gelid_image::device_sysctls::{IPV4, IPV6};
use gelid_image::messages::{GelidSysctlEntry, NetDeviceEntry, NetnsEntry, SysctlEntry};

use super::wrong;
use crate::plan::PlanError;

/// Everybody's pings are refused.
const NO_PING: &[u8] = b"1\t0";

/// A sysctl and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    /// Path below `/proc/sys/net`; of a link without its name, which comes third.
    pub(crate) path: String,
    pub(crate) value: Vec<u8>,
    /// Each kernel has it, or the caller says that it need not: `--weak-sysctls`.
    pub(crate) expected: bool,
}

/// Those of a namespace, in the order in which they are set.
pub(super) fn of_namespace(id: u32, entry: &NetnsEntry) -> Result<Vec<Sysctl>, PlanError> {
    let gelid = entry.gelid.iter().flat_map(|gelid| &gelid.sysctls);
    let (devices, mut all): (Vec<_>, Vec<_>) = beyond(id, gelid)?
        .into_iter()
        .partition(|sysctl| sysctl.path.contains("/conf/") || sysctl.path.contains("/neigh/"));
    all.extend(entry.unix_conf.first().and_then(|value| {
        let value = value.iarg?.to_string().into_bytes();
        let path = "unix/max_dgram_qlen".to_owned();
        Some(Sysctl {
            path,
            value,
            expected: true,
        })
    }));
    if let Some(value) = entry.ipv4_sysctl.first() {
        let value = value.sarg.as_ref().map_or(NO_PING, String::as_bytes);
        all.push(Sysctl {
            path: "ipv4/ping_group_range".to_owned(),
            value: value.to_vec(),
            expected: true,
        });
    }
    // What is set for all changes the default.
    for (family, place, names, values) in [
        ("ipv4", "all", &IPV4[..], &entry.all_conf4),
        ("ipv4", "default", &IPV4, &entry.def_conf4),
        ("ipv6", "all", &IPV6, &entry.all_conf6),
        ("ipv6", "default", &IPV6, &entry.def_conf6),
    ] {
        let prefix = format!("{family}/conf/{place}");
        all.extend(listed(id, &prefix, names, values)?);
    }
    all.extend(devices);
    Ok(all)
}

/// Those of a link, in the order in which they are set.
pub(super) fn of_link(id: u32, entry: &NetDeviceEntry) -> Result<Vec<Sysctl>, PlanError> {
    let mut all = listed(id, "ipv4/conf", &IPV4, &entry.conf4)?;
    all.extend(listed(id, "ipv6/conf", &IPV6, &entry.conf6)?);
    let gelid = entry.gelid.iter().flat_map(|gelid| &gelid.sysctls);
    all.extend(beyond(id, gelid)?);
    Ok(all)
}

/// Those of a list of the format.
fn listed(
    id: u32,
    prefix: &str,
    names: &[&str],
    values: &[SysctlEntry],
) -> Result<Vec<Sysctl>, PlanError> {
    if values.len() > names.len() {
        return Err(wrong(
            ImageKind::Netns,
            id,
            "too many sysctls",
            values.len(),
        ));
    }
    let both = names.iter().zip(values);
    let known = both.filter_map(|(name, value)| {
        let number = value.iarg.map(|number| number.to_string());
        let value = number.or_else(|| value.sarg.clone())?;
        Some(Sysctl {
            path: format!("{prefix}/{name}"),
            value: value.into_bytes(),
            expected: true,
        })
    });
    Ok(known.collect())
}

/// Those that the lists lack.
fn beyond<'a>(
    id: u32,
    entries: impl Iterator<Item = &'a GelidSysctlEntry>,
) -> Result<Vec<Sysctl>, PlanError> {
    entries
        .map(|entry| {
            let names = entry.name.split('/');
            let sound = |name: &str| {
                !name.is_empty() && name != "." && name != ".." && name.bytes().all(|b| b > b' ')
            };
            match names.into_iter().all(sound) {
                true => Ok(Sysctl {
                    path: entry.name.clone(),
                    value: entry.value.clone(),
                    expected: false,
                }),
                false => Err(wrong(
                    ImageKind::Netns,
                    id,
                    "no sysctl is called so",
                    &entry.name,
                )),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::{GelidNetnsEntry, SysctlType};

    fn number(value: i32) -> SysctlEntry {
        SysctlEntry {
            r#type: SysctlType::Ctl32.into(),
            iarg: Some(value),
            sarg: None,
        }
    }

    fn beyond_of(name: &str) -> NetnsEntry {
        let entry = GelidSysctlEntry {
            name: name.to_owned(),
            value: b"1".to_vec(),
        };
        NetnsEntry {
            gelid: Some(GelidNetnsEntry {
                sysctls: vec![entry],
                ..GelidNetnsEntry::default()
            }),
            all_conf4: vec![number(1), number(0)],
            ..NetnsEntry::default()
        }
    }

    #[test]
    fn those_of_devices_come_last() {
        let paths = |name| {
            let all = of_namespace(9, &beyond_of(name)).unwrap();
            all.into_iter()
                .map(|sysctl| sysctl.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(paths("ipv4/ip_forward")[0], "ipv4/ip_forward");
        let all = paths("ipv6/conf/default/addr_gen_mode");
        assert_eq!(all[0], "ipv4/conf/all/accept_local");
        assert_eq!(all.last().unwrap(), "ipv6/conf/default/addr_gen_mode");
    }

    #[test]
    fn paths_do_not_lead_out() {
        for name in ["../kernel/core_pattern", "a//b", "/x", "", "a/./b", "a b"] {
            assert!(of_namespace(9, &beyond_of(name)).is_err(), "{name}");
        }
        let mut entry = beyond_of("x");
        entry.all_conf6 = vec![number(1); 43];
        assert!(of_namespace(9, &entry).is_err());
    }
}
