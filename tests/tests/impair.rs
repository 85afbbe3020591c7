//! `ikv-fabric impair` on a wire between two machines, and the configuration's `[[cable]]`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::{Nic, Pair, have_root, run};
use serde_json::{Value, json};

fn count(lane: &Value, key: &str) -> u64 {
    lane[key].as_u64().unwrap()
}

fn dropped(lane: &Value) -> u64 {
    let drops = lane["drops"].as_object().unwrap().values();
    drops.map(|count| count.as_u64().unwrap()).sum()
}

fn assert_accounted(lane: &Value) {
    let accounted = count(lane, "frames_out") + count(lane, "held") + dropped(lane);
    assert_eq!(count(lane, "frames_in"), accounted, "{lane:#}");
}

/// A lane's impairment without the seed, which is random.
fn keys(lane: &Value) -> Value {
    let mut keys = lane["impairment"].clone();
    if let Some(keys) = keys.as_object_mut() {
        assert!(keys.remove("seed").is_some(), "a seed is chosen and shown");
    }
    keys
}

#[test]
fn a_delay_on_both_lanes_counts_twice_in_a_round_trip() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("delay");
    let rtt = || pair.ping(&["-c", "5", "-i", "0.05", "-w", "5"]).unwrap();
    let impair = |words: &[&str]| pair.wire.json("impair", words);
    assert!(rtt() < 10.0);

    impair(&["wire", "--delay", "10ms"]);
    let both = rtt();
    assert!((20.0..30.0).contains(&both), "{both}");

    impair(&["wire", "--clear"]);
    assert!(rtt() < 10.0);
    impair(&["wire", "--from", "pb", "--delay", "10ms"]);
    let one = rtt();
    assert!((10.0..20.0).contains(&one), "{one}");
    assert_eq!(keys(&pair.wire.lane("pa")), Value::Null);
    assert_eq!(keys(&pair.wire.lane("pb")), json!({"delay": "10ms"}));
    let back = pair.wire.lane("pb");
    assert!(count(&back, "delayed") >= 5, "{back:#}");
    assert_eq!(back["accuracy"]["delay"]["requested_us"], 10_000.0);
    assert!(back["accuracy"]["delay"]["released"].as_u64().unwrap() >= 5);
    let text = run(pair.wire.command("impair").arg("--report")).stdout;
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(report[0]["name"], "wire");
    pair.end();
}

