//! The datacenter as a typed model: what is connected to what, and the names of all parts.
//!
//! [`build`] turns a [`crate::config::Config`] into a [`Topology`]. It is pure: it neither reads
//! nor changes anything of this machine, so that every collision inside the plan is found before
//! anything happens. The default is exactly that of ikvswitch 1.0.4: 9 switches, 141 cables, 282
//! ends.

mod backend;
mod build;
mod check;
mod dot;
mod error;
mod json;
mod lookup;
mod networks;
mod picture;
mod rewire;
mod selection;
mod server_nics;
mod switch_conf;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use crate::mac::Mac;

pub use backend::EndBackend;
pub use build::build;
pub use error::{TopologyError, TopologyErrors};
pub use json::{CableJson, NodeJson, PortJson, TopologyJson};
pub use lookup::{EndRef, UnknownName};
pub use networks::{BootFiles, DhcpNetwork, DhcpOptions, Networks, VlanNetwork};
pub use selection::{Choice, Selection};

/// MTU of every port, in bytes (ikvswitch: leaf server ports 9000; here everywhere).
pub const MTU: u16 = 9000;

/// The longest name of a network interface in bytes (Linux: `IFNAMSIZ` less its final zero).
pub const LONGEST_NAME: usize = 15;

/// A whole datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The switches in the order of loopbacks and AS numbers: internet, spines, leaves.
    pub switches: Vec<Switch>,
    /// All cables: host, internet – spines, spines – leaves, leaves – servers.
    pub cables: Vec<Cable>,
    /// The racks in the order of their numbers, from rack 1.
    pub racks: Vec<Rack>,
    /// The host's end of the fabric.
    pub host: HostLink,
    /// The switches' BMCs. `None` if they have none.
    pub ipmi: Option<IpmiSegment>,
    /// The subnets, and the services in them.
    pub net: Networks,
    /// The highest server position of a rack; the lowest is 3.
    pub num_u: u16,
    /// The first three octets of the MACs that `vm-args` proposes for servers.
    server_mac: [u8; 3],
}

impl Topology {
    /// The server positions of each rack: 3..=num_u.
    pub fn positions(&self) -> std::ops::RangeInclusive<u16> {
        FIRST_U..=self.num_u
    }

    /// A stable MAC for a server's NIC: the configured prefix, then one octet each for rack, U and
    /// NIC (which is why racks and U end at 255).
    pub fn server_mac(&self, rack: u16, u: u16, nic: u16) -> Mac {
        let [a, b, c] = self.server_mac;
        Mac([a, b, c, rack as u8, u as u8, nic as u8])
    }

    /// The switch port at this end. `None` if the end is not at a switch.
    pub fn port(&self, end: &End) -> Option<&SwitchPort> {
        match end.owner {
            EndOwner::Switch { switch, port } => Some(&self.switches[switch].ports[port]),
            EndOwner::Host
            | EndOwner::IpmiHost
            | EndOwner::IpmiPort
            | EndOwner::Server { .. }
            | EndOwner::Open => None,
        }
    }

    /// A stable MAC for the VM that manages the switches, as for a server of rack 0, which does not
    /// exist.
    pub(crate) fn manager_mac(&self) -> Mac {
        self.server_mac(0, 0, 1)
    }
}

/// The lowest server position; U1 and U2 are the leaves.
pub(crate) const FIRST_U: u16 = 3;

/// A rack: two leaves and the servers between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rack {
    /// The rack's number, from 1.
    pub number: u16,
    /// Indices into [`Topology::switches`]: the odd leaf (NIC 1 of the servers), the even one.
    pub leaves: [usize; 2],
}

/// The role of a switch in the datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Connects the spines with the host, and so with the outside.
    Internet,
    /// Connects all leaves with each other and with internet.
    Spine,
    /// Connects the servers of a rack with the spines.
    Leaf,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Internet => "internet",
            Self::Spine => "spine",
            Self::Leaf => "leaf",
        })
    }
}

/// A switch: a VM that routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// `internet`, `spine1`, `leaf6`; also its host name.
    pub name: String,
    /// Its place in the datacenter's layers.
    pub role: Role,
    /// Its number among the switches of its role, from 1.
    pub number: u16,
    /// The rack of a leaf, from 1; `None` for other roles.
    pub rack: Option<u16>,
    /// Its BGP AS number.
    pub asn: u32,
    /// Its loopback address, a /32.
    pub loopback: Ipv4Addr,
    /// Its ports in the order of their numbers.
    pub ports: Vec<SwitchPort>,
}

