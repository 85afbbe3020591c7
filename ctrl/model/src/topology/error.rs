//! The errors of a datacenter's description, each with the configuration key to change.

use std::fmt;

use ipnet::Ipv4Net;

use super::LONGEST_NAME;
use crate::config::{Config, Location, MacPrefix, Problem};
use crate::mac::Mac;

/// One error and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A single value is out of its bounds.
    #[error("{}", .0.what)]
    Value(Problem),
    /// A name does not fit a network interface.
    #[error(
        "the name \"{name}\" has {} characters, Linux allows {LONGEST_NAME}; shorten it by {}",
        name.len(), name.len() - LONGEST_NAME
    )]
    NameTooLong {
        /// The configuration key.
        key: &'static str,
        /// The longest name that results from it.
        name: String,
    },
    /// Two cables or two taps would have one name.
    #[error("the name \"{name}\" is also what {other} makes; give one of them another value")]
    NameTwice {
        /// The configuration key.
        key: &'static str,
        /// The name that both would have.
        name: String,
        /// The key that determines the other name.
        other: &'static str,
    },
    /// Two ports would have one MAC.
    #[error("{mac} would be the MAC of both {port} and {other}; change the prefix")]
    MacTwice {
        /// The configuration key.
        key: &'static str,
        /// The MAC that both would have.
        mac: Mac,
        /// The first port, such as `spine1:2`.
        port: String,
        /// The other port.
        other: String,
    },
    /// The MAC counter would reach the octets that name the vendor.
    #[error(
        "there are not enough MACs after {prefix} before the next vendor's begin; choose a prefix \
         with a lower fourth octet"
    )]
    MacsExhausted {
        /// The configuration key.
        key: &'static str,
        /// The prefix with which the MACs begin.
        prefix: MacPrefix<5>,
    },
    /// The AS numbers would exceed the highest one (RFC 7300).
    #[error("{switches} AS numbers from {first} on exceed 4294967294; start lower")]
    AsTooHigh {
        /// The first AS number.
        first: u32,
        /// How many AS numbers are needed.
        switches: u32,
    },
    /// A switch would get a reserved AS number.
    #[error(
        "{switch} would get AS {asn}, which is reserved ({rfc}); start elsewhere, such as at 4200000000"
    )]
    AsReserved {
        /// The switch's name.
        switch: String,
        /// Its AS number.
        asn: u32,
        /// The document that reserves it.
        rfc: &'static str,
    },
    /// The loopbacks' subnet is too small for the switches.
    #[error("{subnet} has no room for the loopbacks of {switches} switches; make it larger")]
    LoopbacksFull {
        /// The loopbacks' subnet.
        subnet: Ipv4Net,
        /// How many loopbacks are needed.
        switches: u32,
    },
    /// A subnet outside of the range that the host routes to the fabric.
    #[error("{subnet} is not inside topology.range {range}; move it there or widen the range")]
    OutsideRange {
        /// The configuration key.
        key: String,
        /// The subnet.
        subnet: Ipv4Net,
        /// The range that the host routes to the fabric.
        range: Ipv4Net,
    },
    /// Two subnets share addresses.
    #[error("{subnet} overlaps {other_subnet} of {other}; choose subnets that share no address")]
    SubnetsOverlap {
        /// The configuration key.
        key: String,
        /// The subnet of that key.
        subnet: Ipv4Net,
        /// The other configuration key.
        other: String,
        /// The other key's subnet.
        other_subnet: Ipv4Net,
    },
    /// The fabric's range is too small for what it must hold.
    #[error("{range} does not hold {left_out}; widen it, or move them into it")]
    RangeLeavesOut {
        /// The fabric's range (topology.range).
        range: Ipv4Net,
        /// The subnets outside of it, with their keys.
        left_out: String,
    },
    /// The fabric's range has no free /24 for a rack's DHCP.
    #[error(
        "no free /24 is left in topology.range {range} for the DHCP subnet of rack {rack}; widen \
         the range, or list a subnet for each rack in dhcp.subnets"
    )]
    NoSubnetLeft {
        /// The configuration key.
        key: &'static str,
        /// The number of the rack without a subnet.
        rack: u16,
        /// The fabric's range (topology.range).
        range: Ipv4Net,
    },
    /// The subnet does not contain all addresses to lease.
    #[error(
        "{subnet} has no host numbers {first} to {last}, which dhcp.first and dhcp.last lease; use \
         a larger subnet or lower numbers"
    )]
    LeaseOutside {
        /// The configuration key.
        key: String,
        /// The rack's subnet.
        subnet: Ipv4Net,
        /// The first leased host number.
        first: u32,
        /// The last leased host number.
        last: u32,
    },
    /// Two values are in the wrong order.
    #[error("{value} is {than} {other} = {bound}; change one of them")]
    Order {
        /// The configuration key.
        key: &'static str,
        /// The value of that key.
        value: u32,
        /// `below` or `above`.
        than: &'static str,
        /// The other configuration key.
        other: &'static str,
        /// The other key's value.
        bound: u32,
    },
    /// A boot file's name is invalid once it contains the boot server's address.
    #[error("{error}")]
    BootFile {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with the name, and the rule.
        error: frr_conf::NameError,
    },
    /// A `[[cable]]` asks for something impossible.
    #[error("{what}")]
    Cable {
        /// The configuration key.
        key: String,
        /// What is wrong, and its remedy.
        what: String,
    },
    /// The VLAN numbers would exceed 4094.
    #[error("the networks from VLAN {first} on reach VLAN {id}, the highest is 4094; start lower")]
    VlanTooHigh {
        /// The VLAN number that is too high.
        id: u32,
        /// The first VLAN number.
        first: u16,
    },
    /// The servers' VLAN has the number of a VLAN network.
    #[error("VLAN {id} is also one of the VLAN networks, {first} to {last}; choose another")]
    VlanTwice {
        /// The number of the servers' VLAN.
        id: u16,
        /// The first number of the VLAN networks.
        first: u16,
        /// The last number of the VLAN networks.
        last: u16,
    },
    /// An address outside of the subnet it must be in, or one that is taken.
    #[error("{address} {wrong}; {remedy}")]
    Address {
        /// The configuration key.
        key: String,
        /// The address or prefix as configured.
        address: String,
        /// What is wrong with it.
        wrong: String,
        /// How to correct it.
        remedy: String,
    },
}

