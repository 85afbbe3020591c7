//! How the switches' BMCs are reached.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What an IPMI client must know. The password itself is in a file for the owner alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpmiAccess {
    /// Who logs in.
    pub user: String,
    /// The file with the password.
    pub password_file: PathBuf,
    /// The host's address on the segment, with its prefix.
    pub address: Ipv4Net,
    /// Where a VM plugs in that manages the switches: `ikipmi`.
    pub plug: String,
    /// In the order of the switches.
    pub bmcs: Vec<BmcReport>,
}

/// A switch's BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcReport {
    /// The switch.
    pub node: String,
    /// UDP port.
    pub port: u16,
    /// Addresses at which it listens.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether it answers.
    pub running: bool,
    /// Why not. Free of control characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}
