//! Other shapes than the default: properties of all, pictures of some.

use std::collections::HashSet;
use std::fmt::Write;

use proptest::prelude::*;

use crate::config::Config;
use crate::mac::Mac;
use crate::topology::{EndOwner, LONGEST_NAME, SwitchPort, Topology, TopologyJson, build};

/// Uses a range that is large enough for every shape.
fn shape(racks: u16, spines: u16, num_u: u16) -> Topology {
    let mut config = Config::default();
    config.topology.racks = racks;
    config.topology.spines = spines;
    config.topology.num_u = num_u;
    if racks > 12 {
        config.topology.range = "192.168.0.0/16".parse().unwrap();
        config.topology.loopbacks = "192.168.0.0/22".parse().unwrap();
    }
    if 1 + spines + 2 * racks > 35 {
        config.bgp.as_start = 4_200_000_000; // AS 65535 is reserved.
    }
    build(&config).unwrap()
}

fn ports(topology: &Topology) -> impl Iterator<Item = &SwitchPort> {
    topology.switches.iter().flat_map(|switch| &switch.ports)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn names_are_unique_and_fit(racks in 1..40_u16, spines in 1..40_u16, num_u in 3..80_u16) {
        let topology = shape(racks, spines, num_u);
        let mut seen = HashSet::new();
        for cable in &topology.cables {
            for name in [&cable.name, &cable.a.tap, &cable.b.tap] {
                prop_assert!(name.len() <= LONGEST_NAME, "{name}");
                prop_assert!(seen.insert(name.clone()), "{name} twice");
            }
            for alias in [&cable.a.alias, &cable.b.alias] {
                prop_assert!(seen.insert(alias.clone()), "{alias} twice");
            }
        }
        let leaves = 2 * usize::from(racks);
        let (spines, servers) = (usize::from(spines), usize::from(num_u) - 2);
        prop_assert_eq!(topology.cables.len(), 1 + spines + spines * leaves + leaves * servers);
    }

    #[test]
    fn macs_are_unique_and_make_the_link_locals(
        racks in 1..40_u16, spines in 1..40_u16, num_u in 3..80_u16,
    ) {
        let topology = shape(racks, spines, num_u);
        let mut seen = HashSet::from([topology.host.mac]);
        for port in ports(&topology) {
            prop_assert!(seen.insert(port.mac), "{} twice", port.mac);
            let octets = port.link_local.octets();
            let eui = [octets[8] ^ 2, octets[9], octets[10], octets[13], octets[14], octets[15]];
            prop_assert_eq!(Mac(eui), port.mac);
            prop_assert_eq!(&octets[..8], [0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
            prop_assert_eq!(&octets[11..13], [0xff, 0xfe]);
        }
        for rack in &topology.racks {
            for u in topology.positions() {
                prop_assert!(seen.insert(topology.server_mac(rack.number, u, 1)));
                prop_assert!(seen.insert(topology.server_mac(rack.number, u, 2)));
            }
        }
    }

    #[test]
    fn every_port_has_exactly_one_end_of_one_cable(
        racks in 1..20_u16, spines in 1..20_u16, num_u in 3..40_u16,
    ) {
        let topology = shape(racks, spines, num_u);
        let mut seen = HashSet::new();
        for found in topology.ends() {
            prop_assert!(seen.insert(found.end.owner), "{:?} twice", found.end.owner);
            if let EndOwner::Switch { switch, port } = found.end.owner {
                let port = &topology.switches[switch].ports[port];
                prop_assert_eq!(&port.cable, &found.cable.name);
                prop_assert_eq!((&port.tap, &port.alias), (&found.end.tap, &found.end.alias));
            }
        }
        for (index, switch) in topology.switches.iter().enumerate() {
            let mut numbers = HashSet::new();
            for (port, found) in switch.ports.iter().enumerate() {
                prop_assert!(numbers.insert(found.number), "{} twice", found.alias);
                prop_assert_eq!(&found.nic, &format!("ens{}", found.number + 3));
                let owner = EndOwner::Switch { switch: index, port };
                prop_assert!(seen.remove(&owner), "{} has no cable", found.alias);
            }
            prop_assert!(switch.ports.is_sorted_by_key(|port| port.number));
        }
        let servers = 2 * usize::from(racks) * (usize::from(num_u) - 2);
        prop_assert_eq!(seen.len(), 1 + servers, "the host's and the servers' ends are left");
    }

    #[test]
    fn what_two_shapes_both_have_is_the_same_in_both(
        racks in 1..12_u16, spines in 1..12_u16,
    ) {
        let (default, other) = (shape(3, 2, 23), shape(racks, spines, 23));
        for port in ports(&default) {
            let same = ports(&other).find(|same| same.alias == port.alias);
            if let Some(same) = same {
                prop_assert_eq!((&same.tap, &same.nic, same.mac), (&port.tap, &port.nic, port.mac));
            }
        }
    }

    #[test]
    fn json_comes_back_as_it_went(racks in 1..13_u16, spines in 1..13_u16, num_u in 3..41_u16) {
        let topology = shape(racks, spines, num_u);
        let json = TopologyJson::from(&topology);
        let text = serde_json::to_string(&json).unwrap();
        let back: TopologyJson = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&back, &json);
        prop_assert_eq!(back.nodes.len(), topology.switches.len());
        prop_assert_eq!(back.cables.len(), topology.cables.len());
    }

    #[test]
    fn text_fits_and_dot_has_all(racks in 1..13_u16, spines in 1..13_u16, num_u in 3..41_u16) {
        let topology = shape(racks, spines, num_u);
        for width in [100, 200] {
            for line in topology.text(width).lines() {
                prop_assert!(line.chars().count() <= width, "{line}");
                prop_assert_eq!(line, line.trim_end());
            }
        }
        // The host's cable, one to each switch above the leaves, all uplinks, each leaf's servers.
        let folded = topology.dot(false);
        let drawn = topology.switches.len() + usize::from(racks) * 2 * usize::from(spines);
        prop_assert_eq!(folded.matches(" -- ").count(), drawn);
        let whole = topology.dot(true);
        let dot: Vec<_> = whole.lines().filter(|line| !line.contains("invis")).collect();
        let dot = dot.join("\n");
        prop_assert_eq!(dot.matches(" -- ").count(), topology.cables.len());
        prop_assert_eq!(dot.matches('{').count(), dot.matches('}').count());
        prop_assert_eq!(dot.matches('"').count() % 2, 0);
        let labels = dot.lines().filter_map(|line| line.split_once(" -- ")?.1.split('"').nth(3));
        prop_assert!(labels.eq(topology.cables.iter().map(|cable| cable.name.as_str())));
    }
}

/// The largest that the file can ask for still fits all bounds.
#[test]
fn the_largest_shape() {
    let mut config = Config::default();
    config.topology.racks = 255;
    config.topology.spines = 255;
    config.topology.num_u = 255;
    config.topology.range = "10.0.0.0/8".parse().unwrap();
    config.topology.loopbacks = "10.0.0.0/16".parse().unwrap();
    config.host.address = "10.1.0.1/24".parse().unwrap();
    config.host.internet = "10.1.0.2".parse().unwrap();
    config.dhcp.subnets = vec![];
    config.vlan.subnets = vec!["10.2.0.0/24".parse().unwrap()];
    config.bgp.vlan_peers = vec![];
    config.bgp.as_start = 4_200_000_000;
    let topology = build(&config).unwrap();
    assert_eq!(topology.cables.len(), 1 + 255 + 255 * 510 + 510 * 253);
    assert_eq!(topology.net.dhcp[0].subnet.to_string(), "10.2.1.0/24");
    assert_eq!(topology.net.dhcp[254].subnet.to_string(), "10.2.255.0/24");
}

/// The picture, and every switch's ports with their MACs, runs of both in one.
fn all(topology: &Topology) -> String {
    let mut text = topology.text(100);
    for switch in &topology.switches {
        let _ = write!(text, "\n{}:", switch.name);
        let last = |mac: Mac| u32::from_be_bytes([mac.0[2], mac.0[3], mac.0[4], mac.0[5]]);
        let follow = |one: &SwitchPort, next: &SwitchPort| {
            next.number == one.number + 1 && last(next.mac) == last(one.mac) + 1
        };
        for run in switch.ports.chunk_by(follow) {
            let (first, end) = (&run[0], &run[run.len() - 1]);
            let _ = write!(text, " {} {}", first.nic, first.mac);
            if run.len() > 1 {
                let _ = write!(text, " to {} {}", end.nic, end.mac);
            }
            text.push(',');
        }
        text.truncate(text.len() - 1);
    }
    text.push('\n');
    text
}

macro_rules! snapshots {
    ($($name:ident: $racks:expr, $spines:expr, $num_u:expr;)*) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), all(&shape($racks, $spines, $num_u)));
        })*
    };
}
snapshots! {
    as_ikvswitch: 3, 2, 23;
    one_rack: 1, 2, 23;
    five_racks: 5, 2, 23;
    one_spine: 3, 1, 23;
    three_spines: 3, 3, 23;
    twelve_spines: 3, 12, 23;
    num_u_3: 3, 2, 3;
    num_u_40: 3, 2, 40;
    num_u_60: 3, 2, 60;
}

