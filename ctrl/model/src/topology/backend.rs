//! The backend behind each end of a cable: a tap, a socket, or nothing.

use super::{EndOwner, Selection};
use crate::plugging::PlugKind;

/// The backend behind an end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndBackend {
    /// The host's network stack, by a tap that this process has opened.
    Host,
    /// A user's VM: by the end's tap, or by the vhost-user socket beside it.
    Anybody,
    /// Unconnected: the end has neither a device nor a socket.
    Nobody,
    /// A switch's VM, by a tap.
    VmTap,
    /// A switch's VM, by a vhost-user socket. The host has no device for it.
    VmSocket {
        /// The switch's index in the topology.
        switch: usize,
        /// The port's index in the switch, from 0.
        port: usize,
    },
}

impl EndBackend {
    /// The backend of an end, given its owner, the switches that run and how their NICs are plugged
    /// in.
    pub fn of(owner: EndOwner, switches: &Selection, nic: PlugKind) -> Self {
        match (owner, nic) {
            (EndOwner::Host | EndOwner::IpmiHost, _) => EndBackend::Host,
            (EndOwner::Open, _) => EndBackend::Nobody,
            (EndOwner::Server { .. } | EndOwner::IpmiPort, _) => EndBackend::Anybody,
            (EndOwner::Switch { switch, .. }, _) if !switches.contains(switch) => {
                EndBackend::Anybody
            }
            (EndOwner::Switch { .. }, PlugKind::Tap) => EndBackend::VmTap,
            (EndOwner::Switch { switch, port }, PlugKind::VhostUser) => {
                EndBackend::VmSocket { switch, port }
            }
        }
    }

    /// Whether the host has a network device of the end's name.
    pub fn has_device(self) -> bool {
        !matches!(self, EndBackend::VmSocket { .. } | EndBackend::Nobody)
    }

    /// Whether the fabric creates a tap for a VM to open.
    pub fn has_waiting_tap(self) -> bool {
        matches!(self, EndBackend::Anybody | EndBackend::VmTap)
    }
}