impl TopologyError {
    /// The configuration key to change, such as `dhcp.subnets[1]`.
    pub fn key(&self) -> &str {
        match self {
            Self::Value(problem) => &problem.key,
            Self::NameTooLong { key, .. }
            | Self::NameTwice { key, .. }
            | Self::MacTwice { key, .. }
            | Self::MacsExhausted { key, .. }
            | Self::NoSubnetLeft { key, .. }
            | Self::BootFile { key, .. }
            | Self::Order { key, .. } => key,
            Self::AsTooHigh { .. } | Self::AsReserved { .. } => "bgp.as_start",
            Self::LoopbacksFull { .. } => "topology.loopbacks",
            Self::OutsideRange { key, .. }
            | Self::SubnetsOverlap { key, .. }
            | Self::LeaseOutside { key, .. }
            | Self::Cable { key, .. }
            | Self::Address { key, .. } => key,
            Self::RangeLeavesOut { .. } => "topology.range",
            Self::VlanTooHigh { .. } => "vlan.first",
            Self::VlanTwice { .. } => "bgp.server_vlan",
        }
    }
}

/// All errors, each with its place in the configuration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyErrors(Vec<(Location, TopologyError)>);

impl TopologyErrors {
    pub(super) fn new(errors: Vec<TopologyError>, config: &Config) -> Self {
        let placed = |error: TopologyError| (config.location(error.key()), error);
        Self(errors.into_iter().map(placed).collect())
    }

    /// The errors, each with its place.
    pub fn iter(&self) -> impl Iterator<Item = &(Location, TopologyError)> {
        self.0.iter()
    }
}

impl fmt::Display for TopologyErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (place, error)) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            write!(out, "{line}{}: {error}", place.with_key(error.key()))?;
        }
        Ok(())
    }
}

impl std::error::Error for TopologyErrors {}
