//! The patch panel alone, `run --switches none`: every end is there, cables carry frames, and
//! what it costs.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, wait_for, wait_until};
use ikv_tests::{NamespaceGuest, Netns, Nic, figure, have_root};
use serde_json::{Value, json};

/// All 141 cables as ikvswitch's documents give them: name | end | end; an end is its tap and
/// its alias, then what is inside of a switch.
const CABLES: &str = include_str!("../../ctrl/src/topology/tests/ikvswitch.txt");

/// Name, and tap and alias of both ends, of every cable.
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
fn all_282_ends_are_there_with_their_names_and_without_addresses() {
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
    // The only address is the host's own on its link; IPv6 is nowhere.
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
fn up_and_down_in_no_time() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("times");
    let before = host.state();
    let mut times = Vec::new();
    for _ in 0..3 {
        let mut fabric = host.spawn(host.run_command(&[]));
        let up = fabric.wait_ready();
        let down = fabric.end();
        times.push((up, down));
    }
    let (up, down) = (
        times.iter().map(|time| time.0),
        times.iter().map(|time| time.1),
    );
    let (up, down) = (up.min().unwrap(), down.min().unwrap());
    figure(
        "patch panel of 141 cables, up, best of 3",
        &format!("{up:?} (wanted: 300 ms)"),
    );
    figure(
        "patch panel of 141 cables, down, best of 3",
        &format!("{down:?} (wanted: 300 ms)"),
    );
    // Other tests take the CPUs at the same time; ikvswitch needs 1.3 s and 11.9 s alone.
    assert!(
        up < Duration::from_secs(2) && down < Duration::from_secs(2),
        "{times:?}"
    );
    before.assert_unchanged(&host.state(), "a patch panel came and went");
}

/// CPU time of all threads of a process.
fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = threads.map(|thread| {
        let times = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        times.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn idle_costs_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("idle");
    let fabric = host.run(&[]);
    // What its start left to do is done when a question is answered.
    host.json(&["status"]);
    let (began, before) = (Instant::now(), cpu_time(fabric.pid()));
    // Nothing is waited for here: this is the time that is measured.
    std::thread::sleep(Duration::from_secs(3));
    let used =
        cpu_time(fabric.pid()).saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    let resident = resident_kib(fabric.pid());
    figure(
        "idle, 141 cables, of one CPU",
        &format!("{:.3} % (wanted: 1 %)", used * 100.0),
    );
    figure(
        "idle, 141 cables, resident",
        &format!("{} MB (wanted: 100 MB)", resident / 1000),
    );
    assert!(used < 0.01, "{used}");
    assert!(resident < 100_000, "{resident} KiB");
    fabric.end();
}

fn frame(mark: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, mark, 0x88, 0xb5]);
    frame.resize(length, mark);
    frame
}

