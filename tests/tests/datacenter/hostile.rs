//! The server announces what would draw the traffic of others, and far too much.

use std::collections::BTreeSet;
use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use serde_json::Value;

use super::facts;
use super::lab::Up;
use super::routing::{established, paths, summary};

/// Time for an announcement to reach a switch; emulated switches answer slowly.
const SOON: Duration = Duration::from_secs(30);

/// A leaf tries again a minute after it has ended a session.
const AGAIN: Duration = Duration::from_secs(120);

/// What the leaves of rack 2 hear on VLAN 10: half of all addresses, the host, a part of rack 3's
/// subnet, a spine.
const TO_RACK2: [&str; 4] = [
    "0.0.0.0/1",
    "192.168.96.1/32",
    "192.168.112.0/25",
    "192.168.98.2/32",
];
/// What leaf2 hears on VLAN 11: the other half.
const TO_LEAF2: &str = "128.0.0.0/1";
/// Its own: taken after the others, as bgpd announces them in this order.
const OWN: &str = "192.168.121.1/32";

/// Runs these lines in the server's `router bgp`, for IPv4.
fn configure(up: &Up, before: &[&str], networks: impl Iterator<Item = String>) {
    let mut script = vec!["configure terminal".to_owned()];
    script.extend(before.iter().map(ToString::to_string));
    script.push("router bgp 65600".into());
    script.push("no bgp network import-check".into());
    script.push("address-family ipv4 unicast".into());
    script.extend(networks);
    let mut argv = vec!["vtysh"];
    argv.extend(script.iter().flat_map(|line| ["-c", line]));
    up.server.exec(&argv);
}

fn server_nic() -> String {
    format!("{}.10", facts::nic(6))
}

/// No switch takes any of it, the leaves' logs and the probe say so, and the server's own address
/// works all the same.
pub(crate) fn refused(up: &mut Up) {
    let second = ["ip prefix-list SECOND seq 10 permit 128.0.0.0/1"];
    let all = TO_RACK2.into_iter().chain([TO_LEAF2, OWN]);
    configure(up, &second, all.clone().map(|net| format!("network {net}")));
    let own = "192.168.121.1".parse().unwrap();
    for leaf in ["leaf3", "leaf4"] {
        until("the server's own address", SOON, || {
            let found = paths(&up.cli, leaf, own);
            ensure(found == BTreeSet::from([server_nic()]), || {
                format!("{leaf}: {found:?}")
            })
        });
    }
    let mut heard: Vec<_> = TO_RACK2.map(|net| ("leaf3", net)).into();
    heard.push(("leaf2", TO_LEAF2));
    for (leaf, net) in heard {
        until("a refusal in a leaf's log", SOON, || {
            let log = up.cli.exec(leaf, &["logread"]);
            let line = format!("rcvd UPDATE about {net} IPv4 unicast -- DENIED");
            ensure(log.contains(&line), || format!("{leaf}: no {line}"))
        });
    }
    for node in ["internet", "spine1", "leaf1", "leaf2", "leaf3", "leaf4"] {
        let routes = up.cli.exec_json(node, &["ip", "-j", "route"]);
        for route in routes.as_array().unwrap() {
            let to = route["dst"].as_str().unwrap();
            let bad = TO_RACK2.into_iter().chain([TO_LEAF2]).any(|net| {
                // The spine itself is announced, by itself.
                net != "192.168.98.2/32" && net.trim_end_matches("/32") == to
            });
            assert!(!bad, "{node}: {route}");
        }
    }
    // A leaf that is slow to answer is missing from a report.
    until("a probe that says what was refused", AGAIN, || {
        let report = up
            .cli
            .json(&["probe", "--quick", "--position", "rack1:u9", "rack3:u9"]);
        ensure(says_what_was_refused(&report["refused"]), || {
            format!("{:#}", report["refused"])
        })
    });
    let all = all.map(|net| format!("no network {net}"));
    configure(up, &[&format!("no {}", second[0])], all);
}

fn says_what_was_refused(refused: &Value) -> bool {
    let wanted = [
        ("leaf3", "leaf3:u6", "shorter than /8", "0.0.0.0/1"),
        (
            "leaf4",
            "leaf4:u6",
            "in a subnet of the fabric",
            "192.168.96.1/32",
        ),
        ("leaf2", "192.168.113.200", "shorter than /8", "128.0.0.0/1"),
    ];
    wanted.iter().all(|(leaf, from, why, net)| {
        let mut all = refused.as_array().unwrap().iter();
        all.any(|found| {
            (&found["leaf"], &found["from"], &found["why"])
                == (&(*leaf).into(), &(*from).into(), &(*why).into())
                && found["prefixes"]
                    .as_array()
                    .unwrap()
                    .contains(&(*net).into())
        })
    })
}

/// The leaf ends the session, and no other.
pub(crate) fn too_many(up: &mut Up) {
    let many = |word: &str| {
        let word = word.to_owned();
        let nets = (0..300).map(move |n| format!("{word}network 10.66.{}.{}/32", n / 256, n % 256));
        nets.collect::<Vec<_>>().into_iter()
    };
    let has = |leaf: &str, peer: &str| {
        let summary = summary(&up.cli, leaf);
        established(&summary).contains(peer)
    };
    configure(up, &[], many(""));
    until("the session to end", SOON, || {
        ensure(!has("leaf3", &server_nic()), || "it stands".into())
    });
    for spine in [1, 2] {
        assert!(has("leaf3", &facts::nic(spine)));
    }
    assert!(has("leaf2", "192.168.113.200"), "it took few");
    configure(up, &[], many("no "));
    until("the session to be back", AGAIN, || {
        ensure(has("leaf3", &server_nic()), || "not yet".into())
    });
}
