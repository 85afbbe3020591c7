//! Finds the host's routes that conflict with the plan's addresses.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Topology;
use super::networks::overlap;

/// A route of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The destination.
    pub dest: Ipv4Net,
    /// The next hop, if any.
    pub gateway: Option<Ipv4Addr>,
    /// The outgoing interface, if any.
    pub dev: Option<String>,
}

/// A route of the host that overlaps the fabric's range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the host has a route to {}{} that overlaps the fabric's range {range}; give the fabric \
     another one (topology.range and the subnets in it), or remove the route",
    .route.dest,
    .route.dev.as_ref().map(|dev| format!(" through {dev}")).unwrap_or_default()
)]
pub struct Conflict {
    /// The host's route that overlaps.
    pub route: HostRoute,
    /// The range that the fabric would route.
    pub range: Ipv4Net,
}

/// The routes from which the fabric's route would take traffic, or that would take traffic from the
/// fabric. Default routes (and the two halves that VPNs make of them) overlap everything by design.
/// Routes through the host link belong to the fabric.
pub fn host_route_conflicts(topology: &Topology, routes: &[HostRoute]) -> Vec<Conflict> {
    let host = &topology.host;
    let taken = |net| overlap(net, host.range) || overlap(net, host.address.trunc());
    let conflicting = |route: &&HostRoute| {
        route.dest.prefix_len() > 1
            && route.dev.as_deref() != Some(&host.name)
            && taken(route.dest.trunc())
    };
    let conflict = |route: &HostRoute| Conflict {
        route: route.clone(),
        range: host.range,
    };
    routes.iter().filter(conflicting).map(conflict).collect()
}
