//! Where the pages of address spaces are read from.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use gelid_pages::{ObjectReader, Owner, PAGE_SIZE, Placement, Scratch, Sets};

use super::kernel::Kernel;
use crate::Error;
use crate::plan::Plan;
use crate::plan::space::Space;

/// So many stay open, those that were opened last.
const FEW: usize = 16;

/// Pages of all address spaces. Those of many are opened when somebody needs them: all descriptors of this process are
/// inherited by everybody who is born, and closed again by each.
pub(crate) struct Sources<'a> {
    sets: &'a Sets,
    /// By address space, those that are open.
    open: Vec<RefCell<Weak<ObjectReader>>>,
    /// Those that stay so, and how many may.
    kept: RefCell<VecDeque<Arc<ObjectReader>>>,
    most: usize,
}

impl<'a> Sources<'a> {
    /// Looks whether all can be opened; `other` is told what is wrong with the code of each vDSO.
    pub(crate) fn look(
        plan: &Plan,
        sets: &'a Sets,
        kernel: &Kernel,
        mut other: impl FnMut(Result<(), Error>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let sources = Self {
            sets,
            open: plan.spaces.iter().map(|_| RefCell::default()).collect(),
            kept: RefCell::default(),
            // Whoever has given its groups away may not be able to open any later.
            most: plan.groups_at_birth().map_or(FEW, |_| usize::MAX),
        };
        let mut scratch = Scratch::new();
        for (index, space) in plan.spaces.iter().enumerate() {
            let reader = sources.of(plan, index)?;
            let code = vdso_code(space, kernel, &reader, &mut scratch)?;
            other(kernel.check(space, code.as_deref()))?;
        }
        Ok(sources)
    }

    /// Those of an address space of the plan.
    pub(crate) fn of(&self, plan: &Plan, index: usize) -> Result<Arc<ObjectReader>, Error> {
        let mut open = self.open[index].borrow_mut();
        if let Some(reader) = open.upgrade() {
            return Ok(reader);
        }
        let space = &plan.spaces[index];
        let reader = Arc::new(self.sets.open(Owner::Task(space.pid), &space.pagemap)?);
        *open = Arc::downgrade(&reader);
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= self.most {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&reader));
        Ok(reader)
    }
}

/// The vDSO's code, if the image has all of it.
fn vdso_code(
    space: &Space,
    kernel: &Kernel,
    reader: &ObjectReader,
    scratch: &mut Scratch,
) -> Result<Option<Vec<u8>>, Error> {
    /// No kernel has a larger one.
    const LARGEST: u64 = 64 << 10;
    let Some(vdso) = &space.vdso else {
        return Ok(None);
    };
    let code = &vdso.code;
    let whole = |place: &&Placement| {
        let range = place.range();
        range.start <= code.start && code.end <= range.end
    };
    let Some(place) = space.pagemap.placements.iter().find(whole) else {
        return Ok(None);
    };
    let len = (code.end - code.start).min(LARGEST);
    let mut bytes = vec![0; len as usize];
    let page = place.first_page + (code.start - place.vaddr) / PAGE_SIZE as u64;
    // If it is the same as here nothing can be wrong with it; all around it is verified when it is wanted.
    if !(reader.peek(page, &mut bytes) && bytes == kernel.code()) {
        reader.read_at(scratch, page, &mut bytes)?;
    }
    Ok(Some(bytes))
}
