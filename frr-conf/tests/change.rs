//! A changed switch ends up equal to one that booted with the new configuration. The tests apply
//! the lines of a [`Change`] to models of the kernel and of FRR and compare the models.

#![expect(clippy::unwrap_used, reason = "a test")]

mod any_conf;
mod default_fabric;
mod model;

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use any_conf::{conf, name};
use ikv_frr_conf::{Change, HostName, Link, Mac, Nic, Node, SwitchConf, Unchangeable, change};
use model::Running;
use proptest::prelude::*;

/// The configuration of `switch` in the default fabric with a fourth rack.
fn with_fourth_rack(switch: &str) -> SwitchConf {
    let mut conf = default_fabric::switch(switch);
    let own = &mut conf.from_servers.own_subnets;
    own.push("192.168.119.0/24".parse().unwrap());
    for leaf in [7_u8, 8] {
        conf.nodes.push(Node {
            name: format!("leaf{leaf}").parse().unwrap(),
            asn: NonZeroU32::new(65_502 + u32::from(leaf)).unwrap(),
            loopback: Ipv4Addr::new(192, 168, 98, leaf + 3),
        });
        if switch.starts_with("spine") {
            conf.nics.push(Nic {
                name: format!("ens{}", leaf + 4).parse().unwrap(),
                mac: Mac::try_from([8, 0, 0x27, 6, 0xad, leaf]).unwrap(),
                mtu: 1500,
                link: Link::Edge,
            });
        }
    }
    conf
}

fn printed(change: &Change) -> String {
    let part = |title: &str, lines: &[String]| {
        let indented = lines.iter().flat_map(|line| ["  ", line, "\n"]);
        format!("{title}\n{}", indented.collect::<String>())
    };
    let plugged = change
        .plugged
        .iter()
        .map(|(mac, nic)| format!("{mac} {nic}"));
    let unplugged = change.unplugged.iter().map(ToString::to_string);
    [
        part("plugged", &plugged.collect::<Vec<_>>()),
        part("ip", &change.network),
        part("vtysh", &change.frr),
        part("unplugged", &unplugged.collect::<Vec<_>>()),
        part("vtysh", &change.frr_afterwards),
        format!("dnsmasq: {}", change.restart_dnsmasq),
    ]
    .concat()
}

