//! `files.img`: an open file description of any kind. Sections 11.1 and 11.2 of the format.

use super::{
    BpfmapFileEntry, EventfdFileEntry, EventpollFileEntry, ExtFileEntry, FanotifyFileEntry,
    FifoEntry, InetSkEntry, InotifyFileEntry, MemfdFileEntry, NetlinkSkEntry, NsFileEntry,
    PacketSockEntry, PidfdEntry, PipeEntry, RegFileEntry, SignalfdEntry, TimerfdEntry,
    TtyFileEntry, TunfileEntry, UnixSkEntry,
};

enumerations! {
    /// Kind of an open file description (section 11.2).
    enumeration FdTypes = "fd_types" {
        /// Undefined.
        Und = 0 "UND";
        /// Anything reopened by path.
        Reg = 1 "REG";
        /// Pipe.
        Pipe = 2 "PIPE";
        /// Named FIFO.
        Fifo = 3 "FIFO";
        /// IPv4 or IPv6 socket.
        Inetsk = 4 "INETSK";
        /// Unix socket.
        Unixsk = 5 "UNIXSK";
        /// eventfd.
        Eventfd = 6 "EVENTFD";
        /// epoll instance.
        Eventpoll = 7 "EVENTPOLL";
        /// inotify.
        Inotify = 8 "INOTIFY";
        /// signalfd.
        Signalfd = 9 "SIGNALFD";
        /// Packet socket.
        Packetsk = 10 "PACKETSK";
        /// Terminal.
        Tty = 11 "TTY";
        /// fanotify.
        Fanotify = 12 "FANOTIFY";
        /// Netlink socket.
        Netlinksk = 13 "NETLINKSK";
        /// Namespace file.
        Ns = 14 "NS";
        /// tun device.
        Tunf = 15 "TUNF";
        /// Provided by a plugin.
        Ext = 16 "EXT";
        /// timerfd.
        Timerfd = 17 "TIMERFD";
        /// memfd.
        Memfd = 18 "MEMFD";
        /// BPF map.
        Bpfmap = 19 "BPFMAP";
        /// pidfd.
        Pidfd = 20 "PIDFD";
        /// Internal to a restorer.
        CtlTty = 65534 "CTL_TTY";
        /// Internal to a restorer.
        AutofsPipe = 65535 "AUTOFS_PIPE";
    }
}

messages! {
    /// `fdinfo-*.img`: one slot of a descriptor table. Section 11.1.
    message FdinfoEntry = "fdinfo_entry" {
        /// File id; key in `files.img` together with `type`.
        required uint32 id = 1;
        /// Descriptor flags: 1 = close-on-exec.
        required uint32 flags = 2;
        /// [`FdTypes`].
        required enumeration FdTypes r#type = 3;
        /// Descriptor number.
        required uint32 fd = 4;
        /// SELinux label of a socket, when SELinux is in use.
        optional string xattr_security_selinux = 5;
    }

    /// `files.img`: an open file description of any kind. Section 11.2.
    message FileEntry = "file_entry" {
        /// [`FdTypes`]; says which of the fields below is present.
        required enumeration FdTypes r#type = 1;
        /// File id, equal to the one inside.
        required uint32 id = 2;
        /// If `type` says so.
        optional boxed message RegFileEntry reg = 3;
        /// If `type` says so.
        optional boxed message InetSkEntry isk = 4;
        /// If `type` says so.
        optional message NsFileEntry nsf = 5;
        /// If `type` says so.
        optional boxed message PacketSockEntry psk = 6;
        /// If `type` says so.
        optional boxed message NetlinkSkEntry nlsk = 7;
        /// If `type` says so.
        optional message EventfdFileEntry efd = 8;
        /// If `type` says so.
        optional message EventpollFileEntry epfd = 9;
        /// If `type` says so.
        optional message SignalfdEntry sgfd = 10;
        /// If `type` says so.
        optional message TunfileEntry tunf = 11;
        /// If `type` says so.
        optional boxed message TimerfdEntry tfd = 12;
        /// If `type` says so.
        optional message InotifyFileEntry ify = 13;
        /// If `type` says so.
        optional message FanotifyFileEntry ffy = 14;
        /// If `type` says so.
        optional message ExtFileEntry ext = 15;
        /// If `type` says so.
        optional boxed message UnixSkEntry usk = 16;
        /// If `type` says so.
        optional message FifoEntry fifo = 17;
        /// If `type` says so.
        optional message PipeEntry pipe = 18;
        /// If `type` says so.
        optional message TtyFileEntry tty = 19;
        /// If `type` says so.
        optional message MemfdFileEntry memfd = 20;
        /// If `type` says so.
        optional boxed message BpfmapFileEntry bpf = 21;
        /// If `type` says so.
        optional message PidfdEntry pidfd = 22;
    }
}
