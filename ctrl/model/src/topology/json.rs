//! The output of `ikv-fabric topology --json`.

use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Topology;

/// The datacenter as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyJson {
    /// All switches, in the order of their AS numbers.
    pub nodes: Vec<NodeJson>,
    /// All cables, in the order of `Topology::cables`.
    pub cables: Vec<CableJson>,
}

/// A switch as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeJson {
    /// The name: `spine1`.
    pub name: String,
    /// The role: `internet`, `spine` or `leaf`.
    pub role: String,
    /// The AS number.
    pub asn: u32,
    /// The loopback's address, a /32.
    pub loopback: Ipv4Addr,
    /// The ports in the order of their numbers.
    pub ports: Vec<PortJson>,
}

/// A switch's port as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortJson {
    /// The tap: `ikst12`.
    pub name: String,
    /// The readable name: `spine1:2`.
    pub alias: String,
    /// The NIC's name inside the switch: `ens5`.
    pub nic: String,
    /// The MAC address, six octets in hexadecimal with colons.
    pub mac: String,
    /// The IPv6 link-local address that follows from the MAC.
    pub link_local: Ipv6Addr,
    /// The name of the cable at this port.
    pub cable: String,
}

/// A cable as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CableJson {
    /// The name: `iksb12`.
    pub name: String,
    /// The tap at the end nearer to the host.
    pub a: String,
    /// The tap at the other end.
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
