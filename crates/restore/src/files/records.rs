//! The records of open files, each with the one part that its kind asks for.

use std::collections::{BTreeMap, BTreeSet};

use gelid_image::messages::{
    BpfmapFileEntry, EventfdFileEntry, EventpollFileEntry, EventpollTfdEntry, FanotifyFileEntry,
    FanotifyMarkEntry, FdTypes, FifoEntry, FileEntry, InetSkEntry, InotifyFileEntry,
    InotifyWdEntry, MemfdFileEntry, NetlinkSkEntry, NsFileEntry, PacketSockEntry, PidfdEntry,
    PipeEntry, RegFileEntry, SignalfdEntry, TimerfdEntry, TtyFileEntry, TunfileEntry, UnixSkEntry,
};
use gelid_image::{Dir, ImageKind};

use super::Error;

/// Image that most references lead to.
pub(super) const FILES: &str = "files.img";

/// All records.
#[derive(Default)]
pub(super) struct Records {
    /// In the order of the image, without the paths that belong to another record.
    pub(super) entries: Vec<Entry>,
    /// What has a path, by id.
    pub(super) regular: BTreeMap<u32, Box<RegFileEntry>>,
    /// Kind of each id, as descriptor tables repeat it.
    pub(super) kinds: BTreeMap<u32, FdTypes>,
}

/// One record.
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) kind: FdTypes,
    /// `None` if the record lacks it.
    pub(super) body: Option<Body>,
}

/// The part that a kind asks for.
pub(super) enum Body {
    /// It is among the [`regular`](Records::regular) ones.
    Regular,
    Pipe(PipeEntry),
    Fifo(FifoEntry),
    Namespace(NsFileEntry),
    Tun(TunfileEntry),
    Terminal(TtyFileEntry),
    Memory(MemfdFileEntry),
    Eventfd(EventfdFileEntry),
    Eventpoll(EventpollFileEntry),
    Signalfd(SignalfdEntry),
    Timerfd(Box<TimerfdEntry>),
    Inotify(InotifyFileEntry),
    Fanotify(FanotifyFileEntry),
    BpfMap(Box<BpfmapFileEntry>),
    Pidfd(PidfdEntry),
    Socket(Box<UnixSkEntry>),
    Internet(Box<InetSkEntry>),
    Netlink(Box<NetlinkSkEntry>),
    PacketSock(Box<PacketSockEntry>),
}

impl Body {
    /// The network namespace that it belongs to, if it does to any.
    pub(super) fn network(&self) -> Option<u32> {
        match self {
            Self::Tun(file) => file.ns_id,
            Self::Socket(socket) => socket.ns_id,
            Self::Internet(socket) => socket.ns_id,
            Self::Netlink(socket) => socket.ns_id,
            Self::PacketSock(socket) => socket.ns_id,
            _ => None,
        }
    }
}

impl Records {
    pub(super) fn read(dir: &Dir) -> Result<Self, Error> {
        let mut records = Self::default();
        if let Some(mut reader) = dir.reader_opt(ImageKind::Files, ())? {
            for needed in reader.decoded::<FileEntry, _>("files", needed) {
                let (entry, regular) = needed?;
                records.entries.push(entry);
                records.add_regular(regular)?;
            }
        }
        if records.entries.is_empty() {
            records.read_obsolete(dir)?;
        }
        records.drop_parts()?;
        Ok(records)
    }

