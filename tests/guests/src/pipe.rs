//! Pipes and FIFOs with what is in them.
//!
//! `pipe-data`: amounts from nothing to full. `pipe-sizes`: capacities set by `F_SETPIPE_SZ`. `pipe-between`: the ends in
//! different tasks, with data under way. `pipe-flags`: `O_NONBLOCK` on one end, both, after `dup`. `pipe-half-closed`: a
//! reader that must still find the end, a writer that must still get `EPIPE`. `pipe-reopened`: an end opened again
//! through `/proc`. `fifo-data`, `fifo-deleted`, `fifo-half`: named ones.
//! `pipe-packets`: what was written with `O_DIRECT` is read one by one.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, ensure, same};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("pipe-data", data),
    Entry("pipe-sizes", sizes),
    Entry("pipe-between", between),
    Entry("pipe-flags", flags),
    Entry("pipe-half-closed", half_closed),
    Entry("pipe-reopened", reopened),
    Entry("fifo-data", fifo_data),
    Entry("fifo-deleted", fifo_deleted),
    Entry("fifo-half", fifo_half),
    Entry("pipe-packets", packets),
];

/// Both ends of a new pipe.
fn pipe(flags: i32) -> Check<(File, File)> {
    let mut ends = [0; 2];
    os!(libc::pipe2(ends.as_mut_ptr(), flags))?;
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// So many bytes that differ by place and seed.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    (0..len)
        .map(|index| crate::os::word(seed, index) as u8)
        .collect()
}

/// Bytes that can be read without blocking.
fn waiting(file: &File) -> Check<usize> {
    let mut count = 0_i32;
    os!(libc::ioctl(
        file.as_raw_fd(),
        libc::FIONREAD,
        &raw mut count
    ))?;
    Ok(count.unsigned_abs() as usize)
}

fn data(guest: &Guest) -> Check {
    let mut pipes = Vec::new();
    for (index, len) in [0, 1, 100, 4095, 4096, 4097, 30_000, 65_536]
        .into_iter()
        .enumerate()
    {
        let (read, mut write) = pipe(0)?;
        let bytes = bytes(len, index as u64);
        // In pieces, so that buffers in the kernel are partly filled; a full pipe has no room for that.
        for piece in bytes.chunks(if len > 40_000 { len } else { 5000 }) {
            write.write_all(piece)?;
        }
        pipes.push((read, write, bytes));
    }
    guest.hold()?;
    for (mut read, mut write, want) in pipes {
        same!("bytes in the pipe", waiting(&read)?, want.len());
        let mut got = vec![0; want.len()];
        read.read_exact(&mut got)?;
        ensure!(got == want, "{} bytes in the pipe differ", want.len());
        write.write_all(b"more")?;
        let mut more = [0; 4];
        read.read_exact(&mut more)?;
        same!("bytes written afterwards", more, *b"more");
        drop(write);
        same!("read at the end", read.read(&mut more)?, 0);
    }
    Ok(())
}

/// Capacity of a pipe.
fn capacity(file: &File) -> Check<i32> {
    os!(libc::fcntl(file.as_raw_fd(), libc::F_GETPIPE_SZ))
}

fn sizes(guest: &Guest) -> Check {
    let mut pipes = Vec::new();
    for size in [4096, 8192, 65_536, 262_144, 1 << 20] {
        let (read, mut write) = pipe(0)?;
        os!(libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, size))?;
        let bytes = bytes(size as usize, size as u64);
        write.write_all(&bytes)?;
        pipes.push((read, write, size, bytes));
    }
    guest.hold()?;
    for (mut read, write, size, want) in pipes {
        same!(
            "capacity",
            (capacity(&read)?, capacity(&write)?),
            (size, size)
        );
        let mut got = vec![0; want.len()];
        read.read_exact(&mut got)?;
        ensure!(got == want, "bytes of the pipe of {size} differ");
    }
    Ok(())
}

