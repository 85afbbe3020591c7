//! Whether the host already uses addresses of the plan.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Topology;
use super::networks::overlap;

/// A route that the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Where to.
    pub dest: Ipv4Net,
    /// Over which router, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Through which interface, if any.
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
    /// The host's route.
    pub route: HostRoute,
    /// What the fabric would route.
    pub range: Ipv4Net,
}

/// Every route that the fabric's would take traffic from, or that would take traffic from the
/// fabric. Default routes (and the halves that VPNs make of them) overlap everything by design;
/// routes through the host link are the fabric's own.
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