/// Both lanes of a cable in `cables --json`; every count is consistent.
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
fn frames_pass_and_are_counted_on_the_lane_they_take() {
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
        wait_lane(&host, cable, 0, "the frame to nobody", |lane| {
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
    assert_eq!(total, 2 * (5 + 3 + 1), "and on no other cable");
    fabric.end();
}

#[test]
fn the_host_reaches_who_is_plugged_in_at_internet_and_masks_what_goes_out() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("hostlink");
    let outside = Netns::new("outside");
    host.netns.ip(&format!(
        "link add wan type veth peer name lan netns {}",
        outside.name()
    ));
    host.netns.ip("address add 203.0.113.1/24 dev wan");
    host.netns.ip("link set wan up");
    outside.ip("address add 203.0.113.9/24 dev lan");
    outside.ip("link set lan up");
    let fabric = host.run(&[]);

    let internet = NamespaceGuest::plug(&host.netns, "ikht");
    internet.netns.ip("address add 192.168.96.2/24 dev eth0");
    internet.netns.ip("address add 192.168.98.1/32 dev lo");
    internet.netns.ip("route add default via 192.168.96.1");
    host.netns.run("ping -c 1 -W 10 192.168.96.2");
    // By the route to the whole range, with a frame that needs the MTU of 9000.
    host.netns.run("ping -c 1 -W 10 -M do -s 8972 192.168.98.1");
    // The outside has no route back to the range: it sees the host's own address.
    internet.netns.run("ping -c 1 -W 10 203.0.113.9");
    drop(internet);
    fabric.end();
}

#[test]
fn other_shapes_come_and_go() {
    if !have_root() {
        return;
    }
    // Racks, spines, highest U; the cables follow from them.
    for (racks, spines, num_u) in [
        (1, 2, 23),
        (5, 2, 23),
        (3, 3, 23),
        (3, 2, 3),
        (3, 2, 40),
        (3, 2, 60),
    ] {
        let host = PanelHost::new("shape");
        let before = host.state();
        let sets = [("racks", racks), ("spines", spines), ("num_u", num_u)]
            .map(|(key, value)| format!("--set=topology.{key}={value}"));
        let fabric = host.run(&sets.each_ref().map(String::as_str));
        let leaves = 2 * racks;
        let cables = 1 + spines + spines * leaves + leaves * (num_u - 2);
        assert_eq!(host.json(&["status"])["cables"], cables);
        assert_eq!(links(&host.netns).len(), 1 + 2 * cables);
        let last = format!("rack{racks}:u{num_u}:2");
        let report = &host.json(&["cables", &last])[0];
        assert_eq!(report["lanes"][1]["from"], format!("ikvm{racks}-{num_u}-2"));
        fabric.end();
        before.assert_unchanged(&host.state(), &last);
    }
}

#[test]
fn every_name_of_a_cable_is_known_everywhere() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("names");
    let fabric = host.run(&[]);
    // All of them at once: what comes back is the cables, in the order asked for.
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
    for words in [
        &["cable", "iksb12", "sideways"][..],
        &["cable", "iksb12"],
        &["cables", "--no-such-option"],
        &["run", "--switches", "some"],
        &["run", "--workers", "0"],
        &["power", "leaf1", "maybe"],
        &["no-such-command"],
        &[],
    ] {
        assert_eq!(
            host.ask(words).code,
            Some(2),
            "{words:?} is no way to use it"
        );
    }
    fabric.end();
}

/// Sends frames from one end until one arrives at the other, or the lane drops for `reason`.
fn reaches(host: &PanelHost, from: &Nic, to: &Nic, reason: &str) -> bool {
    let drops = |lane: &Value| lane["drops"][reason].as_u64().unwrap_or(0);
    let before = drops(&lanes(host, "ikeb1-3")[0]);
    from.send([0; 10], &frame(9, 60));
    wait_for("the frame's end", SOON, || {
        if to.receive_within(Duration::ZERO).is_some() {
            return Some(true);
        }
        (drops(&lanes(host, "ikeb1-3")[0]) > before).then_some(false)
    })
}

#[test]
fn a_cable_is_cut_swallows_and_is_mended() {
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
        // Nobody can tell a QEMU behind a tap that its cable is cut, and that is said.
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
    assert!(row.contains("ikeb1-3    down"), "{row}");
    fabric.end();
}

/// The fabric holds the host's tap, so the host is told.
fn host_link_loses_carrier(host: &PanelHost) {
    let carrier = || host.netns.ip("link show ikhn").contains("LOWER_UP");
    assert!(carrier());
    host.json(&["cable", "host", "down"]);
    assert!(!carrier());
    host.json(&["cable", "ikhb", "up"]);
    assert!(carrier());
}

#[test]
fn workers_and_idling_are_as_asked_for() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("workers");
    let fabric: PanelFabric<'_> = host.run(&["--workers", "3", "--cpus", "0", "--idle", "spin"]);
    assert_eq!(host.json(&["status"])["workers"], 3);
    let [near, far] = host
        .netns
        .enter(|| ["ikls6-23", "ikvm3-23-2"].map(Nic::plain));
    near.send([0; 10], &frame(1, 60));
    assert_eq!(far.receive().1, frame(1, 60));
    // One CPU for all: they take turns, and still all of it is spent.
    wait_until("the workers to spin", SOON, || {
        cpu_time(fabric.pid()) > Duration::from_millis(200)
    });
    fabric.end();
}
