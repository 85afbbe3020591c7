//! Routes that the host already has.

use crate::config::Config;
use crate::topology::{HostRoute, build, host_route_conflicts};

fn route(dest: &str, dev: &str) -> HostRoute {
    HostRoute {
        dest: dest.parse().unwrap(),
        gateway: None,
        dev: Some(dev.to_owned()),
    }
}

fn conflicts(routes: &[HostRoute]) -> Vec<String> {
    let topology = build(&Config::default()).unwrap();
    let found = host_route_conflicts(&topology, routes);
    found
        .iter()
        .map(|conflict| conflict.route.dest.to_string())
        .collect()
}

#[test]
fn larger_and_smaller_subnets_conflict_others_do_not() {
    let routes = [
        route("192.168.0.0/16", "tun0"),
        route("192.168.100.0/24", "eth0"),
        route("192.168.127.255/32", "eth0"),
        route("192.168.128.0/24", "eth0"),
        route("192.168.95.0/24", "eth0"),
        route("10.0.0.0/8", "eth0"),
    ];
    let expected = ["192.168.0.0/16", "192.168.100.0/24", "192.168.127.255/32"];
    assert_eq!(conflicts(&routes), expected);
}

#[test]
fn default_routes_and_the_fabrics_own_are_no_conflict() {
    let routes = [
        route("0.0.0.0/0", "eth0"),
        route("0.0.0.0/1", "tun0"),
        route("128.0.0.0/1", "tun0"),
        route("192.168.96.0/24", "ikhn"),
        route("192.168.96.0/19", "ikhn"),
    ];
    assert_eq!(conflicts(&routes), [] as [&str; 0]);
}

#[test]
fn a_conflict_names_route_range_and_remedy() {
    let topology = build(&Config::default()).unwrap();
    let found = host_route_conflicts(&topology, &[route("192.168.110.0/24", "virbr0")]);
    assert_eq!(
        found[0].to_string(),
        "the host has a route to 192.168.110.0/24 through virbr0 that overlaps the fabric's range \
         192.168.96.0/19; give the fabric another one (topology.range and the subnets in it), or \
         remove the route"
    );
}
