//! `ikv-fabric run`: the fabric itself, in the foreground.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use dataplane::{Idle, PanelOptions};
use rustix::thread::{CpuSet, sched_getaffinity};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::configuration::{ConfigArgs, SwitchArgs};
use super::{Context, recorder};
use api::{Backend, NodeState, NodeStatus};
use fabric::progress::{Progress, Stage, duration};
use fabric::{Fabric, Options, Running, bring_up};
use model::difference::Plan;
use model::topology;

/// Forwarding threads, unless more are asked for.
const MOST_WORKERS: usize = 4;

/// Between two updates of the live line.
const REFRESH: Duration = Duration::from_secs(1);

/// Brings the virtual datacenter up and keeps it running in the foreground. Ctrl-C (SIGINT)
/// or SIGTERM takes everything away again. Needs root.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    switches: SwitchArgs,
    /// Boot every switch, instead of starting it from a saved state (key: vm.warm).
    #[arg(long)]
    cold: bool,
    #[command(flatten)]
    panel: PanelArgs,
}

/// How frames are forwarded.
#[derive(Debug, Clone, Args)]
pub(crate) struct PanelArgs {
    /// Forwarding threads [default: half of the CPUs that taskset leaves, at most 4; patch: 1].
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// CPUs that the workers are bound to, in turn, such as 2,4-6 [default: not bound to one, but
    /// only to those that taskset leaves].
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    cpus: Option<CpuList>,
    /// What a worker does when no frame waits: sleep, or spin for the lowest latency.
    #[arg(long, value_enum, default_value_t)]
    idle: IdleArg,
}

/// See [`Idle`].
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum IdleArg {
    /// Costs nothing while idle.
    #[default]
    Sleep,
    /// Takes a whole CPU for each worker.
    Spin,
}

impl From<IdleArg> for Idle {
    fn from(idle: IdleArg) -> Idle {
        match idle {
            IdleArg::Sleep => Idle::Sleep,
            IdleArg::Spin => Idle::Spin,
        }
    }
}

/// CPU numbers.
#[derive(Debug, Clone)]
struct CpuList(Vec<usize>);

impl PanelArgs {
    /// What the panel is to be started with: at most `most` workers unless told otherwise.
    ///
    /// # Errors
    /// CPUs that this process may not run on.
    pub(crate) fn options(&self, most: usize) -> anyhow::Result<PanelOptions> {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let chosen = self.cpus.as_ref().map(|list| list.0.clone());
        let chosen = chosen.unwrap_or_default();
        let mask = sched_getaffinity(None)?;
        let allowed: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| mask.is_set(*cpu))
            .collect();
        if let Some(cpu) = chosen.iter().find(|cpu| !allowed.contains(cpu)) {
            anyhow::bail!(
                "--cpus: this process may not run on CPU {cpu}, but on {} (taskset or a cgroup \
                 says so)",
                ranges(&allowed)
            );
        }
        Ok(PanelOptions {
            workers: self
                .workers
                .map_or((cpus / 2).clamp(1, most), NonZeroUsize::get),
            cpus: chosen,
            idle: self.idle.into(),
        })
    }
}

/// `0-3,8`.
fn ranges(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|before, cpu| before + 1 == *cpu);
    let parts = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// # Errors
/// The first thing that was wrong; everything has been taken back then.
pub(crate) async fn run(context: &Context, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut config = args.config.completed()?;
    config.vm.warm &= !args.cold;
    let topology = topology::build(&config)?;
    let choice = args.switches.choice()?;
    let switches = choice.of(&topology)?;
    super::need_root("run", "it makes network devices, a route and a NAT table")?;
    let recorder = recorder::options(&config.recorder)?;
    let mut stop = StopSignals::new()?;
    let options = Options {
        plan: Plan {
            config,
            topology,
            switches,
        },
        socket: context.client.socket().to_owned(),
        choice,
        panel: args.panel.options(MOST_WORKERS)?,
        recorder,
    };
    let progress = Progress::new();
    let mut running = Running::default();
    let outcome = tokio::select! {
        result = bring_up(&options, &mut running, &progress) => result.map(Some),
        () = stop.wait() => Ok(None),
    };
    if let Ok(Some(fabric)) = &outcome {
        tokio::select! {
            () = show(fabric, &progress) => {}
            () = stop.wait() => {}
        }
    }
    progress.quiet();
    let began = Instant::now();
    let undone = running.take_down().await;
    outcome?;
    undone?;
    progress.note(&format!(
        "  ✓ everything taken away  ({})",
        duration(began.elapsed())
    ));
    Ok(ExitCode::SUCCESS)
}

/// The signals that end a run.
pub(super) struct StopSignals([Signal; 3]);

impl StopSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(StopSignals([interrupt?, terminate?, hangup?]))
    }

    pub(super) async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Shows what the fabric does, for ever.
