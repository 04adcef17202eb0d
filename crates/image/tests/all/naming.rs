//! Files that get their names before the commit.

use gelid_image::messages::CoreEntry;
use gelid_image::{Dir, ImageKind, Staging};

use crate::staging::{inventory, scratch};

/// A set of 100 images that are named early, with its inventory; a file of that name was there before.
fn named_early(dir: &Dir, path: &std::path::Path) -> Staging {
    let staging = Staging::new(dir).unwrap();
    staging.prepare(101);
    for id in 0..99 {
        staging
            .put(ImageKind::Core, id, &CoreEntry::default())
            .unwrap();
    }
    staging.put(ImageKind::Inventory, (), &inventory()).unwrap();
    staging.name_early();
    staging
        .put(ImageKind::Core, 99, &CoreEntry::default())
        .unwrap();
    let last = path.join("core-99.img");
    let patience = std::time::Instant::now();
    while !last.exists() && patience.elapsed().as_secs() < 10 {
        std::thread::yield_now();
    }
    staging
}

#[test]
fn names_are_given_early_but_for_the_inventory() {
    let (scratch, dir) = scratch();
    std::fs::write(scratch.path().join("core-7.img"), "old").unwrap();
    let staging = named_early(&dir, scratch.path());
    let names = dir.names().unwrap();
    assert!(names.contains(&"core-99.img".into()), "{names:?}");
    assert!(!names.contains(&"inventory.img".into()), "{names:?}");
    assert_eq!(
        std::fs::read(scratch.path().join("core-7.img")).unwrap(),
        b"old"
    );
    staging.commit().unwrap();
    assert_eq!(dir.names().unwrap().len(), 102);
    assert!(dir.read_one::<CoreEntry>(ImageKind::Core, 7).is_ok());
}

#[test]
fn names_that_were_given_early_are_taken_away() {
    let (scratch, dir) = scratch();
    std::fs::write(scratch.path().join("core-7.img"), "old").unwrap();
    drop(named_early(&dir, scratch.path()));
    assert_eq!(dir.names().unwrap(), ["core-7.img"]);
}

#[test]
fn an_older_set_keeps_its_names_until_the_commit() {
    let (scratch, dir) = scratch();
    let old = Staging::new(&dir).unwrap();
    old.put(ImageKind::Inventory, (), &inventory()).unwrap();
    old.commit().unwrap();
    let staging = Staging::new(&dir).unwrap();
    staging.prepare(101);
    for id in 0..100 {
        staging
            .put(ImageKind::Core, id, &CoreEntry::default())
            .unwrap();
    }
    staging.name_early();
    assert!(!scratch.path().join("core-0.img").exists());
    staging.put(ImageKind::Inventory, (), &inventory()).unwrap();
    staging.commit().unwrap();
    assert_eq!(dir.names().unwrap().len(), 102);
}

#[test]
fn what_is_finished_of_a_small_set_gets_its_name_at_once() {
    let (scratch, dir) = scratch();
    std::fs::write(scratch.path().join("core-1.img"), "old").unwrap();
    let put = |staging: &Staging, id| {
        let record = CoreEntry::default();
        staging.put(ImageKind::Core, id, &record).unwrap();
    };
    for commits in [false, true] {
        let staging = Staging::new(&dir).unwrap();
        staging.prepare(8);
        put(&staging, 0);
        put(&staging, 1);
        staging.put(ImageKind::Inventory, (), &inventory()).unwrap();
        let mut open = staging.writer(ImageKind::Core, 2).unwrap();
        open.push(&CoreEntry::default()).unwrap();
        staging.name_finished();
        put(&staging, 3);
        staging.name_finished();
        let names = dir.names().unwrap();
        assert_eq!(names, [".gelid-lock", "core-0.img", "core-1.img"]);
        let old = std::fs::read(scratch.path().join("core-1.img")).unwrap();
        assert_eq!(old, b"old");
        open.finish().unwrap();
        if commits {
            staging.commit().unwrap();
        }
    }
    assert_eq!(dir.names().unwrap().len(), 6);
    assert!(dir.read_one::<CoreEntry>(ImageKind::Core, 1).is_ok());
}
