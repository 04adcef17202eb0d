//! Host name and domain name: `utsns-*.img`. Section 19.1 of the format.

use gelid_image::ImageKind;
use gelid_image::messages::UtsnsEntry;

use super::Instance;
use crate::Error;
use crate::records::Context;

/// Writes the names.
pub(super) fn dump(instance: &Instance, context: Context<'_>) -> Result<(), Error> {
    let names = instance.inside(|| Ok(rustix::system::uname()))?;
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let entry = UtsnsEntry {
        nodename: text(names.nodename()),
        domainname: text(names.domainname()),
    };
    Ok(context.staging.put(ImageKind::Utsns, instance.id, &entry)?)
}