async fn show(fabric: &Fabric, progress: &Progress) {
    let nodes = fabric.status().nodes.into_iter();
    let mut lines: Vec<_> = nodes
        .map(|node| {
            let line = Some(progress.stage(&node.name));
            (node.name, line)
        })
        .collect();
    while !fabric.is_ready() {
        show_switches(&mut lines, fabric);
        if !lines.is_empty() && lines.iter().all(|(_, line)| line.is_none()) {
            progress.live("waiting until every loopback answers");
        }
        show_notices(fabric, progress);
        let _ = timeout(REFRESH, fabric.changed()).await;
    }
    show_switches(&mut lines, fabric);
    progress.note(&format!(
        "  ✓ ready  (after {})",
        duration(progress.elapsed())
    ));
    // A leaf where one runs: leaves are the topology's last.
    let nodes = fabric.status().nodes;
    let leaf = nodes.iter().find(|node| node.role == "leaf");
    let log_in = leaf.or(nodes.first()).map_or(String::new(), |node| {
        format!(" · log in: ikv-fabric ssh {}", node.name)
    });
    progress.note(&format!(
        "    plug a VM in: ikv-fabric vm-args rack1:u3{log_in} · Ctrl-C takes everything away"
    ));
    watch(fabric, progress).await;
}

fn show_notices(fabric: &Fabric, progress: &Progress) {
    for notice in fabric.notices() {
        progress.note(&format!("  ! {notice}"));
    }
}

/// By their names: an `apply` may have changed which there are.
fn show_switches(lines: &mut [(String, Option<Stage<'_>>)], fabric: &Fabric) {
    let nodes = fabric.status().nodes;
    for (name, line) in lines {
        match nodes.iter().find(|node| node.name == *name) {
            Some(node) => show_switch(line, node),
            None => drop(line.take()),
        }
    }
}

/// Turns a switch's line over until the switch is well.
fn show_switch(line: &mut Option<Stage<'_>>, node: &NodeStatus) {
    let sessions = format!("{}/{} sessions", node.bgp.established, node.bgp.expected);
    if node.state == NodeState::Running && node.bgp.established == node.bgp.expected {
        if let Some(stage) = line.take() {
            stage.done(&sessions);
        }
    } else if let Some(stage) = line {
        let how_far = match node.state {
            NodeState::Running => format!("{sessions}  {}", node.note),
            state => format!("{}  {}", state.name(), node.note),
        };
        stage.update(how_far.trim_end());
    }
}

async fn watch(fabric: &Fabric, progress: &Progress) {
    let mut before = (Instant::now(), fabric.traffic());
    let mut was_ready = true;
    loop {
        show_notices(fabric, progress);
        let _ = timeout(REFRESH, fabric.changed()).await;
        if fabric.is_ready() != was_ready {
            was_ready = !was_ready;
            progress.note(if was_ready {
                "  ✓ ready again"
            } else {
                "  ! not ready: `ikv-fabric status` tells why"
            });
        }
        let seconds = before.0.elapsed().as_secs_f64();
        if progress.is_terminal() && seconds >= REFRESH.as_secs_f64() {
            let now = fabric.traffic();
            progress.live(&live_line(
                fabric,
                before.1,
                now,
                seconds,
                progress.elapsed(),
            ));
            before = (Instant::now(), now);
        }
    }
}

type Traffic = (u64, u64, u64);

fn live_line(fabric: &Fabric, before: Traffic, now: Traffic, seconds: f64, up: Duration) -> String {
    let status = fabric.status();
    let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
    let mut parts = vec![if status.ready { "ready" } else { "NOT READY" }.to_owned()];
    let applying = status.applying.as_ref();
    parts.extend(applying.map(|what| format!("apply {what}")));
    if !status.nodes.is_empty() {
        let well = status
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Running)
            .count();
        let established: usize = status.nodes.iter().map(|node| node.bgp.established).sum();
        let expected: usize = status.nodes.iter().map(|node| node.bgp.expected).sum();
        parts.push(format!("{well}/{} switches", status.nodes.len()));
        parts.push(format!("{established}/{expected} sessions"));
    }
    parts.push(format!("{} plugged in", fabric.plugged()));
    parts.push(format!("{:.0} frames/s", rate(now.0, before.0)));
    parts.push(format!("{:.1} Mbit/s", rate(now.1, before.1) * 8.0 / 1e6));
    parts.push(format!("{:.0} dropped/s", rate(now.2, before.2)));
    parts.push(format!(
        "up {}",
        duration(Duration::from_secs(up.as_secs()))
    ));
    parts.join(" · ")
}

/// `2,4-6`.
fn cpu_list(text: &str) -> Result<CpuList, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| format!("\"{part}\" is no CPU: write numbers and ranges, like 2,4-6"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= 1024 {
            return Err(format!("\"{part}\" is no range of CPUs below 1024"));
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(cpu_list("2,4-6").unwrap().0, [2, 4, 5, 6]);
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        for bad in ["", "a", "3-1", "1,,2", "5000"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
    }
}
