//! The names of the host.

use rustix::system::{setdomainname, sethostname};

use super::Stage;
use crate::Error;
use crate::plan::namespaces::uts::Uts;

/// Sets them. This thread has joined the namespace.
pub(super) fn make(planned: &Uts, stage: &Stage<'_>) -> Result<(), Error> {
    sethostname(planned.host.as_bytes()).map_err(stage.failed("sethostname"))?;
    setdomainname(planned.domain.as_bytes()).map_err(stage.failed("setdomainname"))
}
