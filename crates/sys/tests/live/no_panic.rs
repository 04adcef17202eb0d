//! No text makes a parser panic, and what the kernel prints survives a change of a few bytes.

use std::sync::LazyLock;

use gelid_sys::{mount, pagemap, proc};
use proptest::prelude::*;

/// Hands `text` to every parser.
fn parse_all(text: &[u8]) {
    let _ = proc::stat::parse(text);
    let _ = proc::status::parse(text);
    let _ = proc::maps::parse(text);
    let _ = proc::smaps::parse(text);
    let _ = proc::mountinfo::parse(text);
    let _ = proc::limits::parse(text);
    let _ = proc::timers::parse(text);
    let _ = proc::cgroup::parse(text);
    let _ = proc::auxv::parse(text);
    let _ = proc::tasks::parse(text);
    let _ = proc::ns::parse_link(text);
    let _ = proc::ns::parse_id_map(text);
    let _ = proc::ns::parse_clock_offsets(text);
    let _ = mount::decode(text);
    if let Ok(info) = proc::fdinfo::parse(text.to_vec()) {
        let _ = (
            info.lines().count(),
            info.pairs().count(),
            info.value("lock"),
        );
        let _ = (info.eventfd(), info.epoll(), info.timerfd());
        let _ = (info.signalfd(), info.inotify());
    }
}

/// Real texts, to be damaged.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let names = [
        "stat",
        "status",
        "smaps",
        "mountinfo",
        "limits",
        "cgroup",
        "fdinfo/0",
        "uid_map",
    ];
    let read = |name| std::fs::read(format!("/proc/self/{name}")).unwrap();
    let mut samples: Vec<_> = names.into_iter().map(read).collect();
    samples.push(
        b"ID: 3\nsignal: 14/0000000000000003\nnotify: signal/pid.7858\nClockID: 1\n".to_vec(),
    );
    samples.push(b"pos:\t0\nflags:\t02\nmnt_id:\t1\nclockid: 1\nticks: 7\nsettime flags: 03\nit_value: (4, 12)\n\
        it_interval: (0, 10)\ntfd: 5 events: 19 data: 5 pos:0 ino:3 sdev:d\n\
        inotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 fhandle-bytes:1 fhandle-type:1 f_handle:00\n"
        .to_vec());
    // Two mappings are as good as fifty, and quicker.
    samples.iter_mut().for_each(|text| text.truncate(1600));
    samples
});

proptest! {
    #[test]
    fn bytes(text in proptest::collection::vec(any::<u8>(), 0..600)) {
        parse_all(&text);
    }

    #[test]
    fn plausible_characters(text in "[0-9a-f:/ ()\\-\t\n.\\\\rwxpkBV]{0,300}") {
        parse_all(text.as_bytes());
    }

    #[test]
    fn damaged_samples(which in 0usize..10, at in any::<prop::sample::Index>(), with in any::<Vec<u8>>(), cut in 0usize..40) {
        let mut text = SAMPLES[which].clone();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, with);
        parse_all(&text);
    }

    #[test]
    fn mappings_come_back(start in 0u64..1 << 47, pages in 1u64..1 << 20, bits in 0u32..16, offset in 0u64..1 << 40,
        major in 0u32..4096, minor in 0u32..1 << 20, inode in any::<u64>(), path in "(/[ -\\[\\]-~]{0,40})?") {
        let end = start + pages * 4096;
        let letter = |bit, set, unset| if bits & bit != 0 { set } else { unset };
        let perms = [letter(1, 'r', '-'), letter(2, 'w', '-'), letter(4, 'x', '-'), letter(8, 's', 'p')];
        let perms: String = perms.iter().collect();
        let line = format!("{start:08x}-{end:08x} {perms} {offset:08x} {major:02x}:{minor:02x} {inode}   {path}");
        let map = proc::maps::parse_line(line.as_bytes()).unwrap();
        prop_assert_eq!((map.start, map.end, map.offset, map.inode), (start, end, offset, inode));
        prop_assert_eq!((map.perms.bits(), map.dev.major, map.dev.minor), (bits, major, minor));
        prop_assert_eq!(map.path, path.as_bytes());
    }

    #[test]
    fn names_of_any_kind_keep_stat_readable(name in proptest::collection::vec(any::<u8>(), 0..16)) {
        let own = &SAMPLES[0];
        let rest = &own[own.iter().rposition(|byte| *byte == b')').unwrap()..];
        let text = [b"77 (", &name[..], rest].concat();
        let stat = proc::stat::parse(&text).unwrap();
        prop_assert_eq!((stat.pid, stat.comm), (77, name));
    }

    #[test]
    fn entries_and_categories_agree(bits in any::<u64>()) {
        let entry = pagemap::Entry(bits);
        let categories = entry.categories();
        prop_assert_eq!(categories.contains(pagemap::Categories::PRESENT), entry.present());
        prop_assert_eq!(entry.pfn().is_some(), entry.present() && bits & ((1 << 55) - 1) != 0);
    }
}
