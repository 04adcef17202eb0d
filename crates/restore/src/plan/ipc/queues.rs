//! Queues and their messages: `ipcns-msg-*.img`.

use gelid_image::messages::{IpcMsg, IpcMsgEntry};
use gelid_image::{Dir, ImageKind};
use gelid_sys::ipc::msg::Message;

use super::super::PlanError;
use super::{Identity, wrong};

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) identity: Identity,
    /// Bytes it may hold.
    pub(crate) room: u32,
    /// The oldest first.
    pub(crate) messages: Vec<Message>,
}

const KIND: ImageKind = ImageKind::IpcnsMsg;

/// Reads the queues of a namespace.
pub(super) fn read(dir: &Dir, namespace: u32) -> Result<Vec<Queue>, PlanError> {
    let mut queues = Vec::new();
    let Some(mut reader) = dir.reader_opt(KIND, namespace)? else {
        return Ok(queues);
    };
    while let Some(entry) = reader.next::<IpcMsgEntry>()? {
        let identity = Identity::read(KIND, &entry.desc)?;
        let wrong = wrong(KIND, entry.desc.id);
        // Numbers of messages are those of the file, not those it claims.
        let mut messages = Vec::new();
        for _ in 0..entry.qnum {
            let record = reader.next::<IpcMsg>()?;
            let record = record.ok_or(wrong("has fewer messages than it says"))?;
            let kind = i64::try_from(record.mtype).ok().filter(|kind| *kind > 0);
            let kind = kind.ok_or(wrong("has a message of a type that none has"))?;
            let len = u64::from(record.msize);
            let text = reader.payload_padded(len, 8)?.bytes(len)?;
            messages.push(Message { kind, text });
        }
        queues.push(Queue {
            identity,
            room: entry.qbytes,
            messages,
        });
    }
    Ok(queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(qnum: u32, messages: &[(u64, u32, &[u8])]) -> Result<Vec<Queue>, PlanError> {
        let scratch = tempfile::tempdir().unwrap();
        let mut image = gelid_image::header(KIND);
        let entry = IpcMsgEntry {
            qnum,
            qbytes: 100,
            ..IpcMsgEntry::default()
        };
        gelid_image::append(&mut image, &entry);
        for (mtype, msize, payload) in messages {
            let message = IpcMsg {
                mtype: *mtype,
                msize: *msize,
            };
            gelid_image::append(&mut image, &message);
            image.extend(*payload);
        }
        std::fs::write(scratch.path().join("ipcns-msg-3.img"), image).unwrap();
        read(&Dir::open(scratch.path()).unwrap(), 3)
    }

    #[test]
    fn messages_are_read_and_bounded() {
        let queues = read_from(2, &[(7, 3, b"one\0\0\0\0\0"), (1, 0, b"")]).unwrap();
        let messages = &queues[0].messages;
        assert_eq!((messages[0].kind, &*messages[0].text), (7, &b"one"[..]));
        assert_eq!((messages[1].kind, messages[1].text.len()), (1, 0));
        read_from(1, &[(7, u32::MAX, b"one")]).unwrap_err();
        let wrong = |qnum, messages| read_from(qnum, messages).unwrap_err().to_string();
        assert!(wrong(u32::MAX, &[(7, 0, b"")]).contains("fewer messages"));
        assert!(wrong(1, &[(0, 0, b"")]).contains("a type that none has"));
        assert!(wrong(1, &[(u64::MAX, 0, b"")]).contains("a type that none has"));
    }
}
