//! Plans of restores, made from damaged image sets.

use gelid_image::Dir;
use gelid_restore::Options;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Sets as a dump writes them.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/image/tests/golden");
/// It would tell of every damage before anything else is looked at.
const MANIFEST: &str = "gelid-manifest.json";

/// A set, and a copy to be damaged.
struct Set {
    files: Vec<(String, Vec<u8>)>,
    copy: PathBuf,
}

/// Damages a set as the input says, and plans its restore. Byte 0 picks the set; then each damage is the
/// file, what to do (overwrite, insert, delete), where (two bytes), how many bytes, and these bytes.
pub fn plan(input: &[u8]) {
    let sets = sets();
    let [which, damages @ ..] = input else { return };
    let set = &sets[usize::from(*which) % sets.len()];
    let mut files: Vec<Option<Vec<u8>>> = vec![None; set.files.len()];
    let mut rest = damages;
    while let [file, what, low, high, len, bytes @ ..] = rest {
        let index = usize::from(*file) % files.len();
        let bytes_of = bytes.get(..usize::from(*len)).unwrap_or(bytes);
        rest = &bytes[bytes_of.len()..];
        let contents = files[index].get_or_insert_with(|| set.files[index].1.clone());
        let at = usize::from(u16::from_le_bytes([*low, *high])) % (contents.len() + 1);
        damage(contents, what % 3, at, bytes_of);
    }
    let damaged = || files.iter().zip(&set.files);
    for (contents, (name, _)) in damaged() {
        if let Some(contents) = contents {
            write(&set.copy.join(name), contents);
        }
    }
    if let Ok(dir) = Dir::open(&set.copy)
        && let Ok(plan) = gelid_restore::plan(&dir, &Options::default())
    {
        assert!(plan.describe().all(|line| !line.is_empty()));
    }
    for (contents, (name, whole)) in damaged() {
        if contents.is_some() {
            write(&set.copy.join(name), whole);
        }
    }
}

fn damage(contents: &mut Vec<u8>, what: u8, at: usize, bytes: &[u8]) {
    let end = (at + bytes.len()).min(contents.len());
    match what {
        0 => contents[at..end].copy_from_slice(&bytes[..end - at]),
        1 => drop(contents.splice(at..at, bytes.iter().copied())),
        _ => drop(contents.drain(at..end)),
    }
}

fn write(path: &Path, contents: &[u8]) {
    fs::write(path, contents).expect("the copy of a set can be written");
}

fn sets() -> &'static [Set] {
    static SETS: OnceLock<Vec<Set>> = OnceLock::new();
    SETS.get_or_init(|| {
        // libFuzzer ends the program without a word: who starts it removes its temporary folder.
        let base = std::env::temp_dir().join(format!("gelid-fuzz-plan.{}", std::process::id()));
        let mut sets: Vec<_> = list(Path::new(GOLDEN))
            .iter()
            .filter(|folder| folder.is_dir())
            .map(|folder| set(folder, &base))
            .collect();
        sets.sort_by(|one, other| one.copy.cmp(&other.copy));
        sets
    })
}

fn set(folder: &Path, base: &Path) -> Set {
    let copy = base.join(folder.file_name().unwrap_or_default());
    fs::create_dir_all(&copy).expect("a copy of a set can be made");
    let mut files: Vec<_> = list(folder)
        .into_iter()
        .filter(|file| !file.ends_with(MANIFEST))
        .map(|file| {
            let name = file.file_name().unwrap_or_default();
            let contents = fs::read(&file).expect("a set can be read");
            write(&copy.join(name), &contents);
            (name.to_string_lossy().into_owned(), contents)
        })
        .collect();
    files.sort();
    Set { files, copy }
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the golden sets are part of the checkout");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}
