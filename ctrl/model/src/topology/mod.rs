//! The datacenter as a typed model: what is connected to what, and under which names.
//!
//! [`build`] turns a [`crate::config::Config`] into a [`Topology`]. It is pure: nothing of this
//! machine is read or touched, so every collision inside the plan is found before anything
//! happens. The default is exactly ikvswitch 1.0.4's: 9 switches, 141 cables, 282 ends.

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
mod routes;
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
pub use routes::{Conflict, HostRoute, host_route_conflicts};
pub use selection::{Choice, Selection};

/// MTU of every port, in bytes (ikvswitch: leaf server ports 9000; here everywhere).
pub const MTU: u16 = 9000;

/// Longest name of a network interface (Linux: `IFNAMSIZ` less its final zero).
pub const LONGEST_NAME: usize = 15;

/// The whole datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The switches in the order of loopbacks and AS numbers: internet, spines, leaves.
    pub switches: Vec<Switch>,
    /// All cables: host, internet – spines, spines – leaves, leaves – servers.
    pub cables: Vec<Cable>,
    /// The racks from rack 1 on.
    pub racks: Vec<Rack>,
    /// The host's end.
    pub host: HostLink,
    /// The switches' BMCs, if they have any.
    pub ipmi: Option<IpmiSegment>,
    /// Subnets and what is served on them.
    pub net: Networks,
    /// Highest server position of a rack; positions start at 3.
    pub num_u: u16,
    /// First three octets of the MACs that `vm-args` proposes for servers.
    server_mac: [u8; 3],
}

impl Topology {
    /// The server positions of every rack: 3..=num_u.
    pub fn positions(&self) -> std::ops::RangeInclusive<u16> {
        FIRST_U..=self.num_u
    }

    /// A stable MAC for a server's NIC: the configured prefix, then rack, U and NIC, one octet
    /// each (racks and U end at 255 for this reason).
    pub fn server_mac(&self, rack: u16, u: u16, nic: u16) -> Mac {
        let [a, b, c] = self.server_mac;
        Mac([a, b, c, rack as u8, u as u8, nic as u8])
    }

    /// The switch port that this end is, if it is one.
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

    /// A stable MAC for the VM that manages the switches: as a server's of a rack that there is not.
    pub fn manager_mac(&self) -> Mac {
        self.server_mac(0, 0, 1)
    }
}

/// The lowest server position; U1 and U2 are the leaves.
pub const FIRST_U: u16 = 3;

/// Two leaves and the servers between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rack {
    /// 1-based.
    pub number: u16,
    /// Indices into [`Topology::switches`]: the odd leaf (NIC 1 of the servers), the even one.
    pub leaves: [usize; 2],
}

/// What a switch is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The way out: between host and spines.
    Internet,
    /// Connects all leaves.
    Spine,
    /// Top of a rack.
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
    /// What it is there for.
    pub role: Role,
    /// 1-based in its role.
    pub number: u16,
    /// Leaves only: the rack, 1-based.
    pub rack: Option<u16>,
    /// AS number.
    pub asn: u32,
    /// Loopback, a /32.
    pub loopback: Ipv4Addr,
    /// By port number.
    pub ports: Vec<SwitchPort>,
}

/// A NIC of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPort {
    /// ikvswitch's port number, 1-based, unique in the switch; a leaf's server ports have their
    /// U. A leaf's uplinks to spine 3 and up follow the highest U.
    pub number: u16,
    /// Tap at this end of the cable: `ikst12`.
    pub tap: String,
    /// `internet:1`, `spine1:2`, `leaf1:u3`; a leaf's uplink has its spine's number.
    pub alias: String,
    /// Name inside the switch: `ens4` for port 1, `ens5` for port 2, …
    pub nic: String,
    /// MAC address.
    pub mac: Mac,
    /// Its EUI-64 link-local address (RFC 4291, appendix A).
    pub link_local: Ipv6Addr,
    /// Name of the cable.
    pub cable: String,
    /// What is at the far end.
    pub kind: PortKind,
    /// In bytes.
    pub mtu: u16,
}

/// What is at the far end of a switch's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// The host link.
    Host,
    /// A spine.
    Spine,
    /// The internet switch.
    Internet,
    /// A leaf.
    Leaf,
    /// A server of the rack.
    Server {
        /// Its position, 3 and up.
        u: u16,
    },
}

/// Exactly two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// ikvswitch's bridge name: `iksb12`.
    pub name: String,
    /// The end nearer to the host.
    pub a: End,
    /// The other end.
    pub b: End,
    /// Made by `[[cable]]`, not by the datacenter's shape.
    pub own: bool,
}

/// One end of a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// ikvswitch's tap name: `ikst12`, `ikvm1-3-1`.
    pub tap: String,
    /// Readable name: `spine1:2`, `rack1:u3:1`, `host`.
    pub alias: String,
    /// Whose it is.
    pub owner: EndOwner,
}

/// Whose end of a cable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndOwner {
    /// The host link.
    Host,
    /// A switch's port, as indices.
    Switch {
        /// Into [`Topology::switches`].
        switch: usize,
        /// Into [`Switch::ports`].
        port: usize,
    },
    /// A server that a user plugs in.
    Server {
        /// 1-based.
        rack: u16,
        /// Position, 3 and up.
        u: u16,
        /// 1 (odd leaf) or 2 (even leaf).
        nic: u16,
    },
    /// The host, at the segment of the BMCs.
    IpmiHost,
    /// The VM that manages the switches, which a user plugs in.
    IpmiPort,
    /// Nobody's: what was there has gone to another cable (`[[cable]]` with `ends`).
    Open,
}

/// The host's end of the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    /// `ikhn`.
    pub name: String,
    /// Address and prefix: 192.168.96.1/24.
    pub address: Ipv4Net,
    /// The internet switch on the same link: 192.168.96.2.
    pub peer: Ipv4Addr,
    /// MAC address of the link.
    pub mac: Mac,
    /// What the host routes to `peer`: 192.168.96.0/19.
    pub range: Ipv4Net,
    /// Source of traffic that leaves the range.
    pub snat: crate::config::Snat,
    /// Whether IPv6 forwarding is switched on too.
    pub ipv6_forwarding: bool,
}

/// The BMCs: at which ports they are, and the segment by which a VM reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpmiSegment {
    /// Of the cable, and of the host's device at it: `bripmi`.
    pub name: String,
    /// The host's address and prefix there: 192.168.200.1/24.
    pub address: Ipv4Net,
    /// MAC address of the host's device.
    pub mac: Mac,
    /// UDP port of the first switch's BMC; the others follow in the order of the switches.
    pub first_port: u16,
}

impl IpmiSegment {
    /// UDP port of the BMC of a switch, by its place in [`Topology::switches`]: the bounds of
    /// `ipmi.port` leave room for as many as there can be.
    pub fn port(&self, switch: usize) -> u16 {
        self.first_port.saturating_add(switch as u16)
    }
}
