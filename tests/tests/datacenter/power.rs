//! Powering switches off and on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ikv_tests::figure;
use ikv_tests::patience::{ensure, until};

use super::facts;
use super::lab::Up;

/// Seconds for switches to boot and to establish all their sessions.
pub(crate) const BACK: u32 = 120;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn wait_for_state(up: &Up, node: &str, state: &str) {
    until(
        &format!("{node} to be {state}"),
        Duration::from_secs(20),
        || {
            let seen = up.cli.node(node);
            ensure(seen["state"] == state, || seen.to_string())
        },
    );
}

/// Of the spines' cables to leaf6: a neighbour that is off gives no light.
fn wait_for_carrier(up: &Up, expected: &str) {
    let carrier = format!("/sys/class/net/{}/carrier", facts::nic(7));
    for spine in ["spine1", "spine2"] {
        until(
            &format!("carrier {expected} at {spine}"),
            Duration::from_secs(20),
            || {
                let seen = up.cli.exec(spine, &["cat", &carrier]);
                ensure(seen.trim() == expected, || seen)
            },
        );
    }
}

pub(crate) fn took(what: &str, began: Instant) {
    let time = began.elapsed().as_secs_f64();
    figure(&format!("ready again, {what}"), &format!("{time:.1} s"));
}

/// The names and MAC addresses of a switch's devices.
fn addresses(up: &Up, node: &str) -> Vec<(String, String)> {
    let links = up.cli.exec_json(node, &["ip", "-json", "link"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let links = links.as_array().expect("a list").iter();
    links
        .map(|link| (text(&link["ifname"]), text(&link["address"])))
        .collect()
}

pub(crate) fn buttons(up: &mut Up) {
    let boots = |nodes: [&str; 3]| nodes.map(|node| up.cli.exec(node, &["cat", BOOT_ID]));
    let nodes = ["leaf6", "leaf5", "leaf4"];
    let before = boots(nodes);
    let addressed: BTreeMap<_, _> = nodes.map(|node| (node, addresses(up, node))).into();
    let began = Instant::now();

    let off = up.cli.json(&["power", "leaf6", "off"]);
    assert_eq!(
        (&off["name"], &off["state"]),
        (&"leaf6".into(), &"off".into())
    );
    up.cli.ok(&["power", "leaf5", "cycle"]);
    up.cli.ok(&["power", "leaf4", "reset"]);
    for node in ["leaf5", "leaf4"] {
        let state = up.cli.node(node)["state"].clone();
        assert!(state != "off" && state != "failed", "{node} is {state}");
    }
    let refused = up.cli.run(&["exec", "leaf6", "--", "true"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("leaf6"), "{refused:?}");
    assert_eq!(
        up.cli.run(&["status"]).code,
        Some(1),
        "a fabric with a switch off is not ready"
    );
    wait_for_state(up, "leaf6", "off");
    wait_for_carrier(up, "0");
    up.cli.ok(&["power", "leaf6", "on"]);
    up.cli.wait_ready(BACK);
    took("one off and on, one cycled, one reset", began);
    wait_for_carrier(up, "1");

    for (index, after) in boots(nodes).iter().enumerate() {
        assert_ne!(*after, before[index], "{} has booted again", nodes[index]);
    }
    // A reset boots the guest again; starting a QEMU restores a saved state.
    for (node, woken) in [("leaf6", true), ("leaf5", true), ("leaf4", false)] {
        assert_eq!(up.was_restored(node), woken && up.restores, "{node}");
        assert_eq!(addresses(up, node), addressed[node], "{node}'s NICs");
    }
}

/// A spine has many sessions to establish.
pub(crate) fn rejoins(up: &mut Up) {
    let began = Instant::now();
    up.cli.ok(&["power", "spine1", "cycle"]);
    until(
        "spine1 to have all its sessions",
        Duration::from_secs(BACK.into()),
        || {
            let node = up.cli.node("spine1");
            let all = node["bgp"]["established"] == node["bgp"]["expected"];
            ensure(node["state"] == "running" && all, || node.to_string())
        },
    );
    let time = began.elapsed().as_secs_f64();
    figure(
        "spine1 restarted alone, all sessions",
        &format!("{time:.1} s"),
    );
    up.cli.wait_ready(BACK);
}
