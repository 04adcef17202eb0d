//! A unix socket. Section 14.4 of the format.

use super::{FownEntry, SkOptsEntry, SkShutdown};

messages! {
    /// Mode and owner of the node of a bound socket. Section 14.4.
    message FilePermsEntry = "file_perms_entry" {
        /// Mode, `st_mode`.
        required uint32 mode = 1;
        /// User id.
        required uint32 uid = 2;
        /// Group id.
        required uint32 gid = 3;
    }

    /// A unix socket. Section 14.4.
    message UnixSkEntry = "unix_sk_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Own inode.
        required uint32 ino = 2;
        /// 1 stream, 2 datagram, 5 seqpacket.
        required uint32 r#type = 3 as dict SOCK_TYPE;
        /// 1 established, 7 closed/unconnected, 10 listening.
        required uint32 state = 4 as dict SOCK_STATE;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 5 as hex;
        /// 1 EXTERN: socket outside the dumped tree, 2 SERVICE: connection to the checkpoint
        /// service itself, 4 CALLBACK: dumped by a plugin, 8 INHERIT: internal to the restorer.
        required uint32 uflags = 6 as hex;
        /// Listen backlog if listening, else bytes in the write queue (informational).
        required uint32 backlog = 7;
        /// Inode of the peer or 0. For a connection waiting to be accepted it is the inode of the
        /// listening socket.
        required uint32 peer = 8;
        /// Owner for I/O signals.
        required message FownEntry fown = 9;
        /// Options of the socket layer.
        required message SkOptsEntry opts = 10;
        /// Bound address: a path including its terminating zero byte; an abstract name starting
        /// with a zero byte (no terminator); empty = unnamed.
        required bytes name = 11 as socket_name;
        /// [`SkShutdown`]; absent = none.
        optional enumeration SkShutdown shutdown = 12;
        /// Mode, uid, gid of the node of a path-bound socket.
        optional message FilePermsEntry file_perms = 13;
        /// Directory the relative `name` is to be resolved in.
        optional text name_dir = 14;
        /// The socket node no longer exists at the path; it is bound and unlinked again.
        optional bool deleted = 15;
        /// Network namespace.
        optional uint32 ns_id = 16;
        /// Mount of the node when mount namespaces are dumped.
        optional sint32 mnt_id = 17 default "-1";
        /// gelid's own; CRIU skips it.
        optional message GelidUnixSkEntry gelid = 1000;
    }

    /// What gelid records of a unix socket beyond the published format. Field 1000 of `unix_sk_entry`.
    message GelidUnixSkEntry = "gelid_unix_sk_entry" {
        /// The socket is connected with one that is closed. It is said only of datagram sockets, of which
        /// the rest does not tell.
        optional bool peer_gone = 1;
        /// `ECONNRESET` waits to be told.
        optional bool reset = 2;
        /// `SO_PEEK_OFF`, if set.
        optional uint32 peek_off = 3;
        /// `SO_PASSPIDFD`, if on.
        optional bool passpidfd = 4;
        /// `SO_PEERCRED`.
        optional message GelidUcredEntry peer = 5;
    }

    /// Who has made or sent something, `struct ucred`.
    message GelidUcredEntry = "gelid_ucred_entry" {
        /// Process.
        required uint32 pid = 1;
        /// User.
        required uint32 uid = 2;
        /// Group.
        required uint32 gid = 3;
    }
}
