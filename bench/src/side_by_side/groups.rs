//! Who competes in what. Pure.

use std::path::{Path, PathBuf};

use super::OURS;

/// Programs that turns start.
#[derive(Debug, Clone)]
pub struct Tools {
    /// This build's binary.
    pub fabric: PathBuf,
    /// The program that holds taps, and makes a crowd of cables.
    pub side_by_side: PathBuf,
    /// The folder of scripts.
    pub peers: PathBuf,
}

/// One contestant's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whose.
    pub contestant: &'static str,
    /// Programs without which it is skipped.
    pub needs: &'static [&'static str],
    /// What is started.
    pub command: Vec<String>,
}

/// Turns that give the same figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// A short name, for choosing.
    pub name: &'static str,
    /// In the order of their turns.
    pub jobs: Vec<Job>,
    /// What each turn prints.
    pub figures: Vec<Figure>,
}

/// One number that turns print.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its key.
    pub key: &'static str,
    /// What it is.
    pub title: String,
    /// Its unit.
    pub unit: &'static str,
    /// Whether less is better.
    pub less_is_better: bool,
    /// What this build is to reach.
    pub wanted: Vec<Versus>,
}

/// A ratio of medians, this build's to another's (or, if less is better, the other's to this
/// build's); or a figure to reach alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Versus {
    /// A contestant, the least ratio, and the one aimed at.
    Contestant(&'static str, f64, f64),
    /// The least (or most) figure, and the one aimed at.
    Alone(f64, f64),
}

const TESTPMD: &str = "testpmd";
const OVS: &str = "OVS-DPDK";
const BRIDGE: &str = "Linux bridge";
const VDE: &str = "VDE";

/// Every case. A turn loads its cable for so many seconds.
pub fn groups(tools: &Tools, seconds: u32) -> Vec<Group> {
    vec![
        vhost(
            tools,
            "vhost-64-split",
            64,
            "split",
            seconds,
            vec![
                Versus::Contestant(TESTPMD, 1.0, 1.3),
                Versus::Contestant(OVS, 1.4, 2.0),
            ],
        ),
        vhost(
            tools,
            "vhost-64-packed",
            64,
            "packed",
            seconds,
            vec![
                Versus::Contestant(TESTPMD, 1.0, 1.2),
                Versus::Contestant(OVS, 1.4, 2.0),
            ],
        ),
        vhost(
            tools,
            "vhost-1514-split",
            1514,
            "split",
            seconds,
            vec![
                Versus::Contestant(TESTPMD, 1.5, 2.0),
                Versus::Contestant(OVS, 1.5, 2.0),
            ],
        ),
        vhost(
            tools,
            "vhost-1514-packed",
            1514,
            "packed",
            seconds,
            vec![
                Versus::Contestant(TESTPMD, 1.5, 2.0),
                Versus::Contestant(OVS, 1.5, 2.0),
            ],
        ),
        taps(tools, seconds),
        tcp(tools, seconds),
        beside_idle_cables(tools, seconds),
        datacenter(tools),
    ]
}

fn vhost(
    tools: &Tools,
    name: &'static str,
    bytes: usize,
    ring: &'static str,
    seconds: u32,
    wanted: Vec<Versus>,
) -> Group {
    let job = |contestant, needs, dut: &str| Job {
        contestant,
        needs,
        command: script(
            tools,
            "vhost.sh",
            &[dut, &bytes.to_string(), ring, &seconds.to_string()],
        ),
    };
    let mut ours = job(OURS, &["dpdk-testpmd"], OURS);
    ours.command.push(text(&tools.fabric));
    Group {
        name,
        jobs: vec![
            ours,
            job(TESTPMD, &["dpdk-testpmd"], "testpmd"),
            job(
                OVS,
                &[
                    "dpdk-testpmd",
                    "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
                ],
                "ovs",
            ),
        ],
        figures: vec![Figure {
            key: "mpps",
            title: format!("vhost – vhost, {bytes} B, {ring} rings"),
            unit: "million frames/s, both ways together",
            less_is_better: false,
            wanted,
        }],
    }
}

