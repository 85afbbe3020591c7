//! Where servers plug in.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use model::cable_change::CableState;
use model::plugging::PlugKind;

/// Every NIC of every position in the racks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Positions {
    /// The host's address on its link to the fabric.
    pub host: Ipv4Addr,
    /// Ordered by rack, U and NIC.
    pub places: Vec<Position>,
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
}

impl Position {
    /// `rack1:u3`, which both NICs of a server share.
    pub fn rack_and_u(&self) -> String {
        format!("rack{}:u{}", self.rack, self.u)
    }
}