/// A port of a switch, which is a NIC of its VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPort {
    /// ikvswitch's port number, from 1, unique in the switch. A leaf's server ports have the number
    /// of their U; its uplinks to spine 3 and up follow the highest U.
    pub number: u16,
    /// The tap at this end of the cable: `ikst12`.
    pub tap: String,
    /// The readable name: `internet:1`, `spine1:2`, `leaf1:u3`. A leaf's uplink has its spine's
    /// number.
    pub alias: String,
    /// The name inside the switch: `ens4` for port 1, `ens5` for port 2, …
    pub nic: String,
    /// The MAC address of the NIC.
    pub mac: Mac,
    /// The link-local address that its MAC yields by EUI-64 (RFC 4291, appendix A).
    pub link_local: Ipv6Addr,
    /// The name of the cable at this port.
    pub cable: String,
    /// What is at the far end.
    pub kind: PortKind,
    /// The MTU in bytes.
    pub mtu: u16,
}

/// The kind of neighbour at the far end of a switch's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// The host, by the host link.
    Host,
    /// A spine switch.
    Spine,
    /// The internet switch.
    Internet,
    /// A leaf switch.
    Leaf,
    /// A server of the rack.
    Server {
        /// The server's position, from 3.
        u: u16,
    },
}

/// A cable, with exactly two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// The name, which was a bridge's in ikvswitch: `iksb12`.
    pub name: String,
    /// The end nearer to the host.
    pub a: End,
    /// The end farther from the host.
    pub b: End,
    /// Whether `[[cable]]` made it, rather than the datacenter's shape.
    pub own: bool,
}

/// One end of a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The tap's name, as in ikvswitch: `ikst12`, `ikvm1-3-1`.
    pub tap: String,
    /// The readable name: `spine1:2`, `rack1:u3:1`, `host`.
    pub alias: String,
    /// The part of the datacenter that this end belongs to.
    pub owner: EndOwner,
}

/// The part of the datacenter that an end of a cable belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndOwner {
    /// The host, by the host link.
    Host,
    /// A switch's port, by its indices.
    Switch {
        /// The index into [`Topology::switches`].
        switch: usize,
        /// The index into [`Switch::ports`].
        port: usize,
    },
    /// A NIC of a server VM, which a user plugs in.
    Server {
        /// The rack's number, from 1.
        rack: u16,
        /// The position in the rack, from 3.
        u: u16,
        /// The NIC: 1 (at the odd leaf) or 2 (at the even leaf).
        nic: u16,
    },
    /// The host, by the segment of the BMCs.
    IpmiHost,
    /// The VM that manages the switches, which a user plugs in.
    IpmiPort,
    /// Unconnected: its former port has moved to another cable (`[[cable]]` with `ends`).
    Open,
}

/// The host's end of the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// The name of the host's device: `ikhn`.
    pub name: String,
    /// The host's address and prefix: 192.168.96.1/24.
    pub address: Ipv4Net,
    /// The address of the internet switch on the same link: 192.168.96.2.
    pub peer: Ipv4Addr,
    /// The MAC address of the host's device.
    pub mac: Mac,
    /// The range that the host routes to `peer`: 192.168.96.0/19.
    pub range: Ipv4Net,
    /// The source address of traffic that leaves the range.
    pub snat: crate::config::Snat,
    /// Whether the host's IPv6 forwarding is switched on too.
    pub ipv6_forwarding: bool,
    /// Queue pairs of the taps for VMs.
    pub tap_queues: u16,
    /// What the host lets through between the fabric, itself and its neighbours.
    pub reach: crate::config::HostReach,
}

/// The BMCs: their ports, and the segment by which a VM reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpmiSegment {
    /// The name of the cable and of the host's device at it: `bripmi`.
    pub name: String,
    /// The host's address and prefix on the segment: 192.168.200.1/24.
    pub address: Ipv4Net,
    /// The MAC address of the host's device on the segment.
    pub mac: Mac,
    /// UDP port of the first switch's BMC; the others follow in the order of the switches.
    pub first_port: u16,
}

impl IpmiSegment {
    /// The UDP port of the BMC of a switch, by its index in [`Topology::switches`]. The bounds of
    /// `ipmi.port` leave room for the largest datacenter.
    pub fn port(&self, switch: usize) -> u16 {
        self.first_port.saturating_add(switch as u16)
    }
}
