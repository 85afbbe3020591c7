//! `ikv-fabric impair` and `scenario` on a wire between two machines.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ended, wait_until};
use ikv_tests::{Nic, Pair, have_root, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A lane of the wire, by where it begins.
fn lane(cables: &Value, from: &str) -> Value {
    let lanes = cables[0]["lanes"].as_array().unwrap();
    let found = lanes.iter().find(|lane| lane["from"] == from);
    found.unwrap().clone()
}

fn count(lane: &Value, key: &str) -> u64 {
    lane[key].as_u64().unwrap()
}

fn dropped(lane: &Value) -> u64 {
    let drops = lane["drops"].as_object().unwrap().values();
    drops.map(|count| count.as_u64().unwrap()).sum()
}

fn accounted(lane: &Value) {
    let accounted = count(lane, "frames_out") + count(lane, "held") + dropped(lane);
    assert_eq!(count(lane, "frames_in"), accounted, "{lane:#}");
}

/// Of a lane: its keys without the seed, which is chosen anew each time.
fn keys(lane: &Value) -> Value {
    let mut keys = lane["impairment"].clone();
    if let Some(keys) = keys.as_object_mut() {
        assert!(keys.remove("seed").is_some(), "a seed is chosen and shown");
    }
    keys
}

#[test]
fn a_delay_of_both_lanes_shows_twice_in_a_round_trip() {
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
    let cables = pair.wire.cables(&[]);
    assert_eq!(keys(&lane(&cables, "pa")), Value::Null);
    assert_eq!(keys(&lane(&cables, "pb")), json!({"delay": "10ms"}));
    let back = lane(&cables, "pb");
    assert!(count(&back, "delayed") >= 5, "{back:#}");
    assert_eq!(back["accuracy"]["delay"]["requested_us"], 10_000.0);
    assert!(back["accuracy"]["delay"]["released"].as_u64().unwrap() >= 5);
    let text = run(pair.wire.command("impair").arg("--report")).stdout;
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(report[0]["name"], "wire");
    pair.wire.end();
}

#[test]
fn keys_stay_until_they_are_taken_away() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("keys");
    let impair = |words: &[&str]| pair.wire.json("impair", words);
    let ahead = || keys(&lane(&pair.wire.cables(&[]), "pa"));
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

    // What makes no sense changes nothing.
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
    pair.wire.end();
}

#[test]
fn loss_one_way_and_exactly_the_nth_frame() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("loss");
    let impair = |words: &[&str]| pair.wire.json("impair", words);
    impair(&["wire", "--from", "pa", "--loss", "100%"]);
    let before = pair.wire.cables(&[]);
    assert_eq!(pair.ping(&["-c", "4", "-i", "0.05", "-W", "0.2"]), None);
    let after = pair.wire.cables(&[]);
    let lost =
        |cables: &Value, from: &str| lane(cables, from)["drops"]["loss"].as_u64().unwrap_or(0);
    assert_eq!(lost(&after, "pa") - lost(&before, "pa"), 4);
    assert_eq!(lost(&after, "pb"), 0);
    let loss = &lane(&after, "pa")["accuracy"]["loss"];
    assert_eq!(
        (&loss["requested"], &loss["achieved"]),
        (&json!(1.0), &json!(1.0))
    );
    assert!(loss["low"].as_f64().unwrap() < 1.0);

    let one_ping = || pair.ping(&["-c", "1", "-W", "0.2"]);
    impair(&["wire", "--match", "udp or arp"]);
    assert!(one_ping().is_some(), "not what is lost");
    impair(&["wire", "--match", "icmp[icmptype] == icmp-echo"]);
    assert_eq!(one_ping(), None);
    let shown = keys(&lane(&pair.wire.cables(&[]), "pa"));
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
    let chosen = lane(&pair.wire.cables(&[]), "pa");
    assert_eq!(chosen["drops"]["chosen"], 3, "{chosen:#}");
    pair.wire.end();
}

#[test]
fn a_cut_wire_takes_the_carrier_of_its_taps() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("carrier");
    let carrier = |netns: &ikv_tests::Netns, tap: &str| {
        netns.ip(&format!("link show {tap}")).contains("LOWER_UP")
    };
    let set = |state: &str| {
        let said = pair.wire.json("cable", &["wire", state]);
        assert_eq!(said["notes"], json!([]), "both taps can be told");
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
    pair.wire.end();
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
        // Corrupted frames make it wonder aloud.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The same every time; odd multipliers walk through all values.
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
            // Some choices do not go together with what is set: nothing changes then.
            let said = pair.wire.command("impair").args(&words).output().unwrap();
            assert!(matches!(said.status.code(), Some(0 | 1)), "{said:?}");
        }
        let cables = pair.wire.cables(&[]);
        for from in ["pa", "pb"] {
            accounted(&lane(&cables, from));
        }
    }
    run(pair.wire.command("cable").args(["wire", "up"]));
    run(pair.wire.command("impair").args(["wire", "--clear"]));
    flood.kill().unwrap();
    flood.wait().unwrap();
    // What was held leaves at its time, and then nothing is.
    wait_until("the last frame", SOON, || {
        let cables = pair.wire.cables(&[]);
        ["pa", "pb"]
            .iter()
            .all(|from| count(&lane(&cables, from), "held") == 0)
    });
    let cables = pair.wire.cables(&[]);
    for (from, to) in [("pa", "pb"), ("pb", "pa")] {
        let lane = lane(&cables, from);
        accounted(&lane);
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
    pair.wire.end();
}

