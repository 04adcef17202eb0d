//! Settings of a namespace, and its POSIX message queues: `ipcns-var-*.img`.

use std::ffi::CString;

use gelid_image::messages::{GelidMqueueEntry, IpcVarEntry};
use gelid_image::{Dir, ImageKind};

use super::super::PlanError;
use super::wrong;

/// Settings of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variables {
    /// Names in `/proc/sys` and values, in the order in which they are set.
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) posix: Vec<Posix>,
}

/// An empty POSIX message queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Posix {
    pub(crate) name: CString,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// The most messages, and the most bytes of each.
    pub(crate) limits: (u32, u32),
}

const KIND: ImageKind = ImageKind::IpcVar;

/// Reads those of a namespace.
pub(super) fn read(dir: &Dir, namespace: u32) -> Result<Option<Variables>, PlanError> {
    let Some(entry) = dir.read_opt::<IpcVarEntry>(KIND, namespace)? else {
        return Ok(None);
    };
    let wrong = wrong(KIND, namespace);
    if entry.sem_ctls.len() != 4 {
        return Err(wrong("has not four limits of semaphores"));
    }
    let mut posix = Vec::with_capacity(entry.mqueue.len());
    for queue in &entry.mqueue {
        posix.push(queue_of(queue).ok_or(wrong("has a message queue with an impossible name"))?);
    }
    Ok(Some(Variables {
        settings: settings(&entry),
        posix,
    }))
}

fn settings(entry: &IpcVarEntry) -> Vec<(&'static str, String)> {
    let sem: Vec<String> = entry.sem_ctls.iter().map(u32::to_string).collect();
    let mut settings = vec![
        ("kernel/sem", sem.join(" ")),
        ("kernel/msgmax", entry.msg_ctlmax.to_string()),
        ("kernel/msgmnb", entry.msg_ctlmnb.to_string()),
        ("kernel/msgmni", entry.msg_ctlmni.to_string()),
        ("kernel/shmmax", entry.shm_ctlmax.to_string()),
        ("kernel/shmall", entry.shm_ctlall.to_string()),
        ("kernel/shmmni", entry.shm_ctlmni.to_string()),
        ("kernel/shm_rmid_forced", entry.shm_rmid_forced.to_string()),
        ("fs/mqueue/queues_max", entry.mq_queues_max.to_string()),
        ("fs/mqueue/msg_max", entry.mq_msg_max.to_string()),
        ("fs/mqueue/msgsize_max", entry.mq_msgsize_max.to_string()),
    ];
    let optional = [
        ("fs/mqueue/msg_default", entry.mq_msg_default),
        ("fs/mqueue/msgsize_default", entry.mq_msgsize_default),
        ("kernel/msg_next_id", entry.msg_next_id),
        ("kernel/sem_next_id", entry.sem_next_id),
        ("kernel/shm_next_id", entry.shm_next_id),
    ];
    let there = optional.into_iter();
    settings.extend(there.filter_map(|(name, value)| Some((name, value?.to_string()))));
    settings
}

fn queue_of(entry: &GelidMqueueEntry) -> Option<Posix> {
    let name = CString::new(entry.name.clone()).ok()?;
    let impossible = [c"", c".", c".."].contains(&name.as_c_str());
    (!impossible && !entry.name.contains(&b'/')).then_some(Posix {
        name,
        mode: entry.mode & 0o7777,
        owner: (entry.uid, entry.gid),
        limits: (entry.most, entry.size),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(entry: &IpcVarEntry) -> Result<Option<Variables>, PlanError> {
        let scratch = tempfile::tempdir().unwrap();
        let mut image = gelid_image::header(KIND);
        gelid_image::append(&mut image, entry);
        std::fs::write(scratch.path().join("ipcns-var-3.img"), image).unwrap();
        read(&Dir::open(scratch.path()).unwrap(), 3)
    }

    #[test]
    fn settings_are_those_of_the_kernel() {
        let queue = |name: &[u8]| GelidMqueueEntry {
            name: name.to_vec(),
            most: 3,
            ..GelidMqueueEntry::default()
        };
        let entry = IpcVarEntry {
            sem_ctls: vec![1, 2, 3, 4],
            msg_next_id: Some(7),
            mqueue: vec![queue(b"q")],
            ..IpcVarEntry::default()
        };
        let read = read_from(&entry).unwrap().unwrap();
        let has = |name, value: &str| read.settings.contains(&(name, value.to_owned()));
        assert!(has("kernel/sem", "1 2 3 4") && has("kernel/msg_next_id", "7"));
        assert!(
            !read
                .settings
                .iter()
                .any(|(name, _)| *name == "kernel/shm_next_id")
        );
        assert_eq!(read.posix[0].limits, (3, 0));
        for name in [&b"/x"[..], b"", b"..", b"a\0"] {
            let mqueue = vec![queue(name)];
            read_from(&IpcVarEntry {
                mqueue,
                ..entry.clone()
            })
            .unwrap_err();
        }
        let sem_ctls = vec![1, 2];
        read_from(&IpcVarEntry { sem_ctls, ..entry }).unwrap_err();
    }
}
