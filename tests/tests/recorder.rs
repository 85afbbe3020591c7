//! The flight recorder and `ikv-fabric converge` on a single wire: dumps of past frames, dumps that
//! triggers keep, and the frames that a flow loses during a cut.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::Stdio;

use ikv_tests::capturing::{Shark, have_shark};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{Pair, Wire, have_root, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn recorder(wire: &Wire, words: &[&str]) -> Value {
    wire.json("recorder", words)
}

/// Writes a dump to a file and opens it with Wireshark.
fn written(wire: &Wire, words: &[&str], file: &Path) -> Shark {
    let mut command = wire.program();
    command.arg("recorder").args(words).arg("-w").arg(file);
    run(&mut command);
    Shark::of(file)
}

fn pings(shark: &Shark) -> Vec<Vec<String>> {
    shark.fields("icmp", &["frame.interface_name", "icmp.type", "icmp.seq"])
}

/// Waits until `count` dumps were kept.
fn kept(wire: &Wire, count: usize) -> Vec<Value> {
    until("a kept dump", SOON, || {
        let dumps = recorder(wire, &["list"]);
        let dumps = dumps.as_array().cloned().unwrap_or_default();
        ensure(dumps.len() == count, || format!("{dumps:?}")).map(|()| dumps)
    })
}

#[test]
fn a_dump_has_past_frames_and_triggers_keep_dumps() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair { wire, left, right } = Pair::with("recorder", &["--record"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.pcapng");
    let shark = written(&wire, &["dump"], &file);
    let seen = pings(&shark);
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert!(shark.info().contains("Strict time order:   True"));
    let from_left = pings(&written(&wire, &["dump", "wire:a", "--last", "1h"], &file));
    assert_eq!(from_left, seen, "either end names the cable");
    let none = pings(&written(&wire, &["dump", "--last", "0ms"], &file));
    assert!(none.is_empty(), "{none:?}");

    let status = recorder(&wire, &["status"]);
    assert_eq!(
        (&status["lanes"], &status["memory"]),
        (&2.into(), &(64 << 20).into())
    );
    assert_eq!(status["triggers"][0]["on"], "down");

    // A matching frame triggers a dump of the frames before and after it.
    let refused = wire
        .program()
        .args(["recorder", "trigger", "--match", "icpm"])
        .output();
    assert_eq!(refused.unwrap().status.code(), Some(1));
    recorder(
        &wire,
        &[
            "trigger",
            "--match",
            "icmp[icmptype] == 8 and icmp[6:2] == 2",
        ],
    );
    run(left
        .command("ping")
        .args(["-c", "3", "-i", "0.1", "10.9.0.2"]));
    let dumps = kept(&wire, 1);
    let name = dumps[0]["name"].as_str().unwrap();
    assert_eq!(name, "001-match");
    let after = pings(&written(&wire, &["get", name], &file));
    assert_eq!(after.len(), 12, "{after:?}");

    // After the triggers were replaced, a cut triggers a dump.
    recorder(&wire, &["trigger", "--down"]);
    wire.json("cable", &["wire", "down"]);
    drop((left, right));
    let unknown = wire
        .program()
        .args(["recorder", "get", "../wire.sock", "-w", "-"])
        .output();
    assert_eq!(unknown.unwrap().status.code(), Some(1));
    until("the dump of the cut", SOON * 2, || {
        let dumps = recorder(&wire, &["list"]);
        ensure(dumps[1]["name"] == "002-down", || dumps.to_string())
    });
    wire.end();
}

#[test]
fn a_patch_records_only_with_its_option() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("no-recorder");
    let output = pair
        .wire
        .program()
        .args(["recorder", "status"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--record"), "{said}");
    pair.end();
}

/// `converge` counts as lost what ping itself reports as lost.
#[test]
fn converge_counts_a_flows_losses_during_a_cut() {
    if !have_root() {
        return;
    }
    let Pair { wire, left, right } = Pair::new("converge");
    let ping = left
        .command("ping")
        .args(["-q", "-i", "0.01", "10.9.0.2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A blackhole keeps the carrier; without carrier the host would not send.
    let flow = [
        "--flow",
        "10.9.0.1",
        "10.9.0.2",
        "--limit",
        "1s",
        "--by",
        "blackhole",
    ];
    let named = wire.json("converge", &[&["--cut", "wire:b"], &flow[..]].concat());
    assert_eq!(wire.cables(&["wire"])[0]["state"], "up", "it is mended");
    let found = wire.json("converge", &flow);
    kill_process(Pid::from_child(&ping), Signal::INT).unwrap();
    let said = ping.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for report in [&named, &found] {
        assert_eq!(report["cables"][0], "wire");
        assert_eq!(report["state"], "blackhole");
        assert_eq!(
            (&report["settled"], &report["first_update"]),
            (&false.into(), &Value::Null)
        );
        assert_eq!(
            report["flow"]["path_before"],
            serde_json::json!(["wire:a", "wire:b"])
        );
        assert_eq!(report["missed"], 0);
    }
    let packets = |words: &str| -> Option<u64> {
        let (before, _) = said.split_once(words)?;
        before.split_whitespace().last()?.parse().ok()
    };
    let sent = packets(" packets transmitted").unwrap();
    let received = packets(" received").unwrap();
    let lost = |report: &Value| report["flow"]["lost"].as_u64().unwrap();
    // Frames lost between the end of the measurement and the mending are not in the report.
    let counted = lost(&named) + lost(&found);
    assert!(counted > 20, "{counted}");
    assert!(
        (counted..counted + 60).contains(&(sent - received)),
        "{counted}: {said}"
    );

    wire.json("cable", &["wire", "down"]);
    let again = wire
        .program()
        .args(["converge", "--cut", "wire"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("wire is down already"), "{said}");
    drop((left, right));
    wire.end();
}
