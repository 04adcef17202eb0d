//! IPC namespaces of their own, with everything that can be in one.
//!
//! `ipc-plain`: one of each kind. `ipc-shm`, `ipc-undo`: as on the host. `ipc-messages`: queues with messages. `ipc-settings`: settings, POSIX message
//! queues, and objects that nobody uses. `ipc-unread`: a POSIX message queue that is not empty. `ipc-forced`: segments that
//! end with their last user. `nested-ipc`: two children with namespaces that the root is not in, and what is in these. `ipc-forced-idle`: one of these that nobody has used yet.

use crate::Entry;
use crate::os::{PAGE, errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("ipc-plain", plain),
    Entry("ipc-shm", |guest| {
        own().and_then(|()| crate::shm::segments(guest))
    }),
    Entry("ipc-undo", |guest| {
        own().and_then(|()| crate::sem::undo(guest))
    }),
    Entry("ipc-messages", messages),
    Entry("ipc-settings", settings),
    Entry("ipc-unread", unread),
    Entry("ipc-forced", forced),
    Entry("nested-ipc", nested),
    Entry("ipc-forced-idle", forced_idle),
];

fn own() -> Check {
    os!(libc::unshare(libc::CLONE_NEWIPC))?;
    Ok(())
}

/// What `/proc/sysvipc` tells of all objects of a kind, but for times and processes, which nobody can set.
fn objects(kind: &str) -> Check<Vec<BTreeMap<String, String>>> {
    const PASSING: [&str; 10] = [
        "cpid", "lpid", "lspid", "lrpid", "atime", "dtime", "ctime", "otime", "stime", "rtime",
    ];
    let text = fs::read_to_string(format!("/proc/sysvipc/{kind}"))?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let objects = lines.map(|line| {
        let both = names.iter().zip(line.split_whitespace());
        let lasting = both.filter(|(name, _)| !PASSING.contains(name));
        lasting
            .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
            .collect()
    });
    Ok(objects.collect())
}

#[repr(C)]
struct Message {
    kind: i64,
    text: [u8; 9000],
}

fn send(queue: i32, kind: i64, len: usize) -> Check {
    let message = Message {
        kind,
        text: [kind as u8; 9000],
    };
    os!(libc::msgsnd(
        queue,
        (&raw const message).cast(),
        len,
        libc::IPC_NOWAIT
    ))?;
    Ok(())
}

fn receive(queue: i32) -> Check<(i64, usize)> {
    let mut message = Message {
        kind: 0,
        text: [0; 9000],
    };
    let text = (&raw mut message).cast();
    let len = os!(libc::msgrcv(queue, text, 9000, 0, libc::IPC_NOWAIT))?;
    let len = usize::try_from(len).unwrap_or(0);
    ensure!(
        message.text[..len]
            .iter()
            .all(|byte| i64::from(*byte) == message.kind),
        "another text"
    );
    Ok((message.kind, len))
}

fn messages(guest: &Guest) -> Check {
    own()?;
    const KEY: i32 = 0x1234;
    let full = os!(libc::msgget(KEY, 0o640 | libc::IPC_CREAT))?;
    let sent = [(7, 10), (1, 0), (7, 8000), (3, 1)];
    for (kind, len) in sent {
        send(full, kind, len)?;
    }
    let empty = os!(libc::msgget(libc::IPC_PRIVATE, 0o600))?;
    // One that is gone, so that the next has a number that does not follow from the others.
    let gone = os!(libc::msgget(libc::IPC_PRIVATE, 0o600))?;
    os!(libc::msgctl(gone, libc::IPC_RMID, std::ptr::null_mut()))?;
    let owned = os!(libc::msgget(libc::IPC_PRIVATE, 0o600))?;
    // SAFETY: a structure of numbers.
    let mut new: libc::msqid_ds = unsafe { std::mem::zeroed() };
    os!(libc::msgctl(owned, libc::IPC_STAT, &raw mut new))?;
    (new.msg_perm.uid, new.msg_perm.gid, new.msg_qbytes) = (12, 34, 5000);
    os!(libc::msgctl(owned, libc::IPC_SET, &raw mut new))?;
    let before = objects("msg")?;
    guest.hold()?;
    same!("queues", objects("msg")?, before);
    same!("by key", os!(libc::msgget(KEY, 0))?, full);
    for message in sent {
        same!("message", receive(full)?, (message.0, message.1));
    }
    for queue in [full, empty, owned] {
        same!("empty", receive(queue).is_err(), true);
    }
    os!(libc::msgctl(owned, libc::IPC_STAT, &raw mut new))?;
    same!("room", new.msg_qbytes, 5000);
    send(empty, 5, 9)?;
    same!("message", receive(empty)?, (5, 9));
    Ok(())
}

