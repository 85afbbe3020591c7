//! The rendered files of the default fabric agree with ikvswitch's facts.

#![expect(clippy::unwrap_used, reason = "a test")]

mod default_fabric;

use ikv_frr_conf::{SwitchConf, render};

fn file(name: &str, path: &str) -> Option<String> {
    let files = render(&default_fabric::switch(name)).unwrap();
    files
        .into_iter()
        .find(|file| file.path == path)
        .map(|file| file.content)
}

fn count(text: &str, line: &str) -> usize {
    text.lines().filter(|other| other.starts_with(line)).count()
}

#[test]
fn each_switch_peers_on_every_cable_except_the_hosts() {
    for (name, spine, leaf) in [("internet", 0, 2), ("spine2", 1, 6), ("leaf6", 2, 21)] {
        let frr = file(name, "etc/frr/frr.conf").unwrap();
        let peers = |group: &str| {
            let end = format!(" interface peer-group {group}");
            frr.lines().filter(|line| line.ends_with(&end)).count()
        };
        assert_eq!((peers("spine"), peers("leaf")), (spine, leaf), "{name}");
    }
}

#[test]
fn as_numbers_and_router_ids_follow_the_order_of_nodes() {
    for (index, name) in default_fabric::NAMES.iter().enumerate() {
        let frr = file(name, "etc/frr/frr.conf").unwrap();
        assert_eq!(
            count(&frr, &format!("router bgp {}", 65500 + index)),
            1,
            "{name}"
        );
        assert_eq!(
            count(&frr, &format!(" bgp router-id 192.168.98.{}", index + 1)),
            1,
            "{name}"
        );
    }
}

#[test]
fn only_odd_leaves_serve_dhcp() {
    for (name, subnet) in [
        ("internet", None),
        ("spine1", None),
        ("leaf1", Some(110)),
        ("leaf2", None),
        ("leaf3", Some(111)),
        ("leaf4", None),
        ("leaf5", Some(112)),
        ("leaf6", None),
    ] {
        let dnsmasq = file(name, "etc/dnsmasq.conf");
        assert_eq!(dnsmasq.is_some(), subnet.is_some(), "{name}");
        let batch = file(name, "etc/ikv/network.batch").unwrap();
        let bridged = batch
            .lines()
            .filter(|line| line.contains(" master dhcp0 "))
            .count();
        assert_eq!(bridged, if subnet.is_some() { 21 } else { 0 }, "{name}");
        if let (Some(dnsmasq), Some(subnet)) = (dnsmasq, subnet) {
            assert_eq!(
                count(
                    &dnsmasq,
                    &format!("dhcp-option=option:router,192.168.{subnet}.1")
                ),
                1
            );
        }
    }
}

#[test]
fn leaf2_bridges_six_vlans_of_all_server_ports() {
    let batch = file("leaf2", "etc/ikv/network.batch").unwrap();
    for vlan in 11..=16 {
        assert_eq!(count(&batch, &format!("link add name brvlan{vlan} ")), 1);
        assert_eq!(
            count(&batch, &format!("address add 192.168.{}.1/24 ", vlan + 102)),
            1
        );
        for nic in 6..=26 {
            let line = format!("link add link ens{nic} name ens{nic}.{vlan} master brvlan{vlan} ");
            assert_eq!(count(&batch, &line), 1, "{line}");
        }
    }
    assert_eq!(
        batch
            .lines()
            .filter(|line| line.ends_with(" type vlan id 10"))
            .count(),
        21
    );
}

/// As ikvswitch's leaf2 does. What such a server announces is filtered as at any other port.
#[test]
fn leaf2_peers_unnumbered_in_each_of_its_vlan_networks() {
    let frr = file("leaf2", "etc/frr/frr.conf").unwrap();
    for vlan in 11..=16 {
        let line = format!(" neighbor brvlan{vlan} interface peer-group leaf");
        assert_eq!(count(&frr, &line), 1, "{line}");
        assert_eq!(count(&frr, &format!("interface brvlan{vlan}")), 1);
    }
    // IPv4 and IPv6
    assert_eq!(count(&frr, "  neighbor leaf route-map FROM-SERVERS in"), 2);
}

#[test]
fn only_internet_announces_a_default_route() {
    for name in default_fabric::NAMES {
        let frr = file(name, "etc/frr/frr.conf").unwrap();
        let announces = frr.lines().any(|line| {
            line.starts_with("ip prefix-list ANNOUNCE") && line.ends_with(" permit 0.0.0.0/0")
        });
        assert_eq!(announces, name == "internet", "{name}");
    }
}

#[test]
fn a_configuration_survives_json() {
    for name in default_fabric::NAMES {
        let conf = default_fabric::switch(name);
        let json = serde_json::to_string(&conf).unwrap();
        assert_eq!(serde_json::from_str::<SwitchConf>(&json).unwrap(), conf);
    }
}
