//! Whatever is valid renders, refers only to what exists, and stays within its lines.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ikv_frr_conf::{
    BootFile, BootFiles, Dhcp, Domain, File, HostName, IfName, Link, Mac, Nic, Node, SwitchConf,
    Timers, VlanId, VlanNetwork, render,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

/// Names with all the freedom their types allow; unlike each other by a number in front.
fn name<T: std::str::FromStr>(letter: char, number: usize, rest: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    format!("{letter}{number}x{rest}").parse().unwrap()
}

prop_compose! {
    fn nics()(
        links in vec((0..3_u8, 1280..=u16::MAX, "[A-Za-z0-9_-]{0,5}"), 0..40),
        below_are_servers: bool,
        outside: Option<u8>,
    ) -> Vec<Nic> {
        let outside = outside.map(|host| Link::Outside {
            address: format!("10.0.0.{}/24", host.clamp(2, 254)).parse().unwrap(),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
        });
        let below = if below_are_servers { Link::Server } else { Link::Edge };
        let link = |kind| if kind == 0 { Link::Core } else { below };
        outside.map(|link| (link, 1500, String::new())).into_iter()
            .chain(links.into_iter().map(|(kind, mtu, rest)| (link(kind), mtu, rest)))
            .enumerate()
            .map(|(i, (link, mtu, rest))| Nic {
                name: name('n', i, &rest),
                mac: Mac::try_from([2, 0, 0, 0, 0, i as u8]).unwrap(),
                mtu,
                link,
            })
            .collect()
    }
}

prop_compose! {
    fn dhcp()(
        first in 2..=127_u8,
        last in 127..=254_u8,
        lease in 120..=10_000_u32,
        longer in 0..=10_000_u32,
        domain in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,3}",
        dns in btree_set(any::<Ipv4Addr>(), 0..4),
        next_server: Ipv4Addr,
        boot in vec("[!$-&(-+./0-9:-Z^-z|~]{1,127}", 4),
    ) -> Dhcp {
        let boot = |i: usize| boot[i].parse().unwrap_or_else(|_| BootFile::clone(&fallback()));
        Dhcp {
            bridge: "dhcp0".parse().unwrap(),
            address: "192.168.110.1/24".parse().unwrap(),
            first: [192, 168, 110, first].into(),
            last: [192, 168, 110, last].into(),
            lease,
            lease_max: lease + longer,
            domain: domain.parse::<Domain>().unwrap(),
            dns: dns.into_iter().collect(),
            next_server,
            boot: BootFiles { ipxe: boot(0), bios: boot(1), uefi: boot(2), other: boot(3) },
        }
    }
}

fn fallback() -> BootFile {
    "pxelinux.0".parse().unwrap()
}

prop_compose! {
    fn timers()(keepalive in 1..=9_u16, more in 0..=100_u16, connect in 1..=120_u16, ra in 1..=1800_u16)
    -> Timers {
        Timers { keepalive, hold: 3 * keepalive + more, connect, router_advertisement: ra }
    }
}

prop_compose! {
    fn conf()(
        names in vec("[A-Za-z0-9-]{0,20}[A-Za-z0-9]", 1..30),
        which: prop::sample::Index,
        nics in nics(),
        vlans in btree_set(1..=4094_u16, 1..8),
        dhcp in prop::option::of(dhcp()),
        neighbour: bool,
        timers in timers(),
    ) -> SwitchConf {
        let node = |(i, rest): (usize, &String)| Node {
            name: name::<HostName>('h', i, rest),
            asn: NonZeroU32::new(64512 + i as u32).unwrap(),
            loopback: Ipv4Addr::new(172, 16, 0, i as u8),
        };
        let nodes: Vec<_> = names.iter().enumerate().map(node).collect();
        let serves = nics.iter().any(|nic| nic.link == Link::Server);
        let vlans: Vec<_> = vlans.into_iter().map(|v| VlanId::try_from(v).unwrap()).collect();
        let (server_vlan, networks) = vlans.split_first().unwrap();
        let network = |(i, vlan): (usize, &VlanId)| VlanNetwork {
            vlan: *vlan,
            bridge: name::<IfName>('b', i, ""),
            address: format!("10.1.{i}.1/24").parse().unwrap(),
        };
        let vlan_networks: Vec<_> = if serves {
            networks.iter().enumerate().map(network).collect()
        } else {
            Vec::new()
        };
        SwitchConf {
            name: which.get(&nodes).name.clone(),
            nodes,
            nics,
            server_vlan: *server_vlan,
            dhcp: dhcp.filter(|_| serves),
            neighbours: if neighbour && !vlan_networks.is_empty() {
                vec![[10, 1, 0, 200].into()]
            } else {
                Vec::new()
            },
            vlan_networks,
            timers,
        }
    }
}

