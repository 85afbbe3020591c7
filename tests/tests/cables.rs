//! Cables of a patch panel: their ends and names, the frames that pass and their counters, and
//! cutting them.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, wait_for, wait_until};
use ikv_tests::{Netns, Nic, have_root};
use serde_json::{Value, json};

/// All 141 cables as ikvswitch's documents list them: name | end | end. An end is its tap and its
/// alias, followed by its NIC inside the switch.
const CABLES: &str = include_str!("../../ctrl/model/src/topology/tests/ikvswitch.txt");

/// Every cable's name, and the tap and alias of both its ends.
fn cables() -> Vec<[&'static str; 5]> {
    let words = |part: &'static str| part.split_whitespace();
    CABLES
        .lines()
        .map(|line| {
            let mut parts = line.split('|');
            let name = words(parts.next().unwrap()).next().unwrap();
            let mut ends = parts.flat_map(|end| words(end).take(2));
            let mut next = || ends.next().unwrap();
            [name, next(), next(), next(), next()]
        })
        .collect()
}

fn links(netns: &Netns) -> Vec<Value> {
    serde_json::from_str(&netns.ip("-d -json link show")).unwrap()
}

#[test]
fn all_282_ends_exist_without_addresses() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("ends");
    let fabric = host.run(&[]);
    let expected: BTreeSet<&str> = cables()
        .iter()
        .flat_map(|[_, a, _, b, _]| [*a, *b])
        .collect();
    assert_eq!(expected.len(), 282);

    let links = links(&host.netns);
    let ours = || links.iter().filter(|link| link["ifname"] != "lo");
    let names: BTreeSet<&str> = ours()
        .map(|link| link["ifname"].as_str().unwrap())
        .collect();
    assert_eq!(names, expected);
    for link in ours() {
        assert_eq!(link["mtu"], 9000, "{link}");
        assert_eq!(link["linkinfo"]["info_data"]["type"], "tap", "{link}");
        let flags = link["flags"].as_array().unwrap();
        assert!(flags.contains(&json!("UP")), "{link}");
        let host_link = link["ifname"] == "ikhn";
        assert!(host_link || flags.contains(&json!("NOARP")), "{link}");
        assert_eq!(link["inet6_addr_gen_mode"], "none", "{link}");
    }
    // The only address is the host's own, on its link; no link has an IPv6 address.
    assert_eq!(host.netns.ip("-6 -o address show").matches("ik").count(), 0);
    let addresses = host.netns.ip("-4 -o address show");
    let ours: Vec<&str> = addresses
        .lines()
        .filter(|line| line.contains("ik"))
        .collect();
    assert!(
        matches!(ours[..], [only] if only.contains("ikhn") && only.contains("192.168.96.1/24")),
        "{addresses}"
    );
    let status = host.json(&["status"]);
    assert_eq!(status["ready"], true, "at once");
    assert_eq!(
        (status["cables"].clone(), status["nodes"].clone()),
        (json!(141), json!([]))
    );
    fabric.end();
}

#[test]
fn every_command_takes_every_name_of_a_cable() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("names");
    let fabric = host.run(&[]);
    // All names in one request: the answer lists their cables in the same order.
    let cables = cables();
    let asked: Vec<&str> = cables.iter().flatten().copied().collect();
    let reports = host.json(&[&["cables"], &asked[..]].concat());
    let found = reports
        .as_array()
        .unwrap()
        .iter()
        .map(|report| report["name"].as_str().unwrap());
    let expected = cables.iter().flat_map(|cable| [cable[0]; 5]);
    assert!(found.eq(expected));

    for name in ["iksb12", "ikst12", "iklt11", "spine1:2", "leaf1:1"] {
        let changed = host.json(&["cable", name, "blackhole"]);
        assert_eq!(
            (&changed["name"], &changed["state"]),
            (&json!("iksb12"), &json!("blackhole"))
        );
        assert_eq!(host.json(&["cables", name])[0]["state"], "blackhole");
        host.json(&["cable", name, "up"]);
    }
    let args = |place: &str| host.ask(&["vm-args", place]).stdout;
    assert_eq!(args("rack1:u3:1"), args("ikvm1-3-1"));
    assert_eq!(args("rack1:u3").matches("ifname=ikvm1-3-").count(), 2);

    for (words, says) in [
        (
            ["cables", "ikst18", "spine1:2"],
            "there is no cable \"ikst18\" in this fabric; did you mean ikst12",
        ),
        (
            ["cable", "rack1:u2:1", "down"],
            "there is no cable \"rack1:u2:1\" in this fabric; did you mean rack1:u3:1",
        ),
        (
            ["cable", "core", "up"],
            "there is no cable \"core\" in this fabric; names look like iksb12",
        ),
        (
            ["vm-args", "rack9:u3", "--nic=tap"],
            "there is no server \"rack9:u3\" in this fabric; did you mean rack1:u3",
        ),
        (
            ["power", "Leaf3", "off"],
            "there is no switch \"Leaf3\" in this fabric; did you mean leaf3?",
        ),
    ] {
        let answer = host.ask(&words);
        assert!(answer.refusal().starts_with(says), "{words:?}: {answer:?}");
    }
    fabric.end();
}

fn frame(mark: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, mark, 0x88, 0xb5]);
    frame.resize(length, mark);
    frame
}

