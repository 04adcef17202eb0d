//! Namespaces that are not the tree's: the caller gives them back by a key on restore, `--external net[INODE]:KEY` and
//! `--external pid[INODE]:KEY`.

use gelid_image::ImageKind;
use gelid_image::messages::PidnsEntry;
use gelid_sys::proc::ns::Kind;

use super::Instance;
use crate::Error;
use crate::records::Context;

/// The key under which the caller will give a namespace back, if it is external; of several the last one counts.
pub(super) fn key(keys: &[String], kind: Kind, inode: u64) -> Option<&str> {
    let prefix = format!("{}[{inode}]", kind.name());
    let mut fitting = keys.iter().rev();
    fitting.find_map(|key| {
        let rest = key.strip_prefix(&prefix)?;
        Some(rest.strip_prefix(':').unwrap_or(rest))
    })
}

/// Records the key of the root's pid namespace, if it has one.
pub(super) fn dump_pids(instance: &Instance, context: Context<'_>) -> Result<(), Error> {
    if !instance.root {
        return Ok(());
    }
    let Some(key) = key(&context.options.external, instance.kind, instance.inode) else {
        return Ok(());
    };
    let entry = PidnsEntry {
        ext_key: Some(key.to_owned()),
    };
    Ok(context.staging.put(ImageKind::Pidns, instance.id, &entry)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_namespaces_have_a_key() {
        let keys = [
            "net[17]:one",
            "net[17]:two",
            "net[18]:three",
            "pid[17]:four",
            "mnt[]",
        ];
        let keys = keys.map(str::to_owned);
        assert_eq!(key(&keys, Kind::Net, 17), Some("two"));
        assert_eq!(key(&keys, Kind::Net, 18), Some("three"));
        assert_eq!(key(&keys, Kind::Pid, 17), Some("four"));
        assert_eq!(key(&keys, Kind::Pid, 18), None);
    }
}
