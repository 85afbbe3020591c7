//! The default is exactly ikvswitch 1.0.4's: every name, address and number.

use crate::config::Config;
use crate::topology::{End, Topology, build};

/// All 141 cables as ikvswitch's documents give them: name | end | end; an end is its tap and
/// alias, a switch's also NIC, MAC and link-local address.
const CABLES: &str = include_str!("ikvswitch.txt");

fn default() -> Topology {
    build(&Config::default()).unwrap()
}

fn words(topology: &Topology, end: &End) -> Vec<String> {
    let mut words = vec![end.tap.clone(), end.alias.clone()];
    if let Some(port) = topology.port(end) {
        assert_eq!((&port.tap, &port.alias), (&end.tap, &end.alias));
        words.extend([
            port.nic.clone(),
            port.mac.to_string(),
            port.link_local.to_string(),
        ]);
    }
    words
}

#[test]
fn all_141_cables_with_every_name_mac_and_link_local() {
    let topology = default();
    let expected: Vec<Vec<String>> = CABLES
        .lines()
        .map(|line| {
            line.split_whitespace()
                .filter(|word| *word != "|")
                .map(String::from)
                .collect()
        })
        .collect();
    let found: Vec<Vec<String>> = topology
        .cables
        .iter()
        .map(|cable| {
            let mut words_of_cable = vec![cable.name.clone()];
            words_of_cable.extend(words(&topology, &cable.a));
            words_of_cable.extend(words(&topology, &cable.b));
            words_of_cable
        })
        .collect();
    assert_eq!(expected.len(), 141);
    assert_eq!(found, expected);
    assert_eq!(topology.ends().count(), 282);
}

#[test]
fn nodes_as_numbers_and_loopbacks() {
    let expected = "\
        internet 65500 192.168.98.1 -
        spine1 65501 192.168.98.2 -
        spine2 65502 192.168.98.3 -
        leaf1 65503 192.168.98.4 1
        leaf2 65504 192.168.98.5 1
        leaf3 65505 192.168.98.6 2
        leaf4 65506 192.168.98.7 2
        leaf5 65507 192.168.98.8 3
        leaf6 65508 192.168.98.9 3";
    let topology = default();
    let found: Vec<String> = topology
        .switches
        .iter()
        .map(|switch| {
            let rack = switch.rack.map_or("-".into(), |rack| rack.to_string());
            format!("{} {} {} {rack}", switch.name, switch.asn, switch.loopback)
        })
        .collect();
    assert_eq!(found, expected.lines().map(str::trim).collect::<Vec<_>>());
}

#[test]
fn nics_follow_the_port_numbers() {
    let topology = default();
    let nics = |name: &str| -> Vec<String> {
        topology
            .switch(name)
            .unwrap()
            .ports
            .iter()
            .map(|port| port.nic.clone())
            .collect()
    };
    let up_to = |last: u16| {
        (4..=last)
            .map(|number| format!("ens{number}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(nics("internet"), up_to(6));
    assert_eq!(nics("spine2"), up_to(10));
    assert_eq!(nics("leaf6"), up_to(26));
}

#[test]
fn subnets_and_what_is_served_on_them() {
    let topology = default();
    let net = &topology.net;
    let served = |switch: usize| topology.switches[switch].name.as_str();
    let dhcp: Vec<String> = net
        .dhcp
        .iter()
        .map(|net| {
            let (subnet, router, first, last) = (net.subnet, net.router, net.first, net.last);
            format!(
                "{} {} {subnet} {router} {first} {last}",
                net.rack,
                served(net.switch)
            )
        })
        .collect();
    assert_eq!(
        dhcp,
        [
            "1 leaf1 192.168.110.0/24 192.168.110.1 192.168.110.20 192.168.110.250",
            "2 leaf3 192.168.111.0/24 192.168.111.1 192.168.111.20 192.168.111.250",
            "3 leaf5 192.168.112.0/24 192.168.112.1 192.168.112.20 192.168.112.250",
        ]
    );
    let vlans: Vec<String> = net
        .vlans
        .iter()
        .map(|net| {
            let (id, bridge, subnet, router) = (net.id, &net.bridge, net.subnet, net.router);
            format!("{} {id} {bridge} {subnet} {router}", served(net.switch))
        })
        .collect();
    assert_eq!(
        vlans,
        [
            "leaf2 11 brvlan11 192.168.113.0/24 192.168.113.1",
            "leaf2 12 brvlan12 192.168.114.0/24 192.168.114.1",
            "leaf2 13 brvlan13 192.168.115.0/24 192.168.115.1",
            "leaf2 14 brvlan14 192.168.116.0/24 192.168.116.1",
            "leaf2 15 brvlan15 192.168.117.0/24 192.168.117.1",
            "leaf2 16 brvlan16 192.168.118.0/24 192.168.118.1",
        ]
    );
    assert_eq!(net.server_vlan, 10);
    assert_eq!(
        net.dhcp_options.boot.ipxe,
        "http://192.168.100.2/oci/ipxe.php"
    );
}

#[test]
fn the_hosts_end() {
    let host = default().host;
    assert_eq!(host.name, "ikhn");
    assert_eq!(host.address.to_string(), "192.168.96.1/24");
    assert_eq!(host.peer.to_string(), "192.168.96.2");
    assert_eq!(host.range.to_string(), "192.168.96.0/19");
    assert_eq!(host.mac.to_string(), "00:22:22:dd:ee:01");
    assert_eq!(host.snat.to_string(), "masquerade");
}
