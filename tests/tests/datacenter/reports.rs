//! The fabric's own reports, against the schema that DESIGN promises.

use std::time::Duration;

use dataplane::rights::CapabilitySet;
use ikv_tests::figure;
use ikv_tests::pace::slowness;
use ikv_tests::rights::assert_rights;
use serde_json::Value;

use super::facts::{self, SWITCHES};
use super::lab::Up;

/// Limit from `run` to ready under emulation on two cores, with the image cached, on the reference
/// machine.
const READY: Duration = Duration::from_secs(90);

pub(crate) fn ready_in_time(up: &mut Up) {
    figure(
        &format!("default fabric, {:?}, from run to ready", up.nics),
        &format!(
            "{:.1} s (wanted: 90 s; memory here is {:.1} times slower)",
            up.ready_after.as_secs_f64(),
            slowness()
        ),
    );
    let limit = READY.mul_f64(slowness());
    assert!(
        up.ready_after <= limit,
        "ready after {:?}; the limit is {limit:?}. Is this machine busy?",
        up.ready_after
    );
}

/// The keys of an object in alphabetical order.
fn keys(object: &Value) -> Vec<&str> {
    let map = object
        .as_object()
        .unwrap_or_else(|| panic!("no object: {object}"));
    let mut keys: Vec<_> = map.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

pub(crate) fn status_json(up: &mut Up) {
    let status = up.cli.json(&["status"]);
    // There are `problems` only where something is wrong, such as no cgroups on this machine.
    let mut keys_of_status = keys(&status);
    keys_of_status.retain(|key| *key != "problems");
    let wanted = [
        "cables",
        "hold_memory",
        "hold_memory_taken",
        "nodes",
        "ready",
        "workers",
    ];
    assert_eq!(keys_of_status, wanted);
    assert_eq!(status["ready"], true);
    assert_eq!(status["cables"], 141);
    assert!(status["workers"].as_u64().unwrap() >= 1);
    let nodes = list(&status["nodes"]);
    let names: Vec<_> = nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, SWITCHES);
    for node in nodes {
        // There is a `note` only where something is wrong.
        assert_eq!(
            keys(node),
            ["bgp", "name", "role", "since_ns", "state"],
            "{node}"
        );
        let name = node["name"].as_str().unwrap();
        assert_eq!(node["role"], name.trim_end_matches(char::is_numeric));
        assert_eq!(node["state"], "running");
        assert_eq!(keys(&node["bgp"]), ["established", "expected"]);
        assert_eq!(node["bgp"]["expected"], facts::sessions(name), "{name}");
        assert_eq!(
            node["bgp"]["established"], node["bgp"]["expected"],
            "{name}"
        );
    }
}

pub(crate) fn cables_json(up: &mut Up) {
    let cables = up.cli.json(&["cables"]);
    assert_eq!(list(&cables).len(), 141);
    for cable in list(&cables) {
        assert_eq!(keys(cable), ["lanes", "name", "state"]);
        assert_eq!(cable["state"], "up");
        let [there, back] = list(&cable["lanes"]) else {
            panic!("not two lanes: {cable}")
        };
        assert_eq!((&there["from"], &there["to"]), (&back["to"], &back["from"]));
        for lane in [there, back] {
            let expected = [
                "bytes_in",
                "drops",
                "frames_in",
                "frames_out",
                "from",
                "held",
                "to",
            ];
            assert_eq!(keys(lane), expected);
            let count = |key: &str| lane[key].as_u64().unwrap();
            let drops = lane["drops"].as_object().unwrap().values();
            let dropped: u64 = drops.map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(
                count("frames_in"),
                count("frames_out") + count("held") + dropped
            );
        }
    }
    let one = up.cli.json(&["cables", "spine1:2"]);
    assert_eq!(one[0]["name"], "iksb12", "an end's alias names its cable");
    assert_eq!(one[0]["lanes"][0]["from"], "ikst12");
    assert_eq!(one[0]["lanes"][0]["to"], "iklt11");
    for lane in list(&one[0]["lanes"]) {
        assert!(
            lane["frames_out"].as_u64().unwrap() > 10,
            "BGP runs over it: {lane}"
        );
        // Frames to an end that still boots are dropped.
        let drops = lane["drops"].as_object().unwrap();
        let booting = |reason: &String| ["unplugged", "receiver-full"].contains(&&**reason);
        assert!(drops.keys().all(booting), "{lane}");
    }
}

pub(crate) fn topology_and_vm_args_json(up: &mut Up) {
    let topology = up.cli.json(&["topology"]);
    assert_eq!(keys(&topology), ["cables", "nodes"]);
    assert_eq!(list(&topology["cables"]).len(), 141);
    assert_eq!(keys(&topology["cables"][0]), ["a", "b", "name"]);
    for (index, node) in list(&topology["nodes"]).iter().enumerate() {
        assert_eq!(keys(node), ["asn", "loopback", "name", "ports", "role"]);
        assert_eq!(node["name"], SWITCHES[index]);
        assert_eq!(node["asn"], 65500 + index);
        assert_eq!(node["loopback"], facts::loopback(index).to_string());
        let port = &node["ports"][0];
        assert_eq!(
            keys(port),
            ["alias", "cable", "link_local", "mac", "name", "nic"]
        );
    }
    let args = up.cli.json(&["vm-args", "rack1:u3"]);
    let text = args["args"].to_string();
    for option in [
        "ifname=ikvm1-3-1,",
        "ifname=ikvm1-3-2,",
        "virtio-net-pci,netdev=net1,",
    ] {
        assert!(text.contains(option), "{option} in {text}");
    }
}

/// The fabric keeps the capabilities that it needs to restart a switch under its own uid, to end
/// it, and to undo its changes to the host.
pub(crate) fn rights_are_given_up(up: &mut Up) {
    let kept = CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW
        | CapabilitySet::CHOWN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP
        | CapabilitySet::KILL;
    assert_rights(up.fabric.pid(), kept, 69_999);
}