fn plain(guest: &Guest) -> Check {
    own()?;
    let segment = crate::shm::Segment::new(5, 3 * PAGE, 0o640)?;
    let idle = crate::shm::Segment::new(6, 3 * PAGE, 0o604)?;
    for (segment, seed) in [(&segment, 1), (&idle, 2)] {
        let attached = segment.attach(0, 0)?;
        attached.fill(PAGE, 2 * PAGE, seed);
        os!(libc::shmdt(attached.start()))?;
    }
    // Nobody of the tree has attached to it, but somebody else.
    crate::locks::stranger(guest, || idle.attach(0, libc::SHM_RDONLY).map(drop))?;
    let attached = segment.attach(0, 0)?;
    let set = os!(libc::semget(7, 3, 0o600 | libc::IPC_CREAT))?;
    os!(libc::semctl(set, 2, libc::SETVAL, 5))?;
    let queue = os!(libc::msgget(8, 0o600 | libc::IPC_CREAT))?;
    send(queue, 3, 4)?;
    let look = || -> Check<_> {
        let mut segments = objects("shm")?;
        for segment in &mut segments {
            segment.remove("nattch");
        }
        Ok((segments, objects("sem")?, objects("msg")?))
    };
    let before = look()?;
    guest.hold()?;
    same!("objects", look()?, before);
    attached.check("attached", (PAGE, 2 * PAGE), Some(1))?;
    attached.check("attached", (2 * PAGE, 3 * PAGE), None)?;
    let idle = idle.attach(0, libc::SHM_RDONLY)?;
    idle.check("idle", (PAGE, 2 * PAGE), Some(2))?;
    same!("semaphore", os!(libc::semctl(set, 2, libc::GETVAL))?, 5);
    same!("message", receive(queue)?, (3, 4));
    Ok(())
}

const SETTINGS: &[(&str, &str)] = &[
    ("kernel/sem", "1000000000\t2000000000\t50\t12345"),
    ("kernel/msgmax", "1000"),
    ("kernel/msgmnb", "2000"),
    ("kernel/msgmni", "30"),
    ("kernel/shmmax", "100000"),
    ("kernel/shmall", "5000"),
    ("kernel/shmmni", "60"),
    ("kernel/sem_next_id", "55"),
    ("fs/mqueue/queues_max", "11"),
    ("fs/mqueue/msg_max", "12"),
    ("fs/mqueue/msgsize_max", "1300"),
    ("fs/mqueue/msg_default", "5"),
    ("fs/mqueue/msgsize_default", "600"),
];

/// Opens a POSIX message queue.
fn queue(flags: i32, attributes: Option<(i64, i64)>) -> Check<i32> {
    // SAFETY: a structure of numbers.
    let mut wanted: libc::mq_attr = unsafe { std::mem::zeroed() };
    let pointer = match attributes {
        None => std::ptr::null(),
        Some((most, size)) => {
            (wanted.mq_maxmsg, wanted.mq_msgsize) = (most, size);
            &raw const wanted
        }
    };
    match os!(libc::mq_open(c"/queue".as_ptr(), flags, 0o640, pointer)) {
        Err(_) if errno() == libc::ENOSYS => Err(Failure::skip("no message queues")),
        opened => opened,
    }
}

