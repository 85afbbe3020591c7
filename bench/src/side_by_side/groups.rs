//! The contestants, what each of them runs, and the figures to reach. Pure.

use std::path::{Path, PathBuf};

use super::OURS;

/// The programs that runs start.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The binary `ikv-fabric` of this build.
    pub fabric: PathBuf,
    /// The program `side-by-side`, which loads taps and makes many idle cables.
    pub side_by_side: PathBuf,
    /// The folder of scripts, bench/peers.
    pub peers: PathBuf,
}

/// What a contestant runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) contestant: &'static str,
    /// Programs without which the contestant is skipped.
    pub(super) needs: &'static [&'static str],
    /// Program and arguments.
    pub(super) command: Vec<String>,
}

/// Contestants whose runs yield the same figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// A short name, by which the user chooses groups.
    pub(super) name: &'static str,
    /// One for each contestant, in the order of their runs.
    pub(super) jobs: Vec<Job>,
    /// The numbers that each run prints.
    pub(super) figures: Vec<Figure>,
}

/// A number that a run prints.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// The key in the run's output.
    pub(super) key: &'static str,
    /// What the number measures.
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) less_is_better: bool,
    /// What this build is to reach.
    pub(super) targets: Vec<Target>,
}

/// A figure to reach, with its limit and the aim beyond it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// The ratio of medians to a contestant, of which more is in favour of this build: the least
    /// ratio, and the aim.
    Ratio(&'static str, f64, f64),
    /// This build's median: the worst allowed, and the aim.
    Median(f64, f64),
}

const TESTPMD: &str = "testpmd";
const OVS: &str = "OVS-DPDK";
const BRIDGE: &str = "Linux bridge";
const VDE: &str = "VDE";

/// The contestant of the group `many-idle` without idle cables.
const ALONE: &str = "alone";

/// All groups. A run loads its cable for `seconds`.
pub fn groups(tools: &Tools, seconds: u32) -> Vec<Group> {
    let vhost_group = |name, bytes, ring, testpmd: (f64, f64), ovs: (f64, f64)| {
        let targets = vec![
            Target::Ratio(TESTPMD, testpmd.0, testpmd.1),
            Target::Ratio(OVS, ovs.0, ovs.1),
        ];
        vhost(tools, name, (bytes, ring), seconds, targets)
    };
    vec![
        vhost_group("vhost-64-split", 64, "split", (1.0, 1.3), (1.4, 2.0)),
        vhost_group("vhost-64-packed", 64, "packed", (1.0, 1.2), (1.4, 2.0)),
        vhost_group("vhost-1514-split", 1514, "split", (1.5, 2.0), (1.5, 2.0)),
        vhost_group("vhost-1514-packed", 1514, "packed", (1.5, 2.0), (1.5, 2.0)),
        taps(tools, seconds),
        tcp(tools, seconds),
        many_idle(tools, seconds),
        datacenter(tools),
    ]
}

fn vhost(
    tools: &Tools,
    name: &'static str,
    (bytes, ring): (usize, &'static str),
    seconds: u32,
    targets: Vec<Target>,
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
            targets,
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
            targets: vec![Target::Ratio(BRIDGE, 0.5, 0.8)],
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
                targets: vec![Target::Ratio(BRIDGE, 0.6, 0.8)],
            },
            Figure {
                key: "rtt_us",
                title: "ping between them over the idle cable".into(),
                unit: "µs there and back, mean; less is better",
                less_is_better: true,
                targets: vec![Target::Median(40.0, 20.0)],
            },
        ],
    }
}

fn many_idle(tools: &Tools, seconds: u32) -> Group {
    let job = |contestant, idle: &str| Job {
        contestant,
        needs: &[],
        command: vec![
            "unshare".into(),
            "--net".into(),
            text(&tools.side_by_side),
            "many-idle".into(),
            idle.into(),
            seconds.to_string(),
        ],
    };
    Group {
        name: "many-idle",
        jobs: vec![job(OURS, "1000"), job(ALONE, "0")],
        figures: vec![
            Figure {
                key: "mpps",
                title: "one busy cable beside 1,000 idle ones, 64 B".into(),
                unit: "million frames/s, both ways together",
                less_is_better: false,
                targets: vec![Target::Ratio(ALONE, 0.9, 1.0)],
            },
            Figure {
                key: "idle_percent",
                title: "all cables idle: CPU time of the worker".into(),
                unit: "% of a CPU; less is better",
                less_is_better: true,
                targets: vec![Target::Median(1.0, 0.0)],
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
        targets: Vec::new(),
    };
    Group {
        name: "datacenter",
        jobs: vec![job(OURS, OURS), job(BRIDGE, "bridge")],
        figures: vec![
            figure(
                "up_ms",
                "141 cables, created (the bridges: as by ikvswitch)",
            ),
            figure("down_ms", "141 cables, removed"),
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
