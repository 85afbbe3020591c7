//! `[topology]`, `[names]`, `[mac]`: what is there, and what it is called.

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{InterfaceName, Subnet};
use super::values::{MacPrefix, net};

/// The table `[topology]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Racks of two leaves each.
    ///
    /// The rack is one octet of a server's MAC address.
    #[schemars(range(min = 1, max = 255), extend("x-unit" = "racks", "x-live" = true))]
    pub racks: u16,
    /// Spines.
    #[schemars(range(min = 1, max = 255), extend("x-unit" = "spines", "x-live" = true))]
    pub spines: u16,
    /// Highest server position of a rack. Positions start at U3, below are the leaves.
    #[schemars(range(min = 3, max = 255), extend("x-unit" = "as the highest U", "x-live" = true))]
    pub num_u: u16,
    /// The virtual range: the host routes it to the fabric, all other subnets lie in it.
    #[schemars(with = "Subnet<30>")]
    pub range: Ipv4Net,
    /// Loopbacks, one address per switch in the order internet, spines, leaves.
    #[schemars(with = "Subnet<30>")]
    pub loopbacks: Ipv4Net,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            racks: 3,
            spines: 2,
            num_u: 23,
            range: net([192, 168, 96, 0], 19),
            loopbacks: net([192, 168, 98, 0], 24),
        }
    }
}

/// The table `[names]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Cable host - internet.
    #[schemars(with = "InterfaceName")]
    pub host_cable: String,
    /// Tap of internet towards the host (the host's own device is host.link).
    #[schemars(with = "InterfaceName")]
    pub internet_host: String,
    /// Cables internet - spine.
    #[schemars(with = "InterfaceName")]
    pub internet_cable: String,
    /// Taps of internet towards the spines.
    #[schemars(with = "InterfaceName")]
    pub internet_spine: String,
    /// Taps of the spines towards internet.
    #[schemars(with = "InterfaceName")]
    pub spine_internet: String,
    /// Cables spine - leaf.
    #[schemars(with = "InterfaceName")]
    pub spine_cable: String,
    /// Taps of the spines towards the leaves.
    #[schemars(with = "InterfaceName")]
    pub spine_leaf: String,
    /// Taps of the leaves towards the spines.
    #[schemars(with = "InterfaceName")]
    pub leaf_spine: String,
    /// Cables leaf - server.
    #[schemars(with = "InterfaceName")]
    pub server_cable: String,
    /// Taps of the leaves towards the servers.
    #[schemars(with = "InterfaceName")]
    pub leaf_server: String,
    /// Taps of the servers, where your VMs plug in.
    #[schemars(with = "InterfaceName")]
    pub server: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            host_cable: "ikhb".into(),
            internet_host: "ikht".into(),
            internet_cable: "ikib".into(),
            internet_spine: "ikin".into(),
            spine_internet: "ikit".into(),
            spine_cable: "iksb".into(),
            spine_leaf: "ikst".into(),
            leaf_spine: "iklt".into(),
            server_cable: "ikeb".into(),
            leaf_server: "ikls".into(),
            server: "ikvm".into(),
        }
    }
}

/// The table `[mac]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Macs {
    /// First five octets of the switches' NICs; a counter follows.
    ///
    /// The counter continues into the fifth octet when it passes ff.
    pub switch: MacPrefix<5>,
    /// First five octets of the host link.
    pub host: MacPrefix<5>,
    /// First three octets that `vm-args` proposes for a server; rack, U and NIC follow.
    pub server: MacPrefix<3>,
}

impl Default for Macs {
    fn default() -> Self {
        Self {
            switch: MacPrefix([0x08, 0x00, 0x27, 0x06, 0xac]),
            host: MacPrefix([0x00, 0x22, 0x22, 0xdd, 0xee]),
            // Locally administered.
            server: MacPrefix([0x02, 0x69, 0x6b]),
        }
    }
}