#[test]
fn a_spine_gains_and_loses_a_rack() {
    let (three, four) = (default_fabric::switch("spine1"), with_fourth_rack("spine1"));
    insta::assert_snapshot!(printed(&change(&three, &four).unwrap()), @r"
    plugged
      08:00:27:06:ad:07 ens11
      08:00:27:06:ad:08 ens12
    ip
      link set dev ens11 mtu 1500 up
      link set dev ens12 mtu 1500 up
    vtysh
      interface ens11
      ipv6 nd ra-interval 2
      exit
      interface ens12
      ipv6 nd ra-interval 2
      exit
      router bgp 65501
      neighbor ens11 interface peer-group leaf
      neighbor ens12 interface peer-group leaf
      exit
    unplugged
    vtysh
    dnsmasq: false
    ");
    insta::assert_snapshot!(printed(&change(&four, &three).unwrap()), @r"
    plugged
    ip
      link set dev ens12 down
      link set dev ens11 down
    vtysh
      router bgp 65501
      no neighbor ens12 interface peer-group leaf
      no neighbor ens11 interface peer-group leaf
      exit
    unplugged
      ens11
      ens12
    vtysh
      no interface ens12
      no interface ens11
    dnsmasq: false
    ");
}

#[test]
fn a_leaf_learns_of_a_rack() {
    let (three, four) = (default_fabric::switch("leaf1"), with_fourth_rack("leaf1"));
    insta::assert_snapshot!(printed(&change(&three, &four).unwrap()), @r"
    plugged
    ip
    vtysh
      bgp as-path access-list FABRIC seq 50 permit _65509_
      bgp as-path access-list FABRIC seq 55 permit _65510_
      ip prefix-list OWN seq 60 permit 192.168.119.0/24 le 32
    unplugged
    vtysh
    dnsmasq: false
    ");
    let internet = change(
        &default_fabric::switch("internet"),
        &with_fourth_rack("internet"),
    );
    assert_eq!(internet.unwrap(), change(&three, &four).unwrap());
}

#[test]
fn differences_that_need_a_boot_are_named() {
    let old = default_fabric::switch("leaf1");
    let refused = |edit: &dyn Fn(&mut SwitchConf)| {
        let mut new = old.clone();
        edit(&mut new);
        change(&old, &new).unwrap_err().to_string()
    };
    let refusals = [
        refused(&|new| new.nics[1].mac = Mac::try_from([2, 0, 0, 0, 0, 9]).unwrap()),
        refused(&|new| drop(new.nics.remove(0))),
        refused(&|new| new.nics[3].mtu = 1500),
        refused(&|new| new.timers.hold = 60),
        refused(&|new| new.timers.router_advertisement = 9),
        refused(&|new| new.dhcp = None),
        refused(&|new| new.nodes[3].loopback = [10, 0, 0, 1].into()),
        refused(&|new| new.nodes[3].asn = NonZeroU32::new(7).unwrap()),
        refused(&|new| new.name = "leaf2".parse().unwrap()),
        refused(&|new| new.nodes.clear()),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    ens5 is another network card than before: only the last ones can come and go
    ens5 is another network card than before: only the last ones can come and go
    "link set dev ens7 mtu 9000 master dhcp0 up" in etc/ikv/network.batch takes effect only at a start
    "timers bgp 5 16" in etc/frr/frr.conf takes effect only at a start
    "ipv6 nd ra-interval 2" in etc/frr/frr.conf takes effect only at a start
    "link set dev ens26 mtu 9000 master dhcp0 up" in etc/ikv/network.batch takes effect only at a start
    "address add 192.168.98.4/32 dev lo" in etc/ikv/network.batch takes effect only at a start
    "router bgp 65503" in etc/frr/frr.conf takes effect only at a start
    "leaf1" in etc/hostname takes effect only at a start
    leaf1 is not among the nodes: add it with its AS number and loopback
    "#);
}

#[test]
fn a_new_lease_time_restarts_only_dnsmasq() {
    let old = default_fabric::switch("leaf3");
    let mut new = old.clone();
    new.dhcp.as_mut().unwrap().lease = 300;
    let expected = Change {
        restart_dnsmasq: true,
        ..Change::default()
    };
    assert_eq!(change(&old, &new), Ok(expected));
    assert_eq!(change(&old, &old), Ok(Change::default()));
}

/// How much of a configuration one side of a change has.
#[derive(Debug, Clone)]
struct Extent {
    nics: prop::sample::Index,
    nodes: prop::sample::Index,
    networks: Vec<bool>,
    neighbour: bool,
    lease: u32,
}

prop_compose! {
    fn extent()(
        nics: prop::sample::Index,
        nodes: prop::sample::Index,
        networks in proptest::collection::vec(any::<bool>(), 8),
        neighbour: bool,
        lease in 120..7200_u32,
    ) -> Extent {
        Extent { nics, nodes, networks, neighbour, lease }
    }
}

/// As much of `whole` as `extent` says, but always enough to change without a boot.
fn part(whole: &SwitchConf, extent: &Extent) -> SwitchConf {
    let mut conf = whole.clone();
    let first = |link| conf.nics.iter().position(|nic| nic.link == link);
    let outside = |nic: &Nic| matches!(nic.link, Link::Outside { .. });
    let least = [Link::Core, Link::Edge, Link::Server]
        .into_iter()
        .filter_map(first);
    let least = least
        .chain(conf.nics.iter().position(outside))
        .max()
        .map_or(0, |last| last + 1);
    let nics = least + extent.nics.index(conf.nics.len() - least + 1);
    conf.nics.truncate(nics);
    let own = conf.nodes.iter().position(|node| node.name == conf.name);
    let least = own.unwrap() + 1;
    let nodes = least + extent.nodes.index(conf.nodes.len() - least + 1);
    conf.nodes.truncate(nodes);
    let mut keep = extent.networks.iter();
    conf.vlan_networks.retain(|_| *keep.next().unwrap());
    let in_networks = |address: &Ipv4Addr| {
        (conf.vlan_networks.iter()).any(|network| network.address.contains(address))
    };
    conf.neighbours
        .retain(|address| extent.neighbour && in_networks(address));
    conf.neighbour_ranges
        .retain(|range| extent.neighbour && in_networks(&range.addr()));
    if let Some(dhcp) = &mut conf.dhcp {
        dhcp.lease = extent.lease;
        dhcp.lease_max = 7200;
    }
    conf
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_switch_equals_one_that_booted_with_the_new_configuration(
        mut whole in conf(),
        here in extent(),
        there in extent(),
    ) {
        for nic in &mut whole.nics {
            nic.mtu = 1500;
        }
        let (old, new) = (part(&whole, &here), part(&whole, &there));
        let change = change(&old, &new).unwrap();
        prop_assert_eq!(Running::start(&old).changed(&change, &new), Running::start(&new));
    }

    /// A change between any two configurations either works or is refused.
    #[test]
    fn a_change_that_is_not_refused_works(
        whole in conf(),
        other in conf(),
        mix: [bool; 8],
        here in extent(),
        there in extent(),
    ) {
        let old = part(&whole, &here);
        let mut new = part(&whole, &there);
        let take = |which: usize| mix[which] && mix[7];
        if take(0) { new.nics = other.nics; }
        if take(1) { new.dhcp = other.dhcp; }
        if take(2) { new.vlan_networks = other.vlan_networks; }
        if take(3) { new.neighbours = other.neighbours; new.neighbour_ranges = other.neighbour_ranges; }
        if take(4) { new.timers = other.timers; new.from_servers = other.from_servers; }
        if take(5) { new.server_vlan = other.server_vlan; }
        if take(6) { new.nodes.push(Node { name: name::<HostName>('z', 1, ""), ..new.nodes[0].clone() }); }
        match change(&old, &new) {
            Ok(change) => {
                prop_assert_eq!(Running::start(&old).changed(&change, &new), Running::start(&new));
            }
            Err(Unchangeable::Line { line, .. }) => prop_assert!(!line.is_empty()),
            Err(Unchangeable::Nic(nic)) => {
                prop_assert!(new.nics.iter().any(|found| found.name == nic));
            }
            Err(_) => {}
        }
    }
}