fn settings(guest: &Guest) -> Check {
    own()?;
    // More than will be allowed.
    let segment = os!(libc::shmget(77, 300_000, 0o604 | libc::IPC_CREAT))?;
    let first = os!(libc::semget(78, 3, 0o666 | libc::IPC_CREAT))?;
    os!(libc::semctl(first, 1, libc::SETVAL, 9))?;
    os!(libc::semget(79, 120, 0o600 | libc::IPC_CREAT))?;
    let gone = os!(libc::shmget(libc::IPC_PRIVATE, 1, 0))?;
    os!(libc::shmctl(gone, libc::IPC_RMID, std::ptr::null_mut()))?;
    os!(libc::shmget(80, 1, 0o604 | libc::IPC_CREAT))?;
    let messages = os!(libc::msgget(81, 0o600 | libc::IPC_CREAT))?;
    for _ in 0..9 {
        send(messages, 4, 1000)?;
    }
    os!(libc::close(queue(
        libc::O_RDWR | libc::O_CREAT,
        Some((7, 8000))
    )?))?;
    for (name, value) in SETTINGS {
        fs::write(format!("/proc/sys/{name}"), value)?;
    }
    let look = || -> Check<_> { Ok((objects("shm")?, objects("sem")?, objects("msg")?)) };
    let before = look()?;
    guest.hold()?;
    same!("objects", look()?, before);
    for (name, value) in SETTINGS {
        let mut now = [0; 256];
        let len = fs::File::open(format!("/proc/sys/{name}"))?.read(&mut now)?;
        let now = String::from_utf8_lossy(&now[..len]);
        same!(*name, now.trim_end(), *value);
    }
    same!("semaphore", os!(libc::semctl(first, 1, libc::GETVAL))?, 9);
    same!("by key", os!(libc::shmget(77, 0, 0))?, segment);
    for _ in 0..9 {
        same!("message", receive(messages)?, (4, 1000));
    }
    let posix = queue(libc::O_RDWR, None)?;
    // SAFETY: a structure of numbers.
    let mut found: libc::mq_attr = unsafe { std::mem::zeroed() };
    os!(libc::mq_getattr(posix, &raw mut found))?;
    same!("limits", (found.mq_maxmsg, found.mq_msgsize), (7, 8000));
    Ok(())
}

fn unread(guest: &Guest) -> Check {
    own()?;
    let posix = queue(libc::O_RDWR | libc::O_CREAT, None)?;
    os!(libc::mq_send(posix, c"one".as_ptr(), 3, 1))?;
    guest.hold()?;
    let mut text = [0; 8192];
    let got = os!(libc::mq_receive(
        posix,
        text.as_mut_ptr(),
        text.len(),
        std::ptr::null_mut()
    ))?;
    same!("length", got, 3);
    Ok(())
}

/// Segments go when nobody is attached any more.
fn forced(guest: &Guest) -> Check {
    own()?;
    let segment = crate::shm::Segment::new(5, 3 * PAGE, 0o640)?;
    let attached = segment.attach(0, 0)?;
    attached.fill(PAGE, 2 * PAGE, 1);
    fs::write("/proc/sys/kernel/shm_rmid_forced", "1")?;
    let before = objects("shm")?;
    guest.hold()?;
    same!("objects", objects("shm")?, before);
    attached.check("attached", (PAGE, 2 * PAGE), Some(1))?;
    os!(libc::shmdt(attached.start()))?;
    same!("objects", objects("shm")?.len(), 0);
    Ok(())
}

fn forced_idle(guest: &Guest) -> Check {
    own()?;
    fs::write("/proc/sys/kernel/shm_rmid_forced", "1")?;
    let _segment = crate::shm::Segment::new(5, 3 * PAGE, 0o640)?;
    let before = objects("shm")?;
    guest.hold()?;
    same!("objects", objects("shm")?, before);
    Ok(())
}

