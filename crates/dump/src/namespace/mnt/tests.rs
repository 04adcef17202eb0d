//! Which mounts come back, and how.

use gelid_sys::Pid;
use gelid_sys::proc::mountinfo::parse_line;

use super::*;
use crate::Refusal;

fn mounts(lines: &[&str]) -> Vec<Mount> {
    let parse = |line: &&str| mount(parse_line(line.as_bytes()).unwrap(), 0);
    lines.iter().map(parse).collect()
}

fn options(external: &[&str], of_mounts: Mounts) -> Options {
    let images = gelid_image::Dir::open("/").unwrap();
    Options {
        external: external.iter().map(|key| (*key).to_owned()).collect(),
        mounts: of_mounts,
        ..Options::new(Pid::INIT, images)
    }
}

fn decided(lines: &[&str], external: &[&str], of_mounts: Mounts) -> Result<Vec<Fate>, String> {
    let mut mounts = mounts(lines);
    let options = options(external, of_mounts);
    external::decide(&mut mounts, &options).map_err(|error| error.to_string())?;
    refusal::refuse(&mounts, &options.mounts).map_err(|refusal: Refusal| refusal.to_string())?;
    Ok(mounts.into_iter().map(|mount| mount.fate).collect())
}

const ROOT: &str = "10 1 254:0 /r / rw,relatime - ext4 /dev/vda rw,discard";
const TMPFS: &str = "11 10 0:99 / /t rw,relatime - tmpfs none rw,size=4k";

#[test]
fn what_is_given_is_told_from_what_is_made() {
    let lines = [
        ROOT,
        TMPFS,
        "12 10 254:0 /r/sub /s rw,relatime - ext4 /dev/vda rw,discard",
        "13 10 254:0 /elsewhere /e rw,relatime - ext4 /dev/vda rw,discard",
        "14 10 8:1 / /d rw,relatime - xfs /dev/sda1 rw",
    ];
    let keys = ["mnt[/e]:else", "dev[8/1]:disk", "file[1:2]"];
    let fates = decided(&lines, &keys, Mounts::default()).unwrap();
    assert_eq!(
        fates,
        [
            Fate::Root,
            Fate::New,
            Fate::Part,
            Fate::External("else".into()),
            Fate::Device("disk".into())
        ]
    );
}

#[test]
fn what_cannot_come_back_is_refused() {
    let refused = |line: &str, of_mounts: Mounts| decided(&[ROOT, line], &[], of_mounts);
    let none = Mounts::default;
    for (line, why) in [
        (
            "12 10 8:1 / /d rw - xfs /dev/sda1 rw",
            "mount /d (xfs) is of a file system",
        ),
        (
            "12 10 0:7 / /d rw - fuse.sshfs x rw",
            "--external mnt[PATH]:NAME",
        ),
        ("12 10 0:7 / /d rw - autofs x rw,fd=5", "of an unknown kind"),
        (
            "12 10 0:7 /sub /d rw - tmpfs x rw",
            "of which no mount shows all",
        ),
        (
            "12 10 0:7 / /d rw master:7 - tmpfs x rw",
            "a slave of a mount outside",
        ),
        (
            "12 10 254:0 /other /d rw - ext4 /dev/vda rw",
            "mount /d (ext4)",
        ),
    ] {
        let message = refused(line, none()).unwrap_err();
        assert!(message.contains(why), "{message}");
    }
    let enabled = Mounts {
        enable_fs: vec!["ext2,nfsd".into()],
        ..none()
    };
    let line = "12 10 0:7 / /d rw - nfsd nfsd rw";
    assert_eq!(refused(line, enabled).unwrap()[1], Fate::New);
    assert!(refused(line, none()).is_err());
}

