//! Queues of messages: `msgget(2)`, `msgctl(2)`, `msgsnd(2)`, and a look that takes nothing (`MSG_COPY`).

use std::mem::MaybeUninit;

use rustix::io::{Errno, Result};

use super::{PERMISSIONS, Perm, collect};
use crate::syscall::call;

const INFO: i32 = 12;
const STAT_ANY: i32 = 13;
const COPY: i32 = 0o40000;

/// A queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub id: i32,
    /// Owners and permissions.
    pub perm: Perm,
    /// Bytes it may hold.
    pub room: u64,
    /// Bytes it holds.
    pub bytes: u64,
    /// Messages in it.
    pub count: u64,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type, more than 0.
    pub kind: i64,
    /// What it says.
    pub text: Vec<u8>,
}

/// All queues.
///
/// # Errors
///
/// As `msgctl(2)`.
pub fn all() -> Result<Vec<Queue>> {
    let mut info = [0_u64; 16];
    // SAFETY: the kernel writes a `msginfo` of 32 bytes.
    let highest = unsafe { control(0, INFO, info.as_mut_ptr() as usize) }?;
    collect(highest as i32, |place| look(place, STAT_ANY))
}

/// One queue.
///
/// # Errors
///
/// `EINVAL` or `EIDRM` if there is none of that id.
pub fn stat(id: i32) -> Result<Queue> {
    look(id, libc::IPC_STAT)
}

fn look(place: i32, command: i32) -> Result<Queue> {
    let mut found = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: the kernel writes one such structure.
    let id = unsafe { control(place, command, found.as_mut_ptr() as usize) }?;
    // SAFETY: zeros and what the kernel has written are such a structure.
    let found = unsafe { found.assume_init() };
    Ok(Queue {
        id: if command == libc::IPC_STAT {
            place
        } else {
            id as i32
        },
        perm: found.msg_perm.into(),
        room: found.msg_qbytes,
        bytes: found.__msg_cbytes,
        count: found.msg_qnum,
    })
}

/// Makes a queue that was not there.
///
/// # Errors
///
/// `EEXIST` if the key is taken, `ENOSPC` for limits.
pub fn create(key: i32, mode: u32) -> Result<i32> {
    let flags = (mode & PERMISSIONS).cast_signed() | libc::IPC_CREAT | libc::IPC_EXCL;
    // SAFETY: numbers alone are passed.
    let id = unsafe {
        call(
            libc::SYS_msgget as usize,
            [key as usize, flags as usize, 0, 0, 0, 0],
        )
    }?;
    Ok(id as i32)
}

/// Sets owner, group, permissions and room.
///
/// # Errors
///
/// As `msgctl(2)` of `IPC_SET`: `EPERM` for more room than `kernel.msgmnb` without `CAP_SYS_RESOURCE`.
pub fn own(id: i32, perm: &Perm, room: u64) -> Result<()> {
    // SAFETY: a structure of numbers.
    let mut new: libc::msqid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
    new.msg_perm.uid = perm.uid;
    new.msg_perm.gid = perm.gid;
    new.msg_perm.mode = (perm.mode & PERMISSIONS) as _;
    new.msg_qbytes = room;
    // SAFETY: the kernel reads one such structure.
    unsafe { control(id, libc::IPC_SET, (&raw const new) as usize) }?;
    Ok(())
}

/// Copies the message at a place in the queue, the oldest being 0; `None` behind the last. `longest` is the most bytes
/// that one has.
///
/// # Errors
///
/// `E2BIG` if it is longer, `EACCES` without leave to read, `ENOSYS` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn peek(id: i32, place: u32, longest: usize) -> Result<Option<Message>> {
    let mut buffer = vec![0; 8 + longest];
    let flags = COPY | libc::IPC_NOWAIT;
    let args = [
        id as usize,
        buffer.as_mut_ptr() as usize,
        longest,
        place as usize,
        flags as usize,
        0,
    ];
    // SAFETY: the kernel writes a type and up to `longest` bytes, for which there is room.
    let len = match unsafe { call(libc::SYS_msgrcv as usize, args) } {
        Err(Errno::NOMSG) => return Ok(None),
        len => len?,
    };
    let text = buffer.get(8..8 + len).ok_or(Errno::IO)?.to_vec();
    let kind = buffer.first_chunk().map(|bytes| i64::from_ne_bytes(*bytes));
    Ok(Some(Message {
        kind: kind.ok_or(Errno::IO)?,
        text,
    }))
}

/// Puts a message into a queue that has room for it.
///
/// # Errors
///
/// `EAGAIN` if it has not, `EINVAL` if it is longer than `kernel.msgmax` or of no possible type.
pub fn send(id: i32, message: &Message) -> Result<()> {
    let mut buffer = Vec::with_capacity(8 + message.text.len());
    buffer.extend_from_slice(&message.kind.to_ne_bytes());
    buffer.extend_from_slice(&message.text);
    let flags = libc::IPC_NOWAIT as usize;
    let args = [
        id as usize,
        buffer.as_ptr() as usize,
        message.text.len(),
        flags,
        0,
        0,
    ];
    // SAFETY: the kernel reads a type and as many bytes as it was told.
    unsafe { call(libc::SYS_msgsnd as usize, args) }?;
    Ok(())
}

/// Removes a queue with what is in it.
///
/// # Errors
///
/// As `msgctl(2)` of `IPC_RMID`.
pub fn remove(id: i32) -> Result<()> {
    // SAFETY: numbers alone are passed.
    unsafe { control(id, libc::IPC_RMID, 0) }?;
    Ok(())
}

/// # Safety
///
/// `argument` must be what the command takes.
unsafe fn control(id: i32, command: i32, argument: usize) -> Result<usize> {
    let args = [id as usize, command as usize, argument, 0, 0, 0];
    // SAFETY: the caller vouches for the argument.
    unsafe { call(libc::SYS_msgctl as usize, args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i64, text: &[u8]) -> Message {
        Message {
            kind,
            text: text.to_vec(),
        }
    }

    #[test]
    fn messages_are_seen_and_stay() {
        let id = create(0, 0o600).unwrap();
        let messages = [
            message(7, b"first"),
            message(3, b""),
            message(7, &[9; 5000]),
        ];
        for message in &messages {
            send(id, message).unwrap();
        }
        let found = stat(id).unwrap();
        assert_eq!(
            (found.count, found.bytes, found.perm.mode),
            (3, 5005, 0o600)
        );
        assert!(all().unwrap().contains(&found));
        for _ in 0..2 {
            for (place, message) in messages.iter().enumerate() {
                let seen = peek(id, place as u32, 5000).unwrap();
                assert_eq!(seen.as_ref(), Some(message));
            }
        }
        assert_eq!(peek(id, 3, 5000), Ok(None));
        assert_eq!(peek(id, 2, 4999), Err(Errno::TOOBIG));
        own(
            id,
            &Perm {
                uid: 1,
                gid: 2,
                mode: 0o604,
                ..found.perm
            },
            6000,
        )
        .unwrap();
        let owned = stat(id).unwrap();
        assert_eq!(
            (owned.perm.uid, owned.perm.mode, owned.room),
            (1, 0o604, 6000)
        );
        remove(id).unwrap();
        stat(id).unwrap_err();
    }
}
