//! The network namespace of the restorer, and what of it becomes part of the tree's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Builder, word};
use gelid_sys::netlink::route::{DELETE_LINK, GET_LINK, NEW_LINK, SET_LINK, UP, link, link_header};
use rustix::fs::{Mode, OFlags};

/// `IFLA_NEW_IFINDEX`
const NEW_INDEX: u16 = 49;

/// The restorer's namespace. Dropped, it takes back what was given away and takes away what was made, unless that is
/// [kept](Self::keep).
#[derive(Debug)]
pub(crate) struct Outside {
    channel: Channel,
    namespace: OwnedFd,
    undo: Vec<Undo>,
}

/// What is not there any more, or what is there too much, if a restore fails.
#[derive(Debug)]
enum Undo {
    /// The outer end of a pair.
    Delete { name: String },
    /// A link that was moved into another namespace.
    Return {
        from: Channel,
        index: u32,
        name: String,
    },
}

impl Outside {
    /// The namespace that the calling thread is in.
    pub(crate) fn own() -> Result<Self, Errno> {
        Ok(Self {
            channel: Channel::route()?,
            namespace: namespace()?,
            undo: Vec::new(),
        })
    }

    /// The index of a link.
    pub(super) fn index(&self, name: &str) -> Result<u32, Errno> {
        index(&self.channel, name)
    }

    /// Takes note of the outer end of a pair, makes it a port of a bridge, and sets it up.
    pub(super) fn adopt(&mut self, name: &str, bridge: Option<&str>) -> Result<(), Errno> {
        self.undo.push(Undo::Delete {
            name: name.to_owned(),
        });
        let index = self.index(name)?;
        let mut request = Builder::new(&link_header(index, UP, UP));
        if let Some(bridge) = bridge {
            request.word(link::MASTER, self.index(bridge)?);
        }
        self.channel.tell(SET_LINK, 0, request.bytes())
    }

    /// Makes a link, described by `request`, that lies on one of this namespace and is in another.
    pub(super) fn make_above(
        &self,
        mut request: Builder,
        into: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let fd = into.as_raw_fd().cast_unsigned();
        request.word(link::NET_NS_FD, fd);
        let flags = gelid_sys::netlink::channel::CREATE | gelid_sys::netlink::channel::EXCLUSIVE;
        self.channel.tell(NEW_LINK, flags, request.bytes())
    }

    /// Moves a link into another namespace, under another name and index.
    pub(super) fn give(
        &mut self,
        outer: &str,
        (inner, new_index): (&str, u32),
        into: BorrowedFd<'_>,
        there: Channel,
    ) -> Result<(), Errno> {
        let mut request = Builder::new(&link_header(self.index(outer)?, 0, 0));
        request.text(link::NAME, inner.as_bytes());
        request.word(NEW_INDEX, new_index);
        request.word(link::NET_NS_FD, into.as_raw_fd().cast_unsigned());
        self.channel.tell(SET_LINK, 0, request.bytes())?;
        self.undo.push(Undo::Return {
            from: there,
            index: new_index,
            name: outer.to_owned(),
        });
        Ok(())
    }

    /// Everything stays as it is.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.undo();
    }
}

impl Outside {
    /// Takes back what was given away, and takes away what was made.
    pub(super) fn undo(&mut self) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            // What has gone with its namespace already need not go again.
            let _ = match undo {
                Undo::Delete { name } => self.index(&name).and_then(|index| {
                    let request = link_header(index, 0, 0);
                    self.channel.tell(DELETE_LINK, 0, &request)
                }),
                Undo::Return { from, index, name } => {
                    let down = link_header(index, 0, UP);
                    let mut request = Builder::new(&down);
                    request.text(link::NAME, name.as_bytes());
                    let fd = self.namespace.as_raw_fd().cast_unsigned();
                    request.word(link::NET_NS_FD, fd);
                    let down = from.tell(SET_LINK, 0, &down);
                    down.and(from.tell(SET_LINK, 0, request.bytes()))
                }
            };
        }
    }
}

/// A descriptor of the namespace that the calling thread is in.
pub(super) fn namespace() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
}

/// The index of a link in the namespace of a channel.
pub(super) fn index(channel: &Channel, name: &str) -> Result<u32, Errno> {
    let mut request = Builder::new(&link_header(0, 0, 0));
    request.text(link::NAME, name.as_bytes());
    let answer = channel.ask(GET_LINK, request.bytes())?;
    word(&answer, 4).ok_or(Errno::BADMSG)
}
