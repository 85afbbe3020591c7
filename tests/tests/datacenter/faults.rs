//! Killed processes are started again, and cables that do not depend on them lose no frame.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::routes;
use ikv_tests::patience::{ensure, until};
use ikv_tests::process::descriptors;
use ikv_tests::raw_api::{RawClient, Reply, request_with};
use ikv_tests::{Cli, Flow, Station, dhcp};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::facts::{self, SWITCHES};
use super::lab::Up;
use super::power::{BACK, took};
use super::routing::{established, summary};

/// Time for a switch's init to start a service again, and for the service to answer.
const RESPAWN: Duration = Duration::from_secs(60);

/// Interval between frames that flow between two positions of a rack, over the bridge of its odd
/// leaf.
const PACE: Duration = Duration::from_millis(20);

/// A flow over cables that a fault must not affect, and the drops on such cables before it.
struct Bystanders {
    flow: Flow,
    cables: Vec<String>,
    dropped: BTreeMap<String, Value>,
}

impl Bystanders {
    /// Starts a flow between positions 10 and 11 of a rack, and watches its two cables and those
    /// between switches that are not `hit`.
    fn watch(up: &Up, rack: usize, hit: &[&str]) -> Self {
        let plugs = [10, 11].map(|u| format!("ikvm{rack}-{u}-1"));
        let [from, to] = plugs.each_ref().map(String::as_str);
        let flow = Flow::start(&up.fabric.site.host, from, to, PACE);
        let leaf = 2 * rack - 1;
        let mut cables = vec![format!("ikeb{leaf}-10"), format!("ikeb{leaf}-11")];
        cables.extend(between(&up.cli, hit));
        let dropped = dropped(&up.cli, &cables);
        Bystanders {
            flow,
            cables,
            dropped,
        }
    }

    fn assert_untouched(self, up: &Up, by: &str) {
        // First, because the flow's end unplugs its stations, and what leaves the leaf for them is then lost.
        let dropped = dropped(&up.cli, &self.cables);
        self.flow.end().assert_complete(by);
        assert_eq!(dropped, self.dropped, "{by}");
    }
}

/// The cables between two switches of which neither is in `hit`.
fn between(cli: &Cli, hit: &[&str]) -> Vec<String> {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for node in cli.json(&["topology"])["nodes"].as_array().unwrap() {
        if hit.iter().any(|name| node["name"] == *name) {
            continue;
        }
        for port in node["ports"].as_array().unwrap() {
            *ends
                .entry(port["cable"].as_str().unwrap().into())
                .or_default() += 1;
        }
    }
    let both = ends.into_iter().filter(|(_, count)| *count == 2);
    both.map(|(cable, _)| cable).collect()
}

/// Each lane's drops by reason; the key is the port where the lane's frames enter.
fn dropped(cli: &Cli, cables: &[String]) -> BTreeMap<String, Value> {
    let mut words = vec!["cables"];
    words.extend(cables.iter().map(String::as_str));
    let reports = cli.json(&words);
    let lanes = reports.as_array().unwrap().iter();
    lanes
        .flat_map(|cable| cable["lanes"].as_array().unwrap())
        .map(|lane| (lane["from"].as_str().unwrap().into(), lane["drops"].clone()))
        .collect()
}

/// Kills a service in a switch and waits for the process that replaces it.
fn kill_inside(cli: &Cli, node: &str, service: &str) {
    let pid = || {
        cli.run(&["exec", node, "--", "pgrep", "-x", service])
            .stdout
    };
    let before = pid();
    assert!(!before.is_empty(), "{node} runs no {service}");
    cli.exec(node, &["pkill", "-KILL", "-x", service]);
    until(&format!("{service} on {node}"), RESPAWN, || {
        let now = pid();
        ensure(!now.is_empty() && now != before, || {
            format!("{now:?}, and {before:?} before")
        })
    });
}

/// dnsmasq keeps its leases, so that a machine keeps its address.
pub(crate) fn dnsmasq(up: &mut Up) {
    let mut station = Station::plug(&up.fabric.site.host, "ikvm2-12-1", [2, 0, 0, 0, 12, 1]);
    let before = dhcp::lease(&mut station, &[]);
    let bystanders = Bystanders::watch(up, 2, &[]);
    let began = Instant::now();
    kill_inside(&up.cli, "leaf3", "dnsmasq");
    let after = dhcp::lease(&mut station, &[]);
    took("dnsmasq killed, lease given", began);
    assert_eq!(after.address, before.address);
    bystanders.assert_untouched(up, "a killed dnsmasq");
}

/// bgpd is killed on a leaf and a spine at once; sessions between other switches stay up.
pub(crate) fn bgpd(up: &mut Up) {
    let hit = ["leaf1", "spine2"];
    let bystanders = Bystanders::watch(up, 2, &hit);
    let began = Instant::now();
    for node in hit {
        kill_inside(&up.cli, node, "bgpd");
    }
    for node in hit {
        until(&format!("the sessions of {node}"), RESPAWN, || {
            let summary = summary(&up.cli, node);
            let enough = established(&summary).len() >= facts::sessions(node);
            ensure(enough, || summary.to_string())
        });
    }
    up.cli.wait_ready(BACK);
    took("two bgpds killed", began);
    bystanders.assert_untouched(up, "killed bgpds");
}

/// The internet node, a spine and a leaf are killed at once.
pub(crate) fn switches(up: &mut Up) {
    let hit = ["internet", "spine1", "leaf6"];
    let bystanders = Bystanders::watch(up, 2, &hit);
    let before = hit.map(|node| up.fabric.qemu(node));
    let began = Instant::now();
    for pid in before {
        kill_process(pid, Signal::KILL).unwrap();
    }
    let mut reported = BTreeSet::new();
    until("status to report each, and why", RESPAWN, || {
        let known = hit.map(|node| (node, up.cli.node(node)));
        let killed = known.iter().filter(|(_, now)| {
            now["state"] == "restarting" && now["note"].to_string().contains("SIGKILL")
        });
        reported.extend(killed.map(|(node, _)| *node));
        ensure(reported.len() == hit.len(), || format!("{known:?}"))
    });
    up.cli.wait_ready(BACK);
    took("a switch of each role killed", began);
    for (node, before) in hit.iter().zip(before) {
        assert_ne!(up.fabric.qemu(node), before);
    }
    for node in SWITCHES {
        let bgp = &up.cli.node(node)["bgp"];
        assert_eq!(bgp["established"], facts::sessions(node), "{node}");
    }
    bystanders.assert_untouched(up, "killed switches");
}

/// The fabric must notice that a client has vanished even while its console is silent.
pub(crate) fn consoles(up: &mut Up) {
    let pid = up.fabric.pid();
    let before = descriptors(pid);
    let headers = "connection: upgrade\r\nupgrade: ikv-console\r\n";
    let attach = request_with("GET", &routes::CONSOLE.path("leaf5"), headers, "");
    for _ in 0..200 {
        let mut client = RawClient::connect(&up.fabric.socket());
        client.send(&attach);
        let reply = client.reply();
        assert!(matches!(reply, Reply::Answer(101, _)), "{reply:?}");
    }
    until("their descriptors to be closed", RESPAWN, || {
        let now = descriptors(pid);
        ensure(now <= before + 8, || format!("{now} open, {before} before"))
    });
}