const FLAPPING: &str = r#"
[[step]]
at = "100ms"
flap = { on = "wire", times = 3, every = "200ms", down = "50ms" }
impair = { on = "wire", from = "pa", delay = "10ms" }

[[step]]
after = "100ms"
ramp = { on = "wire:b", from = "wire:b", key = "loss", start = "0%", end = "10%", over = "200ms", steps = 2 }
blackhole = "wire"
"#;

#[test]
fn a_scenario_tells_what_it_did_when_and_leaves_all_as_before() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("scenario");
    pair.wire
        .json("impair", &["wire", "--from", "pb", "--delay", "1ms"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flapping.toml");
    std::fs::write(&file, FLAPPING).unwrap();
    let before = lane(&pair.wire.cables(&[]), "pb")["impairment"].clone();
    let output = run(pair.wire.command("scenario").arg("run").arg(&file));
    let log: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let planned: Vec<_> = log.iter().map(|line| line["planned_ms"].as_f64()).collect();
    let expected = [
        100.0, 150.0, 300.0, 350.0, 500.0, 550.0, 650.0, 750.0, 850.0,
    ];
    assert_eq!(planned[..9], expected.map(Some));
    assert_eq!(planned[9..], [None], "the end");
    for line in &log[..9] {
        let late = line["done_ms"].as_f64().unwrap() - line["planned_ms"].as_f64().unwrap();
        assert!((0.0..1_000.0).contains(&late), "{line}");
    }
    assert_eq!(
        log[0]["what"],
        json!(["impair wire from pa: delay 10ms", "cut wire"])
    );
    assert_eq!(log[9]["what"], json!(["1 cable as before"]));
    let after = pair.wire.cables(&[]);
    assert_eq!(after[0]["state"], "up");
    assert_eq!(lane(&after, "pa")["impairment"], Value::Null);
    assert_eq!(lane(&after, "pb")["impairment"], before, "with its seed");

    // Nothing is touched by one that is wrong in its last line.
    std::fs::write(&file, format!("{FLAPPING}\n[[step]]\ncut = \"nowire\"\n")).unwrap();
    let refused = pair
        .wire
        .command("scenario")
        .arg("run")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(refused.stdout, b"");
    pair.wire.end();
}

#[test]
fn a_scenario_that_is_interrupted_restores_unless_told_not_to() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("interrupt");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.toml");
    let play = |begin: &str, command: &mut dyn FnMut() -> Command| {
        let text = format!(
            "{begin}\n[[step]]\nimpair = {{ delay = \"30ms\" }}\n[[step]]\nat = \"1h\"\ncut = true\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut playing = command()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(playing.stdout.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.contains("impair wire: delay 30ms"), "{line}");
        assert_eq!(
            keys(&lane(&pair.wire.cables(&[]), "pa")),
            json!({"delay": "30ms"})
        );
        kill_process(Pid::from_child(&playing), Signal::INT).unwrap();
        assert!(ended(&mut playing, SOON).unwrap().success());
        lane(&pair.wire.cables(&[]), "pa")["impairment"].clone()
    };
    let mut script = || {
        let mut command = pair.wire.command("impair");
        command.args(["wire", "--script"]).arg(&file);
        command
    };
    let began = Instant::now();
    assert_eq!(play("", &mut script), Value::Null);
    assert_eq!(play("restore = false", &mut script)["delay"], "30ms");
    assert!(began.elapsed() < Duration::from_secs(60));
    pair.wire.end();
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
fn cables_are_as_the_file_says_from_the_start() {
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

    // Two servers back to back, and nobody else hears them.
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
    wait_until("the frame to nobody", SOON, || {
        let left = host.json(&["cables", "ikeb1-3"]);
        assert_eq!(left[0]["lanes"][0]["to"], "nothing");
        left[0]["lanes"][0]["drops"] == json!({"unplugged": 1})
    });
    drop((one, other, leaf));

    // Loss of what matches, one way.
    let [leaf, server] = host
        .netns
        .enter(|| ["ikls1-4", "ikvm1-4-1"].map(Nic::plain));
    server.send([0; 10], &frame);
    frame[12..14].copy_from_slice(&[0x88, 0xb6]);
    server.send([0; 10], &frame);
    assert_eq!(leaf.receive().1, frame, "the first was lost");

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
