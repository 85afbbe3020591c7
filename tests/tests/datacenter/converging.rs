//! Impairments between switches, and how fast the fabric finds another path.

use std::time::{Duration, Instant};

use ikv_tests::capturing::{Shark, have_shark};
use ikv_tests::patience::{ensure, until};
use ikv_tests::{Cli, figure};
use serde_json::Value;

use super::cutting::Mended;
use super::facts;
use super::lab::Up;
use super::routing::{established, summary};

/// Longest time until a session expires: the hold time is 16 s, and starts again with each message.
const HOLD: Duration = Duration::from_secs(25);

/// Shortest time until a session expires; one that lost its carrier ends at once.
const LEAST: Duration = Duration::from_secs(8);

/// Seconds for the sessions to be established again.
const BACK: u32 = 60;

/// Packets that a flow of 100 a second may lose when a spine is cut off: emulated switches converge
/// slowly.
const FEW: u64 = 150;

/// Clears the impairments of these cables when dropped, also when the test fails.
struct Cleared<'a>(&'a Cli, Vec<String>);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        for cable in &self.1 {
            self.0.run(&["impair", cable, "--clear"]);
        }
    }
}

/// With 50 ms on each of a spine's cables, a ping between racks takes 100 ms longer if it passes
/// that spine in one direction, and 200 ms longer if it does in both.
pub(crate) fn delayed_spine(up: &mut Up) {
    let cli = &up.cli;
    let cables: Vec<_> = (2..=7).map(|port| format!("spine1:{port}")).collect();
    let cleared = Cleared(cli, cables);
    for cable in &cleared.1 {
        cli.ok(&["impair", cable, "--delay", "50ms"]);
    }
    let mut slow = 0;
    for from in ["leaf1", "leaf2"] {
        // To the loopbacks of the other racks' leaves.
        let targets: Vec<_> = (5..=8)
            .map(|index| facts::loopback(index).to_string())
            .collect();
        let mut argv = vec!["fping", "-C", "3", "-q", "-t", "3000"];
        argv.extend(targets.iter().map(String::as_str));
        let said = cli.run(&[&["exec", from, "--"], &argv[..]].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        for line in said.stderr.lines() {
            let times = line.rsplit(" : ").next().unwrap_or_default();
            let times = times.split(' ').filter_map(|time| time.parse::<f64>().ok());
            let least = times.fold(f64::INFINITY, f64::min);
            // Up to 50 ms is what the emulated switches themselves may take.
            let extra = (least / 100.0).floor() * 100.0;
            assert!(extra <= 200.0 && least - extra < 50.0, "{from}: {line}");
            slow += usize::from(extra > 0.0);
        }
    }
    assert!(slow > 0, "of eight flows there and back, some pass spine1");
}

/// One cable loses all frames of one direction, another is a blackhole: both sessions expire by
/// their timers at both ends. Neither cable has flapped in another trial: a session that survived a cut of
/// milliseconds is one that the recorder no longer follows.
pub(crate) fn timers(up: &mut Up) {
    let cli = &up.cli;
    // By name, not by number: with more than eight, old ones go.
    let before = kept(cli);
    let began = Instant::now();
    let cleared = Cleared(cli, vec!["iksb14".into()]);
    let mended = Mended(cli, "iksb23");
    cli.ok(&["impair", "iksb14", "--from", "leaf3:1", "--loss", "100%"]);
    cli.ok(&["cable", "iksb23", "blackhole"]);
    let ends = [("spine1", 4), ("spine2", 3), ("leaf2", 2)];
    for (node, port) in ends {
        let nic = facts::nic(port);
        until(&format!("{node}'s session on {nic} to end"), HOLD, || {
            ensure(!established(&summary(cli, node)).contains(&nic), || {
                "still established".into()
            })
        });
        assert!(began.elapsed() > LEAST, "{node} did not wait");
    }
    // The flight recorder has seen the sessions end, too.
    until("dumps of sessions that were lost", HOLD, || {
        let dumps = kept(cli);
        let is_new = |dump: &&Value| before.iter().all(|old| old["name"] != dump["name"]);
        let reasons: Vec<_> = dumps.iter().filter(is_new).map(why).collect();
        let both = ["iksb14: BGP", "iksb23: BGP"]
            .iter()
            .all(|words| reasons.iter().any(|reason| reason.contains(words)));
        ensure(both, || format!("{reasons:?}; all: {dumps:?}"))
    });
    drop((cleared, mended));
    cli.wait_ready(BACK);
}

fn kept(cli: &Cli) -> Vec<Value> {
    let dumps = cli.json(&["recorder", "list"]);
    dumps.as_array().cloned().unwrap_or_default()
}

fn why(dump: &Value) -> String {
    let why = dump["why"].as_array().into_iter().flatten();
    why.filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// All cables of a spine are cut at the same instant, and a flow between racks continues.
pub(crate) fn lost_spine(up: &mut Up) {
    let cli = &up.cli;
    let flow = ["--flow", "leaf1", "leaf3"];
    let report = cli.json(&[&["converge", "--cut", "spine1"], &flow[..]].concat());
    assert_eq!(
        report["cables"].as_array().map(Vec::len),
        Some(7),
        "{report}"
    );
    assert_eq!(report["settled"], true, "{report}");
    let first = report["first_update"]["after_ms"].as_f64();
    let last = report["last_update"]["after_ms"].as_f64();
    assert!(
        first
            .zip(last)
            .is_some_and(|(first, last)| first <= last && first < 8000.0),
        "{report}"
    );
    assert!(report["first_withdraw"].is_object(), "{report}");
    for way in ["flow", "back"] {
        let way = &report[way];
        assert!(
            way["lost"].as_u64().is_some_and(|lost| lost < FEW),
            "{report}"
        );
        let path = way["path_after"].to_string();
        assert!(
            path.contains("spine2") && !path.contains("spine1"),
            "{report}"
        );
    }
    let (lost, back) = (&report["flow"]["lost"], &report["back"]["lost"]);
    figure(
        "spine cut: last UPDATE, packets lost there and back of 100 a second",
        &format!("{:.0} ms, {lost}, {back}", last.unwrap_or_default()),
    );
    cli.wait_ready(BACK);
    let report = cli.json(&[&["converge"], &flow[..]].concat());
    let [before, after] = ["path_before", "path_after"].map(|key| report["flow"][key].clone());
    assert_ne!(before, after, "the flow's own cable was cut: {report}");
    let flow = &report["flow"];
    let new_path = flow["new_path_ms"].as_f64();
    assert!(new_path.is_some(), "{report}");
    assert!(
        flow["lost"].as_u64().is_some_and(|lost| lost < FEW),
        "{report}"
    );
    figure(
        "a flow's cable cut: first packet on the new path, packets lost of 100 a second",
        &format!("{:.0} ms, {}", new_path.unwrap_or_default(), flow["lost"]),
    );
    cli.wait_ready(BACK);
}

/// The dump that the recorder kept of the spine's cut has the withdrawn routes.
pub(crate) fn recorded(up: &mut Up) {
    if !have_shark() {
        return;
    }
    let dumps = kept(&up.cli);
    let cut = dumps
        .iter()
        .rfind(|dump| why(dump).contains("ikib1 was cut"));
    let cut = cut.unwrap_or_else(|| panic!("{dumps:?}"));
    let file = up.fabric.scratch().join("kept.pcapng");
    let name = cut["name"].as_str().unwrap_or_default();
    up.cli
        .ok(&["recorder", "get", name, "-w", &file.display().to_string()]);
    let shark = Shark::of(&file);
    // Withdrawn routes are in a field before the path attributes, or in one of the attributes.
    let withdrawn = "bgp.type == 2 && (bgp.update.withdrawn_routes.length > 0 || \
                     bgp.update.path_attribute.mp_unreach_nlri)";
    let updates = shark.fields(withdrawn, &["frame.interface_name"]);
    assert!(!updates.is_empty(), "{cut}");
}
