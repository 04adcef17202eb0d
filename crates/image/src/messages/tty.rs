//! An open description of a terminal. Section 17 of the format.

use super::FownEntry;

enumerations! {
    /// Kind of a terminal (section 17).
    enumeration TtyType = "TtyType" {
        /// Unknown.
        Unknown = 0 "UNKNOWN";
        /// Pseudoterminal, either end.
        Pty = 1 "PTY";
        /// Console.
        Console = 2 "CONSOLE";
        /// Virtual terminal.
        Vt = 3 "VT";
        /// `/dev/tty`.
        Ctty = 4 "CTTY";
        /// External terminal.
        ExtTty = 5 "EXT_TTY";
        /// Serial line.
        Serial = 6 "SERIAL";
    }
}

messages! {
    /// Window size of a terminal, `TIOCGWINSZ`. Section 17.
    message WinsizeEntry = "winsize_entry" {
        /// Rows.
        required uint32 ws_row = 1;
        /// Columns.
        required uint32 ws_col = 2;
        /// Width, pixels.
        required uint32 ws_xpixel = 3;
        /// Height, pixels.
        required uint32 ws_ypixel = 4;
    }

    /// Settings of a terminal, `termios(3)`. Section 17.
    message TermiosEntry = "termios_entry" {
        /// Input modes.
        required uint32 c_iflag = 1;
        /// Output modes.
        required uint32 c_oflag = 2;
        /// Control modes, speed included.
        required uint32 c_cflag = 3;
        /// Local modes.
        required uint32 c_lflag = 4;
        /// Line discipline.
        required uint32 c_line = 5;
        /// 0.
        required uint32 c_ispeed = 6;
        /// 0.
        required uint32 c_ospeed = 7;
        /// 19 words, of which the first 8 hold the 32 control characters, four bytes each, low
        /// first.
        repeated uint32 c_cc = 8;
    }

    /// What is special about a pseudoterminal. Section 17.
    message TtyPtyEntry = "tty_pty_entry" {
        /// Number of the pseudoterminal.
        required uint32 index = 1;
    }

    /// `tty-data.img`: what a read from a terminal would have returned. Section 17.
    message TtyDataEntry = "tty_data_entry" {
        /// End that would have been read.
        required uint32 tty_id = 1;
        /// The bytes.
        required bytes data = 2;
        /// gelid's own; CRIU skips it.
        optional message GelidTtyDataEntry gelid = 1000;
    }

    /// What gelid records of these bytes beyond the published format. Field 1000 of `tty_data_entry`.
    message GelidTtyDataEntry = "gelid_tty_data_entry" {
        /// The complete lines at the beginning, if they do not all end where a newline or another end of
        /// line does: twice the number of bytes, plus 1 if the line was ended by the end-of-file character.
        repeated uint32 lines = 1;
        /// Of a master whose slave nobody has open: what a read from that would have returned.
        optional bytes to_slave = 2;
    }

    /// `tty-info.img`: a terminal. Section 17.
    message TtyInfoEntry = "tty_info_entry" {
        /// Tty id (section 4.5): `2 * index`, plus 1 for a pty master.
        required uint32 id = 1;
        /// [`TtyType`].
        required enumeration TtyType r#type = 2;
        /// Pty lock.
        required bool locked = 3;
        /// Exclusive mode.
        required bool exclusive = 4;
        /// Packet mode.
        required bool packet_mode = 5;
        /// Session owning the terminal; 0 none.
        required uint32 sid = 6;
        /// Foreground process group; 0 none.
        required uint32 pgrp = 7;
        /// Device number, user encoding: 1282 (5:2) for a master, 34816+n (136:n) for slaves.
        required uint32 rdev = 8 as odev;
        /// Settings; absent for a hung-up terminal.
        optional message TermiosEntry termios = 9;
        /// Locked settings.
        optional message TermiosEntry termios_locked = 10;
        /// Window size.
        optional message WinsizeEntry winsize = 11;
        /// Number of a pseudoterminal.
        optional message TtyPtyEntry pty = 12;
        /// `st_dev` of the node's filesystem.
        optional uint32 dev = 13;
        /// Owner of the node.
        optional uint32 uid = 14;
        /// Group of the node.
        optional uint32 gid = 15;
        /// gelid's own; CRIU skips it.
        optional message GelidTtyInfoEntry gelid = 1000;
    }

    /// What gelid records of a terminal beyond the published format. Field 1000 of `tty_info_entry`.
    message GelidTtyInfoEntry = "gelid_tty_info_entry" {
        /// Of a slave or its master: nothing comes out, 1 by the stop character, 2 by `tcflow(3)`.
        optional uint32 stop = 1;
        /// Of a master: its slave was open and is not any more.
        optional bool closed = 2;
    }

    /// An open description of a terminal. Section 17.
    message TtyFileEntry = "tty_file_entry" {
        /// `2 * index + m`, `m` = 1 for a pty master. Index: pty number (below 1000), 1002 console,
        /// 1004 virtual terminal, 1006 controlling terminal device (`/dev/tty`), 1010 serial, 1012
        /// + n the n-th external terminal.
        required uint32 id = 1;
        /// Terminal, key in `tty-info.img`.
        required uint32 tty_info_id = 2;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 3 as hex;
        /// Owner for I/O signals.
        required message FownEntry fown = 4;
        /// File id of the regular file with the path; absent for external terminals.
        optional uint32 regf_id = 6;
        /// gelid's own; CRIU skips it.
        optional message GelidTtyFileEntry gelid = 1000;
    }

    /// What gelid records of a description beyond the published format. Field 1000 of `tty_file_entry`.
    message GelidTtyFileEntry = "gelid_tty_file_entry" {
        /// Of `/dev/tty`: the terminal that it is, key in `tty-info.img`.
        optional uint32 terminal = 1;
    }
}