    /// The layout in which each kind had a file of its own (section 25). Kinds that are not supported are
    /// missed by the tables that refer to them.
    fn read_obsolete(&mut self, dir: &Dir) -> Result<(), Error> {
        for reg in dir.read_all::<RegFileEntry>(ImageKind::RegFiles, ())? {
            self.push(reg.id, FdTypes::Reg, Some(Body::Regular));
            self.add_regular(Some(Box::new(reg)))?;
        }
        for pipe in dir.read_all::<PipeEntry>(ImageKind::Pipes, ())? {
            self.push(pipe.id, FdTypes::Pipe, Some(Body::Pipe(pipe)));
        }
        for fifo in dir.read_all::<FifoEntry>(ImageKind::Fifo, ())? {
            self.push(fifo.id, FdTypes::Fifo, Some(Body::Fifo(fifo)));
        }
        for tty in dir.read_all::<TtyFileEntry>(ImageKind::TtyFiles, ())? {
            self.push(tty.id, FdTypes::Tty, Some(Body::Terminal(tty)));
        }
        for file in dir.read_all::<NsFileEntry>(ImageKind::NsFiles, ())? {
            self.push(file.id, FdTypes::Ns, Some(Body::Namespace(file)));
        }
        for file in dir.read_all::<TunfileEntry>(ImageKind::Tunfile, ())? {
            self.push(file.id, FdTypes::Tunf, Some(Body::Tun(file)));
        }
        self.read_obsolete_events(dir)?;
        for socket in dir.read_all::<UnixSkEntry>(ImageKind::Unixsk, ())? {
            let id = socket.id;
            self.push(id, FdTypes::Unixsk, Some(Body::Socket(Box::new(socket))));
        }
        for socket in dir.read_all::<PacketSockEntry>(ImageKind::Packetsk, ())? {
            let id = socket.id;
            self.push(
                id,
                FdTypes::Packetsk,
                Some(Body::PacketSock(Box::new(socket))),
            );
        }
        for socket in dir.read_all::<NetlinkSkEntry>(ImageKind::Netlinksk, ())? {
            let id = socket.id;
            self.push(
                id,
                FdTypes::Netlinksk,
                Some(Body::Netlink(Box::new(socket))),
            );
        }
        for socket in dir.read_all::<InetSkEntry>(ImageKind::Inetsk, ())? {
            let id = socket.id;
            self.push(id, FdTypes::Inetsk, Some(Body::Internet(Box::new(socket))));
        }
        Ok(())
    }

    /// The same of event files. What a set watches had a file of its own too.
    fn read_obsolete_events(&mut self, dir: &Dir) -> Result<(), Error> {
        for file in dir.read_all::<EventfdFileEntry>(ImageKind::EventfdFile, ())? {
            self.push(file.id, FdTypes::Eventfd, Some(Body::Eventfd(file)));
        }
        for file in dir.read_all::<SignalfdEntry>(ImageKind::Signalfd, ())? {
            self.push(file.id, FdTypes::Signalfd, Some(Body::Signalfd(file)));
        }
        for file in dir.read_all::<TimerfdEntry>(ImageKind::Timerfd, ())? {
            self.push(
                file.id,
                FdTypes::Timerfd,
                Some(Body::Timerfd(Box::new(file))),
            );
        }
        for file in dir.read_all::<BpfmapFileEntry>(ImageKind::BpfmapFile, ())? {
            let (id, body) = (file.id, Body::BpfMap(Box::new(file)));
            self.push(id, FdTypes::Bpfmap, Some(body));
        }
        for file in dir.read_all::<PidfdEntry>(ImageKind::Pidfd, ())? {
            self.push(file.id, FdTypes::Pidfd, Some(Body::Pidfd(file)));
        }
        let mut watches: BTreeMap<u32, Vec<InotifyWdEntry>> = BTreeMap::new();
        for watch in dir.read_all::<InotifyWdEntry>(ImageKind::InotifyWd, ())? {
            watches.entry(watch.id).or_default().push(watch);
        }
        for mut queue in dir.read_all::<InotifyFileEntry>(ImageKind::InotifyFile, ())? {
            queue
                .wd
                .extend(watches.remove(&queue.id).unwrap_or_default());
            self.push(queue.id, FdTypes::Inotify, Some(Body::Inotify(queue)));
        }
        let mut marks: BTreeMap<u32, Vec<FanotifyMarkEntry>> = BTreeMap::new();
        for mark in dir.read_all::<FanotifyMarkEntry>(ImageKind::FanotifyMark, ())? {
            marks.entry(mark.id).or_default().push(mark);
        }
        for mut group in dir.read_all::<FanotifyFileEntry>(ImageKind::FanotifyFile, ())? {
            group
                .mark
                .extend(marks.remove(&group.id).unwrap_or_default());
            self.push(group.id, FdTypes::Fanotify, Some(Body::Fanotify(group)));
        }
        let mut watches: BTreeMap<u32, Vec<EventpollTfdEntry>> = BTreeMap::new();
        for watch in dir.read_all::<EventpollTfdEntry>(ImageKind::EventpollTfd, ())? {
            watches.entry(watch.id).or_default().push(watch);
        }
        for mut set in dir.read_all::<EventpollFileEntry>(ImageKind::EventpollFile, ())? {
            set.tfd.extend(watches.remove(&set.id).unwrap_or_default());
            self.push(set.id, FdTypes::Eventpoll, Some(Body::Eventpoll(set)));
        }
        Ok(())
    }