#[test]
fn two_digits_get_a_dash() {
    let topology = shape(5, 12, 23);
    for name in [
        "iksb1-11", "ikst1-11", "iksb12-2", "iklt10-1", "iklt1-12", "ikeb10-3",
    ] {
        assert!(topology.cable(name).is_ok(), "{name}");
    }
    for name in [
        "iksb19",
        "ikst19",
        "iklt99",
        "iklt19",
        "ikib12",
        "ikin12",
        "ikvm5-23-2",
    ] {
        assert!(topology.cable(name).is_ok(), "{name}");
    }
}

#[test]
fn dhcp_of_further_racks_follows_the_vlan_networks() {
    let topology = shape(5, 2, 23);
    let subnets: Vec<_> = topology
        .net
        .dhcp
        .iter()
        .map(|net| net.subnet.to_string())
        .collect();
    assert_eq!(subnets[3..], ["192.168.119.0/24", "192.168.120.0/24"]);
    assert_eq!(topology.switches[topology.net.dhcp[4].switch].name, "leaf9");
}

#[test]
fn dot_of_a_small_one() {
    insta::assert_snapshot!("dot", shape(1, 1, 3).dot(true));
    insta::assert_snapshot!(shape(1, 1, 4).dot(false), @r#"
    graph fabric {
      rankdir=TB; ranksep=1.5; nodesep=0.3; newrank=true;
      node [shape=box];
      edge [fontsize=9];
      host [label="host\nikhn 192.168.96.1/24"];
      internet [label="internet\nAS 65500\n192.168.98.1"];
      spine1 [label="spine1\nAS 65501\n192.168.98.2"];
      subgraph cluster_rack1 {
        label="rack 1";
        leaf1 [label="leaf1\nAS 65502\n192.168.98.3"];
        leaf2 [label="leaf2\nAS 65503\n192.168.98.4"];
        "rack1" [label="servers\nU3 to U4"];
      }
      { rank=same; spine1; }
      { rank=same; leaf1; leaf2; }
      "host" -- "internet" [label="ikhb", taillabel="ikhn", headlabel="ens4"];
      "internet" -- "spine1" [label="ikib1", taillabel="ens5", headlabel="ens4"];
      "spine1" -- "leaf1" [label="iksb12", taillabel="ens5", headlabel="ens4"];
      "spine1" -- "leaf2" [label="iksb13", taillabel="ens6", headlabel="ens4"];
      "leaf1" -- "rack1";
      "leaf2" -- "rack1";
    }
    "#);
}

#[test]
fn the_default_fits_into_80_columns() {
    for line in shape(3, 2, 23).text(80).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
