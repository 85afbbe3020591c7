//! `ikv-fabric scenario` and `impair --script`: the steps, their times, and the state afterwards.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ended};
use ikv_tests::{Pair, have_root, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

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
fn a_scenario_reports_its_steps_and_restores_the_cables() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("scenario");
    pair.wire
        .json("impair", &["wire", "--from", "pb", "--delay", "1ms"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flapping.toml");
    std::fs::write(&file, FLAPPING).unwrap();
    let before = pair.wire.lane("pb")["impairment"].clone();
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
    assert_eq!(pair.wire.lane("pa")["impairment"], Value::Null);
    assert_eq!(pair.wire.lane("pb")["impairment"], before, "with its seed");

    // A scenario with an error in its last line changes nothing.
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
    pair.end();
}

#[test]
fn an_interrupted_scenario_restores_unless_configured_not_to() {
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
        assert_eq!(pair.wire.lane("pa")["impairment"]["delay"], "30ms");
        kill_process(Pid::from_child(&playing), Signal::INT).unwrap();
        assert_eq!(ended(&mut playing, SOON).unwrap().code(), Some(1));
        pair.wire.lane("pa")["impairment"].clone()
    };
    let mut script = || {
        let mut command = pair.wire.command("impair");
        command.args(["wire", "--script"]).arg(&file);
        command
    };
    assert_eq!(play("", &mut script), Value::Null);
    assert_eq!(play("restore = false", &mut script)["delay"], "30ms");
    pair.end();
}

#[test]
fn a_scenario_cuts_off_a_switch_and_a_rack_at_once() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("storm");
    let fabric = host.run(&[]);
    let file = host.folder().join("storm.toml");
    let text = "restore = false\n[[step]]\ncut = [\"spine1\", \"rack3\"]\n\
                impair = { on = \"leaf1:u3\", from = \"rack1:u3:1\", loss = \"5%\" }\n\
                [[step]]\nafter = \"50ms\"\nmend = \"leaf5:2\"\nblackhole = \"spine1:2\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let planned = host.json(&["scenario", "check", file]);
    let planned: Vec<_> = planned
        .as_array()
        .unwrap()
        .iter()
        .map(|moment| &moment["at_ms"])
        .collect();
    assert_eq!(planned, [&json!(0.0), &json!(50.0)]);
    let said = host.ask(&["scenario", "run", file]);
    assert!(
        said.stdout.contains("cut spine1, rack3 (51 cables)"),
        "{said:?}"
    );
    let cables = host.json(&["cables"]);
    let named = |state: &str| {
        let cables = cables.as_array().unwrap().iter();
        let named = cables.filter(move |cable| cable["state"] == state);
        named
            .map(|cable| cable["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // The spine has 7 cables. Each of the rack's two leaves has 21 servers and an uplink to the
    // other spine. One of them all is mended again, another is a blackhole.
    assert_eq!(
        named("down").len(),
        7 + 2 * (21 + 1) - 1 - 1,
        "{:?}",
        named("down")
    );
    assert_eq!(named("blackhole"), ["iksb12"]);
    let lanes = &host.json(&["cables", "ikeb1-3"])[0]["lanes"];
    assert_eq!(lanes[0]["impairment"], Value::Null);
    assert_eq!(lanes[1]["impairment"]["loss"], "5%");
    fabric.end();

    // Without a fabric the names are those of the configuration.
    let planned = host.ask(&["scenario", "check", file]);
    assert!(
        planned.stdout.contains("cut spine1, rack3 (51 cables)"),
        "{planned:?}"
    );
}
