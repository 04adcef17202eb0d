//! What the caller says about files.

use std::collections::HashSet;

use super::{Collector, Error};
use crate::{End, Options, Validation};

/// The options that concern files, understood.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Mount and inode of files that are not the tree's.
    pub(super) external: HashSet<(i32, u64)>,
    /// Device of terminals that are not the tree's, and the device that their node is on.
    pub(super) terminals: HashSet<(u32, u32)>,
    /// Inodes of Unix sockets whose peer is outside, and which the restore will be given.
    pub(super) sockets: HashSet<u32>,
    /// Whether datagram sockets outside may be peers, to be connected with by name.
    pub(super) outside_by_name: bool,
    /// Inode of the socket of whoever was asked for this dump.
    pub(super) service: Option<u32>,
    /// Whether connections that nobody has accepted may be dropped.
    pub(super) skip_in_flight: bool,
    /// Whether there may be connections of TCP.
    pub(super) tcp_established: bool,
    /// Whether they are to be closed on restore.
    pub(super) tcp_close: bool,
    /// Who keeps packets away from them.
    pub(super) network_lock: gelid_netlock::Method,
    /// Name of the dump.
    pub(super) run_id: String,
    pub(super) build_ids: bool,
    pub(super) ghost_limit: u64,
    pub(super) link_remap: bool,
    /// Whether a terminal may have its master outside.
    pub(super) orphan_terminal: bool,
    pub(super) evasive_devices: bool,
    pub(super) file_locks: bool,
    /// Whether the tree ends when it is dumped.
    pub(super) ends: bool,
}

impl Choices {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let mut choices = Self {
            external: HashSet::new(),
            terminals: HashSet::new(),
            sockets: HashSet::new(),
            outside_by_name: options.ext_unix_sk,
            service: options.service,
            skip_in_flight: options.skip_in_flight,
            tcp_established: options.tcp_established,
            tcp_close: options.tcp_close,
            network_lock: options.network_lock,
            run_id: options.run_id.clone().unwrap_or_default(),
            build_ids: options.validation == Validation::BuildId,
            ghost_limit: options.ghost_limit,
            link_remap: options.link_remap,
            orphan_terminal: options.shell_job || options.orphan_pts_master,
            evasive_devices: options.evasive_devices,
            file_locks: options.file_locks,
            ends: options.end == End::Kill,
        };
        choices.name(&options.external)?;
        Ok(choices)
    }

    /// Takes note of keys of what is external.
    pub(super) fn name(&mut self, keys: &[String]) -> Result<(), Error> {
        for key in keys {
            let wrong = || Error::External { key: key.clone() };
            if let Some(rest) = key.strip_prefix("file[") {
                self.external.insert(file(rest).ok_or_else(wrong)?);
            }
            if let Some(rest) = key.strip_prefix("tty[") {
                self.terminals.insert(terminal(rest).ok_or_else(wrong)?);
            }
            if let Some(rest) = key.strip_prefix("unix[") {
                self.sockets.insert(socket(rest).ok_or_else(wrong)?);
            }
        }
        Ok(())
    }
}

impl Collector<'_> {
    /// Takes note of more that is outside of the tree, as `--external` has it.
    pub(crate) fn name(&mut self, external: &[String]) -> Result<(), Error> {
        self.options.name(external)
    }
}

/// Understands what follows `file[`.
fn file(rest: &str) -> Option<(i32, u64)> {
    let (inside, _) = rest.split_once(']')?;
    let (mount, inode) = inside.split_once(':')?;
    let mount = i32::from_str_radix(mount, 16).ok()?;
    Some((mount, u64::from_str_radix(inode, 16).ok()?))
}

/// Understands what follows `tty[`.
fn terminal(rest: &str) -> Option<(u32, u32)> {
    let (inside, _) = rest.split_once(']')?;
    let (rdev, dev) = inside.split_once(':')?;
    let rdev = u32::from_str_radix(rdev, 16).ok()?;
    Some((rdev, u32::from_str_radix(dev, 16).ok()?))
}

/// Understands what follows `unix[`.
fn socket(rest: &str) -> Option<u32> {
    let (inode, _) = rest.split_once(']')?;
    inode.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hexadecimal() {
        assert_eq!(file("1d:ff]"), Some((0x1d, 0xff)));
        assert_eq!(file("1d:ff]:x"), Some((0x1d, 0xff)));
        for wrong in ["", "1d]", "1d:]", "x:1]", "1:2"] {
            assert_eq!(file(wrong), None, "{wrong}");
        }
        assert_eq!(
            (terminal("8803:1a]"), terminal("8803]")),
            (Some((0x8803, 0x1a)), None)
        );
        assert_eq!(
            (socket("17]"), socket("x]"), socket("17")),
            (Some(17), None, None)
        );
    }
}
