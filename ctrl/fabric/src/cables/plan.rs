//! A cable before it is plugged in: its ports and sockets are open, and no worker has it yet.

use std::path::PathBuf;

use dataplane::Port;
use dataplane::port::Packet;
use dataplane::vhost_sockets::Role;

use super::error::CablesError;

/// A cable that is about to be plugged in.
pub(crate) struct PlannedCable {
    pub(crate) name: String,
    /// Ends A and B.
    pub(crate) ends: [PlannedEnd; 2],
}

/// One end of a [`PlannedCable`].
pub(crate) struct PlannedEnd {
    pub(crate) name: String,
    /// What carries the end while no front end does.
    pub(crate) port: Option<Port>,
    /// Where vhost-user front ends plug in.
    pub(crate) socket: Option<PlannedSocket>,
}

/// Where vhost-user front ends will plug in.
pub(crate) struct PlannedSocket {
    pub(crate) role: Role,
    /// The longest IP packet, in bytes, that is advertised to guests; `None` advertises no MTU.
    pub(crate) mtu: Option<u16>,
    /// The file of our socket, if it is to be moved away while the cable is cut.
    pub(crate) file: Option<PathBuf>,
}

/// Opens the network device behind an end.
///
/// # Errors
/// When there is no such device, or it cannot be opened.
pub(crate) fn open_netdev(cable: &str, name: &str) -> Result<Port, CablesError> {
    Packet::open(name)
        .map(Port::Packet)
        .map_err(|source| CablesError::Port {
            cable: cable.into(),
            source,
        })
}
