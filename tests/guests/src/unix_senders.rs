//! Who is at the other end of a Unix socket, and who has sent what waits there.
//!
//! `unix-peers`: `SO_PEERCRED` of pairs and connections, made by this process, by one of another user, by one that has
//! ended. `unix-first`: the same by this process alone, which has been two users. `unix-senders`: names of senders of datagrams. `unix-credentials`: credentials that come with messages.

use crate::Entry;
use crate::os::{checked, os};
use crate::protocol::{Check, Gate, Guest, ensure, same};
use crate::unix::{KINDS, pair, say, socket};
use crate::unix_names::{shown, unique};
use rustix::net::{
    RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen, recvfrom,
    sendto,
};
use std::fs;
use std::mem::{offset_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("unix-peers", peers),
    Entry("unix-first", first),
    Entry("unix-senders", senders),
    Entry("unix-credentials", credentials),
];

/// Process, user and group at the other end.
fn peer(socket: impl AsFd) -> Check<(i32, u32, u32)> {
    let mut who = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of_val(&who) as u32;
    os!(libc::getsockopt(
        socket.as_fd().as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_PEERCRED,
        (&raw mut who).cast(),
        &raw mut len
    ))?;
    Ok((who.pid, who.uid, who.gid))
}

/// Becomes another user, as far as others see.
fn become_user(number: u32) -> Check {
    os!(libc::setresgid(number + 1, number + 1, 0))?;
    os!(libc::setresuid(number, number, 0))?;
    Ok(())
}

fn peers(guest: &Guest) -> Check {
    guest.open_to_all()?;
    let mut all = Vec::new();
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        all.extend([one, other]);
    }
    // The rest of a pair.
    all.push(pair(SocketType::STREAM)?.0);
    let address = SocketAddrUnix::new(guest.path("server"))?;
    let listener = socket(SocketType::STREAM)?;
    bind(&listener, &address)?;
    listen(&listener, 9)?;
    os!(libc::chmod(
        std::ffi::CString::new(guest.path("server").into_os_string().into_encoded_bytes())?
            .as_ptr(),
        0o777
    ))?;
    let (gate, ended) = (Gate::new()?, Gate::new()?);
    let living = guest.fork("living", |guest| {
        ended.leave()?;
        become_user(1234)?;
        let client = socket(SocketType::STREAM)?;
        connect(&client, &address)?;
        let before = peer(&client)?;
        gate.arrive()?;
        guest.wait();
        same!("peer of a child", peer(&client)?, before);
        Ok(())
    })?;
    gate.wait(1)?;
    all.push(accept(&listener)?);
    let dead = guest.fork("dead", |_| {
        become_user(77)?;
        let client = socket(SocketType::STREAM)?;
        connect(&client, &address)?;
        ended.arrive()
    })?;
    ended.wait(1)?;
    all.push(accept(&listener)?);
    dead.join(guest)?;
    // Who listens changes its user afterwards; a client of before, and one of since.
    let own = socket(SocketType::STREAM)?;
    connect(&own, &address)?;
    all.push(accept(&listener)?);
    all.push(own);
    // One whose listener is gone.
    let lost = socket(SocketType::SEQPACKET)?;
    let name = SocketAddrUnix::new_abstract_name(unique("lost-peer").as_bytes())?;
    bind(&lost, &name)?;
    listen(&lost, 1)?;
    let client = socket(SocketType::SEQPACKET)?;
    connect(&client, &name)?;
    all.push(accept(&lost)?);
    all.push(client);
    all.push(listener);
    all.push(socket(SocketType::STREAM)?);
    let before: Check<Vec<_>> = all.iter().map(peer).collect();
    let before = before?;
    ensure!(
        before.iter().any(|who| who.1 == 1234) && before.iter().any(|who| who.2 == 78),
        "{before:?}"
    );
    guest.hold()?;
    let after: Check<Vec<_>> = all.iter().map(peer).collect();
    same!("peers", after?, before);
    living.join(guest)
}

fn first(guest: &Guest) -> Check {
    let name = SocketAddrUnix::new_abstract_name(unique("first").as_bytes())?;
    let listener = socket(SocketType::STREAM)?;
    bind(&listener, &name)?;
    let mut all = Vec::new();
    for user in [0, 1234] {
        os!(libc::setresgid(u32::MAX, user, u32::MAX))?;
        os!(libc::setresuid(u32::MAX, user, u32::MAX))?;
        for kind in KINDS {
            let (one, other) = pair(kind)?;
            all.extend([one, other]);
        }
        listen(&listener, 3)?;
        let client = socket(SocketType::STREAM)?;
        connect(&client, &name)?;
        all.extend([accept(&listener)?, client]);
        os!(libc::setresuid(u32::MAX, 0, u32::MAX))?;
        os!(libc::setresgid(u32::MAX, 0, u32::MAX))?;
    }
    all.push(listener);
    let peers = || all.iter().map(peer).collect::<Check<Vec<_>>>();
    let before = peers()?;
    let me = std::process::id() as i32;
    ensure!(before.iter().all(|who| who.0 == me), "{before:?}");
    guest.hold()?;
    same!("peers", peers()?, before);
    Ok(())
}

