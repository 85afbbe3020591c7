//! NICs and cables as the switches see them.

use std::collections::BTreeSet;
use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use serde_json::Value;

use super::facts::{self, SWITCHES};
use super::lab::Up;

/// Time for LLDP neighbours to appear: lldpd sends every 30 s.
const LLDP: Duration = Duration::from_secs(75);

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn addresses(up: &mut Up) {
    for node in SWITCHES {
        let links = up.cli.exec_json(node, &["ip", "-j", "address"]);
        let names = list(&links)
            .iter()
            .filter_map(|link| link["ifname"].as_str());
        let ens = names.filter(|name| name.starts_with("ens") && !name.contains('.'));
        let expected = facts::nics(node);
        assert_eq!(ens.count(), expected.len(), "{node}: {links}");
        for nic in expected {
            let found = list(&links)
                .iter()
                .find(|link| link["ifname"] == nic.name.as_str());
            let link = found.unwrap_or_else(|| panic!("{node}: no {}", nic.name));
            assert_eq!(link["address"], nic.mac.as_str(), "{node} {}", nic.name);
            if nic.server {
                assert_eq!(link["mtu"], 9000, "{node} {}", nic.name);
                continue;
            }
            let own = nic.link_local.to_string();
            let local: Vec<_> = list(&link["addr_info"])
                .iter()
                .filter(|address| address["scope"] == "link")
                .map(|address| address["local"].as_str().unwrap())
                .collect();
            assert_eq!(local, [own.as_str()], "{node} {}", nic.name);
        }
        let own = facts::loopback(SWITCHES.iter().position(|name| *name == node).unwrap());
        let on_loopback = list(&links)
            .iter()
            .find(|link| link["ifname"] == "lo")
            .unwrap();
        let has = |info: &Value| info["local"] == own.to_string() && info["prefixlen"] == 32;
        assert!(
            list(&on_loopback["addr_info"]).iter().any(has),
            "{node}: {on_loopback}"
        );
    }
}

/// The switch's own NIC, the neighbour's name, and the neighbour's NIC.
type Neighbour = (String, String, String);

fn neighbours(report: &Value) -> BTreeSet<Neighbour> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list(&report["lldp"])
        .iter()
        .flat_map(|lldp| list(&lldp["interface"]))
        .map(|seen| {
            let name = text(&seen["chassis"][0]["name"][0]["value"]);
            let port = text(&seen["port"][0]["id"][0]["value"]);
            (text(&seen["name"]), name, port)
        })
        // The server is a neighbour, too, once it has booted.
        .filter(|(_, name, _)| SWITCHES.contains(&name.as_str()))
        .collect()
}

pub(crate) fn lldp(up: &mut Up) {
    for node in SWITCHES {
        let mut planned = BTreeSet::new();
        for [a, b] in facts::switch_cables() {
            for (here, there) in [(&a, &b), (&b, &a)] {
                if here.0 == node {
                    planned.insert((facts::nic(here.1), there.0.clone(), facts::nic(there.1)));
                }
            }
        }
        let argv = ["lldpcli", "-f", "json0", "show", "neighbors"];
        until(&format!("{node}'s LLDP neighbours"), LLDP, || {
            let seen = neighbours(&up.cli.exec_json(node, &argv));
            ensure(seen == planned, || format!("{seen:?}, planned {planned:?}"))
        });
    }
}

pub(crate) fn serials(up: &mut Up) {
    for node in SWITCHES {
        let serial = up
            .cli
            .exec(node, &["cat", "/sys/class/dmi/id/product_serial"]);
        assert_eq!(serial, format!("{node}\n"));
    }
}
