//! `ikv-fabric apply` with real switches: a rack is added and removed while servers send each other
//! frames. The datacenter is small, so that it boots while other tests run.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::{
    Cli, Fabric, HostState, Site, TwoWayFlow, ensure_image, figure, lacks_for_vms, skip,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(240);

/// One rack of two positions under one spine: four switches.
const SMALL: [&str; 3] = ["topology.racks=1", "topology.spines=1", "topology.num_u=4"];

/// Frames on their way in one direction: fewer than a ring in a switch holds.
const WINDOW: u64 = 32;

fn sets(sets: &[&str]) -> Vec<String> {
    let words = sets
        .iter()
        .flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
    words.collect()
}

/// The words of `apply` for the small fabric with `other` settings.
fn apply(fabric: &Fabric, other: &[&str], options: &[&str]) -> Vec<String> {
    let keys = format!("ssh.key_dir={}", fabric.scratch().join("keys").display());
    let mut words = vec!["apply".to_owned()];
    words.extend(sets(&SMALL));
    words.extend(sets(&[&keys]));
    words.extend(sets(other));
    words.extend(options.iter().map(|option| (*option).to_owned()));
    words
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Drops by reason of each lane between switches; every frame of a lane is accounted for.
fn drops(cli: &Cli) -> BTreeMap<String, Value> {
    let cables = cli.json(&["cables"]);
    let between = |cable: &&Value| {
        let name = cable["name"].as_str().unwrap();
        ["ikhb", "ikib", "iksb"]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    let lanes = cables.as_array().unwrap().iter().filter(between);
    let lanes = lanes.flat_map(|cable| cable["lanes"].as_array().unwrap().clone());
    lanes
        .map(|lane| {
            assert_eq!(
                lane["frames_in"].as_u64(),
                lane["frames_out"].as_u64().map(|out| {
                    let drops = lane["drops"].as_object().unwrap().values();
                    out + lane["held"].as_u64().unwrap()
                        + drops.map(|drop| drop.as_u64().unwrap()).sum::<u64>()
                }),
                "{lane}"
            );
            (
                lane["from"].as_str().unwrap().to_owned(),
                lane["drops"].clone(),
            )
        })
        .collect()
}

/// Servers of rack 1 send each other frames through leaf1 while `work` runs. Returns how many
/// frames; every one has arrived, in order.
fn under_traffic(fabric: &Fabric, work: impl FnOnce()) -> u64 {
    let flow = TwoWayFlow::plug(&fabric.site.host, ["ikvm1-3-1", "ikvm1-4-1"], WINDOW);
    flow.introduce();
    flow.during(work).iter().sum()
}

/// `status --json`, whether the fabric is ready or not.
fn status(cli: &Cli) -> Value {
    let said = cli.run(&["--json", "status"]);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn sessions(cli: &Cli) -> Vec<(String, u64, u64)> {
    let status = status(cli);
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| {
            let count = |key: &str| node["bgp"][key].as_u64().unwrap();
            (
                node["name"].as_str().unwrap().to_owned(),
                count("established"),
                count("expected"),
            )
        })
        .collect()
}

/// Milliseconds that spine1's session on `nic` has been up.
fn uptime(cli: &Cli, nic: &str) -> u64 {
    let summary = cli.vtysh("spine1", "show bgp ipv4 unicast summary");
    let peer = &summary["peers"][nic];
    peer["peerUptimeMsec"]
        .as_u64()
        .unwrap_or_else(|| panic!("{summary}"))
}

fn boot_id(cli: &Cli, node: &str) -> String {
    cli.exec(node, &["cat", "/proc/sys/kernel/random/boot_id"])
}

/// One fabric for the whole sequence, because booting takes longest.
#[test]
fn a_rack_is_added_and_removed_while_servers_talk() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    ensure_image().unwrap();
    let small = sets(&SMALL);
    let mut fabric = Fabric::start(Site::new("apply"), &as_words(&small));
    fabric.wait_ready(PATIENCE).unwrap();
    a_rack_is_added(&fabric);
    a_switch_restarts_alone(&fabric.cli());
    the_rack_is_removed(&fabric);
    switches_get_more_memory(&fabric);
    let ended = fabric.end();
    assert!(ended.status.success(), "{ended:?}: {}", fabric.stderr());
    let now = HostState::of(&fabric.site.host, &fabric.run_folder());
    fabric
        .before
        .assert_unchanged(&now, "a rack was added and removed");
}

fn a_rack_is_added(fabric: &Fabric) {
    let cli = fabric.cli();
    let (booted, dropped) = (boot_id(&cli, "leaf1"), drops(&cli));
    let session = uptime(&cli, "ens5");
    let two_racks = apply(fabric, &["topology.racks=2"], &[]);
    let planned = apply(fabric, &["topology.racks=2"], &["--dry-run"]);
    let planned = cli.ok(&as_words(&planned));
    assert!(planned.contains("+ leaf3, leaf4: started"), "{planned}");
    assert!(!planned.contains("restarted for it"), "{planned}");
    assert_eq!(status(&cli)["nodes"].as_array().unwrap().len(), 4);

    let began = Instant::now();
    let frames = under_traffic(fabric, || {
        let mut first = cli.command(&as_words(&two_racks)).spawn().unwrap();
        wait_until("the apply to be under way", SOON, || {
            status(&cli)["applying"].is_string()
        });
        let second = cli.run(&as_words(&two_racks));
        let refused = second.stderr.contains("another apply is under way");
        assert!(second.code == Some(1) && refused, "{second:?}");
        assert!(first.wait().unwrap().success(), "{}", fabric.dump());
    });
    let took = began.elapsed();
    figure(
        "a rack of two switches is added",
        &format!("{took:?}, {frames} frames between servers meanwhile, 0 lost"),
    );
    let now = drops(&cli);
    for (lane, drops) in &dropped {
        assert_eq!(&now[lane], drops, "{lane}");
    }
    let expected = [
        ("internet", 1),
        ("spine1", 5),
        ("leaf1", 1),
        ("leaf2", 1),
        ("leaf3", 1),
        ("leaf4", 1),
    ];
    let expected = expected.map(|(name, all)| (name.to_owned(), all, all));
    assert_eq!(sessions(&cli), expected);
    assert_eq!(boot_id(&cli, "leaf1"), booted, "leaf1 went on");
    let up = uptime(&cli, "ens5");
    assert!(up > session, "and its session was never down");
    cli.wait_ready(60);
    // The new leaves are reachable over the new ports, and every switch knows their names.
    cli.exec("leaf1", &["ping", "-c", "1", "-W", "10", "leaf4"]);
    assert!(cli.ok(&["ssh", "leaf3", "hostname"]).contains("leaf3"));
    assert_eq!(cli.json(&["cables"]).as_array().unwrap().len(), 2 + 4 + 8);
}

fn a_switch_restarts_alone(cli: &Cli) {
    let began = Instant::now();
    cli.ok(&["power", "leaf1", "cycle"]);
    wait_until("leaf1 to go", SOON, || {
        cli.node("leaf1")["bgp"]["established"] == 0
    });
    cli.wait_ready(120);
    let took = format!("{:?}", began.elapsed());
    figure("a leaf restarted alone has its sessions again after", &took);
}

fn the_rack_is_removed(fabric: &Fabric) {
    let cli = fabric.cli();
    let back = apply(fabric, &[], &[]);
    let frames = under_traffic(fabric, || {
        cli.ok(&as_words(&back));
    });
    figure(
        "frames while the rack was removed",
        &format!("{frames}, 0 lost"),
    );
    assert_eq!(status(&cli)["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(status(&cli)["applying"], json!(null));
    cli.wait_ready(60);
    assert_eq!(sessions(&cli)[1], ("spine1".to_owned(), 3, 3));
    let gone = cli.run(&["exec", "leaf3", "--", "true"]);
    let unknown = gone.stderr.contains("there is no switch \"leaf3\"");
    assert!(unknown, "{gone:?}");
    assert!(!fabric.run_folder().join("vm/leaf3").exists());
}

/// Memory takes a restart: the switches restart one after another.
fn switches_get_more_memory(fabric: &Fabric) {
    let cli = fabric.cli();
    let more = ["vm.memory=208M"];
    let planned = cli.ok(&as_words(&apply(fabric, &more, &["--dry-run"])));
    assert!(planned.contains("restarted for it"), "{planned}");
    let before = boot_id(&cli, "leaf2");
    let began = Instant::now();
    let said = cli.run(&as_words(&apply(fabric, &more, &[])));
    assert_eq!(said.code, Some(0), "{said:?}");
    let back = said.stderr.matches("was restarted and back after").count();
    assert_eq!(back, 4, "{said:?}");
    figure(
        "four switches restarted one after another",
        &format!("{:?}", began.elapsed()),
    );
    cli.wait_ready(60);
    assert_ne!(boot_id(&cli, "leaf2"), before);
    let arguments = std::fs::read(format!(
        "/proc/{}/cmdline",
        fabric.qemu("leaf2").as_raw_nonzero()
    ));
    assert!(String::from_utf8_lossy(&arguments.unwrap()).contains("208"));
}
