//! What `ikv-fabric topology --json` prints.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Topology;

/// The whole datacenter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyJson {
    /// The switches.
    pub nodes: Vec<NodeJson>,
    /// The cables.
    pub cables: Vec<CableJson>,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeJson {
    /// `spine1`.
    pub name: String,
    /// `internet`, `spine` or `leaf`.
    pub role: String,
    /// AS number.
    pub asn: u32,
    /// Loopback.
    pub loopback: Ipv4Addr,
    /// By port number.
    pub ports: Vec<PortJson>,
}

/// A switch's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortJson {
    /// Tap: `ikst12`.
    pub name: String,
    /// `spine1:2`.
    pub alias: String,
    /// `ens5`.
    pub nic: String,
    /// MAC address.
    pub mac: String,
    /// IPv6 link-local address.
    pub link_local: Ipv6Addr,
    /// Name of the cable.
    pub cable: String,
}

/// A cable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CableJson {
    /// `iksb12`.
    pub name: String,
    /// Tap at one end.
    pub a: String,
    /// Tap at the other end.
    pub b: String,
}

impl From<&Topology> for TopologyJson {
    fn from(topology: &Topology) -> Self {
        let nodes = topology.switches.iter().map(|switch| NodeJson {
            name: switch.name.clone(),
            role: switch.role.to_string(),
            asn: switch.asn,
            loopback: switch.loopback,
            ports: switch.ports.iter().map(PortJson::from).collect(),
        });
        let cables = topology.cables.iter().map(|cable| CableJson {
            name: cable.name.clone(),
            a: cable.a.tap.clone(),
            b: cable.b.tap.clone(),
        });
        Self {
            nodes: nodes.collect(),
            cables: cables.collect(),
        }
    }
}

impl From<&super::SwitchPort> for PortJson {
    fn from(port: &super::SwitchPort) -> Self {
        Self {
            name: port.tap.clone(),
            alias: port.alias.clone(),
            nic: port.nic.clone(),
            mac: port.mac.to_string(),
            link_local: port.link_local,
            cable: port.cable.clone(),
        }
    }
}
