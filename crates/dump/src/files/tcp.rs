//! Connections of TCP, which are not dumped yet.

use gelid_image::messages::InetSkEntry;

use super::{Collector, Error, InetRefusal, Object};

impl Collector<'_> {
    /// Takes note of a connection.
    pub(super) fn connection(
        &mut self,
        object: &Object<'_>,
        _mptcp: bool,
        _entry: InetSkEntry,
    ) -> Result<(), Error> {
        Err(object.refused_inet(InetRefusal::Mptcp))
    }
}
