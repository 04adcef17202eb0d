//! Queues of a namespace and what is in them: `ipcns-msg-*.img`.

use gelid_image::ImageWriter;
use gelid_image::messages::{IpcMsg, IpcMsgEntry};
use gelid_sys::Errno;
use gelid_sys::ipc::msg::{self, Message, Queue};

use super::{Object, description, failed};
use crate::Error;
use crate::namespace::Users;

/// Records all queues. Their messages stay where they are.
pub(super) fn record(writer: &mut ImageWriter, users: &Users) -> Result<(), Error> {
    let every = Object::Every("message queues");
    for queue in msg::all().map_err(failed("list", every))? {
        let messages = messages(&queue).map_err(|errno| match errno {
            Errno::INVAL => super::Error::Long { id: queue.id },
            errno => failed("look into", Object::Queue(queue.id))(errno),
        })?;
        writer.push(&IpcMsgEntry {
            desc: description(&queue.perm, queue.id, users),
            // The kernel has it as a long, its own setting is an int.
            qbytes: u32::try_from(queue.room).unwrap_or(u32::MAX),
            qnum: messages.len() as u32,
        })?;
        for message in messages {
            writer.push(&IpcMsg {
                mtype: message.kind.cast_unsigned(),
                msize: message.text.len() as u32,
            })?;
            let mut bytes = message.text;
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            writer.push_payload(&bytes)?;
        }
    }
    Ok(())
}

fn messages(queue: &Queue) -> Result<Vec<Message>, Errno> {
    /// What most systems allow.
    const USUAL: usize = 8192;
    let all = usize::try_from(queue.bytes).unwrap_or(usize::MAX);
    let mut messages = Vec::new();
    let mut longest = USUAL.min(all);
    loop {
        match msg::peek(queue.id, messages.len() as u32, longest) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break,
            Err(Errno::TOOBIG) if longest < all => longest = longest.saturating_mul(2).min(all),
            Err(errno) => return Err(errno),
        }
    }
    match messages.len() as u64 == queue.count {
        true => Ok(messages),
        // Somebody outside of the tree is busy with it.
        false => Err(Errno::AGAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_seen_whole() {
        let id = msg::create(0, 0o600).unwrap();
        let sent: Vec<_> = [(3, 0), (1, 8000), (2, 100)]
            .map(|(kind, len)| Message {
                kind,
                text: vec![kind as u8; len],
            })
            .into();
        for message in &sent {
            msg::send(id, message).unwrap();
        }
        let queue = msg::stat(id).unwrap();
        let seen = messages(&queue);
        let wrong = messages(&Queue { count: 4, ..queue });
        msg::remove(id).unwrap();
        assert_eq!(seen, Ok(sent));
        assert_eq!(wrong, Err(Errno::AGAIN));
    }
}