fn senders(guest: &Guest) -> Check {
    std::env::set_current_dir(&guest.dir)?;
    let server = socket(SocketType::DGRAM)?;
    let address = SocketAddrUnix::new(guest.path("server"))?;
    bind(&server, &address)?;
    let mut living = Vec::new();
    let mut names = Vec::new();
    for (name, lives, file) in [
        (
            SocketAddrUnix::new_abstract_name(unique("dead").as_bytes())?,
            false,
            None,
        ),
        (
            SocketAddrUnix::new_abstract_name(unique("alive").as_bytes())?,
            true,
            None,
        ),
        (
            SocketAddrUnix::new(guest.path("gone"))?,
            false,
            Some("gone"),
        ),
        (SocketAddrUnix::new("relative")?, false, Some("relative")),
        (SocketAddrUnix::new(guest.path("stays"))?, false, None),
        (SocketAddrUnix::new("./here")?, true, None),
    ] {
        let sender = socket(SocketType::DGRAM)?;
        bind(&sender, &name)?;
        sendto(&sender, b"hello", SendFlags::DONTWAIT, &address)?;
        names.push(shown(&name));
        if let Some(file) = file {
            fs::remove_file(file)?;
        }
        if lives {
            living.push((sender, name));
        }
    }
    sendto(
        &socket(SocketType::DGRAM)?,
        b"hello",
        SendFlags::DONTWAIT,
        &address,
    )?;
    names.push(String::new());
    guest.hold()?;
    for name in names {
        let mut buffer = [0; 9];
        let (len, _, from) = recvfrom(&server, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let from = match from {
            Some(from) => shown(&SocketAddrUnix::try_from(from)?),
            None => String::new(),
        };
        same!("sender", (len, from), (5, name));
    }
    for (sender, name) in &living {
        sendto(&server, b"answer", SendFlags::DONTWAIT, name)?;
        same!("answer", crate::unix::now(sender), Ok("answer".to_owned()));
    }
    ensure!(!guest.path("gone").exists(), "a file is back");
    ensure!(guest.path("stays").exists(), "a file is gone");
    Ok(())
}

/// Takes the next message and gives who is said to have sent it.
pub(crate) fn heard(socket: &OwnedFd) -> Check<Option<(i32, u32, u32)>> {
    #[repr(C, align(8))]
    struct Control([u8; 256]);
    let mut control = Control([0; 256]);
    let mut byte = [0_u8; 64];
    let mut vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: it is plain data, of which zeros are a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    let fd = socket.as_raw_fd();
    os!(libc::recvmsg(fd, &raw mut header, libc::MSG_DONTWAIT))?;
    const DATA: usize = size_of::<libc::cmsghdr>();
    let word = |at: usize| {
        let word = [
            control.0[at],
            control.0[at + 1],
            control.0[at + 2],
            control.0[at + 3],
        ];
        u32::from_ne_bytes(word)
    };
    let kind = word(offset_of!(libc::cmsghdr, cmsg_type));
    let told = header.msg_controllen >= DATA + 12 && kind == libc::SCM_CREDENTIALS as u32;
    Ok(told.then(|| (word(DATA).cast_signed(), word(DATA + 4), word(DATA + 8))))
}

fn credentials(guest: &Guest) -> Check {
    let mut pairs = Vec::new();
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        let on = 1_i32;
        checked(
            // SAFETY: the option is a live local.
            unsafe {
                libc::setsockopt(
                    other.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_PASSCRED,
                    (&raw const on).cast(),
                    4,
                )
            },
            "setsockopt",
        )?;
        // One after the other: what one sender has said in a row is one message of a stream.
        say(&one, "from me")?;
        let kid = guest.fork("sender", |_| {
            become_user(1234)?;
            Ok(say(&one, "from a child")?)
        })?;
        let pid = kid.pid;
        kid.join(guest)?;
        say(&one, "from me again")?;
        pairs.push((one, other, pid));
    }
    guest.hold()?;
    for (_, other, child) in &pairs {
        let me = (std::process::id() as i32, 0, 0);
        let mut senders = Vec::new();
        for _ in 0..3 {
            senders.push(heard(other)?.ok_or("no credentials")?);
        }
        same!("senders", senders, vec![me, (*child, 1234, 1235), me]);
    }
    Ok(())
}
