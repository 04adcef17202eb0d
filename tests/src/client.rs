//! A client of CRIU's RPC, as runtimes are.

use crate::engine::{Engine, Running};
use anyhow::{Context, Result, bail, ensure};
use gelid_rpc::messages::{Notification, Options, Request, RequestKind, Response};
use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, send, shutdown, socket_with,
    socketpair,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The room of the client with the least.
const ROOM: usize = 8192;

/// No process takes longer to end after its last answer.
const LIMIT: Duration = Duration::from_secs(20);

/// One end of a connection, and the process that serves the other if it is this one's.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    server: Option<Running>,
}

/// What came of a request.
#[derive(Debug)]
pub struct Reply {
    /// The names of the notifications that came first, with the process that some of them name.
    pub told: Vec<(String, Option<i32>)>,
    /// The answer.
    pub response: Response,
    /// Descriptors that came with notifications.
    pub descriptors: Vec<OwnedFd>,
}

impl Reply {
    /// The names of the notifications.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.told.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// An error with what the answer says, unless it is of success.
    ///
    /// # Errors
    ///
    /// The request failed.
    pub fn expect(self, what: &str) -> Result<Self> {
        ensure!(self.response.success, "{what} failed: {}", self.message());
        Ok(self)
    }

    /// What the answer says of an error.
    #[must_use]
    pub fn message(&self) -> String {
        let message = self.response.cr_errmsg.as_deref().unwrap_or_default();
        String::from_utf8_lossy(message).into_owned()
    }
}

impl Client {
    /// Starts `swrk` with one end of a pair of sockets as its descriptor 3, and `prepare` done to its command.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn swrk(engine: &Engine, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::start(engine, "exec \"$0\" swrk 3 3<&0 </dev/null", prepare)
    }

    /// The same where one folder is bound to another, as runtimes do it with the root of a container, and a file is open
    /// as descriptor 4.
    ///
    /// # Errors
    ///
    /// As of [`swrk`](Self::swrk).
    pub fn swrk_at(
        engine: &Engine,
        (from, to): (&Path, &Path),
        given: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        const BOUND: &str = r#"exec unshare -m sh -c 'mount --rbind "$FROM" "$TO" && exec "$0" swrk 3' "$0" 3<&0 4<"$GIVEN" </dev/null"#;
        Self::start(engine, BOUND, |command| {
            command.env("FROM", from).env("TO", to).env("GIVEN", given);
            prepare(command);
        })
    }

    /// The same, with the descriptors 0 to 2 closed.
    ///
    /// # Errors
    ///
    /// As of [`swrk`](Self::swrk).
    pub fn swrk_alone(engine: &Engine) -> Result<Self> {
        Self::start(engine, "exec \"$0\" swrk 3 3<&0 <&- >&- 2>&-", |_| {})
    }

    fn start(engine: &Engine, script: &str, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(engine.program());
        command.stdin(Stdio::from(theirs));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        prepare(&mut command);
        let server = Running::start(&mut command)?;
        Ok(Self {
            socket,
            server: Some(server),
        })
    }

    /// Connects with a service.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub fn connect(address: &Path) -> Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(address)?)?;
        Ok(Self {
            socket,
            server: None,
        })
    }

    /// Makes a request, consents to all notifications, and waits for the answer.
    ///
    /// # Errors
    ///
    /// The connection ends without an answer.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        self.ask_with(request, |_| Some(consent()))
    }

    /// Makes a request, answers notifications by `answer` (by closing its side, if there is none), and waits for the
    /// answer.
    ///
    /// # Errors
    ///
    /// The connection ends without an answer.
    pub fn ask_with(
        &self,
        request: &Request,
        mut answer: impl FnMut(&Notification) -> Option<Request>,
    ) -> Result<Reply> {
        self.send(&request.encode_to_vec())?;
        let (mut told, mut descriptors) = (Vec::new(), Vec::new());
        loop {
            let response = self.receive_with(&mut descriptors)?;
            let response = response.context("the connection has ended")?;
            if response.r#type() != RequestKind::Notify {
                return Ok(Reply {
                    told,
                    response,
                    descriptors,
                });
            }
            let notification = response.notify.unwrap_or_default();
            match answer(&notification) {
                Some(answer) => self.send(&answer.encode_to_vec())?,
                None => shutdown(&self.socket, Shutdown::Write)?,
            }
            told.push((notification.script.unwrap_or_default(), notification.pid));
        }
    }

    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        send(&self.socket, packet, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next packet; `None` if the connection has ended.
    ///
    /// # Errors
    ///
    /// A packet that is no answer, or too long for some client.
    pub fn receive(&self) -> Result<Option<Response>> {
        self.receive_with(&mut Vec::new())
    }

    fn receive_with(&self, descriptors: &mut Vec<OwnedFd>) -> Result<Option<Response>> {
        let mut packet = vec![0; ROOM];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC;
        let buffers = &mut [IoSliceMut::new(&mut packet)];
        let length = recvmsg(&self.socket, buffers, &mut control, flags)?.bytes;
        ensure!(length < ROOM, "an answer of {length} bytes");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        match length {
            0 => Ok(None),
            length => Ok(Some(Response::decode(&packet[..length])?)),
        }
    }

    /// Waits for the process, which ends by itself, as runc does: after closing its own side. Its exit code.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn end(mut self) -> Result<Option<i32>> {
        let Some(mut server) = self.server.take() else {
            bail!("a service does not end");
        };
        let _ = shutdown(&self.socket, Shutdown::Write);
        let start = Instant::now();
        loop {
            if let Some(status) = server.poll()? {
                return Ok(status.code());
            }
            ensure!(start.elapsed() < LIMIT, "swrk does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Consent to a notification.
#[must_use]
pub fn consent() -> Request {
    Request {
        notify_success: Some(true),
        ..request(RequestKind::Notify, None)
    }
}

/// A request.
#[must_use]
pub fn request(kind: RequestKind, options: Option<Options>) -> Request {
    Request {
        r#type: kind.into(),
        opts: options.map(Box::new),
        ..Request::default()
    }
}
