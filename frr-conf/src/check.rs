//! The rules between the fields of a [`SwitchConf`], which their types cannot enforce.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::conf::{Dhcp, Link, Node, SwitchConf, Timers};

/// Why a [`SwitchConf`] cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// `name` is not among `nodes`.
    #[error("{0} is not among the nodes: add it with its AS number and loopback")]
    UnknownNode(String),
    /// Two values that must differ are equal.
    #[error("{what} {value} is used twice: give each its own")]
    Duplicate {
        /// The kind of value, such as `AS number`.
        what: &'static str,
        /// The value that both have.
        value: String,
    },
    /// The name of a VLAN sub-interface exceeds the kernel's limit (IFNAMSIZ).
    #[error("sub-interface {0} is longer than 15 characters: shorten the name of the NIC")]
    LongSubInterface(String),
    /// An MTU below the minimum of IPv6 (RFC 8200 section 5).
    #[error("MTU {mtu} of {nic} is too small: IPv6 needs 1280 or more")]
    Mtu {
        /// The NIC's name.
        nic: String,
        /// Its MTU in bytes.
        mtu: u16,
    },
    /// An address that a host cannot have in its subnet.
    #[error("{0} is not a host's address: use one between the network's and the broadcast address")]
    NotAHost(Ipv4Net),
    /// An address outside the subnet that it belongs in.
    #[error("{what} {address} is not a host's address in {subnet}")]
    OutsideSubnet {
        /// The purpose of the address, such as `gateway`.
        what: &'static str,
        /// The address as configured.
        address: Ipv4Addr,
        /// The subnet that it belongs in.
        subnet: Ipv4Net,
    },
    /// The last address of the DHCP range lies before the first.
    #[error("DHCP range {first} to {last} is empty: exchange the two")]
    EmptyRange {
        /// First address as configured.
        first: Ipv4Addr,
        /// Last address as configured.
        last: Ipv4Addr,
    },
    /// The DHCP range contains the router.
    #[error("DHCP range contains the router's own address {0}: leave it out")]
    RouterInRange(Ipv4Addr),
    /// A lease shorter than dnsmasq allows, or longer than the configured maximum.
    #[error(
        "lease of {lease} s with a maximum of {max} s: use at least 120 s, and at most the maximum"
    )]
    Lease {
        /// Default lease in seconds.
        lease: u32,
        /// Longest lease in seconds.
        max: u32,
    },
    /// A neighbour with an address that is not directly connected.
    #[error("neighbour {0} is in no DHCP or VLAN network of this switch, or is the switch itself")]
    FarNeighbour(Ipv4Addr),
    /// A prefix of neighbours that is not directly connected.
    #[error("the prefix of neighbours {0} is inside no DHCP or VLAN network of this switch")]
    FarRange(Ipv4Net),
    /// A DHCP or VLAN network on a switch without server ports.
    #[error("DHCP or VLAN networks without a server port: leave them out on this switch")]
    NoServerPort,
    /// NICs to switches and to servers in the same peer group.
    #[error(
        "NIC {0} leads to a switch, another one to a server: both would be in peer group leaf, \
         whose filter is for servers"
    )]
    MixedEdge(String),
    /// A limit that would take nothing from servers.
    #[error("servers may announce 0 prefixes: set the limit to 1 or more")]
    NoPrefixes,
    /// Timers out of range (see [`Timers`]).
    #[error(
        "BGP timers {0:?}: keepalive and connect must be at least 1, hold at least three times \
         keepalive, router-advertisement 1 to 1800"
    )]
    Timers(Timers),
    /// A template failed: a mistake in this crate.
    #[error("template {0}")]
    Template(String),
}

/// Checks `conf` and returns the switch's own entry among the nodes.
pub(crate) fn check(conf: &SwitchConf) -> Result<&Node, RenderError> {
    let own = conf
        .nodes
        .iter()
        .find(|node| node.name == conf.name)
        .ok_or_else(|| RenderError::UnknownNode(conf.name.to_string()))?;
    distinct("node name", conf.nodes.iter().map(|node| &node.name))?;
    distinct("AS number", conf.nodes.iter().map(|node| node.asn))?;
    distinct("loopback", conf.nodes.iter().map(|node| node.loopback))?;
    distinct("MAC address", conf.nics.iter().map(|nic| nic.mac))?;
    distinct(
        "VLAN",
        [conf.server_vlan]
            .into_iter()
            .chain(conf.vlan_networks.iter().map(|n| n.vlan)),
    )?;
    distinct(
        "interface name",
        (conf.nics.iter().map(|nic| &nic.name))
            .chain(conf.dhcp.iter().map(|dhcp| &dhcp.bridge))
            .chain(conf.vlan_networks.iter().map(|network| &network.bridge)),
    )?;
    check_nics(conf)?;
    for network in &conf.vlan_networks {
        check_host(network.address)?;
    }
    if let Some(dhcp) = &conf.dhcp {
        check_dhcp(dhcp)?;
    }
    check_neighbours(conf)?;
    distinct("allowed prefix", conf.from_servers.allow.iter())?;
    distinct("subnet", conf.from_servers.own_subnets.iter())?;
    if conf.from_servers.limit == 0 {
        return Err(RenderError::NoPrefixes);
    }
    check_timers(conf.timers)?;
    Ok(own)
}

