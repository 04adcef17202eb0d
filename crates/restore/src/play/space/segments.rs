//! Attachments to System V shared memory.

use std::ops::Range;

use gelid_sys::ipc::shm;
use gelid_sys::syscall::nr;

use super::super::script::{Object, Reel};
use super::{PROT_READ, PROT_WRITE, advise, sized};
use crate::Error;
use crate::plan::space::{Area, Backing, Space};
use crate::plan::zone;

/// `MREMAP_MAYMOVE | MREMAP_FIXED`.
const MOVE: u64 = 3;

/// Appends what attaches a part of an area that lies in a segment. A segment can only be attached whole: if less is
/// wanted, that is done where there is room, and all else is given back.
pub(super) fn attach(
    reel: &mut Reel,
    space: &Space,
    area: &Area,
    part: &Range<u64>,
    zone: &Range<u64>,
) -> Result<(), Error> {
    let Backing::Segment {
        id,
        writes,
        offset,
        extent,
        page,
    } = area.part(part.clone()).backing
    else {
        return Ok(());
    };
    let object = Object::Area(part.start);
    let len = part.end - part.start;
    let flags = shm::REMAP | if writes { 0 } else { shm::RDONLY };
    let at = |start: u64| [id.into(), start.into(), u64::from(flags).into()];
    if len == extent {
        reel.must(object, nr::shmat, at(part.start));
    } else {
        let whole = zone::hole(space, zone, extent, page)?;
        let from = whole.start + offset;
        reel.must(object, nr::shmat, at(whole.start));
        let moved = [from, len, len, MOVE, part.start];
        reel.must(object, nr::mremap, moved.map(Into::into));
        for rest in [whole.start..from, from + len..whole.end] {
            if !rest.is_empty() {
                let args = [rest.start.into(), (rest.end - rest.start).into()];
                reel.must(object, nr::munmap, args);
            }
        }
    }
    let given = PROT_READ | if writes { PROT_WRITE } else { 0 };
    if area.prot != given {
        reel.must(object, nr::mprotect, sized(part, area.prot.into()));
    }
    advise(reel, area, part);
    Ok(())
}
