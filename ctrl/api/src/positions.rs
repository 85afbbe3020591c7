//! Where servers plug in.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use model::cable_change::CableState;
use model::plugging::PlugKind;

/// In the query of [`POSITIONS`](crate::routes::POSITIONS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PositionsRequest {
    /// Whether to ask the leaves, too, what they have learned of who is plugged in. It may take some
    /// seconds; an answer that is at most 2 s old is given again.
    pub learned: bool,
}

/// Every NIC of every position in the racks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Positions {
    /// The host's address on its link to the fabric.
    pub host: Ipv4Addr,
    /// Ordered by rack, U and NIC.
    pub places: Vec<Position>,
    /// Leaves that did not say in time what they have learned, a sentence for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One NIC of a position, which is the server's end of a cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// Name of the port: `ikvm1-3-1`.
    pub name: String,
    /// Number of the rack, from 1.
    pub rack: u16,
    /// Height in the rack, from 3.
    pub u: u16,
    /// 1 is cabled to the rack's odd leaf, 2 to the even one.
    pub nic: u16,
    /// The leaf at the other end.
    pub leaf: String,
    /// The MAC address that `vm-args` proposes.
    pub mac: String,
    /// The vhost-user socket, where a VM can plug in without a tap.
    pub socket: PathBuf,
    /// The state of the cable.
    pub cable: CableState,
    /// How a VM is plugged in; `None` if the position is free.
    pub held: Option<PlugKind>,
    /// Since when, in ns since 1970-01-01 UTC; `None` if the position is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<u64>,
    /// What the leaf has learned of whoever is plugged in; `None` if that was not asked for, the leaf
    /// does not run, or it did not answer in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<PluggedGuest>,
}

/// What a leaf has learned of a server at one of its ports. The server says all of it, true or not;
/// it is free of control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluggedGuest {
    /// MAC addresses of its frames of the last 5 minutes, at most 8.
    pub macs: Vec<String>,
    /// Its addresses by DHCP, ARP, neighbour discovery, and the /32 that it announces by BGP; at most 16.
    pub addresses: Vec<IpAddr>,
    /// The name that it announces by LLDP, from at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Position {
    /// `rack1:u3`, which both NICs of a server share.
    pub fn rack_and_u(&self) -> String {
        format!("rack{}:u{}", self.rack, self.u)
    }
}