/// Something of each kind, under ids that another namespace has too.
fn fill(guest: &Guest, gate: &crate::protocol::Gate, seed: u64) -> Check {
    let number = seed.cast_signed();
    own()?;
    let segment = crate::shm::Segment::new(5, 3 * PAGE, 0o640)?;
    let idle = crate::shm::Segment::new(6, 2 * PAGE, 0o604)?;
    let attached = segment.attach(0, 0)?;
    attached.fill(PAGE, 2 * PAGE, seed);
    let passing = idle.attach(0, 0)?;
    passing.fill(0, PAGE, seed + 1);
    os!(libc::shmdt(passing.start()))?;
    let set = os!(libc::semget(7, 3, 0o600 | libc::IPC_CREAT))?;
    os!(libc::semctl(set, 2, libc::SETVAL, 5))?;
    let queue = os!(libc::msgget(8, 0o600 | libc::IPC_CREAT))?;
    send(queue, number, 4)?;
    fs::write("/proc/sys/kernel/msgmni", format!("{}", 30 + seed))?;
    let held = self::queue(libc::O_RDWR | libc::O_CREAT, Some((number, 80)))?;
    let kid = guest.fork("with an undo", |guest| {
        let mut up = libc::sembuf {
            sem_num: 2,
            sem_op: 3,
            sem_flg: libc::SEM_UNDO as i16,
        };
        os!(libc::semop(set, &raw mut up, 1))?;
        gate.arrive()?;
        guest.wait();
        same!("semaphore", os!(libc::semctl(set, 2, libc::GETVAL))?, 8);
        attached.check("of the child", (PAGE, 2 * PAGE), Some(seed))?;
        attached.fill(0, PAGE, seed + 2);
        Ok(())
    })?;
    let look = || -> Check<_> { Ok((objects("shm")?, objects("sem")?, objects("msg")?)) };
    crate::protocol::until("the undo", || {
        Ok(os!(libc::semctl(set, 2, libc::GETVAL))? == 8)
    })?;
    let before = look()?;
    gate.arrive()?;
    guest.wait();
    kid.join(guest)?;
    let now = look()?;
    // A child has detached and ended, so only the rest can be the same.
    same!("queues", now.2, before.2);
    same!("sets", now.1, before.1);
    attached.check("attached", (PAGE, 2 * PAGE), Some(seed))?;
    attached.check("by the child", (0, PAGE), Some(seed + 2))?;
    let idle = idle.attach(0, libc::SHM_RDONLY)?;
    idle.check("idle", (0, PAGE), Some(seed + 1))?;
    same!("undone", os!(libc::semctl(set, 2, libc::GETVAL))?, 5);
    same!("message", receive(queue)?, (number, 4));
    let most = fs::read_to_string("/proc/sys/kernel/msgmni")?;
    same!("setting", most.trim_end(), format!("{}", 30 + seed));
    let posix = self::queue(libc::O_RDWR, None)?;
    os!(libc::mq_send(posix, c"one".as_ptr(), 3, 1))?;
    // SAFETY: a structure of numbers.
    let mut found: libc::mq_attr = unsafe { std::mem::zeroed() };
    os!(libc::mq_getattr(held, &raw mut found))?;
    let found = (found.mq_maxmsg, found.mq_msgsize, found.mq_curmsgs);
    same!("queue", found, (number, 80, 1));
    Ok(())
}

fn nested(guest: &Guest) -> Check {
    let gate = crate::protocol::Gate::new()?;
    let one = guest.fork("one", |guest| fill(guest, &gate, 3))?;
    let two = guest.fork("two", |guest| fill(guest, &gate, 6))?;
    gate.wait(4)?;
    guest.hold()?;
    one.join(guest)?;
    two.join(guest)
}
