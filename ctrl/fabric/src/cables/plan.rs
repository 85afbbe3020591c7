//! A cable before it is plugged in: its ports and sockets are open, but no worker has it yet.

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
    /// Carries the end while no front end does.
    pub(crate) port: Option<Port>,
    /// The socket at which vhost-user front ends connect.
    pub(crate) socket: Option<PlannedSocket>,
}

/// A socket at which vhost-user front ends will connect.
pub(crate) struct PlannedSocket {
    pub(crate) role: Role,
    /// The longest IP packet that is advertised to guests, in bytes; `None` advertises no MTU.
    pub(crate) mtu: Option<u16>,
    /// The path of our socket, if its file is to be moved away while the cable is cut.
    pub(crate) file: Option<PathBuf>,
}

/// Opens the network device behind an end.
///
/// # Errors
/// When the device does not exist or cannot be opened.
pub(crate) fn open_netdev(cable: &str, name: &str) -> Result<Port, CablesError> {
    Packet::open(name)
        .map(Port::Packet)
        .map_err(|source| CablesError::Port {
            cable: cable.into(),
            source,
        })
}
