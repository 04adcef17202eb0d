//! Tables of descriptors that leave hardly a number free, under limits that nobody may raise.

use super::{LIMIT, Test};
use crate::failures::start;
use anyhow::Result;
use gelid_tests::{Engine, Verdict};

pub(super) const TESTS: &[Test] = &[
    ("full-table-of-one", || full("one", 5)),
    ("full-table-of-sockets", || full("sockets", 5)),
    ("full-table-of-files", || full("files", 5)),
    ("crowded-table-of-sockets", || full("sockets", 200)),
];

/// What the guest leaves to its table, and everybody else has.
const DESCRIPTORS: u64 = 512;

fn full(of: &str, free: usize) -> Result<Verdict> {
    let engine = Engine::find()?.with_descriptors(DESCRIPTORS);
    let mut guest = start(
        "full-table",
        &[of, &DESCRIPTORS.to_string(), &free.to_string()],
    )?;
    guest.tree.look();
    let (root, images) = (guest.tree.root(), guest.images("images"));
    engine.dump(root, &images, &[])?.expect("dump")?;
    guest.tree.await_death(LIMIT)?;
    engine.restore(&images, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}