fn taps(tools: &Tools, seconds: u32) -> Group {
    let job = |contestant, dut: &str| Job {
        contestant,
        needs: &[],
        command: script(
            tools,
            "taps.sh",
            &[dut, "60", &seconds.to_string(), &text(&tools.side_by_side)],
        ),
    };
    let mut ours = job(OURS, OURS);
    ours.command.push(text(&tools.fabric));
    Group {
        name: "taps-60",
        jobs: vec![ours, job(BRIDGE, "bridge")],
        figures: vec![Figure {
            key: "mpps",
            title: "netdev – netdev, 60 B (two taps without vhost)".into(),
            unit: "million frames/s, one way",
            less_is_better: false,
            wanted: vec![Versus::Contestant(BRIDGE, 0.5, 0.8)],
        }],
    }
}

fn tcp(tools: &Tools, seconds: u32) -> Group {
    const NEEDS: &[&str] = &["iperf3", "ping"];
    let job = |contestant, needs, dut: &str| Job {
        contestant,
        needs,
        command: script(tools, "tcp.sh", &[dut, &seconds.to_string()]),
    };
    let mut ours = job(OURS, NEEDS, OURS);
    ours.command.push(text(&tools.fabric));
    Group {
        name: "tcp",
        jobs: vec![
            ours,
            job(BRIDGE, NEEDS, "bridge"),
            job(
                VDE,
                &["iperf3", "ping", "vde_switch", "vde_plug2tap"],
                "vde",
            ),
        ],
        figures: vec![
            Figure {
                key: "gbits",
                title: "TCP between two hosts (tap – tap; the bridge: veth)".into(),
                unit: "Gbit/s",
                less_is_better: false,
                wanted: vec![Versus::Contestant(BRIDGE, 0.6, 0.8)],
            },
            Figure {
                key: "rtt_us",
                title: "ping between them over the idle cable".into(),
                unit: "µs there and back, mean; less is better",
                less_is_better: true,
                wanted: vec![Versus::Alone(40.0, 20.0)],
            },
        ],
    }
}

/// The contestants of [`beside_idle_cables`].
const ALONE: &str = "alone";

fn beside_idle_cables(tools: &Tools, seconds: u32) -> Group {
    let job = |contestant, idle: &str| Job {
        contestant,
        needs: &[],
        command: vec![
            "unshare".into(),
            "--net".into(),
            text(&tools.side_by_side),
            "crowd".into(),
            idle.into(),
            seconds.to_string(),
        ],
    };
    Group {
        name: "crowd",
        jobs: vec![job(OURS, "1000"), job(ALONE, "0")],
        figures: vec![
            Figure {
                key: "mpps",
                title: "one busy cable beside 1,000 idle ones, 64 B".into(),
                unit: "million frames/s, both ways together",
                less_is_better: false,
                wanted: vec![Versus::Contestant(ALONE, 0.9, 1.0)],
            },
            Figure {
                key: "idle_percent",
                title: "all cables idle: CPU time of the worker".into(),
                unit: "% of a CPU; less is better",
                less_is_better: true,
                wanted: vec![Versus::Alone(1.0, 0.0)],
            },
        ],
    }
}

fn datacenter(tools: &Tools) -> Group {
    let job = |contestant, dut: &str| Job {
        contestant,
        needs: &[],
        command: script(tools, "panel.sh", &[dut, &text(&tools.fabric)]),
    };
    let figure = |key, title: &str| Figure {
        key,
        title: title.into(),
        unit: "ms; less is better",
        less_is_better: true,
        wanted: Vec::new(),
    };
    Group {
        name: "datacenter",
        jobs: vec![job(OURS, OURS), job(BRIDGE, "bridge")],
        figures: vec![
            figure("up_ms", "141 cables, made (the bridges: as ikvswitch did)"),
            figure("down_ms", "141 cables, taken away"),
        ],
    }
}

fn script(tools: &Tools, name: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = vec![text(&tools.peers.join(name))];
    command.extend(arguments.iter().map(ToString::to_string));
    command
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
