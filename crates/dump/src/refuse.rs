//! What is not dumped, by name, with the remedy.

use std::fmt;

use gelid_sys::Pid;
use gelid_sys::proc::smaps::{Area, VmFlags};

use crate::namespace::MountRefusal;
use crate::vma::{self, Kind};

/// Something in the tree that could not be restored faithfully.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A namespace that is not the root's.
    #[error(
        "task {pid} ({comm}) is in another {kind} namespace than the root of its tree, which is not dumped yet: \
         choose that task as the root, or run all of the tree in one namespace"
    )]
    Nested {
        /// The task.
        pid: Pid,
        /// Its name.
        comm: String,
        /// The kind of namespace.
        kind: &'static str,
    },
    /// Clocks that no restore could set.
    #[error("task {pid} {why}, which is not dumped yet: end it, or choose a root below it")]
    Clocks {
        /// The task.
        pid: Pid,
        /// What it has.
        why: &'static str,
    },
    /// The root is in a pid namespace, but not its first process.
    #[error(
        "process {pid} ({comm}) is in a pid namespace of its own, but not the first process there: \
         dump that one, or from inside of the namespace"
    )]
    NotInit {
        /// The root.
        pid: Pid,
        /// Its name.
        comm: String,
    },
    /// Pid namespaces that a restore could not make in this way.
    #[error("task {pid} ({comm}) {what}: choose another root, or end it first")]
    OddNumbers {
        /// The task.
        pid: Pid,
        /// Its name.
        comm: String,
        /// What is odd.
        what: &'static str,
    },
    /// A thread that has no number where its tree has.
    #[error(
        "thread {tid} is not in the pid namespace of the root of its tree: choose a root that is in both"
    )]
    Unnumbered {
        /// The thread.
        tid: Pid,
    },
    /// A mount of a kind that is not dumped.
    #[error("mount {point} ({fs_type}) is {why}")]
    Mount {
        /// Where it is in the namespace.
        point: String,
        /// Its file system.
        fs_type: String,
        /// The kind, and what to do about it.
        why: MountRefusal,
    },
    /// A task has users or groups that its user namespace does not have.
    #[error(
        "task {tid} has the {what} {id} of outside, which its user namespace does not map: \
         map it, or start the program without it"
    )]
    Stranger {
        /// The task or thread.
        tid: i32,
        /// `user` or `group`.
        what: &'static str,
        /// Its number outside.
        id: u32,
    },
    /// Strict mode or filters.
    #[error(
        "task {pid} ({comm}) is under seccomp (mode {mode}), which can be suspended only with CAP_SYS_ADMIN and by \
         a dumper that is under no filter itself: run the dump as root, outside of the sandbox"
    )]
    Seccomp {
        /// The task.
        pid: Pid,
        /// Its name.
        comm: String,
        /// 1 strict, 2 filters.
        mode: u32,
    },
    /// The root is in the session of somebody outside.
    #[error(
        "process {pid} ({comm}) is in session {sid}, whose leader is not in the tree: \
         use --shell-job, or start it with setsid"
    )]
    ShellJob {
        /// The root.
        pid: Pid,
        /// Its name.
        comm: String,
        /// The session.
        sid: i32,
    },
    /// A process is in a session or group whose leader lives, but not in the tree.
    #[error(
        "process {pid} ({comm}) is in {what} {id}, whose leader runs outside of the tree: \
         choose a root that is the ancestor of both"
    )]
    Foreign {
        /// The process.
        pid: Pid,
        /// Its name.
        comm: String,
        /// `session` or `process group`.
        what: &'static str,
        /// The leader.
        id: i32,
    },
    /// A thread has a table of its own.
    #[error(
        "thread {tid} of process {pid} ({comm}) has {what} of its own (unshare), which is not dumped yet: \
         end that thread first"
    )]
    Unshared {
        /// The process.
        pid: Pid,
        /// The thread.
        tid: Pid,
        /// Name of the process.
        comm: String,
        /// What is not shared.
        what: &'static str,
    },
    /// A mapping of a kind that is not dumped.
    #[error("task {pid}: mapping {start:x}-{end:x} {name} is {why}")]
    Mapping {
        /// The task.
        pid: Pid,
        /// First address.
        start: u64,
        /// Address behind the last.
        end: u64,
        /// What `maps` calls it.
        name: String,
        /// The kind, and what to do about it.
        why: Unmappable,
    },
}

