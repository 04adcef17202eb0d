//! `/proc/PID/mountinfo`: the mounts that a task sees, `proc_pid_mountinfo(5)`.

use super::maps::Dev;
use super::text::{Fields, Malformed, Result, decimal, lines, signed, split_once, unescape};
use super::{Error, TaskDir};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Id of the mount, as in `fdinfo`.
    pub id: i32,
    /// Id of the mount it stands on; of a mount that stands on nothing visible, an unknown one.
    pub parent: i32,
    /// Device of the filesystem.
    pub dev: Dev,
    /// Directory of the filesystem that is mounted.
    pub root: Vec<u8>,
    /// Where it stands, relative to the root of the task.
    pub mount_point: Vec<u8>,
    /// Options of the mount, with commas between them.
    pub options: Vec<u8>,
    /// Peer group, 0 if not shared.
    pub shared: i32,
    /// Peer group it receives from, 0 if it is no slave.
    pub master: i32,
    /// Nearest dominating peer group under the task's root, 0 if not told.
    pub propagate_from: i32,
    /// May not be bound.
    pub unbindable: bool,
    /// Filesystem, with a subtype behind a dot (`fuse.sshfs`).
    pub fs_type: Vec<u8>,
    /// What was mounted, as told to `mount`.
    pub source: Vec<u8>,
    /// Options of the filesystem, with commas between them.
    pub super_options: Vec<u8>,
}

/// Reads and parses `mountinfo`, in the kernel's order.
pub fn read(task: &TaskDir) -> std::result::Result<Vec<MountInfo>, Error> {
    let mut mounts = Vec::with_capacity(32);
    task.each_line("mountinfo", |line| {
        mounts.push(parse_line(line)?);
        Ok(())
    })?;
    Ok(mounts)
}

/// Parses the text of `mountinfo`.
pub fn parse(text: &[u8]) -> Result<Vec<MountInfo>> {
    lines(text).map(parse_line).collect()
}

/// Parses one line, without its newline.
pub fn parse_line(line: &[u8]) -> Result<MountInfo> {
    let mut fields = Fields(line);
    let (id, parent) = (fields.need("mount id")?, fields.need("parent id")?);
    let (major, minor) = split_once(fields.need("device")?, b':').ok_or(Malformed("device"))?;
    let mut mount = MountInfo {
        id: signed(id, "mount id")?,
        parent: signed(parent, "parent id")?,
        dev: Dev {
            major: decimal(major, "device")?,
            minor: decimal(minor, "device")?,
        },
        root: unescape(fields.need("root")?, None),
        mount_point: unescape(fields.need("mount point")?, None),
        options: fields.need("options")?.to_vec(),
        shared: 0,
        master: 0,
        propagate_from: 0,
        unbindable: false,
        fs_type: Vec::new(),
        source: Vec::new(),
        super_options: Vec::new(),
    };
    loop {
        match fields.need("separator")? {
            b"-" => break,
            b"unbindable" => mount.unbindable = true,
            field => propagation(&mut mount, field)?,
        }
    }
    mount.fs_type = unescape(fields.need("filesystem")?, None);
    tail(&mut mount, fields.0);
    Ok(mount)
}

fn propagation(mount: &mut MountInfo, field: &[u8]) -> Result<()> {
    // Tags that a later kernel adds are for others.
    let Some((key, group)) = split_once(field, b':') else {
        return Ok(());
    };
    match key {
        b"shared" => mount.shared = signed(group, "shared")?,
        b"master" => mount.master = signed(group, "master")?,
        b"propagate_from" => mount.propagate_from = signed(group, "propagate_from")?,
        _ => {}
    }
    Ok(())
}

/// Source and super options: each follows one blank, and the source may be empty.
fn tail(mount: &mut MountInfo, rest: &[u8]) {
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (source, options) = split_once(rest, b' ').unwrap_or((rest, b""));
    mount.source = unescape(source, None);
    mount.super_options = unescape(options, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = b"36 35 98:0 /mnt1\\040x /mnt2\\012 rw,noatime shared:1 master:2 propagate_from:3 unbindable \
            new:7 - ext3 /dev/root rw,errors=continue";
        let mount = parse_line(line).unwrap();
        assert_eq!(
            (mount.id, mount.parent, mount.dev),
            (
                36,
                35,
                Dev {
                    major: 98,
                    minor: 0
                }
            )
        );
        assert_eq!(
            (&mount.root[..], &mount.mount_point[..]),
            (&b"/mnt1 x"[..], &b"/mnt2\n"[..])
        );
        assert_eq!(
            (mount.shared, mount.master, mount.propagate_from),
            (1, 2, 3)
        );
        assert!(mount.unbindable);
        assert_eq!(
            (&mount.fs_type[..], &mount.source[..]),
            (&b"ext3"[..], &b"/dev/root"[..])
        );
        assert_eq!(mount.super_options, b"rw,errors=continue");
    }

    #[test]
    fn a_source_may_be_empty() {
        let mount = parse_line(b"1 1 0:5 / /x rw - tmpfs  rw,size=4k").unwrap();
        assert_eq!(
            (&mount.source[..], &mount.super_options[..]),
            (&b""[..], &b"rw,size=4k"[..])
        );
    }

    #[test]
    fn wrong_lines_are_refused() {
        assert_eq!(parse_line(b""), Err(Malformed("mount id")));
        assert_eq!(parse_line(b"1 2 3:4 / / rw"), Err(Malformed("separator")));
        assert_eq!(
            parse_line(b"1 2 34 / / rw - x y z"),
            Err(Malformed("device"))
        );
        assert_eq!(
            parse_line(b"1 2 3:4 / / rw shared:x - x y z"),
            Err(Malformed("shared"))
        );
    }
}