fn check_nics(conf: &SwitchConf) -> Result<(), RenderError> {
    let has_servers = conf.server_nics().next().is_some();
    if !has_servers && (conf.dhcp.is_some() || !conf.vlan_networks.is_empty()) {
        return Err(RenderError::NoServerPort);
    }
    for nic in &conf.nics {
        if nic.mtu < 1280 {
            return Err(RenderError::Mtu {
                nic: nic.name.to_string(),
                mtu: nic.mtu,
            });
        }
        match nic.link {
            Link::Outside { address, gateway } => {
                check_host(address)?;
                check_inside("gateway", gateway, address)?;
            }
            Link::Edge if has_servers => return Err(RenderError::MixedEdge(nic.name.to_string())),
            Link::Core | Link::Edge => {}
            Link::Server => {
                let vlans = conf.vlan_networks.iter().map(|network| network.vlan);
                for vlan in vlans.chain([conf.server_vlan]) {
                    let name = format!("{}.{vlan}", nic.name);
                    if name.len() > 15 {
                        return Err(RenderError::LongSubInterface(name));
                    }
                }
            }
        }
    }
    let outside = conf
        .nics
        .iter()
        .filter(|nic| matches!(nic.link, Link::Outside { .. }));
    distinct("default route, of", outside.map(|_| &conf.name))
}

fn check_dhcp(dhcp: &Dhcp) -> Result<(), RenderError> {
    check_host(dhcp.address)?;
    check_inside("start of the DHCP range", dhcp.first, dhcp.address)?;
    check_inside("end of the DHCP range", dhcp.last, dhcp.address)?;
    if dhcp.first > dhcp.last {
        return Err(RenderError::EmptyRange {
            first: dhcp.first,
            last: dhcp.last,
        });
    }
    if (dhcp.first..=dhcp.last).contains(&dhcp.address.addr()) {
        return Err(RenderError::RouterInRange(dhcp.address.addr()));
    }
    if dhcp.lease < 120 || dhcp.lease > dhcp.lease_max {
        return Err(RenderError::Lease {
            lease: dhcp.lease,
            max: dhcp.lease_max,
        });
    }
    for machine in &dhcp.fixed {
        check_inside("fixed address", machine.address, dhcp.address)?;
    }
    let own = [dhcp.address.addr()];
    let fixed = dhcp.fixed.iter().map(|machine| machine.address);
    distinct("address", own.into_iter().chain(fixed))?;
    distinct("MAC address", dhcp.fixed.iter().map(|machine| machine.mac))?;
    distinct("DNS server", dhcp.dns.iter())
}

fn check_neighbours(conf: &SwitchConf) -> Result<(), RenderError> {
    let networks = || {
        let vlans = conf.vlan_networks.iter().map(|network| network.address);
        let outside = conf.nics.iter().filter_map(|nic| match nic.link {
            Link::Outside { address, .. } => Some(address),
            _ => None,
        });
        vlans
            .chain(conf.dhcp.iter().map(|dhcp| dhcp.address))
            .chain(outside)
    };
    for &neighbour in &conf.neighbours {
        if !networks().any(|net| net.addr() != neighbour && is_host(net, neighbour)) {
            return Err(RenderError::FarNeighbour(neighbour));
        }
    }
    for range in &conf.neighbour_ranges {
        if !networks().any(|net| net.trunc().contains(range)) {
            return Err(RenderError::FarRange(*range));
        }
    }
    distinct("neighbour", conf.neighbours.iter())?;
    let ranges = conf.neighbour_ranges.iter();
    distinct("prefix of neighbours", ranges.map(Ipv4Net::trunc))
}

fn check_timers(timers: Timers) -> Result<(), RenderError> {
    let Timers {
        keepalive,
        hold,
        connect,
        router_advertisement,
    } = timers;
    let valid = keepalive >= 1
        && u32::from(hold) >= 3 * u32::from(keepalive)
        && connect >= 1
        && (1..=1800).contains(&router_advertisement);
    if valid {
        Ok(())
    } else {
        Err(RenderError::Timers(timers))
    }
}

fn distinct<T: Eq + Hash + Display>(
    what: &'static str,
    values: impl Iterator<Item = T>,
) -> Result<(), RenderError> {
    let mut seen = HashSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(RenderError::Duplicate {
                what,
                value: value.to_string(),
            });
        }
        seen.insert(value);
    }
    Ok(())
}

fn check_host(address: Ipv4Net) -> Result<(), RenderError> {
    if is_host(address, address.addr()) {
        Ok(())
    } else {
        Err(RenderError::NotAHost(address))
    }
}

fn check_inside(what: &'static str, address: Ipv4Addr, subnet: Ipv4Net) -> Result<(), RenderError> {
    if is_host(subnet, address) {
        Ok(())
    } else {
        Err(RenderError::OutsideSubnet {
            what,
            address,
            subnet: subnet.trunc(),
        })
    }
}

/// A /31 has two hosts (RFC 3021) and a /32 one. In larger subnets the first address is the
/// network's and the last one the broadcast address.
fn is_host(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.contains(&address)
        && (subnet.prefix_len() >= 31
            || (address != subnet.network() && address != subnet.broadcast()))
}

#[cfg(test)]
mod tests;