/// A kind of mapping that is not dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmappable {
    /// Memory of a device.
    Device,
    /// Registered with userfaultfd.
    Userfaultfd,
    /// A shadow stack.
    ShadowStack,
    /// The trampoline of uprobes.
    Uprobes,
    /// Made by the kernel for a purpose that is not known.
    Special,
    /// Has a flag that is not known.
    UnknownFlag,
}

impl fmt::Display for Unmappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "memory of a device: close the device first",
            Self::Userfaultfd => {
                "registered with userfaultfd, which is not dumped yet: unregister it first"
            }
            Self::ShadowStack => {
                "a shadow stack, which is not dumped yet: run the program with \
                 GLIBC_TUNABLES=glibc.cpu.x86_shstk=off"
            }
            Self::Uprobes => "the trampoline of uprobes: remove the probes first",
            Self::Special => "made by the kernel for a purpose that gelid does not know",
            Self::UnknownFlag => {
                "of a kind that gelid does not know: it has an unknown flag in smaps"
            }
        })
    }
}

/// Refuses mappings that are not dumped.
pub(crate) fn mappings(pid: Pid, areas: &[Area]) -> Result<(), Refusal> {
    let refused = areas.iter().find_map(|area| Some((area, why(area)?)));
    let Some((area, why)) = refused else {
        return Ok(());
    };
    Err(Refusal::Mapping {
        pid,
        start: area.map.start,
        end: area.map.end,
        name: String::from_utf8_lossy(&area.map.path).into_owned(),
        why,
    })
}

fn why(area: &Area) -> Option<Unmappable> {
    let kind = vma::kind(area);
    let userfaultfd = VmFlags::UFFD_MISSING | VmFlags::UFFD_WP | VmFlags::UFFD_MINOR;
    let known = match kind {
        // What the kernel made is made anew, sealed or not.
        Kind::Vsyscall | Kind::Vdso | Kind::Vvar => return None,
        Kind::Uprobes => Some(Unmappable::Uprobes),
        Kind::Special => Some(Unmappable::Special),
        Kind::Heap | Kind::Anonymous | Kind::File | Kind::Segment | Kind::Ring | Kind::Aio => None,
    };
    let flagged = [
        (userfaultfd, Unmappable::Userfaultfd),
        (VmFlags::PFN_MAP | VmFlags::IO, Unmappable::Device),
        (VmFlags::SHADOW_STACK, Unmappable::ShadowStack),
        (VmFlags::UNKNOWN, Unmappable::UnknownFlag),
    ];
    let flagged = flagged
        .into_iter()
        .find(|(flags, _)| area.flags.intersects(*flags));
    known.or(flagged.map(|(_, why)| why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::proc::maps::Mapping;

    fn area(path: &[u8], flags: VmFlags) -> Area {
        let inode = u64::from(path.starts_with(b"/"));
        let map = Mapping {
            start: 0x1000,
            end: 0x2000,
            inode,
            path: path.to_vec(),
            ..Mapping::default()
        };
        Area {
            map,
            flags,
            ..Area::default()
        }
    }

    #[test]
    fn a_refusal_names_the_mapping_and_a_remedy() {
        let pid = Pid::from_raw(7).unwrap();
        let plain = area(b"[heap]", VmFlags::READ);
        let watched = area(b"", VmFlags::UFFD_WP);
        let error = mappings(pid, &[plain.clone(), watched]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "task 7: mapping 1000-2000  is registered with userfaultfd, which is not dumped yet: \
             unregister it first"
        );
        assert_eq!(mappings(pid, &[plain]), Ok(()));
    }

    #[test]
    fn what_the_kernel_made_for_every_task_is_not_refused() {
        let device = VmFlags::PFN_MAP | VmFlags::IO;
        assert_eq!(why(&area(b"[vvar]", device)), None);
        assert_eq!(why(&area(b"[vdso]", VmFlags::SEALED)), None);
        assert_eq!(why(&area(b"/dev/mem", device)), Some(Unmappable::Device));
        assert_eq!(why(&area(b"/SYSV00000000 (deleted)", VmFlags::READ)), None);
        assert_eq!(
            why(&area(b"[sigpage]", VmFlags::READ)),
            Some(Unmappable::Special)
        );
    }
}