/// Both lanes of a cable in `cables --json`, after checking that every frame is accounted for.
fn lanes(host: &PanelHost, cable: &str) -> [Value; 2] {
    let reports = host.json(&["cables", cable]);
    let lanes = reports[0]["lanes"].as_array().unwrap().clone();
    for lane in &lanes {
        let count = |key: &str| lane[key].as_u64().unwrap();
        let drops = lane["drops"].as_object().unwrap().values();
        let drops: u64 = drops.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(
            count("frames_in"),
            count("frames_out") + count("held") + drops,
            "{lane}"
        );
    }
    lanes.try_into().unwrap()
}

fn wait_lane(
    host: &PanelHost,
    cable: &str,
    side: usize,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) {
    wait_until(what, SOON, || holds(&lanes(host, cable)[side]));
}

#[test]
fn frames_are_counted_on_their_own_lane() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("frames");
    let fabric = host.run(&[]);
    let wires = [
        ("iksb12", "ikst12", "iklt11"),
        ("ikeb1-3", "ikls1-3", "ikvm1-3-1"),
    ];
    for (cable, a, b) in wires {
        let [near, far] = host.netns.enter(|| [Nic::plain(a), Nic::plain(b)]);
        for (from, to, mark, length, count) in [(&near, &far, 1, 60, 5), (&far, &near, 2, 9014, 3)]
        {
            for _ in 0..count {
                from.send([0; 10], &frame(mark, length));
                assert_eq!(to.receive().1, frame(mark, length));
            }
        }
        let [there, back] = lanes(&host, cable);
        let expected = |from: &str, to: &str, frames: u64, bytes: u64| {
            json!({"from": from, "to": to, "frames_in": frames, "bytes_in": bytes,
                   "frames_out": frames, "held": 0, "drops": {}})
        };
        assert_eq!(there, expected(a, b, 5, 5 * 60));
        assert_eq!(back, expected(b, a, 3, 3 * 9014));

        drop(far);
        wait_until("the far end to be unplugged", SOON, || {
            !host
                .netns
                .ip(&format!("link show {b}"))
                .contains("LOWER_UP")
        });
        near.send([0; 10], &frame(3, 60));
        wait_lane(&host, cable, 0, "the frame to an unplugged end", |lane| {
            lane["drops"] == json!({"unplugged": 1})
        });
    }
    let total: u64 = host
        .json(&["cables"])
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|cable| cable["lanes"].as_array().unwrap())
        .map(|lane| lane["frames_in"].as_u64().unwrap())
        .sum();
    assert_eq!(total, 2 * (5 + 3 + 1), "and no frame on another cable");
    fabric.end();
}

/// Sends a frame from one end; `true` if it arrives at the other, `false` if the lane drops it for
/// `reason`.
fn reaches(host: &PanelHost, from: &Nic, to: &Nic, reason: &str) -> bool {
    let drops = |lane: &Value| lane["drops"][reason].as_u64().unwrap_or(0);
    let before = drops(&lanes(host, "ikeb1-3")[0]);
    from.send([0; 10], &frame(9, 60));
    wait_for("the frame to arrive or to be dropped", SOON, || {
        if to.receive_within(Duration::ZERO).is_some() {
            return Some(true);
        }
        (drops(&lanes(host, "ikeb1-3")[0]) > before).then_some(false)
    })
}

#[test]
fn a_cable_is_cut_blackholed_and_mended() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("cut");
    let fabric = host.run(&[]);
    let [near, far] = host
        .netns
        .enter(|| ["ikls1-3", "ikvm1-3-1"].map(Nic::plain));
    assert!(reaches(&host, &near, &far, "cable-down"));
    for (state, reason) in [("down", "cable-down"), ("blackhole", "blackhole")] {
        let changed = host.json(&["cable", "leaf1:u3", state]);
        assert_eq!(
            (&changed["name"], &changed["state"]),
            (&json!("ikeb1-3"), &json!(state))
        );
        // A QEMU behind a tap cannot be notified that its cable is cut: the notes say so.
        let notes = changed["notes"].as_array().unwrap();
        let expected = if state == "down" { 2 } else { 0 };
        assert_eq!(notes.len(), expected, "{changed}");
        assert!(
            notes
                .iter()
                .all(|note| note.as_str().unwrap().contains("still has carrier"))
        );
        assert_eq!(host.json(&["cables", "ikeb1-3"])[0]["state"], state);
        assert!(!reaches(&host, &near, &far, reason), "{state}");
        host.json(&["cable", "leaf1:u3", "up"]);
        assert!(reaches(&host, &near, &far, reason), "up after {state}");
    }
    host_link_loses_carrier(&host);

    let said = host.ask(&["cable", "rack1:u3:1", "down"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "ikeb1-3 is down\n")
    );
    assert_eq!(said.stderr.matches("note: ").count(), 2, "{said:?}");
    let row = host.ask(&["cables", "rack1:u3:1"]).stdout;
    assert!(row.contains("ikeb1-3  down"), "{row}");
    fabric.end();
}

/// The fabric holds the host's tap, so that it can take its carrier away.
fn host_link_loses_carrier(host: &PanelHost) {
    let carrier = || host.netns.ip("link show ikhn").contains("LOWER_UP");
    assert!(carrier());
    host.json(&["cable", "host", "down"]);
    assert!(!carrier());
    host.json(&["cable", "ikhb", "up"]);
    assert!(carrier());
}
