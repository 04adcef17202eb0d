//! Telling the client of moments, and waiting for its consent.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::channel::Channel;
use crate::messages::{Notification, Options, RequestKind, Response};

/// Tells a client of moments.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Channel>);

impl Notifier {
    /// Tells the client at the other end of `channel`.
    #[must_use]
    pub fn new(channel: Arc<Channel>) -> Self {
        Self(channel)
    }

    /// Tells of a moment, with the root of the tree where clients want to know it, and waits for consent. What the
    /// client says beside that is returned.
    ///
    /// # Errors
    ///
    /// The client objects, answers something else, or has gone.
    pub fn tell(&self, script: &str, pid: Option<i32>) -> io::Result<Option<Box<Options>>> {
        self.tell_with(script, pid, None)
    }

    /// The same, with a descriptor for the client.
    ///
    /// # Errors
    ///
    /// As of [`tell`](Self::tell).
    pub fn tell_with(
        &self,
        script: &str,
        pid: Option<i32>,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<Box<Options>>> {
        tracing::debug!(script, "notifying the client");
        let notification = Response {
            r#type: RequestKind::Notify.into(),
            success: true,
            notify: Some(Notification {
                script: Some(script.to_owned()),
                pid,
            }),
            ..Response::default()
        };
        self.0
            .send_with(&notification, descriptor)
            .map_err(io::Error::other)?;
        let answer = self.0.receive().map_err(io::Error::other)?;
        let objected = || io::Error::other("RPC client reported script error");
        let answer = answer.ok_or_else(objected)?;
        if answer.kind() != Some(RequestKind::Notify) || answer.notify_success != Some(true) {
            return Err(objected());
        }
        Ok(answer.opts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Request;
    use prost::Message;
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
    };

    /// What becomes of a notification that the client answers so.
    fn answered(answer: &[u8]) -> (io::Result<Option<Box<Options>>>, Response) {
        let (ours, client) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        send(&client, answer, SendFlags::empty()).unwrap();
        let notifier = Notifier::new(Arc::new(Channel::new(ours).unwrap()));
        let told = notifier.tell("post-restore", Some(7));
        let mut packet = [0; 1024];
        let (received, _) = recv(&client, &mut packet, RecvFlags::empty()).unwrap();
        (told, Response::decode(&packet[..received]).unwrap())
    }

    fn answer(kind: RequestKind, success: Option<bool>) -> Vec<u8> {
        Request {
            r#type: kind.into(),
            notify_success: success,
            ..Request::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn consent_is_explicit() {
        let (told, said) = answered(&answer(RequestKind::Notify, Some(true)));
        assert!(told.unwrap().is_none());
        let notification = said.notify.unwrap();
        assert_eq!(notification.script.as_deref(), Some("post-restore"));
        assert_eq!(notification.pid, Some(7));
        for objection in [
            answer(RequestKind::Notify, Some(false)),
            answer(RequestKind::Notify, None),
            answer(RequestKind::Dump, Some(true)),
            vec![0xff],
        ] {
            assert!(answered(&objection).0.is_err(), "{objection:?}");
        }
    }
}