#[test]
fn keys_stay_until_they_are_cleared() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("keys");
    let impair = |words: &[&str]| pair.wire.json("impair", words);
    let ahead = || keys(&pair.wire.lane("pa"));
    impair(&[
        "wire",
        "--delay",
        "5ms",
        "--jitter",
        "1ms",
        "--distribution",
        "pareto",
    ]);
    impair(&[
        "wire",
        "--loss",
        "gemodel",
        "1%",
        "10%",
        "--rate",
        "1gbit",
        "--overhead",
        "24",
    ]);
    impair(&["wire:a", "--loss", "2%", "25%"]);
    assert_eq!(
        ahead(),
        json!({
            "delay": "5ms", "jitter": "1ms", "distribution": "pareto", "loss": "2% 25%",
            "rate": "1gbit", "overhead": "24",
        })
    );
    impair(&["pb", "--jitter", "0", "--rate", "none"]);
    assert_eq!(ahead(), json!({"delay": "5ms", "loss": "2% 25%"}));
    let listed = impair(&["--list"]);
    assert_eq!(listed[1]["from"], "pb");
    assert_eq!(listed[1]["impairment"]["delay"], "5ms");

    // A refused impairment changes nothing.
    for (words, reason) in [
        (
            &["wire", "--gap", "5"][..],
            "gap: does nothing without reorder",
        ),
        (
            &["nowire", "--delay", "1ms"][..],
            "there is no cable \"nowire\"",
        ),
        (
            &["wire", "--from", "pc", "--delay", "1ms"][..],
            "there is no port \"pc\" here",
        ),
    ] {
        let refused = pair.wire.command("impair").args(words).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    let mut usage = pair.wire.command("impair");
    let usage = usage.args(["wire", "--delay", "10"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    assert_eq!(ahead(), json!({"delay": "5ms", "loss": "2% 25%"}));

    impair(&["wire", "--clear", "--delay", "1ms"]);
    assert_eq!(ahead(), json!({"delay": "1ms"}));
    impair(&["wire", "--delay", "0"]);
    assert_eq!(ahead(), Value::Null);
    pair.end();
}

#[test]
fn loss_affects_one_direction_and_drop_exactly_the_nth_frame() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("loss");
    let impair = |words: &[&str]| pair.wire.json("impair", words);
    impair(&["wire", "--from", "pa", "--loss", "100%"]);
    assert_eq!(pair.ping(&["-c", "4", "-i", "0.05", "-W", "0.2"]), None);
    assert_eq!(pair.wire.lane("pa")["drops"]["loss"], 4);
    assert_eq!(pair.wire.lane("pb")["drops"]["loss"], Value::Null);
    let loss = &pair.wire.lane("pa")["accuracy"]["loss"];
    assert_eq!(
        (&loss["requested"], &loss["achieved"]),
        (&json!(1.0), &json!(1.0))
    );
    assert!(loss["low"].as_f64().unwrap() < 1.0);

    let one_ping = || pair.ping(&["-c", "1", "-W", "0.2"]);
    impair(&["wire", "--match", "udp or arp"]);
    assert!(one_ping().is_some(), "a frame that does not match was lost");
    impair(&["wire", "--match", "icmp[icmptype] == icmp-echo"]);
    assert_eq!(one_ping(), None);
    let shown = keys(&pair.wire.lane("pa"));
    let expression = "icmp[icmptype] == icmp-echo";
    assert_eq!(shown, json!({"loss": "100%", "match": expression}));

    impair(&["wire", "--clear"]);
    impair(&["wire", "--from", "pa", "--drop", "2,4-5"]);
    let output = pair.left.run("ping -n -c 7 -i 0.05 -W 0.2 10.9.0.2");
    let answered: Vec<_> = output
        .lines()
        .filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(answered, ["1", "3", "6", "7"], "{output}");
    let chosen = pair.wire.lane("pa");
    assert_eq!(chosen["drops"]["chosen"], 3, "{chosen:#}");
    pair.end();
}

#[test]
fn cutting_a_wire_takes_the_carrier_of_its_taps() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("carrier");
    let carrier = |netns: &ikv_tests::Netns, tap: &str| {
        netns.ip(&format!("link show {tap}")).contains("LOWER_UP")
    };
    let set = |state: &str| {
        let said = pair.wire.json("cable", &["wire", state]);
        assert_eq!(said["notes"], json!([]), "both taps lose their carrier");
    };
    for (state, up) in [
        ("down", false),
        ("up", true),
        ("blackhole", true),
        ("up", true),
    ] {
        set(state);
        wait_until(state, SOON, || {
            carrier(&pair.left, "pa") == up && carrier(&pair.right, "pb") == up
        });
    }
    assert!(pair.ping(&["-c", "3", "-i", "0.1", "-w", "5"]).is_some());
    pair.end();
}

#[test]
fn every_frame_is_accounted_for_while_impairments_change() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("random");
    let mut flood = pair
        .left
        .command("ping")
        .args(["-n", "-q", "-f", "-s", "900", "-w", "60", "10.9.0.2"])
        .stdout(Stdio::null())
        // It complains about corrupted answers.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A linear congruential generator: the same sequence in every run.
    let mut dice = 12_345u32;
    let mut throw = |sides: usize| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 16) as usize % sides
    };
    let choices = [
        &["--delay", "0"][..],
        &["--delay", "3ms"],
        &[
            "--delay",
            "20ms",
            "--jitter",
            "5ms",
            "--distribution",
            "normal",
        ],
        &["--jitter", "0"],
        &["--loss", "30%"],
        &["--loss", "0%"],
        &["--duplicate", "20%"],
        &["--corrupt", "10%"],
        &[
            "--clear",
            "--delay",
            "5ms",
            "--reorder",
            "25%",
            "--gap",
            "3",
        ],
        &["--rate", "1mbit"],
        &["--rate", "none"],
        &["--limit", "20kB"],
        &["--slot", "2ms", "5ms", "packets", "3"],
        &["--clear"],
    ];
    let states = ["up", "up", "blackhole", "down"];
    for turn in 0..80 {
        if turn % 10 == 9 {
            run(pair
                .wire
                .command("cable")
                .args(["wire", states[throw(states.len())]]));
        } else {
            let mut words = vec!["wire"];
            if throw(3) > 0 {
                words.extend(["--from", ["pa", "pb"][throw(2)]]);
            }
            words.extend(choices[throw(choices.len())]);
            // Some choices contradict what is set: they are refused and change nothing.
            let said = pair.wire.command("impair").args(&words).output().unwrap();
            assert!(matches!(said.status.code(), Some(0 | 1)), "{said:?}");
        }
        for from in ["pa", "pb"] {
            assert_accounted(&pair.wire.lane(from));
        }
    }
    run(pair.wire.command("cable").args(["wire", "up"]));
    run(pair.wire.command("impair").args(["wire", "--clear"]));
    flood.kill().unwrap();
    flood.wait().unwrap();
    // Held frames leave in time.
    wait_until("the last frame", SOON, || {
        ["pa", "pb"]
            .iter()
            .all(|from| count(&pair.wire.lane(from), "held") == 0)
    });
    for (from, to) in [("pa", "pb"), ("pb", "pa")] {
        let lane = pair.wire.lane(from);
        assert_accounted(&lane);
        assert_eq!(lane["to"], to);
        assert!(count(&lane, "frames_in") > 500, "{lane:#}");
        for reason in ["loss", "cable-down", "blackhole"] {
            let seen = lane["drops"][reason].as_u64().unwrap_or(0);
            if from == "pa" {
                assert!(seen > 0, "{reason}: {lane:#}");
            }
        }
    }
    assert!(pair.ping(&["-c", "3", "-i", "0.1", "-w", "5"]).is_some());
    pair.end();
}

