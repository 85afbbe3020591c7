//! Any valid configuration renders, refers only to interfaces that exist, and cannot add lines of
//! its own.

#![expect(clippy::unwrap_used, reason = "a test")]

mod any_conf;

use std::collections::HashSet;

use any_conf::conf;
use ikv_frr_conf::{BootFile, Domain, File, HostName, IfName, Link, Mac, render};
use proptest::prelude::*;

fn content<'a>(files: &'a [File], path: &str) -> &'a str {
    &files.iter().find(|file| file.path == path).unwrap().content
}

/// The interfaces that exist after network.batch.
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
    fn any_valid_configuration_renders(conf in conf()) {
        let files = render(&conf).unwrap();
        for file in &files {
            prop_assert!(file.content.is_empty() || file.content.ends_with('\n'), "{}", file.path);
            let unfilled = file.content.contains(['{', '}']);
            prop_assert!(!unfilled, "{}", file.content);
            prop_assert!(file.content.bytes().all(|b| b == b'\n' || (b' '..0x7f).contains(&b)));
        }
        prop_assert_eq!(files.len(), if conf.dhcp.is_some() { 8 } else { 7 });
    }

    #[test]
    fn every_interface_that_is_named_exists(conf in conf()) {
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
    fn every_cable_except_the_hosts_and_every_vlan_network_has_one_neighbour(conf in conf()) {
        let files = render(&conf).unwrap();
        let frr = content(&files, "etc/frr/frr.conf");
        let neighbours = frr.lines().filter(|line| line.contains(" interface peer-group ")).count();
        let cables =
            conf.nics.iter().filter(|nic| !matches!(nic.link, Link::Outside { .. })).count();
        prop_assert_eq!(neighbours, cables + conf.vlan_networks.len());
    }

    /// FRR silently denies everything for a route-map or list that is not defined.
    #[test]
    fn every_map_and_list_is_defined_before_its_use(conf in conf()) {
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

    /// Text from a configuration file is either refused or stays one word.
    #[test]
    fn a_name_cannot_add_a_line(text in "\\PC{0,8}[\\s,;#\"'\\\\]\\PC{0,8}") {
        prop_assert!(text.parse::<HostName>().is_err());
        prop_assert!(text.parse::<IfName>().is_err());
        prop_assert!(text.parse::<Domain>().is_err());
        prop_assert!(text.parse::<Mac>().is_err());
        if let Ok(file) = text.parse::<BootFile>() {
            prop_assert!(file.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b','));
        }
    }
}
