//! Unix sockets, as far as rustix does not know them: `unix(7)`.

use std::mem::{MaybeUninit, offset_of, size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

use crate::syscall::{call, last};

/// The file that a socket is bound to, as a descriptor of `O_PATH`: `SIOCUNIXFILE`.
///
/// # Errors
///
/// `ENOENT` if it is bound to none, `EPERM` without `CAP_NET_ADMIN`.
pub fn node(socket: impl AsFd) -> Result<OwnedFd> {
    const SIOCUNIXFILE: usize = 0x89e0;
    let fd = socket.as_fd().as_raw_fd() as usize;
    // SAFETY: the request takes no address.
    let node = unsafe { call(libc::SYS_ioctl as usize, [fd, SIOCUNIXFILE, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(node as RawFd) })
}

/// Gives the calling thread a root, a working directory and a umask of its own.
pub fn leave_directories() -> Result<()> {
    // SAFETY: nothing but the thread's view of paths changes, which no reference depends on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// A name of a socket as the kernel takes it, `struct sockaddr_un`.
#[derive(Clone)]
pub struct Address {
    raw: libc::sockaddr_un,
    len: usize,
}

impl Address {
    /// A path; `None` if it is too long or has a zero byte.
    #[must_use]
    pub fn path(path: &[u8]) -> Option<Self> {
        let whole = !path.is_empty() && !path.contains(&0);
        // The end counts if there is room for it.
        let len = (path.len() + 1).min(SUN_PATH);
        Self::new(path, len).filter(|_| whole)
    }

    /// A name without a file; `None` if it is too long.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::new(&[b"\0", name].concat(), name.len() + 1)
    }

    fn new(path: &[u8], len: usize) -> Option<Self> {
        // SAFETY: it is plain data, of which zeros are a value.
        let mut raw: libc::sockaddr_un = unsafe { zeroed() };
        raw.sun_family = libc::AF_UNIX as u16;
        let room = raw.sun_path.get_mut(..path.len())?;
        for (to, from) in room.iter_mut().zip(path) {
            *to = from.cast_signed();
        }
        Some(Self { raw, len })
    }

    /// Its bytes, as system calls take them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let (at, len) = self.raw();
        // SAFETY: the length is that of a part of the structure, all of whose bytes are set.
        unsafe { std::slice::from_raw_parts(at.cast(), len) }
    }

    /// Where it is, and how long.
    pub(crate) fn raw(&self) -> (*const libc::sockaddr_un, usize) {
        (
            &raw const self.raw,
            offset_of!(libc::sockaddr_un, sun_path) + self.len,
        )
    }
}

/// Bytes of a path in an address.
const SUN_PATH: usize = 108;

/// What goes with a message.
pub(crate) struct Control(Vec<u8>);

impl Control {
    /// Descriptors, and the process and users that the sender is said to be.
    pub(crate) fn new(
        rights: &[BorrowedFd<'_>],
        credentials: Option<(i32, u32, u32)>,
    ) -> Result<Self> {
        let mut control = Self(Vec::new());
        if !rights.is_empty() {
            let numbers = rights.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
            control.push(libc::SCM_RIGHTS, &numbers.collect::<Vec<_>>())?;
        }
        if let Some((pid, uid, gid)) = credentials {
            let words = [pid.to_ne_bytes(), uid.to_ne_bytes(), gid.to_ne_bytes()];
            control.push(libc::SCM_CREDENTIALS, words.as_flattened())?;
        }
        Ok(control)
    }

    /// Appends `struct cmsghdr` and its data.
    fn push(&mut self, kind: i32, data: &[u8]) -> Result<()> {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let len = HEADER + data.len();
        let end = self.0.len() + len.next_multiple_of(align_of::<usize>());
        if end > CONTROL {
            return Err(Errno::MSGSIZE);
        }
        self.0.extend(len.to_ne_bytes());
        self.0.extend(libc::SOL_SOCKET.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(end, 0);
        Ok(())
    }
}

const _: () = assert!(size_of::<libc::cmsghdr>() == 16);

/// Gives `send` a message that it can point to.
pub(crate) fn with_message<T>(
    to: Option<&Address>,
    bytes: &[u8],
    control: &mut Control,
    send: impl FnOnce(*const libc::msghdr) -> T,
) -> T {
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: it is plain data, of which zeros are a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    if let Some((at, len)) = to.map(Address::raw) {
        header.msg_name = at.cast_mut().cast();
        header.msg_namelen = len as u32;
    }
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    send(&raw const header)
}

/// Sends a message, to somebody if the socket is not connected, without waiting.
///
/// # Errors
///
/// Those of `sendmsg(2)`; `EAGAIN` if there is no room.
pub fn send(
    socket: impl AsFd,
    to: Option<&Address>,
    bytes: &[u8],
    rights: &[BorrowedFd<'_>],
) -> Result<usize> {
    let mut control = Control::new(rights, None)?;
    with_message(to, bytes, &mut control, |header| {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the header and what it points to live until the call has ended.
        let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), header, flags) };
        usize::try_from(sent).map_err(|_| last())
    })
}

/// Binds a socket.
pub fn bind(socket: impl AsFd, address: &Address) -> Result<()> {
    name(libc::SYS_bind, socket.as_fd(), address)
}

/// Connects a socket.
pub fn connect(socket: impl AsFd, address: &Address) -> Result<()> {
    name(libc::SYS_connect, socket.as_fd(), address)
}

fn name(nr: libc::c_long, socket: BorrowedFd<'_>, address: &Address) -> Result<()> {
    let (at, len) = address.raw();
    let args = [socket.as_raw_fd() as usize, at as usize, len, 0, 0, 0];
    // SAFETY: the kernel reads an address of that length.
    unsafe { call(nr as usize, args) }.map(drop)
}

/// What a look at a queue has brought.
#[derive(Debug, Default)]
pub struct Message {
    /// Bytes of it, all of them even if the buffer was too short.
    pub len: usize,
    /// Descriptors that came with it, as duplicates: close-on-exec.
    pub rights: Vec<OwnedFd>,
    /// Process, user and group that the sender is said to be, if the socket wants to know them.
    pub credentials: Option<(i32, u32, u32)>,
    /// `sun_path` of the sender, empty if it has none or if messages have no borders.
    pub source: Vec<u8>,
    /// Something of what came with it is missing.
    pub cut: bool,
}

/// Room for everything that can come with a message: 253 descriptors, credentials, a pidfd, a label.
const CONTROL: usize = 8 << 10;

/// The message at the peek offset of a socket, without taking it or waiting for one.
///
/// # Errors
///
/// `EAGAIN` if there is none.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> Result<Message> {
    #[repr(C, align(8))]
    struct Control([MaybeUninit<u8>; CONTROL]);
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: both are plain data, of which zeros are a value.
    let (mut header, mut source): (libc::msghdr, libc::sockaddr_un) =
        unsafe { (zeroed(), zeroed()) };
    header.msg_name = (&raw mut source).cast();
    header.msg_namelen = size_of_val(&source) as u32;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to buffers that live, each with its length.
    let len = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let mut message = Message {
        len: usize::try_from(len).map_err(|_| last())?,
        cut: header.msg_flags & libc::MSG_CTRUNC != 0,
        ..Message::default()
    };
    let path = (header.msg_namelen as usize).saturating_sub(2);
    let path = source.sun_path.iter().take(path).map(|c| c.cast_unsigned());
    message.source = path.collect();
    // SAFETY: the kernel has written the headers that the length covers.
    unsafe { message.take_control(&header) };
    Ok(message)
}

