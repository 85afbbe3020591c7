//! What carries each end of a cable.

use super::{EndOwner, Selection};
use crate::plugging::PlugKind;

/// Who holds an end of a cable, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndBackend {
    /// The host, by a tap that this process opened.
    Host,
    /// Whoever plugs in: there is a tap and, beside it, a vhost-user socket.
    Anybody,
    /// Nobody, by nothing.
    Nobody,
    /// A VM of ours, by a tap.
    VmTap,
    /// A VM of ours, by a vhost-user socket; nothing on the host.
    VmSocket {
        /// The switch's place in the topology.
        switch: usize,
        /// The port, from 0.
        port: usize,
    },
}

impl EndBackend {
    /// What carries an end of this owner, given which switches run and by what their NICs connect.
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

    /// Whether there is a network device of the end's name.
    pub fn has_device(self) -> bool {
        !matches!(self, EndBackend::VmSocket { .. } | EndBackend::Nobody)
    }

    /// Whether the fabric makes a tap that waits for somebody to open it.
    pub fn has_waiting_tap(self) -> bool {
        matches!(self, EndBackend::Anybody | EndBackend::VmTap)
    }
}
