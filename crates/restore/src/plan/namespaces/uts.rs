//! Host name and domain name. Section 19.1 of the format.

use gelid_image::messages::UtsnsEntry;
use gelid_image::{Dir, ImageKind};

use crate::plan::PlanError;

/// Bytes of a name (`__NEW_UTS_LEN`).
const LONGEST: usize = 64;

/// The names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uts {
    pub(crate) host: String,
    pub(crate) domain: String,
}

impl Uts {
    pub(super) fn read(dir: &Dir, id: u32) -> Result<Self, PlanError> {
        let entry: UtsnsEntry = dir.read_one(ImageKind::Utsns, id)?;
        let (host, domain) = (entry.nodename, entry.domainname);
        match host.len().max(domain.len()) > LONGEST {
            true => Err(PlanError::Uts { id }),
            false => Ok(Self { host, domain }),
        }
    }
}