fn between(guest: &Guest) -> Check {
    // Root -> first -> second -> root, with something waiting in each.
    let (mut from_last, to_root) = pipe(libc::O_CLOEXEC)?;
    let (from_root, mut to_first) = pipe(0)?;
    let (from_first, to_second) = pipe(0)?;
    let gate = Gate::new()?;
    let relay = |mut from: &File, mut to: &File, gate: &Gate, guest: &Guest| -> Check {
        to.write_all(b"early ")?;
        gate.arrive()?;
        guest.wait();
        let mut text = String::new();
        from.read_to_string(&mut text)?;
        Ok(to.write_all(text.as_bytes())?)
    };
    let close = |file: &File| os!(libc::close(file.as_raw_fd()));
    let first = guest.fork("first", |guest| {
        for file in [&from_last, &to_root, &to_first, &from_first] {
            close(file)?;
        }
        relay(&from_root, &to_second, &gate, guest)
    })?;
    let second = guest.fork("second", |guest| {
        for file in [&from_last, &from_root, &to_first, &to_second] {
            close(file)?;
        }
        relay(&from_first, &to_root, &gate, guest)
    })?;
    drop((to_root, from_root, from_first, to_second));
    to_first.write_all(b"from the root ")?;
    gate.wait(2)?;
    guest.hold()?;
    to_first.write_all(b"and after")?;
    drop(to_first);
    let mut text = String::new();
    from_last.read_to_string(&mut text)?;
    same!(
        "what came round",
        text,
        "early early from the root and after"
    );
    first.join(guest)?;
    second.join(guest)
}

fn flags(guest: &Guest) -> Check {
    let status = |file: &File| os!(libc::fcntl(file.as_raw_fd(), libc::F_GETFL));
    let (read, write) = pipe(libc::O_NONBLOCK | libc::O_CLOEXEC)?;
    let (other_read, other_write) = pipe(0)?;
    os!(libc::fcntl(
        other_write.as_raw_fd(),
        libc::F_SETFL,
        libc::O_NONBLOCK
    ))?;
    let copy = read.try_clone()?;
    let files = [&read, &write, &other_read, &other_write, &copy];
    let before: Vec<i32> = files
        .iter()
        .map(|file| status(file))
        .collect::<Check<_>>()?;
    guest.hold()?;
    for (index, file) in files.iter().enumerate() {
        same!(
            format!("flags of file {index}"),
            status(file)?,
            before[index]
        );
    }
    let got = (&mut &read)
        .read(&mut [0])
        .map_err(|error| error.raw_os_error());
    same!("read from the empty pipe", got, Err(Some(libc::EAGAIN)));
    os!(libc::fcntl(copy.as_raw_fd(), libc::F_SETFL, 0))?; // one description behind both
    same!(
        "flags seen through the other descriptor",
        status(&read)? & libc::O_NONBLOCK,
        0
    );
    Ok(())
}

fn half_closed(guest: &Guest) -> Check {
    let (mut reader, write) = pipe(0)?;
    (&write).write_all(b"last words")?;
    drop(write);
    let (read, mut writer) = pipe(0)?;
    drop(read);
    guest.hold()?;
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    same!("rest of the pipe", text, "last words");
    let got = writer.write(b"x").map_err(|error| error.raw_os_error());
    same!("write without a reader", got, Err(Some(libc::EPIPE)));
    Ok(())
}

fn reopened(guest: &Guest) -> Check {
    let (mut read, mut write) = pipe(0)?;
    write.write_all(b"first ")?;
    // Another description of the same pipe, with flags of its own.
    let path = format!("/proc/self/fd/{}", read.as_raw_fd());
    let mut again = OpenOptions::new().write(true).open(&path)?;
    let mut both = OpenOptions::new().read(true).write(true).open(&path)?;
    again.write_all(b"second ")?;
    guest.hold()?;
    both.write_all(b"third")?;
    drop((write, again));
    let mut text = [0; 18];
    read.read_exact(&mut text)?;
    same!("contents", text, *b"first second third");
    write_and_read(&mut both, &mut read)
}

/// What goes into one description comes out of the other.
fn write_and_read(to: &mut File, from: &mut File) -> Check {
    to.write_all(b"fourth")?;
    let mut text = [0; 6];
    from.read_exact(&mut text)?;
    same!("contents", text, *b"fourth");
    Ok(())
}

/// Makes a FIFO in the guest's directory.
fn fifo(guest: &Guest) -> Check<std::path::PathBuf> {
    let path = guest.path("fifo");
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    os!(libc::mkfifo(name.as_ptr(), 0o600))?;
    Ok(path)
}

fn fifo_data(guest: &Guest) -> Check {
    let path = fifo(guest)?;
    let mut both = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut read = File::open(&path)?;
    let mut write = OpenOptions::new().write(true).open(&path)?;
    write.write_all(&bytes(10_000, 7))?;
    guest.hold()?;
    same!("bytes in the FIFO", waiting(&read)?, 10_000);
    let mut got = vec![0; 10_000];
    read.read_exact(&mut got)?;
    ensure!(got == bytes(10_000, 7), "bytes in the FIFO differ");
    let mut later = OpenOptions::new().write(true).open(&path)?;
    write_and_read(&mut later, &mut read)?;
    write_and_read(&mut both, &mut read)?;
    write_and_read(&mut write, &mut both)
}

