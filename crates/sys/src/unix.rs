//! Unix sockets, as far as rustix does not know them: `unix(7)`.

use std::mem::{MaybeUninit, size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;
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
    use rustix::io::Errno;
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
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let (one, other) = UnixStream::pair().unwrap();
        set_int(&other, IntOption::PASSCRED, 1).unwrap();
        let fds = [one.as_fd(), other.as_fd()];
        let mut space = [MaybeUninit::uninit(); 64];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [std::io::IoSlice::new(b"x")];
        sendmsg(&one, &bytes, &mut control, SendFlags::empty()).unwrap();
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
