//! Where servers plug in.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use model::cable_change::CableState;
use model::plugging::PlugKind;

/// Every NIC of every position in the racks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// The host's address on its link to the fabric.
    pub host: Ipv4Addr,
    /// By rack, position and NIC.
    pub places: Vec<Position>,
}

/// A server's end of a cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// `ikvm1-3-1`.
    pub name: String,
    /// The rack, 1-based.
    pub rack: u16,
    /// The position, 3 and up.
    pub u: u16,
    /// 1: to the odd leaf, 2: to the even one.
    pub nic: u16,
    /// The leaf at the other end.
    pub leaf: String,
    /// The MAC address that `vm-args` proposes.
    pub mac: String,
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// What the operator made of the cable.
    pub cable: CableState,
    /// By what somebody is plugged in; `None`: nobody is.
    pub held: Option<PlugKind>,
}

impl Position {
    /// `rack1:u3`.
    pub fn rack_and_u(&self) -> String {
        format!("rack{}:u{}", self.rack, self.u)
    }
}
