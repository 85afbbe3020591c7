//! The JSON that commands print with `--json` has the schema that DESIGN.md promises.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Instant;

use ikv_tests::have_root;
use ikv_tests::panel::{PanelHost, ask_without_fabric, json_without_fabric};
use ikv_tests::patience::SOON;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Asserts that an object has exactly these keys, given separated by blanks.
#[track_caller]
fn assert_keys(value: &Value, keys: &str) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"));
    let found: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(found, keys.split(' ').collect(), "{value}");
}

fn list(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

#[test]
fn topology_json_has_the_promised_schema() {
    let topology = json_without_fabric(&["topology"]);
    assert_keys(&topology, "nodes cables");
    let nodes = list(&topology["nodes"]);
    for node in nodes {
        assert_keys(node, "name role asn loopback ports");
        for port in list(&node["ports"]) {
            assert_keys(port, "name alias nic mac link_local cable");
        }
    }
    for cable in list(&topology["cables"]) {
        assert_keys(cable, "name a b");
    }
    let names: Vec<&str> = nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names.join(" "),
        "internet spine1 spine2 leaf1 leaf2 leaf3 leaf4 leaf5 leaf6"
    );
    assert_eq!(list(&topology["cables"]).len(), 141);
    let spine = &nodes[1];
    assert_eq!(
        (&spine["role"], &spine["asn"], &spine["loopback"]),
        (&json!("spine"), &json!(65501), &json!("192.168.98.2"))
    );
    let port = json!({"name": "ikst12", "alias": "spine1:2", "nic": "ens5", "cable": "iksb12",
        "mac": "08:00:27:06:ac:22", "link_local": "fe80::a00:27ff:fe06:ac22"});
    assert_eq!(spine["ports"][1], port);
    let cable = json!({"name": "iksb12", "a": "ikst12", "b": "iklt11"});
    assert!(list(&topology["cables"]).contains(&cable));

    let dot = ask_without_fabric(&["topology", "--dot"]).stdout;
    assert!(dot.starts_with("graph ") && dot.contains("spine1"), "{dot}");
}

#[test]
fn json_of_a_running_fabric_has_the_promised_schema() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("json");
    let fabric = host.run(&["--set", "topology.racks=1"]);
    let mut status = host.json(&["status"]);
    // A quarter of this machine's memory.
    let limit = status.as_object_mut().unwrap().remove("hold_memory");
    assert!(limit.is_some_and(|bytes| bytes.as_u64() > Some(0)));
    assert_eq!(
        status,
        json!({"ready": true, "nodes": [], "cables": 49, "workers": 1, "hold_memory_taken": 0})
    );

    let cables = host.json(&["cables"]);
    assert_eq!(list(&cables).len(), 49);
    for cable in list(&cables) {
        assert_keys(cable, "name state lanes");
        let [there, back] = &list(&cable["lanes"])[..] else {
            panic!("two lanes: {cable}")
        };
        for lane in [there, back] {
            assert_keys(lane, "from to frames_in bytes_in frames_out held drops");
        }
        assert_eq!((&there["from"], &there["to"]), (&back["to"], &back["from"]));
    }
    let changed = host.json(&["cable", "ikhb", "up"]);
    assert_eq!(changed, json!({"name": "ikhb", "state": "up", "notes": []}));

    let args = host.json(&["vm-args", "rack1:u3:2"]);
    let expected = [
        "-netdev",
        "tap,id=net0,ifname=ikvm1-3-2,script=no,downscript=no",
        "-device",
        "virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:02",
    ];
    assert_eq!(args, json!({"args": expected}));
    // The running fabric answers, not the default configuration.
    let answer = host.ask(&["vm-args", "rack2:u3"]);
    assert!(
        answer
            .refusal()
            .starts_with("there is no server \"rack2:u3\""),
        "{answer:?}"
    );

    for words in [
        &["ssh", "leaf1"][..],
        &["exec", "leaf1", "--", "true"],
        &["power", "leaf1", "off"],
        &["console", "leaf1"],
    ] {
        let answer = host.ask(words);
        assert!(
            answer
                .refusal()
                .ends_with("it was started with --switches none"),
            "{answer:?}"
        );
    }
    fabric.end();
}

#[test]
fn check_reports_every_obstacle_and_changes_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("check");
    let findings = |code: i32| {
        let answer = host.ask(&["--json", "check", "--switches", "none"]);
        assert_eq!(answer.code, Some(code), "{answer:?}");
        let findings: Value = serde_json::from_str(&answer.stdout).unwrap();
        for finding in list(&findings) {
            assert_keys(finding, "severity what remedy");
            let severity = finding["severity"].as_str().unwrap();
            assert!(
                ["note", "warning", "error"].contains(&severity),
                "{finding}"
            );
        }
        findings
    };
    let before = host.state();
    // Who will reach the host, and how much memory may be taken, is said in any case.
    let notes = findings(0);
    let [reach, memory] = &list(&notes)[..] else {
        panic!("two notes: {notes}")
    };
    let host_is_closed = json!({
        "severity": "note",
        "what": "as [host] has it, guests reach no service of the host, and none of its neighbours \
                 reaches the fabric",
        "remedy": "",
    });
    assert_eq!(*reach, host_is_closed);
    assert_eq!(
        (&memory["severity"], &memory["remedy"]),
        (&json!("note"), &json!(""))
    );
    let memory = memory["what"].as_str().unwrap();
    assert!(
        memory.starts_with("frames that impairments hold back may take "),
        "{memory}"
    );
    before.assert_unchanged(&host.state(), "check");

    host.netns.ip("link add ikhn type bridge");
    host.netns.ip("route add 192.168.100.0/24 dev lo");
    let before = host.state();
    let found = findings(1);
    let whats: Vec<&str> = list(&found)
        .iter()
        .filter(|found| found["severity"] == "error")
        .map(|found| found["what"].as_str().unwrap())
        .collect();
    assert_eq!(whats.len(), 2, "{whats:?}");
    let text = host.ask(&["check", "--switches", "none"]).stdout;
    assert!(
        text.ends_with("2 things keep `ikv-fabric run` from working\n"),
        "{text}"
    );
    before.assert_unchanged(&host.state(), "check with findings");

    host.netns.ip("link del ikhn");
    host.netns.ip("route del 192.168.100.0/24");
    let fabric = host.run(&[]);
    let found = findings(1);
    let running = format!("a fabric is running on this socket, pid {}", fabric.pid());
    assert!(
        list(&found).iter().any(|found| found["what"] == *running),
        "{found}"
    );
    fabric.end();
}

#[test]
fn status_waits_for_the_socket() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("wait");
    let answer = host.ask(&["status"]);
    assert!(
        answer.refusal().starts_with("no fabric answers at "),
        "{answer:?}"
    );
    assert!(answer.refusal().contains("`ikv-fabric run`"), "{answer:?}");
    assert_eq!(host.ask(&["status", "--wait", "1"]).code, Some(1));

    let mut command = host.command(&["--json", "status", "--wait", "20"]);
    let waiting = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let fabric = host.run(&[]);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["ready"], true);
    fabric.end();
}

#[test]
fn status_does_not_wait_for_a_fabric_that_was_killed() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("vain");
    let mut fabric = host.run(&[]);
    fabric.signal(Signal::KILL);
    fabric.wait_end();
    let began = Instant::now();
    let answer = host.ask(&["status", "--wait", "60"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("was killed (pid "), "{answer:?}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let cleaned = host.ask(&["clean"]);
    assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
}
