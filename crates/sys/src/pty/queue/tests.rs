//! Pairs of their own, filled by the program that a test is.

use super::*;
use crate::pty::set_locked;
use crate::tty::settings;
use rustix::fs::{Mode, OFlags};

struct Pair {
    master: OwnedFd,
    slave: OwnedFd,
}

fn pair() -> Pair {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).unwrap();
    set_locked(&master, false).unwrap();
    let slave = peer(&master).unwrap();
    Pair { master, slave }
}

impl Pair {
    fn set(&self, change: impl FnOnce(&mut Termios)) -> Termios {
        let mut settings = settings(&self.slave).unwrap();
        change(&mut settings);
        set_settings(&self.slave, &settings).unwrap();
        settings
    }

    fn say(&self, bytes: &[u8]) {
        rustix::io::write(&self.master, bytes).unwrap();
    }

    /// All lines, and what is left when reading by bytes.
    fn read(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 5000];
        while ready(self.slave.as_fd(), PollFlags::IN).unwrap() {
            let read = rustix::io::read(&self.slave, &mut buffer).unwrap();
            all.push(buffer[..read].to_vec());
        }
        all
    }
}

const ECHO: u32 = 0o10;

#[test]
fn lines_stay_where_they_are() {
    let one = pair();
    let lines = one.set(|settings| {
        settings.lflag &= !ECHO;
        settings.cc[VEOL] = b';';
    });
    one.say(b"first\nends;\x04half\x04\x16\x03lite\x16\nral\npart\x16\x04");
    let mut whole = take(&one.master, &lines, false).unwrap();
    assert_eq!(whole.to_slave, b"first\nends;half\x03lite\nral\npart\x04");
    let ends: Vec<_> = whole
        .lines
        .iter()
        .map(|line| (line.len, line.eof))
        .collect();
    assert_eq!(
        ends,
        [(6, false), (5, false), (0, true), (4, true), (10, false)]
    );
    assert_eq!(settings(&one.slave), Ok(lines));
    assert_eq!(take(&one.master, &lines, false), Ok(whole.clone()));

    let other = pair();
    whole.stop = Some(Stop::Character);
    put(&other.master, &other.slave, &lines, &whole).unwrap();
    assert_eq!(take(&other.master, &lines, false), Ok(whole));
    for pair in [one, other] {
        let read = pair.read();
        let want: [&[u8]; 5] = [b"first\n", b"ends;", b"", b"half", b"\x03lite\nral\n"];
        assert_eq!(read, want);
        // The rest is a line that goes on.
        pair.say(b"!\n");
        await_that(|| ready(pair.slave.as_fd(), PollFlags::IN)).unwrap();
        assert_eq!(pair.read(), [b"part\x04!\n"]);
    }
}

#[test]
fn bytes_go_both_ways() {
    let one = pair();
    let plain = one.set(|settings| {
        settings.lflag = 0;
        settings.iflag = 0;
        settings.cc[VMIN] = 5;
    });
    let typed: Vec<u8> = (0..9000_u32).map(|at| (at % 251) as u8).collect();
    write_all(one.master.as_fd(), &typed[..4]).unwrap();
    let few = take(&one.master, &plain, false).unwrap();
    assert_eq!(few.to_slave, typed[..4]);
    write_all(one.master.as_fd(), &typed[4..]).unwrap();
    rustix::io::write(&one.slave, b"printed\n").unwrap();
    let all = take(&one.master, &plain, false).unwrap();
    assert_eq!((&all.to_slave, &all.lines), (&typed, &Vec::new()));
    assert_eq!(all.to_master, b"printed\r\n");
    let other = pair();
    put(&other.master, &other.slave, &plain, &all).unwrap();
    assert_eq!(take(&other.master, &plain, false), Ok(all));
    assert_eq!(settings(&other.slave), Ok(plain));
}

#[test]
fn a_stop_is_told_and_kept() {
    let one = pair();
    let settings = one.set(|_| {});
    assert!(take(&one.master, &settings, false).unwrap().is_nothing());
    rustix::io::write(&one.slave, b"before").unwrap();
    one.say(b"\x13");
    await_that(|| Ok(!ready(one.slave.as_fd(), PollFlags::OUT)?)).unwrap();
    let found = take(&one.master, &settings, true).unwrap();
    assert_eq!(
        (&*found.to_master, found.stop),
        (&b"before"[..], Some(Stop::Character))
    );
    assert!(!ready(one.slave.as_fd(), PollFlags::OUT).unwrap());
    one.say(b"\x11");
    await_that(|| ready(one.slave.as_fd(), PollFlags::OUT)).unwrap();
    let ends = Ends {
        master: one.master.as_fd(),
        peer: &one.slave,
        settings: &settings,
    };
    ends.flow(TCOOFF).unwrap();
    let found = take(&one.master, &settings, false).unwrap();
    assert_eq!(found.stop, Some(Stop::Held));
    assert!(!ready(one.slave.as_fd(), PollFlags::OUT).unwrap());
}