fn content<'a>(files: &'a [File], path: &str) -> &'a str {
    &files.iter().find(|file| file.path == path).unwrap().content
}

/// The interfaces that exist once network.batch has run.
fn interfaces(files: &[File]) -> HashSet<&str> {
    let nics = content(files, "etc/ikv/nics")
        .lines()
        .map(|line| line.split_once(' ').unwrap().1);
    let made = content(files, "etc/ikv/network.batch")
        .lines()
        .filter(|line| line.starts_with("link add "))
        .map(|line| after(line, " name ").unwrap());
    nics.chain(made).chain(["lo"]).collect()
}

/// The word after `key`.
fn after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_once(key)?.1.split(' ').next()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_valid_renders(conf in conf()) {
        let files = render(&conf).unwrap();
        for file in &files {
            prop_assert!(file.content.is_empty() || file.content.ends_with('\n'), "{}", file.path);
            let left = file.content.contains(['{', '}']);
            prop_assert!(!left, "{}", file.content);
            prop_assert!(file.content.bytes().all(|b| b == b'\n' || (b' '..0x7f).contains(&b)));
        }
        prop_assert_eq!(files.len(), if conf.dhcp.is_some() { 8 } else { 7 });
    }

    #[test]
    fn nothing_refers_to_an_interface_that_is_not_made(conf in conf()) {
        let files = render(&conf).unwrap();
        let known = interfaces(&files);
        let frr = content(&files, "etc/frr/frr.conf");
        for line in frr.lines() {
            if let Some((peer, _)) = line
                .strip_prefix(" neighbor ")
                .and_then(|rest| rest.split_once(" interface peer-group "))
            {
                prop_assert!(known.contains(peer), "{}", line);
            }
            if let Some(interface) = line.strip_prefix("interface ") {
                prop_assert!(known.contains(interface), "{}", line);
            }
        }
        for line in content(&files, "etc/ikv/network.batch").lines() {
            for key in [" dev ", " master ", " add link "] {
                if let Some(interface) = after(line, key) {
                    prop_assert!(known.contains(interface), "{}", line);
                }
            }
        }
        if let Some(dhcp) = &conf.dhcp {
            prop_assert!(known.contains(dhcp.bridge.as_str()));
        }
    }

    #[test]
    fn every_cable_but_the_hosts_has_one_neighbour(conf in conf()) {
        let files = render(&conf).unwrap();
        let frr = content(&files, "etc/frr/frr.conf");
        let neighbours = frr.lines().filter(|line| line.contains(" interface peer-group ")).count();
        let cables =
            conf.nics.iter().filter(|nic| !matches!(nic.link, Link::Outside { .. })).count();
        prop_assert_eq!(neighbours, cables);
    }

    /// A route-map or list that is not defined would deny everything, silently.
    #[test]
    fn every_map_and_list_that_is_used_is_defined_before(conf in conf()) {
        let files = render(&conf).unwrap();
        let mut defined = HashSet::new();
        for line in content(&files, "etc/frr/frr.conf").lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                ["route-map", name, ..] => drop(defined.insert(("route-map", *name))),
                ["ip", "prefix-list", name, ..] => drop(defined.insert(("ip", *name))),
                ["ipv6", "prefix-list", name, ..] => drop(defined.insert(("ipv6", *name))),
                ["bgp", "as-path", "access-list", name, ..] => {
                    defined.insert(("as-path", *name));
                }
                ["redistribute", _, "route-map", name]
                | ["neighbor", _, "route-map", name, "in"] => {
                    prop_assert!(defined.contains(&("route-map", *name)), "{}", line);
                }
                ["match", family @ ("ip" | "ipv6"), "address", "prefix-list", name]
                | ["match", family @ "as-path", name] => {
                    prop_assert!(defined.contains(&(*family, *name)), "{}", line);
                }
                _ => {}
            }
        }
    }

    /// Text from a configuration file either is refused or stays one word.
    #[test]
    fn no_name_can_bring_a_line_of_its_own(text in "\\PC{0,8}[\\s,;#\"'\\\\]\\PC{0,8}") {
        prop_assert!(text.parse::<HostName>().is_err());
        prop_assert!(text.parse::<IfName>().is_err());
        prop_assert!(text.parse::<Domain>().is_err());
        prop_assert!(text.parse::<Mac>().is_err());
        if let Ok(file) = text.parse::<BootFile>() {
            prop_assert!(file.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b','));
        }
    }
}
