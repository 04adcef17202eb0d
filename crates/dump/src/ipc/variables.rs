//! Settings of an IPC namespace: `ipcns-var-*.img`.

use std::fs::File;
use std::io::{self, Read};

use gelid_image::messages::IpcVarEntry;

use super::{Error, Object};

/// Reads those of the namespace that the calling thread is in.
pub(super) fn read() -> Result<IpcVarEntry, Error> {
    let all = numbers("kernel/sem")?;
    Ok(IpcVarEntry {
        sem_ctls: all.iter().map(|number| *number as u32).collect(),
        msg_ctlmax: small("kernel/msgmax")?,
        msg_ctlmnb: small("kernel/msgmnb")?,
        msg_ctlmni: small("kernel/msgmni")?,
        auto_msgmni: small("kernel/auto_msgmni")?,
        shm_ctlmax: number("kernel/shmmax")?,
        shm_ctlall: number("kernel/shmall")?,
        shm_ctlmni: small("kernel/shmmni")?,
        shm_rmid_forced: small("kernel/shm_rmid_forced")?,
        mq_queues_max: small("fs/mqueue/queues_max")?,
        mq_msg_max: small("fs/mqueue/msg_max")?,
        mq_msgsize_max: small("fs/mqueue/msgsize_max")?,
        mq_msg_default: Some(small("fs/mqueue/msg_default")?),
        mq_msgsize_default: Some(small("fs/mqueue/msgsize_default")?),
        msg_next_id: next("kernel/msg_next_id")?,
        sem_next_id: next("kernel/sem_next_id")?,
        shm_next_id: next("kernel/shm_next_id")?,
        mqueue: Vec::new(),
    })
}

/// An id that was asked for and not given out yet.
fn next(name: &'static str) -> Result<Option<u32>, Error> {
    let text = text(name)?;
    Ok(text.trim().parse().ok())
}

fn small(name: &'static str) -> Result<u32, Error> {
    // The kernel's own are of 32 bits.
    Ok(number(name)? as u32)
}

fn number(name: &'static str) -> Result<u64, Error> {
    let numbers = numbers(name)?;
    numbers.first().copied().ok_or_else(|| odd(name))
}

fn numbers(name: &'static str) -> Result<Vec<u64>, Error> {
    let text = text(name)?;
    let numbers = text.split_ascii_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().map_err(|_| odd(name))
}

/// The kernel gives a setting by one read, and cuts off what that has no room for.
fn text(name: &'static str) -> Result<String, Error> {
    let mut bytes = [0; 256];
    let read = File::open(format!("/proc/sys/{name}")).and_then(|mut file| file.read(&mut bytes));
    let len = read.map_err(|source| failed(name, &source))?;
    String::from_utf8(bytes[..len].to_vec()).map_err(|_| odd(name))
}

fn odd(name: &'static str) -> Error {
    failed(name, &io::ErrorKind::InvalidData.into())
}

fn failed(name: &'static str, source: &io::Error) -> Error {
    Error::System {
        operation: "read",
        object: Object::Setting(name),
        errno: rustix::io::Errno::from_io_error(source).unwrap_or(rustix::io::Errno::IO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let read = read().unwrap();
        assert_eq!(read.sem_ctls.len(), 4);
        assert!(read.msg_ctlmax > 0 && read.shm_ctlmax > 0 && read.mq_queues_max > 0);
        assert!(small("kernel/no_such_setting").is_err());
    }
}
