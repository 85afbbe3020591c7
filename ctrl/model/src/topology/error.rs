//! What can be wrong with a datacenter, each with the configuration key to change.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::LONGEST_NAME;
use crate::config::{Config, Location, MacPrefix, Problem};
use crate::mac::Mac;

/// One thing that is wrong, and the remedy.
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
        /// The longest name that comes of it.
        name: String,
    },
    /// Two cables or two taps would have one name.
    #[error("the name \"{name}\" is also what {other} makes; give one of them another value")]
    NameTwice {
        /// The configuration key.
        key: &'static str,
        /// The name.
        name: String,
        /// The other configuration key.
        other: &'static str,
    },
    /// Two ports would have one MAC.
    #[error("{mac} would be the MAC of both {port} and {other}; change the prefix")]
    MacTwice {
        /// The configuration key.
        key: &'static str,
        /// The address.
        mac: Mac,
        /// A port.
        port: String,
        /// Another port.
        other: String,
    },
    /// The counter would run into the vendor's part.
    #[error(
        "there are not enough MACs after {prefix} before the next vendor's begin; choose a prefix \
         with a lower fourth octet"
    )]
    MacsExhausted {
        /// The configuration key.
        key: &'static str,
        /// Where they begin.
        prefix: MacPrefix<5>,
    },
    /// AS numbers end.
    #[error("{switches} AS numbers from {first} on pass 4294967294; start lower")]
    AsTooHigh {
        /// The first.
        first: u32,
        /// How many.
        switches: u32,
    },
    /// An AS number that no network may have.
    #[error(
        "{switch} would get AS {asn}, which is reserved ({rfc}); start elsewhere, such as at 4200000000"
    )]
    AsReserved {
        /// Which switch.
        switch: String,
        /// Its number.
        asn: u32,
        /// Where it says so.
        rfc: &'static str,
    },
    /// More switches than loopbacks.
    #[error("{subnet} has no room for the loopbacks of {switches} switches; make it larger")]
    LoopbacksFull {
        /// The loopbacks' subnet.
        subnet: Ipv4Net,
        /// How many are needed.
        switches: u32,
    },
    /// A subnet that the host would not route to the fabric.
    #[error("{subnet} is not inside topology.range {range}; move it there or widen the range")]
    OutsideRange {
        /// The configuration key.
        key: String,
        /// The subnet.
        subnet: Ipv4Net,
        /// The virtual range.
        range: Ipv4Net,
    },
    /// Two subnets share addresses.
    #[error("{subnet} overlaps {other_subnet} of {other}; choose subnets that share no address")]
    SubnetsOverlap {
        /// The configuration key.
        key: String,
        /// Its subnet.
        subnet: Ipv4Net,
        /// The other configuration key.
        other: String,
        /// The other's subnet.
        other_subnet: Ipv4Net,
    },
    /// The virtual range is too small for what it must hold.
    #[error("{range} does not hold {left_out}; widen it, or move them into it")]
    RangeLeavesOut {
        /// The virtual range.
        range: Ipv4Net,
        /// Subnets with their keys.
        left_out: String,
    },
    /// No /24 left for a rack's DHCP.
    #[error(
        "no free /24 is left in topology.range {range} for the DHCP subnet of rack {rack}; widen \
         the range, or list a subnet for each rack in dhcp.subnets"
    )]
    NoSubnetLeft {
        /// The configuration key.
        key: &'static str,
        /// The rack without.
        rack: u16,
        /// The virtual range.
        range: Ipv4Net,
    },
    /// Leased addresses are not in the subnet.
    #[error(
        "{subnet} has no host numbers {first} to {last}, which dhcp.first and dhcp.last lease; use \
         a larger subnet or lower numbers"
    )]
    LeaseOutside {
        /// The configuration key.
        key: String,
        /// The subnet.
        subnet: Ipv4Net,
        /// First leased host number.
        first: u32,
        /// Last leased host number.
        last: u32,
    },
    /// Two values are in the wrong order.
    #[error("{value} is {than} {other} = {bound}; change one of them")]
    Order {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        value: u32,
        /// `below` or `above`.
        than: &'static str,
        /// The other configuration key.
        other: &'static str,
        /// The other's value.
        bound: u32,
    },
    /// No boot file any more once the boot server's address stands in it.
    #[error("{error}")]
    BootFile {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it, and the rule.
        error: frr_conf::NameError,
    },
    /// What `[[cable]]` says cannot be.
    #[error("{what}")]
    Cable {
        /// The configuration key.
        key: String,
        /// What is wrong, and the remedy.
        what: String,
    },
    /// VLAN numbers end.
    #[error("the networks from VLAN {first} on reach VLAN {id}, the highest is 4094; start lower")]
    VlanTooHigh {
        /// The VLAN that is too high.
        id: u32,
        /// The first.
        first: u16,
    },
    /// The servers' VLAN is one of the VLAN networks.
    #[error("VLAN {id} is also one of the VLAN networks, {first} to {last}; choose another")]
    VlanTwice {
        /// The servers' VLAN.
        id: u16,
        /// First of the VLAN networks.
        first: u16,
        /// Last of the VLAN networks.
        last: u16,
    },
    /// An address that must be in a subnet and is not, or is taken.
    #[error("{address} {wrong}; {remedy}")]
    Address {
        /// The configuration key.
        key: String,
        /// As written.
        address: Ipv4Addr,
        /// What is wrong with it.
        wrong: String,
        /// What to do.
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

/// Everything that is wrong, each with its place in the configuration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyErrors(Vec<(Location, TopologyError)>);

impl TopologyErrors {
    pub(super) fn new(errors: Vec<TopologyError>, config: &Config) -> Self {
        let placed = |error: TopologyError| (config.location(error.key()), error);
        Self(errors.into_iter().map(placed).collect())
    }

    /// The errors with their places.
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