/// The process that is said to have sent the message at the peek offset, by its number where this process is. Nothing is
/// taken, the offset stays, and no memory is asked for.
///
/// # Errors
///
/// `EAGAIN` if there is none; `ENODATA` if the socket does not want to know.
pub fn sender(socket: impl AsFd) -> Result<i32> {
    #[repr(C, align(8))]
    struct Control([u8; size_of::<libc::cmsghdr>() + size_of::<libc::ucred>()]);
    let mut control = Control([0; _]);
    // SAFETY: it is plain data, of which zeros are a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    // Credentials come first. There is no room for descriptors, so none come.
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of_val(&control.0);
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the header points to a buffer that lives, with its length.
    if unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) } < 0 {
        return Err(last());
    }
    let word = |at: usize| {
        control.0[at..]
            .first_chunk()
            .map(|word| i32::from_ne_bytes(*word))
    };
    let kind = word(offset_of!(libc::cmsghdr, cmsg_type));
    let told =
        header.msg_controllen >= size_of_val(&control.0) && kind == Some(libc::SCM_CREDENTIALS);
    word(size_of::<libc::cmsghdr>())
        .filter(|_| told)
        .ok_or(Errno::NODATA)
}

impl Message {
    /// Takes what came with the message.
    ///
    /// # Safety
    ///
    /// The header must be one that `recvmsg(2)` has just filled, and its descriptors nobody's yet.
    unsafe fn take_control(&mut self, header: &libc::msghdr) {
        const SCM_PIDFD: i32 = 4;
        // SAFETY: the macros walk within the length of the header, and each kind has the data read here.
        unsafe {
            let mut at = libc::CMSG_FIRSTHDR(header);
            while let Some(part) = at.as_ref() {
                let data = libc::CMSG_DATA(at);
                let len = part.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                match part.cmsg_type {
                    libc::SCM_RIGHTS => {
                        let fds = data.cast::<RawFd>();
                        let fds = (0..len / size_of::<RawFd>()).map(|at| fds.add(at));
                        self.rights
                            .extend(fds.map(|fd| OwnedFd::from_raw_fd(fd.read_unaligned())));
                    }
                    libc::SCM_CREDENTIALS if len >= size_of::<libc::ucred>() => {
                        let who = data.cast::<libc::ucred>().read_unaligned();
                        self.credentials = Some((who.pid, who.uid, who.gid));
                    }
                    SCM_PIDFD if len >= size_of::<RawFd>() => {
                        let fd = data.cast::<RawFd>().read_unaligned();
                        // It can be an error instead.
                        if fd >= 0 {
                            drop(OwnedFd::from_raw_fd(fd));
                        }
                    }
                    _ => {}
                }
                at = libc::CMSG_NXTHDR(header, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn a_bound_socket_has_a_node() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let node = node(&socket).unwrap();
        let (node, file) = (rustix::fs::fstat(node), rustix::fs::lstat(&path));
        assert_eq!(node.unwrap().st_ino, file.unwrap().st_ino);
        let other = UnixDatagram::unbound().unwrap();
        assert_eq!(super::node(&other).map(drop), Err(Errno::NOENT));
    }

    #[test]
    fn looking_takes_nothing_away() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sender");
        let (sender, receiver) = (
            UnixDatagram::bind(&path).unwrap(),
            home.path().join("receiver"),
        );
        let socket = UnixDatagram::bind(&receiver).unwrap();
        sender.send_to(b"hello", &receiver).unwrap();
        let mut buffer = [0; 3];
        for _ in 0..2 {
            let message = peek(&socket, &mut buffer).unwrap();
            assert_eq!((message.len, &buffer), (5, b"hel"));
            let mut source = path.clone().into_os_string().into_encoded_bytes();
            source.push(0);
            assert_eq!((message.source, message.cut), (source, false));
            assert_eq!((message.rights.len(), message.credentials), (0, None));
        }
        socket.recv(&mut buffer).unwrap();
        assert_eq!(peek(&socket, &mut buffer).map(drop), Err(Errno::AGAIN));
    }

    #[test]
    fn descriptors_come_with_a_message() {
        use crate::sockopt::{IntOption, set_int};
        let (one, other) = UnixStream::pair().unwrap();
        set_int(&other, IntOption::PASSCRED, 1).unwrap();
        assert_eq!(send(&one, None, b"x", &[one.as_fd(), other.as_fd()]), Ok(1));
        let message = peek(&other, &mut [0]).unwrap();
        assert_eq!((message.len, message.rights.len()), (1, 2));
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let sent = rustix::fs::fstat(&one).unwrap().st_ino;
        assert_eq!(inode(&message.rights[0]), sent);
        let (pid, uid) = (rustix::process::getpid(), rustix::process::getuid());
        let credentials = message.credentials.unwrap();
        assert_eq!(
            (credentials.0, credentials.1),
            (pid.as_raw_pid(), uid.as_raw())
        );
        let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = fds();
        assert_eq!(sender(&other), Ok(pid.as_raw_pid()));
        assert_eq!(fds(), before);
        assert_eq!(sender(&one), Err(Errno::AGAIN));
    }

    #[test]
    fn names_are_bound_as_they_are() {
        let receiver = UnixDatagram::unbound().unwrap();
        let name = Address::named(format!("gelid-{}\0x", std::process::id()).as_bytes()).unwrap();
        bind(&receiver, &name).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        assert_eq!(send(&sender, Some(&name), b"by name", &[]), Ok(7));
        connect(&sender, &name).unwrap();
        assert_eq!(send(&sender, None, b"", &[]), Ok(0));
        assert_eq!(receiver.recv(&mut [0; 9]).unwrap(), 7);
        assert!(Address::path(&[b'x'; 108]).is_some() && Address::named(&[0; 107]).is_some());
        for wrong in [&b""[..], b"a\0b", &[b'x'; 109]] {
            assert!(Address::path(wrong).is_none());
        }
        assert!(Address::named(&[0; 108]).is_none());
    }

    #[test]
    fn a_thread_has_directories_of_its_own() {
        let before = std::env::current_dir().unwrap();
        let moved = std::thread::spawn(|| {
            leave_directories().unwrap();
            rustix::process::chdir("/proc").unwrap();
            std::env::current_dir().unwrap()
        });
        assert_eq!(moved.join().unwrap(), std::path::Path::new("/proc"));
        assert_eq!(std::env::current_dir().unwrap(), before);
    }
}