fn fifo_deleted(guest: &Guest) -> Check {
    let path = fifo(guest)?;
    let mut both = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut read = File::open(&path)?;
    fs::remove_file(&path)?;
    both.write_all(b"still here")?;
    guest.hold()?;
    ensure!(!path.exists(), "the deleted FIFO is back");
    let mut text = [0; 10];
    read.read_exact(&mut text)?;
    same!("contents", text, *b"still here");
    write_and_read(&mut both, &mut read)
}

fn fifo_half(guest: &Guest) -> Check {
    use std::os::unix::fs::OpenOptionsExt;
    let path = fifo(guest)?;
    let mut read = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)?;
    let mut write = OpenOptions::new().write(true).open(&path)?;
    write.write_all(b"left over")?;
    drop(write);
    guest.hold()?;
    let mut text = [0; 20];
    same!("bytes left", read.read(&mut text)?, 9);
    same!("read without a writer", read.read(&mut text)?, 0);
    let mut write = OpenOptions::new().write(true).open(&path)?;
    let got = read.read(&mut text).map_err(|error| error.raw_os_error());
    same!("read with a writer", got, Err(Some(libc::EAGAIN)));
    write_and_read(&mut write, &mut read)?;
    Ok(())
}

/// Pipes and a FIFO with packets of all lengths, and one whose writer is gone.
fn packets(guest: &Guest) -> Check {
    use std::os::unix::fs::OpenOptionsExt;
    const LENGTHS: [usize; 6] = [1, 5, 4096, 1, 4095, 100];
    let direct = libc::O_DIRECT | libc::O_NONBLOCK;
    let path = guest.path("fifo");
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    os!(libc::mkfifo(name.as_ptr(), 0o600))?;
    let named = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)?;
    os!(libc::fcntl(named.as_raw_fd(), libc::F_SETFL, direct))?;
    let (read, mut write) = pipe(direct)?;
    let (single, mut one) = pipe(direct)?;
    let (orphan, mut gone) = pipe(direct)?;
    for (seed, len) in LENGTHS.into_iter().enumerate() {
        write.write_all(&bytes(len, seed as u64))?;
        gone.write_all(&bytes(len, seed as u64))?;
        (&named).write_all(&bytes(len, seed as u64))?;
    }
    drop(gone);
    one.write_all(&bytes(9, 9))?;
    let (byte, mut least) = pipe(direct)?;
    os!(libc::fcntl(least.as_raw_fd(), libc::F_SETPIPE_SZ, 8192))?;
    let (tight, mut full) = pipe(libc::O_NONBLOCK)?;
    os!(libc::fcntl(full.as_raw_fd(), libc::F_SETPIPE_SZ, 4096))?;
    full.write_all(b"1")?;
    least.write_all(b"1")?;
    let (even, mut around) = pipe(direct)?;
    for packet in [&b"1"[..], b"23456", b"7"] {
        around.write_all(packet)?;
    }
    let (brim, mut pages) = pipe(libc::O_NONBLOCK)?;
    os!(libc::fcntl(pages.as_raw_fd(), libc::F_SETPIPE_SZ, 8192))?;
    pages.write_all(&bytes(8192, 3))?;
    guest.hold()?;
    least.write_all(b"2")?;
    let mut buffer = vec![0; 1 << 16];
    for (what, mut from) in [("pipe", &read), ("orphan", &orphan), ("FIFO", &named)] {
        for (seed, len) in LENGTHS.into_iter().enumerate() {
            let got = from.read(&mut buffer)?;
            ensure!(
                buffer[..got] == bytes(len, seed as u64),
                "{what}: {got} of {len} bytes"
            );
        }
        same!(what, waiting(from)?, 0);
    }
    let mut byte = &byte;
    same!("first byte", byte.read(&mut buffer)?, 1);
    full.write_all(b"2")?;
    let mut tight = &tight;
    same!("both bytes", tight.read(&mut buffer)?, 2);
    let (mut even, mut brim) = (&even, &brim);
    for len in [1, 5, 1] {
        same!("around five", even.read(&mut buffer)?, len);
    }
    same!("two pages", brim.read(&mut buffer)?, 8192);
    ensure!(buffer[..8192] == bytes(8192, 3), "other pages");
    // Who takes a part loses the rest.
    write.write_all(&bytes(7, 7))?;
    for mut from in [&single, &read] {
        same!("a part", from.read(&mut buffer[..4])?, 4);
        same!("the rest", waiting(from)?, 0);
    }
    Ok(())
}