#[test]
fn what_is_skipped_goes_with_what_is_in_it() {
    let lines = [
        "13 12 0:8 / /t/a/b rw - tmpfs x rw",
        "12 11 0:7 / /t/a rw - tmpfs x rw",
        TMPFS,
        ROOT,
    ];
    let infos: Vec<MountInfo> = mounts(&lines).into_iter().map(|mount| mount.info).collect();
    let left = external::without_skipped(&infos, &["/t/a".into()]);
    let left: Vec<i32> = left.iter().map(|mount| mount.id).collect();
    assert_eq!(left, [11, 10]);
}

#[test]
fn records_are_those_of_the_kernel_in_other_words() {
    let lines = [
        "12 10 0:99 /sub//deleted /a\\040b ro,nosuid,noatime shared:4 master:5 - tmpfs none ro,sync,seclabel,size=4k",
        "13 10 0:98 / /p rw,relatime unbindable - devpts pts rw,mode=620",
    ];
    let mounts = mounts(&lines);
    let entry = record(&mounts[0], false);
    assert_eq!(
        (&*entry.root, &*entry.mountpoint),
        (&b"/sub"[..], &b"/a b"[..])
    );
    assert_eq!((entry.deleted, entry.root_dev), (Some(true), 99));
    assert_eq!((entry.flags, entry.sb_flags), (0x18_0403, Some(0x11)));
    assert_eq!((entry.shared_id, entry.master_id), (Some(4), Some(5)));
    assert_eq!((entry.fstype, &*entry.options), (5, &b"size=4k"[..]));
    let entry = record(&mounts[1], true);
    assert_eq!(entry.options, b"mode=620,newinstance");
    assert_eq!((entry.flags, entry.sb_flags), (0x22_0000, Some(0)));
}

#[test]
fn a_name_below_is_told_from_one_beside() {
    assert_eq!(external::below(b"/a", b"/a/b"), Some(&b"b"[..]));
    assert_eq!(external::below(b"/", b"/a"), Some(&b"a"[..]));
    assert_eq!(external::below(b"/a", b"/a"), Some(&b""[..]));
    assert_eq!(external::below(b"/a", b"/ab"), None);
}

#[test]
fn what_is_archived_can_be_read_again() {
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d").join(&long), "text").unwrap();
    std::fs::hard_link(dir.path().join("d").join(&long), dir.path().join("e")).unwrap();
    std::os::unix::fs::symlink(&long, dir.path().join("l")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
    let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
    for piece in 0..30 {
        sparse.write_all_at(&[7], piece << 20).unwrap();
    }
    sparse.set_len(40 << 20).unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    let archive = tempfile::NamedTempFile::new().unwrap();
    let file = archive.reopen().unwrap();
    archive::write(root.as_fd(), file, &Census::default()).unwrap();
    let len = archive.as_file().metadata().unwrap().len();
    assert!(len < 100_000, "{len}");
    let unpacked = flate2::read::GzDecoder::new(archive.reopen().unwrap());
    let mut names = Vec::new();
    for entry in tar::Archive::new(unpacked).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        match name.as_str() {
            "./sparse" => {
                assert_eq!(data.len(), 40 << 20);
                assert_eq!(data.iter().filter(|byte| **byte == 7).count(), 30);
            }
            "./l" => assert_eq!(*entry.link_name_bytes().unwrap(), *long.as_bytes()),
            _ => {}
        }
        names.push((name, entry.header().entry_type().as_byte() as char));
    }
    let long = format!("./d/{long}");
    let expected = [
        ("./", '5'),
        ("./e", '0'),
        ("./l", '2'),
        ("./sparse", 'S'),
        ("./d/", '5'),
    ];
    let mut expected = expected
        .map(|(name, kind)| (name.to_owned(), kind))
        .to_vec();
    expected.push((long, '1'));
    assert_eq!(names, expected);
}

#[test]
fn nothing_is_known_without_namespaces() {
    let table = MountTable::default();
    assert!(!table.is_known() && table.root().is_none() && table.root_of(1).is_none());
}