const FROM_THE_START: &str = r#"
[[cable]]
name = "iksb12"
state = "blackhole"

[[cable]]
name = "ikeb1-4"
from = "ikvm1-4-1"
loss = "100%"
match = "ether proto 0x88b5"

[[cable]]
name = "direct"
ends = ["rack1:u3:1", "rack2:u3:1"]
delay = "5ms"

[[cable]]
ends = ["leaf1:u5", "leaf3:u5"]
state = "down"
"#;

#[test]
fn configured_cables_are_set_from_the_start() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("configured");
    let file = host.folder().join("fabric.toml");
    std::fs::write(&file, FROM_THE_START).unwrap();
    let fabric = host.run(&["-c", file.to_str().unwrap()]);
    assert_eq!(host.json(&["cables", "spine1:2"])[0]["state"], "blackhole");
    let impaired = host.json(&["impair", "--list"]);
    let impaired: Vec<_> = impaired
        .as_array()
        .unwrap()
        .iter()
        .filter(|lane| lane["impairment"] != json!({}))
        .map(|lane| (lane["cable"].clone(), lane["from"].clone()))
        .collect();
    assert_eq!(
        impaired,
        [
            ("ikeb1-4", "ikvm1-4-1"),
            ("direct", "ikvm1-3-1"),
            ("direct", "ikvm2-3-1")
        ]
        .map(|(cable, from)| (json!(cable), json!(from)))
    );

    // Two servers are connected directly, and no other end gets their frames.
    let [one, other, leaf] = host
        .netns
        .enter(|| ["ikvm1-3-1", "ikvm2-3-1", "ikls1-3"].map(Nic::plain));
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(60, 7);
    let sent = Instant::now();
    one.send([0; 10], &frame);
    assert_eq!(other.receive().1, frame);
    assert!(sent.elapsed() >= Duration::from_millis(5));
    leaf.send([0; 10], &frame);
    wait_until("the frame to an unplugged end", SOON, || {
        let left = host.json(&["cables", "ikeb1-3"]);
        assert_eq!(left[0]["lanes"][0]["to"], "nothing");
        left[0]["lanes"][0]["drops"] == json!({"unplugged": 1})
    });
    drop((one, other, leaf));

    // Frames that match are lost, in one direction.
    let [leaf, server] = host
        .netns
        .enter(|| ["ikls1-4", "ikvm1-4-1"].map(Nic::plain));
    server.send([0; 10], &frame);
    frame[12..14].copy_from_slice(&[0x88, 0xb6]);
    server.send([0; 10], &frame);
    assert_eq!(leaf.receive().1, frame, "the first frame must be lost");

    let direct = host.json(&["cables", "leaf3:u5"]);
    assert_eq!(
        (&direct[0]["name"], &direct[0]["state"]),
        (&json!("ikcb2"), &json!("down"))
    );
    let topology = host.json(&["topology", "-c", file.to_str().unwrap()]);
    assert_eq!(topology["cables"].as_array().unwrap().len(), 143);
    fabric.end();

    std::fs::write(
        &file,
        "[[cable]]\nname = \"iksb12\"\nmatch = \"tcp prot 5\"\nloss = \"1%\"\n",
    )
    .unwrap();
    let refused = host.ask(&["run", "--switches", "none", "-c", file.to_str().unwrap()]);
    let said = refused.refusal();
    assert!(
        said.contains("fabric.toml, line 3: cable[0].match: \"tcp prot 5\""),
        "{said}"
    );
}