    /// Descriptions of terminals.
    pub(super) fn terminals(&self) -> impl Iterator<Item = &TtyFileEntry> {
        let bodies = self.entries.iter().filter_map(|entry| entry.body.as_ref());
        bodies.filter_map(|body| match body {
            Body::Terminal(terminal) => Some(terminal),
            _ => None,
        })
    }

    /// Takes the path of a file.
    fn add_regular(&mut self, reg: Option<Box<RegFileEntry>>) -> Result<(), Error> {
        let Some(reg) = reg else { return Ok(()) };
        let id = reg.id;
        match self.regular.insert(id, reg) {
            None => Ok(()),
            Some(_) => Err(twice(id)),
        }
    }

    fn push(&mut self, id: u32, kind: FdTypes, body: Option<Body>) {
        self.entries.push(Entry { id, kind, body });
    }

    /// Drops the paths of FIFOs and terminals, which are no files of their own, and looks whether ids are
    /// unique among the others.
    fn drop_parts(&mut self) -> Result<(), Error> {
        let part = |entry: &Entry| match &entry.body {
            Some(Body::Fifo(fifo)) => fifo.regf_id,
            Some(Body::Terminal(tty)) => tty.regf_id,
            Some(Body::Tun(tun)) => Some(tun.id),
            _ => None,
        };
        let parts: BTreeSet<u32> = self.entries.iter().filter_map(part).collect();
        self.entries
            .retain(|entry| entry.kind != FdTypes::Reg || !parts.contains(&entry.id));
        let kinds = self.entries.iter().map(|entry| (entry.id, entry.kind));
        self.kinds = kinds.collect();
        if self.kinds.len() == self.entries.len() {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        let mut ids = self.entries.iter().map(|entry| entry.id);
        let again = ids.find(|id| !seen.insert(*id));
        Err(twice(again.unwrap_or_default()))
    }
}

/// What is needed of a record, with its path if it has one.
fn needed(entry: FileEntry) -> (Entry, Option<Box<RegFileEntry>>) {
    let (id, kind) = (entry.id, entry.r#type());
    let regular = entry.reg.filter(|reg| kind == FdTypes::Reg && reg.id == id);
    let body = match kind {
        FdTypes::Reg => regular.as_ref().map(|_| Body::Regular),
        FdTypes::Pipe => entry.pipe.filter(|pipe| pipe.id == id).map(Body::Pipe),
        FdTypes::Fifo => entry.fifo.filter(|fifo| fifo.id == id).map(Body::Fifo),
        FdTypes::Tunf => entry.tunf.filter(|file| file.id == id).map(Body::Tun),
        FdTypes::Ns => entry.nsf.filter(|file| file.id == id).map(Body::Namespace),
        FdTypes::Tty => entry.tty.filter(|tty| tty.id == id).map(Body::Terminal),
        FdTypes::Memfd => entry.memfd.filter(|file| file.id == id).map(Body::Memory),
        FdTypes::Eventfd => entry.efd.filter(|file| file.id == id).map(Body::Eventfd),
        FdTypes::Eventpoll => entry.epfd.filter(|file| file.id == id).map(Body::Eventpoll),
        FdTypes::Signalfd => entry.sgfd.filter(|file| file.id == id).map(Body::Signalfd),
        FdTypes::Timerfd => entry.tfd.filter(|file| file.id == id).map(Body::Timerfd),
        FdTypes::Inotify => entry.ify.filter(|file| file.id == id).map(Body::Inotify),
        FdTypes::Fanotify => entry.ffy.filter(|file| file.id == id).map(Body::Fanotify),
        FdTypes::Bpfmap => entry.bpf.filter(|file| file.id == id).map(Body::BpfMap),
        FdTypes::Pidfd => entry.pidfd.filter(|file| file.id == id).map(Body::Pidfd),
        FdTypes::Unixsk => {
            let socket = entry.usk.filter(|socket| socket.id == id);
            socket.map(Body::Socket)
        }
        FdTypes::Packetsk => {
            let socket = entry.psk.filter(|socket| socket.id == id);
            socket.map(Body::PacketSock)
        }
        FdTypes::Netlinksk => {
            let socket = entry.nlsk.filter(|socket| socket.id == id);
            socket.map(Body::Netlink)
        }
        FdTypes::Inetsk => {
            let socket = entry.isk.filter(|socket| socket.id == id);
            socket.map(Body::Internet)
        }
        _ => None,
    };
    (Entry { id, kind, body }, regular)
}

fn twice(id: u32) -> Error {
    Error::Duplicate {
        image: FILES.into(),
        what: "file",
        id: id.into(),
    }
}
